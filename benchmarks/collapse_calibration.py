"""Default limits of the collapse rule, from pilot runs and no held-out labels.

A ticket counts as healthy as long as it trains to a loss no higher than the dense network's in as
many steps; the training loss knows training labels, and nothing else here knows any. What a
similarity curve does until then is no collapse, so the limits are the 95th percentiles, over
tickets, of the largest departure while healthy, rounded up to 0.05. Every ticket counts alike.
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


def largest_departures(trace: Trace, rule: CollapseRule) -> tuple[float, float] | None:
    """How far the elasticity climbed above its smallest and fell below zero while healthy.

    None for a ticket that collapsed before the rule's warm-up was over: it says nothing.
    """
    ends = range(1, healthy_rounds(trace) + 1)
    spans = [rule.elasticity(trace.changes[:end]) for end in ends]
    values = [span[0] for span in spans if span is not None]
    if len(values) <= rule.warm_up:
        return None
    judged = range(rule.warm_up, len(values))
    climb = max(values[i] - min(values[:i]) for i in judged)
    dip = max(-values[i] for i in judged)
    return max(climb, 0.0), max(dip, 0.0)


def calibrated(traces: Sequence[Trace]) -> dict[str, float | int | None]:
    """``fall`` and ``rise`` for :class:`rtl_plugin.CollapseRule`, from how many of the tickets.

    Both are None where no ticket stayed healthy for longer than the warm-up.
    """
    rule = CollapseRule()
    found = [largest_departures(trace, rule) for trace in traces]
    departures = np.array([each for each in found if each is not None])
    counted: dict[str, float | int | None] = {"tickets": len(departures), "of": len(traces)}
    if not len(departures):
        return {"fall": None, "rise": None, **counted}
    fall, rise = (rounded_up(float(each)) for each in np.quantile(departures, QUANTILE, axis=0))
    return {"fall": fall, "rise": rise, **counted}


def rounded_up(limit: float) -> float:
    """To the next multiple of the grid, and never to zero."""
    return round(max(1, math.ceil(limit / GRID - 1e-9)) * GRID, 2)
