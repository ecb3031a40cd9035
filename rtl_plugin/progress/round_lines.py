"""What the rounds of a discovery say in plain lines, made from the rows of its history."""

from collections.abc import Mapping, Sequence
from typing import Any


def figure(value: float) -> str:
    """A loss or a metric in few characters, whatever its size.

    Args:
        value: any number.

    Returns:
        Four decimals from a thousandth to a thousand and for 0, otherwise three digits and a
        power of ten: what is small must not look like nothing.

    Example:
        >>> figure(0.12344), figure(4e-5), figure(0.0)
        ('0.1234', '4.00e-05', '0.0000')
    """
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.2e}"


def group_line(row: Mapping[str, Any], rounds: int, seconds: float) -> str:
    """What one group reached in one round.

    Args:
        row: a history row.
        rounds: how many rounds the schedule has.
        seconds: how long the group's training took.

    Returns:
        One line.

    Example:
        >>> row = {"round": 1, "group": "a", "asked": 0.5, "achieved": 0.5, "loss": 0.1234}
        >>> group_line(row, 2, 1.2)
        'round 1/2 a: asked 50.00%, achieved 50.00%, loss 0.1234, rewind verified, 1.2 s'
    """
    if row.get("closing"):
        reached = f"closing round {row['group']}: sparsity {row['achieved']:.2%}"
    else:
        reached = (
            f"round {row['round']}/{rounds} {row['group']}: asked {row['asked']:.2%}, achieved "
            f"{row['achieved']:.2%}"
        )
    metric = "" if row.get("metric") is None else f", metric {figure(row['metric'])}"
    floors = f"; floor holds {', '.join(row['at_floor'])}" if row.get("at_floor") else ""
    return (
        f"{reached}, loss {figure(row['loss'])}{metric}, rewind verified, {seconds:.1f} s{floors}"
    )


def round_line(rows: Sequence[Mapping[str, Any]], rounds: int) -> str | None:
    """How alike the tickets are after a round.

    Args:
        rows: the history rows of all groups of one round.
        rounds: how many rounds the schedule has.

    Returns:
        One line with the means over the tickets, or None where no row has a similarity.

    Example:
        >>> rows = [{"round": 1, "similarity": 0.4, "excess": 0.1}, {"round": 1, "similarity": 0.5}]
        >>> round_line(rows, 2)
        'round 1/2: mean similarity 0.4500, 0.1000 above chance'
    """
    similarities = [row["similarity"] for row in rows if row.get("similarity") is not None]
    excesses = [row["excess"] for row in rows if row.get("excess") is not None]
    if not similarities:
        return None
    line = f"round {rows[0]['round']}/{rounds}: mean similarity {_mean(similarities):.4f}"
    if not excesses:
        return line
    excess = _mean(excesses)
    return f"{line}, {abs(excess):.4f} {'below' if excess < 0 else 'above'} chance"


def alarm_lines(rows: Sequence[Mapping[str, Any]], rounds: int) -> list[str]:
    """The alarms of a round, and who left the rounds after it.

    Args:
        rows: the history rows of all groups of one round.
        rounds: how many rounds the schedule has.

    Returns:
        One line a ticket whose alarm rang or that left, in the order of the rows.

    Example:
        >>> alarm = {"explanation": "a, round 3: similarity doubles"}
        >>> alarm_lines([{"round": 3, "group": "a", "alarm": alarm, "left": True}], 5)
        ['alarm: a, round 3: similarity doubles; leaves the rounds']
    """
    lines = []
    for row in rows:
        alarm = row.get("alarm")
        if alarm is not None:
            leaves = "; leaves the rounds" if row.get("left") else ""
            lines.append(f"alarm: {alarm['explanation']}{leaves}")
        elif row.get("left"):
            lines.append(f"round {row['round']}/{rounds} {row['group']}: leaves the rounds")
    return lines


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
