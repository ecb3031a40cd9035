"""What a plot of ticket curves draws, as plain numbers: checked values, means, ticks."""

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from numbers import Real
from typing import Any, TypeAlias

from rtl_plugin.diagnostics.curves import CurvePoint, TicketCurve
from rtl_plugin.errors import InvalidArgument

Curves: TypeAlias = Mapping[str, TicketCurve]
"""Ticket name -> curve."""

Panel: TypeAlias = tuple[str, tuple[str, ...]]
"""Axis label, and the values shown: the first solid and with the alarms, "excess" dashed."""

Line: TypeAlias = list[tuple[float, float]]
"""Points (place on the axis, value) of one line, from left to right."""

_VALUES = ("similarity", "excess", "loss", "metric")
_DIRECTIONS = ("rise", "fall")
_TICKS = (0.0, 0.9, 0.99, 0.999, 0.9999, 0.5, 0.95, 0.995, 0.9995, 0.75, 0.98, 0.998, 0.25)
_FEW_TICKS = 4
_MAX_TICKS = 17
_TICK_SLACK = 0.01


def density_scale(sparsity: float) -> float:
    """The place of a sparsity on an axis spaced by the logarithm of density.

    Args:
        sparsity: in [0, 1).

    Returns:
        ``-log10(1 - sparsity)``: 0 for a dense network, 1 at 90 %, 2 at 99 %.

    Example:
        >>> [round(density_scale(s), 6) for s in (0.0, 0.9, 0.99)]
        [0.0, 1.0, 2.0]
    """
    return -math.log10(1 - sparsity) + 0.0


def sparsity_ticks(low: float, high: float) -> list[float]:
    """Round sparsities to name on such an axis, far enough apart to be read.

    Args:
        low: the lowest sparsity drawn, in [0, 1).
        high: the highest, at least ``low``.

    Returns:
        Ascending sparsities in ``low..high``, or beyond by a hundredth of the axis, since weights
        are whole and a round sparsity is seldom met exactly; at least one.

    Example:
        >>> sparsity_ticks(0.0, 0.99)
        [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99]
    """
    left, right = density_scale(low), density_scale(high)
    apart, slack = (right - left) / _MAX_TICKS, (right - left) * _TICK_SLACK
    chosen: list[float] = []
    for steps in (_TICKS, *([i / n for i in range(n)] for n in (10, 20, 100, 1000))):
        for tick in steps:
            far = all(abs(density_scale(tick) - density_scale(c)) >= apart for c in chosen)
            inside = left - slack <= density_scale(tick) <= right + slack
            if inside and tick not in chosen and far:
                chosen.append(tick)
        if len(chosen) >= _FEW_TICKS:
            break
    return sorted(chosen) or sorted({low, high})


def check_curves(curves: Curves) -> None:
    """Refuse curves that cannot be drawn.

    Args:
        curves: ticket name -> curve.

    Raises:
        InvalidArgument: no curve, a name that is no text, a curve without points, rounds that do
            not ascend, a kept round that is none of them, a sparsity outside [0, 1), a value that
            is neither a finite number nor None, an alarm without direction "rise" or "fall".

    Example:
        >>> dense = CurvePoint(round=0, sparsity=0.0, metric=0.9)
        >>> check_curves({"indoor": TicketCurve("indoor", (dense,), None, False, 0)})
    """
    if not isinstance(curves, Mapping) or not curves:
        came = "none" if isinstance(curves, Mapping) else type(curves).__name__
        raise InvalidArgument(
            f"curves: expected a mapping of at least one ticket name to its curve, got {came}: "
            "make it with ticket_curves from the history of a run"
        )
    for name, curve in curves.items():
        if not isinstance(name, str) or not name.strip():
            raise InvalidArgument(f"curves: expected ticket names as keys, got {name!r}: name it")
        if not curve.points:
            raise InvalidArgument(
                f"curves[{name!r}]: expected at least one point, got none: leave the ticket out"
            )
        for point in curve.points:
            _check_point(point, f"curves[{name!r}], round {point.round}")
        if curve.left and curve.kept_round not in [point.round for point in curve.points]:
            raise InvalidArgument(
                f"curves[{name!r}]: expected kept_round to be the round of a point, got "
                f"{curve.kept_round}: give the round whose masks the ticket ended with"
            )
        for before, after in pairwise(curve.points):
            if after.round <= before.round:
                raise InvalidArgument(
                    f"curves[{name!r}]: expected ascending rounds, got {after.round} after "
                    f"{before.round}: sort the points, one a round"
                )


