"""Default limits of the collapse rule, from runs whose labels nobody looks at.

A ticket counts as healthy as long as it trains to a loss no higher than the dense network's in as
many steps. What its similarity curve does until then is no collapse, so the limits are the 95th
percentiles, over tickets, of the largest departure while healthy, rounded up to 0.05.
"""

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.collapse_rules import Trace
from rtl_plugin import CollapseRule

QUANTILE, GRID = 0.95, 0.05


def healthy_rounds(trace: Trace) -> int:
    """Rounds from the first until the training loss passes the dense network's."""
    ends = range(1, trace.rounds + 1)
    return next((r - 1 for r in ends if trace.losses[r] > trace.losses[0]), trace.rounds)


def largest_departures(trace: Trace, rule: CollapseRule) -> tuple[float, float]:
    """How far the elasticity climbed above its smallest and fell below zero while healthy."""
    values: list[float] = []
    climb = dip = 0.0
    for end in range(1, healthy_rounds(trace) + 1):
        span = rule.elasticity(trace.changes[:end])
        if span is None:
            continue
        if len(values) >= rule.warm_up:
            climb, dip = max(climb, span[0] - min(values)), max(dip, -span[0])
        values.append(span[0])
    return climb, dip


def calibrated(traces: Sequence[Trace]) -> dict[str, float]:
    """``fall`` and ``rise`` for :class:`rtl_plugin.CollapseRule`."""
    rule = CollapseRule()
    departures = np.array([largest_departures(trace, rule) for trace in traces])
    limits = np.quantile(departures, QUANTILE, axis=0)
    fall, rise = (round(max(1, math.ceil(limit / GRID)) * GRID, 2) for limit in limits)
    return {"fall": fall, "rise": rise}
