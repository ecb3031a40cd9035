"""Metric against cost: the trials that no other trial beats in both."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tabulate import tabulate

from rtl_nni.search.records import TrialRecord
from rtl_plugin.integration_api import InvalidArgument, shortened

# Of a second: parts in it, the largest unit first.
_UNITS = ((1, "s"), (1e3, "ms"), (1e6, "µs"), (1e9, "ns"))


class Point(NamedTuple):
    """A finished trial by its two objectives.

    Args:
        record: the trial.
        cost: the lower the better.
        metric: the higher the better.
    """

    record: TrialRecord
    cost: float
    metric: float

    def dominates(self, other: "Point") -> bool:
        """Whether this is as good in both and better in one.

        Args:
            other: another point.

        Example:
            >>> record = TrialRecord("a", "finished")
            >>> Point(record, 1, 0.9).dominates(Point(record, 2, 0.9))
            True
        """
        as_good = self.cost <= other.cost and self.metric >= other.metric
        return as_good and (self.cost, self.metric) != (other.cost, other.metric)


def pareto_front(records: Sequence[TrialRecord], cost: str = "parameters") -> list[TrialRecord]:
    """The finished trials that no other is as good as in both metric and cost, and better in one.

    Trials with the same metric and the same cost do not beat each other: all of them are kept.

    Args:
        records: from :func:`rtl_nni.read_trials`.
        cost: "parameters" (kept by at least one ticket), "density" (1 - sparsity, the mean of the
            tickets), or the name of a figure that ``run_trial(measure=...)`` found; one named
            "latency" is taken to be in seconds. Lower is better; of the metric higher is better.

    Returns:
        The front by ascending cost, equals in the order of the records. Trials without a metric
        or a cost that is a finite number are left out.

    Raises:
        InvalidArgument: no trial has both; it says how many lack what.

    Example:
        >>> trials = [
        ...     TrialRecord("small", "finished", metric=0.8, parameters=100),
        ...     TrialRecord("beaten", "finished", metric=0.7, parameters=200),
        ...     TrialRecord("large", "finished", metric=0.9, parameters=300),
        ... ]
        >>> [trial.name for trial in pareto_front(trials)]
        ['small', 'large']
    """
    return [point.record for point in front_of(points_of(records, cost))]


def pareto_table(records: Sequence[TrialRecord], cost: str = "parameters") -> str:
    """The trials by ascending cost, those on the front starred, and what beats each of the others.

    Of several that beat a trial the one with the highest metric is named, with how much better
    and cheaper it is.

    Args:
        records: as for :func:`rtl_nni.pareto_front`.
        cost: as there.

    Returns:
        The table, and below it how many trials are not in it and why; no line break at the end.

    Raises:
        InvalidArgument: no trial has both metric and cost.

    Example:
        >>> trials = [
        ...     TrialRecord("small", "finished", metric=0.8, parameters=100),
        ...     TrialRecord("beaten", "finished", metric=0.7, parameters=200),
        ...     TrialRecord("gone", "died"),
        ... ]
        >>> print(pareto_table(trials))
            trial      parameters    metric  beaten by
        --  -------  ------------  --------  --------------------
        *   small             100    0.8000
            beaten            200    0.7000  small: +0.1000, -100
        not compared: 1 died
    """
    points = points_of(records, cost)
    front = front_of(points)
    lines = []
    for point in sorted(points, key=lambda point: (point.cost, -point.metric)):
        star = "*" if any(point is member for member in front) else ""
        beaten = _beaten_by(point, front, cost)
        name = shortened(point.record.label)
        lines.append([star, name, cost_text(point.cost, cost), f"{point.metric:.4f}", beaten])
    table = tabulate(
        lines,
        headers=["", "trial", shortened(cost), "metric", "beaten by"],
        colalign=["left", "left", "right", "right", "left"],
        disable_numparse=True,
    )
    missing = left_out(records, cost)
    return f"{table}\nnot compared: {missing}" if missing else table


def points_of(records: Sequence[TrialRecord], cost: str) -> list[Point]:
    """Finished trials with a finite metric and cost.

    Args:
        records: of a search.
        cost: see :func:`pareto_front`.

    Returns:
        At least one, in the order of the records.

    Raises:
        InvalidArgument: there is none.

    Example:
        >>> trial = TrialRecord("a", "finished", metric=0.5, parameters=7)
        >>> points_of([trial], "parameters")[0].cost
        7.0
    """
    if not isinstance(cost, str):
        raise InvalidArgument(f"cost must be the name of a figure, got {cost!r}")
    points = [_point(record, cost) for record in records]
    found = [point for point in points if point is not None]
    if not found:
        known = dict.fromkeys(name for record in records for name in record.measured)
        raise InvalidArgument(
            f"no finished trial has a metric and {cost!r} ({left_out(records, cost) or 'no trials'}"
            f"): costs are {['parameters', 'density', *known]}; others are measured by "
            f"run_trial(measure={{{cost!r}: ...}})"
        )
    return found


def front_of(points: Sequence[Point]) -> list[Point]:
    """The points that no other dominates, by ascending cost.

    Args:
        points: any number.

    Returns:
        Equal points are all kept, in their order.

    Example:
        >>> trial = TrialRecord("a", "finished")
        >>> [point.cost for point in front_of([Point(trial, 2, 0.9), Point(trial, 3, 0.9)])]
        [2]
    """
    kept = [point for point in points if not any(other.dominates(point) for other in points)]
    return sorted(kept, key=lambda point: point.cost)


def left_out(records: Sequence[TrialRecord], cost: str) -> str:
    """How many trials are not compared, by what they lack.

    Args:
        records: of a search.
        cost: see :func:`pareto_front`.

    Returns:
        A list in words; empty where every trial is compared.

    Example:
        >>> trials = [TrialRecord("a", "stopped"), TrialRecord("b", "finished", metric=1)]
        >>> left_out(trials, "density")
        '1 stopped, 1 without density'
    """
    counts = Counter(
        record.status
        if record.status != "finished"
        else f"without {'metric' if _finite(record.metric) is None else cost}"
        for record in records
        if _point(record, cost) is None
    )
    return ", ".join(f"{number} {what}" for what, number in counts.items())


def cost_text(value: float, cost: str = "") -> str:
    """A cost for people: whole numbers in full, others with four figures, latencies with a unit.

    Args:
        value: a finite number; in seconds where the cost is named "latency".
        cost: its name.

    Returns:
        The text.

    Example:
        >>> cost_text(12345.0), cost_text(0.123456), cost_text(0.000123, "latency")
        ('12,345', '0.1235', '123 µs')
    """
    if cost == "latency" and value > 0:
        factor, unit = next(((f, u) for f, u in _UNITS if value >= 1 / f), _UNITS[-1])
        return f"{value * factor:.4g} {unit}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _point(record: TrialRecord, cost: str) -> Point | None:
    metric, value = _finite(record.metric), _finite(_cost(record, cost))
    if record.status != "finished" or metric is None or value is None:
        return None
    return Point(record, value, metric)


def _cost(record: TrialRecord, cost: str) -> float | None:
    if cost == "parameters":
        return record.parameters
    if cost == "density":
        return None if record.sparsity is None else 1 - record.sparsity
    return record.measured.get(cost)


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _beaten_by(point: Point, front: Sequence[Point], cost: str) -> str:
    """The best member of the front that dominates a point, and by how much; empty for none."""
    better = [member for member in front if member.dominates(point)]
    if not better:
        return ""
    best = max(better, key=lambda member: member.metric)
    name = shortened(best.record.label)
    return f"{name}: +{best.metric - point.metric:.4f}, -{cost_text(point.cost - best.cost, cost)}"
