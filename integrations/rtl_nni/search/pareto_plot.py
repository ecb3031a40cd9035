"""Metric against cost as a picture: the front as steps, every other trial behind it."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from rtl_nni.search.pareto import Point, cost_text, front_of, left_out, points_of
from rtl_nni.search.records import TrialRecord
from rtl_plugin.integration_api import (
    COLOURS,
    InvalidArgument,
    new_figure,
    png_path,
    require,
    shortened,
    title_inches,
    write_png,
)

# Where a label may stand beside its dot: offset in points, and which of its corners is there. Above
# and to the left of the front no trial can be.
_PLACES = (
    ((-5, 4), "right", "bottom"),
    ((-5, 14), "right", "bottom"),
    ((-18, 4), "right", "bottom"),
    ((6, -4), "left", "top"),
    ((6, -14), "left", "top"),
    ((6, 4), "left", "bottom"),
)
_NAMED_TIES = 3
_FRONT, _REFERENCE = COLOURS[0], COLOURS[1]

Reference: TypeAlias = Mapping[str, TrialRecord | tuple[float, float]]


def pareto_plot(
    records: Sequence[TrialRecord],
    path: str | os.PathLike[str],
    cost: str = "parameters",
    *,
    reference: Reference | None = None,
    metric_name: str = "metric",
    title: str | None = None,
) -> None:
    """Draw the finished trials by cost and metric, as a PNG.

    The front is blue: a dot a trial with its label, and steps to the best metric that a cost can
    buy. Trials that are beaten are grey rings. The cost has a logarithmic axis where the largest is
    at least ten times the smallest. A label that finds no room is left out, and counted above the
    picture; `pareto_table` names all.

    Args:
        records: as for :func:`rtl_nni.pareto_front`.
        path: the file to write, ending in ".png"; missing folders are made.
        cost: as there.
        reference: label -> a trial or (cost, metric) to compare with, drawn as an orange diamond;
            it is not part of the front.
        metric_name: what the metric is, for the axis.
        title: one line above the picture.

    Raises:
        InvalidArgument: no trial has both metric and cost, a reference has not, or the path cannot
            be a PNG file.
        MissingExtra: matplotlib is not installed.

    Example:
        >>> import pathlib, tempfile
        >>> trials = [TrialRecord("a", "finished", metric=0.8, parameters=100)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "pareto.png")
        ...     pareto_plot(trials, path, reference={"default": (300, 0.7)})
        ...     path.read_bytes()[1:4]
        b'PNG'
    """
    target = png_path(path)
    points = points_of(records, cost)
    marks = _references(reference or {}, cost)
    heading = f"{metric_name} against {cost}" if title is None else title
    front = front_of(points)
    widest = _note(records, cost, points, front, len(front))
    figure = new_figure(max(6.8, title_inches(heading), 0.06 * len(widest) + 1.2), 4.6)
    axes = figure.add_subplot()
    _prepare_axes(axes, cost, [*(p.cost for p in points), *(x for x, _ in marks.values())])
    _draw_points(axes, points, front)
    for x, y in marks.values():
        axes.plot([x], [y], marker="D", markersize=7, color=_REFERENCE, linestyle="none", zorder=3)
    axes.set_xlabel(shortened(cost), fontsize=9, parse_math=False)
    axes.set_ylabel(shortened(metric_name), fontsize=9, parse_math=False)
    figure.suptitle(heading, fontsize=11, parse_math=False)
    # The layout is settled before labels look for room; the note's height is part of it.
    note = axes.set_title(" ", loc="left", fontsize=8, color="#555555", parse_math=False)
    _extend_front(axes, front)
    unnamed = _label(figure, axes, points, marks)
    note.set_text(_note(records, cost, points, front, unnamed))
    write_png(figure, target)


def _references(reference: Reference, cost: str) -> dict[str, tuple[float, float]]:
    """Label -> (cost, metric), checked."""
    if not isinstance(reference, Mapping):
        raise InvalidArgument(
            f"reference must map a label to a trial or (cost, metric), got {reference!r}"
        )
    marks = {}
    for label, given in reference.items():
        if isinstance(given, TrialRecord):
            point = points_of([given], cost)[0]
            marks[label] = (point.cost, point.metric)
            continue
        pair = isinstance(given, tuple) and len(given) == 2
        if not pair or not all(_is_finite(number) for number in given):
            raise InvalidArgument(
                f"reference[{label!r}] must be a trial or (cost, metric), two finite numbers, got "
                f"{given!r}"
            )
        marks[label] = (float(given[0]), float(given[1]))
    return marks


def _is_finite(number: Any) -> bool:
    real = isinstance(number, int | float) and not isinstance(number, bool)
    return real and math.isfinite(number)


def _prepare_axes(axes: Any, cost: str, costs: Sequence[float]) -> None:
    """Scale, ticks and grid."""
    ticker = require("matplotlib.ticker", "report", "plots")
    low, high = min(costs), max(costs)
    if low > 0 and high >= 10 * low:
        axes.set_xscale("log")
        figures = (1, 2, 5) if high <= 1000 * low else (1,)
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=figures))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        axes.xaxis.set_major_locator(ticker.MaxNLocator(7))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: cost_text(x, cost)))
    axes.margins(x=0.1, y=0.12)
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_points(axes: Any, points: Sequence[Point], front: Sequence[Point]) -> None:
    """Rings for what is beaten, dots for the front, steps between them."""
    behind = [point for point in points if not any(point is member for member in front)]
    axes.plot(
        [p.cost for p in behind], [p.metric for p in behind], marker="o", markersize=6,
        markerfacecolor="none", markeredgecolor="#888888", linestyle="none", zorder=2,
    )  # fmt: skip
    x, y = [p.cost for p in front], [p.metric for p in front]
    axes.step(x, y, where="post", color=_FRONT, linewidth=1.6, zorder=3)
    axes.plot(x, y, marker="o", markersize=7, color=_FRONT, linestyle="none", zorder=4)


def _extend_front(axes: Any, front: Sequence[Point]) -> None:
    """More cost buys no better metric than the last member's."""
    last, (left, edge) = front[-1], axes.get_xlim()
    axes.plot([last.cost, edge], [last.metric] * 2, color=_FRONT, linewidth=1.6, zorder=3)
    axes.set_xlim(left, edge)


