"""Curves of many tickets against sparsity, as plain geometry that the template draws."""

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rtl_plugin.diagnostics.collapse_rule import FALL, RISE
from rtl_plugin.reports.page.markers import arrow_path, marker_path, n
from rtl_plugin.reports.page.scales import Axis, Tick, sparsity_axis, value_axis
from rtl_plugin.reports.page.text import number, percent_tick, plural
from rtl_plugin.reports.page.theme import STYLES

WIDTH, HEIGHT = 360.0, 232.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 14.0, 10.0, 36.0
_MARKED_POINTS = 16


@dataclass(frozen=True)
class Point:
    """A value at a round.

    Args:
        round: counted from 0, which is the dense network.
        sparsity: in [0, 1).
        value: finite.
        alarm: the direction, "rise" or "fall", where an alarm rang here.
        kept: whether the ticket left the rounds later and kept the mask of this point.
        gone: how many tickets had left the rounds before this one.
    """

    round: int
    sparsity: float
    value: float
    alarm: str | None = None
    kept: bool = False
    gone: int = 0


@dataclass(frozen=True)
class Series:
    """One ticket's values in order of rounds."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Quantity:
    """How values are written, and what they depend on.

    Args:
        text: a value as text.
        compares: whether a value compares a ticket with the others in its round, so that values
            before and after a departure are not of one kind.
    """

    text: Callable[[float], str] = number
    compares: bool = False


MEASURED = Quantity()


@dataclass(frozen=True)
class Line:
    """One ticket's line: its place among the tickets, CSS classes, paths."""

    number: int
    name: str
    classes: str
    path: str
    markers: str


@dataclass(frozen=True)
class Sign:
    """A mark on a line, with the words that explain it."""

    kind: str
    path: str
    text: str


@dataclass(frozen=True)
class LineChart:
    """A chart: words for those who do not see it, ticks, lines, marks.

    Args:
        key: of its ids in the page.
        title: what it shows.
        description: the picture in words.
        x_label: below the axis.
        median: path through the tickets' median, where they have no styles of their own.
    """

    key: str
    title: str
    description: str
    x_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    signs: tuple[Sign, ...]
    median: str | None
    zero: float | None
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def line_chart(
    key: str,
    title: str,
    series: Sequence[Series],
    highest: float,
    quantity: Quantity = MEASURED,
) -> LineChart | None:
    """Lay a chart out.

    Args:
        key: prefix of its ids.
        title: what the values are.
        series: one entry a ticket, in order; empty ones keep their place.
        highest: greatest sparsity of the run, in [0, 1), the same for all charts.
        quantity: how values are written, and whether a departure breaks their lines.

    Returns:
        The chart; None where no ticket has a value.

    Example:
        >>> chart = line_chart("m", "accuracy", [Series("a", (Point(0, 0.0, 0.9),))], 0.5)
        >>> [line.name for line in chart.lines], chart.description
        (['a'], 'accuracy of 1 ticket against sparsity; at the end 0.9000.')
    """
    values = [point.value for each in series for point in each.points]
    if not values:
        return None
    x = sparsity_axis(highest, LEFT, WIDTH - RIGHT)
    y = value_axis(min(values), max(values), HEIGHT - BOTTOM, TOP)
    styled = len(series) <= STYLES
    drawn = [(k, each) for k, each in enumerate(series) if each.points]
    crosses_zero = min(values) < 0 < max(values)
    return LineChart(
        key=key,
        title=title,
        description=_description(title, series, quantity),
        x_label="sparsity" + (" (share kept on a log scale)" if x.logarithmic else ""),
        x_ticks=x.ticks,
        y_ticks=y.ticks,
        lines=tuple(_line(k, each, (x, y), styled, quantity) for k, each in drawn),
        signs=tuple(s for _, e in drawn for s in _signs(e, title, (x, y), styled, quantity)),
        median=None if styled else _median(series, x, y),
        zero=y.place(0.0) if crosses_zero else None,
    )


def _line(
    place: int, series: Series, axes: tuple[Axis, Axis], styled: bool, quantity: Quantity
) -> Line:
    x, y = axes
    points = [(p.gone, (x.place(p.sparsity), y.place(p.value))) for p in series.points]
    marked = styled and len(points) <= _MARKED_POINTS
    markers = "".join(marker_path(place, *where) for _, where in points) if marked else ""
    classes = f"c{place} dash{place // 5}" if styled else "thin"
    path = _broken(points) if quantity.compares else _path([where for _, where in points])
    return Line(place, series.name, classes, path, markers)


def _broken(points: Sequence[tuple[int, tuple[float, float]]]) -> str:
    """A path that stops where tickets left, and goes on after it."""
    parts = itertools.groupby(points, key=lambda point: point[0])
    return "".join(_path([where for _, where in part]) for _, part in parts)


def _path(places: Sequence[tuple[float, float]]) -> str:
    head, *rest = (f"{n(x)} {n(y)}" for x, y in places)
    return f"M{head}L{' '.join(rest)}" if rest else f"M{head}h.01"


def _median(series: Sequence[Series], x: Axis, y: Axis) -> str:
    rounds: dict[int, list[Point]] = {}
    for each in series:
        for point in each.points:
            rounds.setdefault(point.round, []).append(point)
    medians = []
    for points in (rounds[key] for key in sorted(rounds)):
        sparsity = statistics.median(point.sparsity for point in points)
        value = statistics.median(point.value for point in points)
        medians.append((points[0].gone, (x.place(sparsity), y.place(value))))
    # Of whatever quantity: the median of those that stay is not that of all.
    return _broken(medians)


def _signs(
    series: Series, title: str, axes: tuple[Axis, Axis], styled: bool, quantity: Quantity
) -> list[Sign]:
    signs = []
    x, y = axes
    radius = 6.5 if styled else 3.2
    for point in series.points:
        where = (x.place(point.sparsity), y.place(point.value))
        at = f"{percent_tick(point.sparsity)} sparsity, {title} {quantity.text(point.value)}"
        if point.kept:
            text = f"{series.name}: keeps the mask of round {point.round}, {at}"
            signs.append(Sign("kept", marker_path(0, *where, radius), text))
        if point.alarm is not None:
            text = f"{series.name}: alarm in round {point.round} ({point.alarm}), {at}"
            signs.append(Sign("alarm", _alarm_path(point.alarm, *where, radius), text))
    return signs


def _alarm_path(direction: str, x: float, y: float, radius: float) -> str:
    if direction in (RISE, FALL):
        return arrow_path(direction == RISE, x, y, radius)
    return marker_path(2, x, y, radius)  # a diamond points neither way


def _description(title: str, series: Sequence[Series], quantity: Quantity) -> str:
    shown = [each for each in series if each.points]
    last = [each.points[-1].value for each in shown]
    ends = quantity.text(last[0])
    if min(last) < max(last):
        ends = f"{quantity.text(min(last))} to {quantity.text(max(last))}"
    text = f"{title} of {plural(len(shown), 'ticket')} against sparsity; at the end {ends}"
    alarms = [
        f"{s.name} in round {p.round} ({p.alarm})" for s in shown for p in s.points if p.alarm
    ]
    if alarms:
        more = f" and {len(alarms) - STYLES} more" if len(alarms) > STYLES else ""
        text += f"; alarms: {', '.join(alarms[:STYLES])}{more}"
    return text + "."
