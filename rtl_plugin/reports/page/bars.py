"""How many weights are shared by n tickets, as bars."""

from collections.abc import Sequence
from dataclasses import dataclass

from rtl_plugin.reports.page.markers import n
from rtl_plugin.reports.page.scales import Tick, nice_step, value_axis
from rtl_plugin.reports.page.text import count, percent, plural

WIDTH, HEIGHT = 360.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 12.0, 36.0


@dataclass(frozen=True)
class Bars:
    """A bar chart of shares laid out; one path draws all bars."""

    key: str
    title: str
    description: str
    path: str
    x_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def shared_bars(key: str, weights: Sequence[int]) -> Bars:
    r"""Bars for n = 0..K.

    Args:
        key: prefix of the picture's ids.
        weights: how many weights exactly n tickets keep, for n = 0, 1, ... K.

    Returns:
        The chart, of shares of all prunable weights.

    Example:
        >>> shared_bars("s", [2, 1, 1]).description
        '2 weights are kept by no ticket (50.0\xa0%), 1 by one alone, 1 by all 2.'
    """
    total = max(sum(weights), 1)
    shares = [100 * number / total for number in weights]
    y = value_axis(0.0, max(shares), HEIGHT - BOTTOM, TOP)
    slot = (WIDTH - LEFT - RIGHT) / len(weights)
    width = slot * (0.7 if slot > 6 else 0.94)
    base = HEIGHT - BOTTOM
    bars = [
        f"M{n(LEFT + (k + 0.5) * slot - width / 2)} {n(base)}V{n(y.place(share))}"
        f"h{width:.2f}V{n(base)}z"
        for k, share in enumerate(shares)
        if share > 0
    ]
    step = max(1, int(nice_step(max(len(weights) - 1, 1), 10))) if len(weights) > 12 else 1
    ticks = [Tick(LEFT + (k + 0.5) * slot, str(k)) for k in range(0, len(weights), step)]
    return Bars(
        key,
        "Weights by the number of tickets that keep them",
        _description(weights, total),
        "".join(bars),
        "tickets that keep the weight",
        tuple(ticks),
        tuple(Tick(tick.at, f"{tick.label}\N{NO-BREAK SPACE}%") for tick in y.ticks),
    )


def _description(weights: Sequence[int], total: int) -> str:
    none = (
        f"{plural(weights[0], 'weight')} are kept by no ticket ({percent(weights[0] / total, 1)})"
    )
    if len(weights) == 2:
        return f"{none}, {count(weights[1])} by the one ticket."
    last = f"{count(weights[-1])} by all {len(weights) - 1}"
    return f"{none}, {count(weights[1])} by one alone, {last}."