def _label(
    figure: Any, axes: Any, points: Sequence[Point], marks: Mapping[str, tuple[float, float]]
) -> int:
    """Write labels of front and references where there is room; how many found none."""
    at: dict[tuple[float, float], list[str]] = {}
    for point in front_of(points):
        at.setdefault((point.cost, point.metric), []).append(point.record.label)
    wanted = [(spot, _tied(names), _FRONT) for spot, names in reversed(at.items())]
    wanted += [(spot, shortened(label), _REFERENCE) for label, spot in marks.items()]
    figure.draw_without_rendering()
    spots = [*((point.cost, point.metric) for point in points), *marks.values()]
    radius = 4 * figure.dpi / 72
    taken = [_around(axes.transData.transform(spot), radius) for spot in spots]
    unnamed = 0
    for spot, text, colour in wanted:
        box = _placed(axes, spot, text, colour, taken)
        taken += [] if box is None else [box]
        unnamed += box is None
    return unnamed


def _placed(
    axes: Any, spot: tuple[float, float], text: str, colour: str, taken: Sequence[Any]
) -> Any:
    """The box of a label at the first place with room; None where there is none."""
    label = axes.annotate(
        text, spot, (0, 0), textcoords="offset points", fontsize=8, color=colour, parse_math=False
    )
    label.set_in_layout(False)
    inside = axes.get_window_extent()
    for offset, across, along in _PLACES:
        label.set_position(offset)
        label.set(ha=across, va=along)
        box = label.get_window_extent()
        fits = inside.x0 <= box.x0 and box.x1 <= inside.x1
        fits = fits and inside.y0 <= box.y0 and box.y1 <= inside.y1
        if fits and not any(box.overlaps(other) for other in taken):
            return box
    label.remove()
    return None


def _around(spot: Sequence[float], radius: float) -> Any:
    box = require("matplotlib.transforms", "report", "plots").Bbox
    x, y = spot
    return box.from_extents(x - radius, y - radius, x + radius, y + radius)


def _tied(names: Sequence[str]) -> str:
    shown = ", ".join(shortened(name) for name in names[:_NAMED_TIES])
    more = len(names) - _NAMED_TIES
    return f"{shown} and {more} more" if more > 0 else shown


def _note(
    records: Sequence[TrialRecord],
    cost: str,
    points: Sequence[Point],
    front: Sequence[Point],
    unnamed: int,
) -> str:
    """What dots, rings and absences mean."""
    parts = [f"blue: the front ({len(front)} of {len(points)} trials)"]
    if len(points) > len(front):
        parts.append("grey: beaten by one of them")
    missing = left_out(records, cost)
    if missing:
        parts.append(f"not drawn: {missing}")
    if unnamed:
        parts.append(f"{unnamed} without room for a label")
    return "; ".join(parts)