def _check_point(point: CurvePoint, where: str) -> None:
    """Refuse a point that has no place in a plot."""
    if not _finite(point.sparsity) or not 0 <= point.sparsity < 1:
        raise InvalidArgument(
            f"{where}: expected a sparsity in [0, 1), got {point.sparsity!r}: write 0.9 for 90 "
            "percent; a ticket of sparsity 1 would keep nothing"
        )
    for field in _VALUES:
        value = getattr(point, field)
        if value is not None and not _finite(value):
            raise InvalidArgument(
                f"{where}: expected {field} as a finite number or None, got {value!r}: give None "
                "where it is unknown"
            )
    if point.alarm is not None and point.alarm.get("direction") not in _DIRECTIONS:
        raise InvalidArgument(
            f"{where}: expected an alarm with a direction of {list(_DIRECTIONS)}, got "
            f"{point.alarm!r}: take it from the history of a run"
        )


def _finite(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def has_values(curves: Curves, field: str) -> bool:
    """Whether any ticket has a value.

    Args:
        curves: ticket name -> curve.
        field: "metric", "loss", "similarity" or "excess".

    Returns:
        True if at least one point knows it.
    """
    return any(getattr(p, field) is not None for curve in curves.values() for p in curve.points)


def line_of(curve: TicketCurve, field: str) -> Line:
    """One ticket's line; points where the value is unknown are passed over.

    Args:
        curve: of one ticket.
        field: "metric", "loss", "similarity" or "excess".

    Returns:
        The known points.
    """
    return [(x, value) for _, x, value in _known(curve, field)]


def _known(curve: TicketCurve, field: str) -> Iterator[tuple[int, float, float]]:
    """Round, place and value of the points that know it."""
    for point in curve.points:
        value = getattr(point, field)
        if value is not None:
            yield point.round, density_scale(point.sparsity), float(value)


def mean_lines(curves: Curves, field: str) -> list[tuple[Line, bool]]:
    """The mean over tickets, round by round, cut where tickets come or go.

    A mean of fewer tickets is a mean of other tickets: a step in it need not be a change of any.

    Args:
        curves: ticket name -> curve.
        field: "metric", "loss", "similarity" or "excess".

    Returns:
        Stretches of the line, each with whether all tickets that know the value anywhere are in
        all of its points. Neighbouring stretches share a point. Empty where nothing is known.

    Example:
        >>> def made(*losses):
        ...     points = [CurvePoint(r, 0.0, loss=loss) for r, loss in enumerate(losses)]
        ...     return TicketCurve("t", tuple(points), None, left=False, kept_round=0)
        >>> curves = {"a": made(1, 2, 3), "b": made(3, 4, None)}
        >>> mean_lines(curves, "loss")
        [([(0.0, 2.0), (0.0, 3.0)], True), ([(0.0, 3.0), (0.0, 3.0)], False)]
    """
    found = [known for curve in curves.values() if (known := list(_known(curve, field)))]
    rounds: dict[int, Line] = {}
    for number, x, value in sorted(triple for known in found for triple in known):
        rounds.setdefault(number, []).append((x, value))
    means = [
        (math.fsum(x for x, _ in row) / len(row), math.fsum(v for _, v in row) / len(row))
        for row in rounds.values()
    ]
    complete = [len(row) == len(found) for row in rounds.values()]
    if len(means) == 1:
        return [(means, complete[0])]
    runs: list[tuple[Line, bool]] = []
    for last, here in pairwise(range(len(means))):
        whole = complete[last] and complete[here]
        if not runs or runs[-1][1] != whole:
            runs.append(([means[last]], whole))
        runs[-1][0].append(means[here])
    return runs


def panels_of(curves: Curves, metric_name: str) -> list[Panel]:
    """Axis label and fields of every panel, without panels that would be empty.

    Args:
        curves: ticket name -> curve, checked.
        metric_name: what the metric is.

    Returns:
        The metric, or the training loss where there is none; and the similarity.

    Raises:
        InvalidArgument: nothing is known of any ticket.
    """
    panels: list[Panel] = []
    if has_values(curves, "metric"):
        panels.append((metric_name, ("metric",)))
    elif has_values(curves, "loss"):
        panels.append(("training loss", ("loss",)))
    fields = tuple(field for field in ("similarity", "excess") if has_values(curves, field))
    if fields:
        panels.append(("similarity to the others", fields))
    if not panels:
        raise InvalidArgument(
            "curves: expected a metric, loss or similarity in at least one point, got none: make "
            "them with ticket_curves from the history of a run"
        )
    return panels


def note_of(curves: Curves) -> str:
    """What is not shown and why.

    Args:
        curves: ticket name -> curve.

    Returns:
        One line, empty where everything is shown.
    """
    parts = []
    if not has_values(curves, "metric"):
        parts.append("no metric was measured")
    if not (has_values(curves, "similarity") or has_values(curves, "excess")):
        one = len(curves) == 1
        parts.append("similarity needs two tickets" if one else "no similarity was recorded")
    return "; ".join(parts)
