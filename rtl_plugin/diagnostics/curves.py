"""What a discovery's history says of every ticket, ordered by sparsity."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rtl_plugin.errors import InvalidArgument


@dataclass(frozen=True)
class CurvePoint:
    """A ticket after one round.

    Args:
        round: counted from 1; 0 is the dense network.
        sparsity: fraction of the prunable weights removed, in [0, 1).
        similarity: mean Jaccard similarity with the other tickets, in [0, 1]; None for a single
            ticket, and where it was not recorded.
        excess: the same in excess of chance, in [-1, 1], or None.
        loss: mean training loss under these masks, or None.
        metric: what ``evaluate`` said under these masks, or None.
        alarm: the alarm that rang at this round, or None.
    """

    round: int
    sparsity: float
    similarity: float | None = None
    excess: float | None = None
    loss: float | None = None
    metric: float | None = None
    alarm: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TicketCurve:
    """One ticket on its way.

    Args:
        name: the ticket's.
        points: from the dense network on, one a round.
        alarm: the alarm that rang, or None.
        left: whether it left the rounds and kept the masks of an earlier one.
        kept_round: the round whose masks the ticket ended with.
    """

    name: str
    points: tuple[CurvePoint, ...]
    alarm: Mapping[str, Any] | None
    left: bool
    kept_round: int

    @property
    def kept(self) -> CurvePoint:
        """The point of the masks that the ticket ended with."""
        return next(point for point in self.points if point.round == self.kept_round)


def ticket_curves(history: Iterable[Mapping[str, Any]]) -> dict[str, TicketCurve]:
    """Order a history by ticket and sparsity.

    A round trains under the masks of the round before and then prunes, so its loss and metric
    belong to the sparsity that it started from; here they stand there.

    Args:
        history: rows of ``discover``, as in ``TicketSet.history`` or the ``"round"`` events of a
            run folder's log; rows of older versions lack some fields.

    Returns:
        Ticket name -> its curve, in the order of first appearance.

    Raises:
        InvalidArgument: a row lacks ``round``, ``group`` or ``achieved``, or a round comes twice.

    Example:
        >>> history = [
        ...     {"round": 1, "group": "a", "achieved": 0.5, "loss": 2.0},
        ...     {"round": 2, "group": "a", "achieved": 0.7, "loss": 3.0},
        ... ]
        >>> [(p.sparsity, p.loss) for p in ticket_curves(history)["a"].points]
        [(0.0, 2.0), (0.5, 3.0), (0.7, None)]
    """
    rows: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in history:
        missing = [key for key in ("round", "group", "achieved") if key not in row]
        if missing:
            raise InvalidArgument(
                f"a row of history needs round, group and achieved, got {dict(row)}: is it one of "
                "discover's?"
            )
        of_group = rows.setdefault(row["group"], {})
        if row["round"] in of_group:
            raise InvalidArgument(f"round {row['round']} of {row['group']!r} comes twice")
        of_group[row["round"]] = row
    return {name: _curve(name, of_group) for name, of_group in rows.items()}


def _curve(name: str, rows: Mapping[int, Mapping[str, Any]]) -> TicketCurve:
    pruned = {number: row for number, row in sorted(rows.items()) if not row.get("closing")}
    # A ticket that left the rounds early may be measured many rounds later.
    closing = next((row for row in rows.values() if row.get("closing")), None)
    numbers = [0, *pruned]
    after = {last: pruned.get(last + 1, {}) for last in numbers}
    after[numbers[-1]] = {} if closing is None else closing
    start: Mapping[str, Any] = {"round": 0, "achieved": 0.0}
    points = [
        CurvePoint(
            round=row["round"],
            sparsity=row["achieved"],
            similarity=row.get("similarity"),
            excess=row.get("excess"),
            loss=after[row["round"]].get("loss"),
            metric=after[row["round"]].get("metric"),
            alarm=row.get("alarm"),
        )
        for row in [start, *pruned.values()]
    ]
    last = points[-1]
    alarm = next((point.alarm for point in points if point.alarm is not None), None)
    left = bool(pruned and pruned[last.round].get("left"))
    # Who leaves because nobody is left to be compared with keeps the masks it has.
    kept = last.alarm["last_good_round"] if left and last.alarm is not None else last.round
    return TicketCurve(name, tuple(points), alarm, left, int(kept))
