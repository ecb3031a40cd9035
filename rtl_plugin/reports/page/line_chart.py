"""Curves of many tickets against sparsity, as plain geometry that the template draws."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rtl_plugin.reports.page.markers import arrow_path, marker_path, n
from rtl_plugin.reports.page.scales import Axis, Tick, sparsity_axis, value_axis
from rtl_plugin.reports.page.text import decimal, percent_tick, plural
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
    """

    round: int
    sparsity: float
    value: float
    alarm: str | None = None
    kept: bool = False


@dataclass(frozen=True)
class Series:
    """One ticket's values in order of rounds."""

    name: str
    points: tuple[Point, ...]


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


def line_chart(key: str, title: str, series: Sequence[Series], highest: float) -> LineChart | None:
    """Lay a chart out.

    Args:
        key: prefix of its ids.
        title: what the values are.
        series: one entry a ticket, in order; empty ones keep their place.
        highest: greatest sparsity of the run, in [0, 1), the same for all charts.

    Returns:
        The chart; None where no ticket has a value.

    Example:
        >>> chart = line_chart("m", "accuracy", [Series("a", (Point(0, 0.0, 0.9),))], 0.5)
        >>> [line.name for line in chart.lines], chart.description
        (['a'], 'accuracy of 1 ticket against sparsity; at the end 0.900.')
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
        description=_description(title, series),
        x_label="sparsity" + (" (share kept on a log scale)" if x.logarithmic else ""),
        x_ticks=x.ticks,
        y_ticks=y.ticks,
        lines=tuple(_line(k, each, x, y, styled) for k, each in drawn),
        signs=tuple(s for _, each in drawn for s in _signs(each, title, x, y, styled)),
        median=None if styled else _median(series, x, y),
        zero=y.place(0.0) if crosses_zero else None,
    )


def _line(number: int, series: Series, x: Axis, y: Axis, styled: bool) -> Line:
    places = [(x.place(p.sparsity), y.place(p.value)) for p in series.points]
    marked = styled and len(places) <= _MARKED_POINTS
    markers = "".join(marker_path(number, *place) for place in places) if marked else ""
    classes = f"c{number} dash{number // 5}" if styled else "thin"
    return Line(number, series.name, classes, _path(places), markers)


def _path(places: Sequence[tuple[float, float]]) -> str:
    head, *rest = (f"{n(x)} {n(y)}" for x, y in places)
    return f"M{head}L{' '.join(rest)}" if rest else f"M{head}h.01"


def _median(series: Sequence[Series], x: Axis, y: Axis) -> str:
    rounds: dict[int, list[Point]] = {}
    for each in series:
        for point in each.points:
            rounds.setdefault(point.round, []).append(point)
    places = []
    for number in sorted(rounds):
        points = rounds[number]
        sparsity = statistics.median(point.sparsity for point in points)
        value = statistics.median(point.value for point in points)
        places.append((x.place(sparsity), y.place(value)))
    return _path(places)


def _signs(series: Series, title: str, x: Axis, y: Axis, styled: bool) -> list[Sign]:
    signs = []
    radius = 6.5 if styled else 3.2
    for point in series.points:
        where = (x.place(point.sparsity), y.place(point.value))
        at = f"{percent_tick(point.sparsity)} sparsity, {title} {decimal(point.value)}"
        if point.kept:
            text = f"{series.name}: keeps the mask of round {point.round}, {at}"
            signs.append(Sign("kept", marker_path(0, *where, radius), text))
        if point.alarm is not None:
            text = f"{series.name}: alarm in round {point.round} ({point.alarm}), {at}"
            signs.append(Sign("alarm", _alarm_path(point.alarm, *where, radius), text))
    return signs


def _alarm_path(direction: str, x: float, y: float, radius: float) -> str:
    if direction in ("rise", "fall"):
        return arrow_path(direction == "rise", x, y, radius)
    return marker_path(2, x, y, radius)  # a diamond points neither way


def _description(title: str, series: Sequence[Series]) -> str:
    shown = [each for each in series if each.points]
    last = [each.points[-1].value for each in shown]
    ends = decimal(last[0])
    if min(last) < max(last):
        ends = f"{decimal(min(last))} to {decimal(max(last))}"
    text = f"{title} of {plural(len(shown), 'ticket')} against sparsity; at the end {ends}"
    alarms = [
        f"{s.name} in round {p.round} ({p.alarm})" for s in shown for p in s.points if p.alarm
    ]
    if alarms:
        more = f" and {len(alarms) - STYLES} more" if len(alarms) > STYLES else ""
        text += f"; alarms: {', '.join(alarms[:STYLES])}{more}"
    return text + "."
