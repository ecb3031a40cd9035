"""What benchmarks/collapse.py compares: when a ticket's metric breaks down, and who says so when.

Knees are seen with held-out labels (an INR's with its training pixels) and alarms are not. All of
it is pure: a recorded ticket in, a round out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression

from rtl_plugin import CollapseMonitor, CollapseRule
from rtl_plugin.diagnostics.collapse_rule import RoundChange
from rtl_plugin.diagnostics.mask_counts import LayerCounts, MaskCounts

ROUNDING = 1e-9  # sums of a fit that should be equal differ by less


@dataclass(frozen=True)
class Trace:
    """One ticket of one run. Entry r of a sequence is of the masks after round r; 0 is dense."""

    task: str
    seed: int
    ticket: str
    changes: tuple[RoundChange, ...]  # entry r - 1 is round r
    densities: tuple[float, ...]
    similarities: tuple[float, ...]
    losses: tuple[float, ...]
    metrics: tuple[float, ...]
    chance: float

    @property
    def rounds(self) -> int:
        return len(self.densities) - 1

    @cached_property
    def quality(self) -> tuple[float, ...] | None:
        """Per round, the share of the way from chance to the best metric, never rising.

        The metric's falling isotonic fit evens out the noise of single rounds, upwards and
        downwards; its first value is the best. None for a ticket whose best is not above chance:
        it never learnt anything that it could lose.
        """
        rounds = np.arange(self.rounds + 1)
        fit = IsotonicRegression(increasing=False).fit_transform(rounds, self.metrics)
        above = fit - self.chance
        return None if above[0] <= ROUNDING else tuple(float(each) for each in above / above[0])


def traces_of(run: dict[str, Any]) -> list[Trace]:
    """The tickets of a recorded run."""
    monitor = CollapseMonitor()
    for number, shared in enumerate(run["shared"], start=1):
        layer = LayerCounts("all", run["prunable"], np.array(shared))
        monitor.observe_counts(number, run["groups"], MaskCounts(len(shared), (layer,)))
    return [
        Trace(
            task=run["task"],
            seed=run["seed"],
            ticket=name,
            changes=tuple(monitor.curves[name]),
            densities=(1.0, *(change.density for change in monitor.curves[name])),
            similarities=(1.0, *(change.similarity for change in monitor.curves[name])),
            losses=tuple(run["losses"][k]),
            metrics=tuple(run["metrics"][k]),
            chance=run["chance"][k],
        )
        for k, name in enumerate(run["groups"])
    ]


def tolerance_knee(trace: Trace, tolerance: float) -> int | None:
    """The first round at which more than a share ``tolerance`` of the best above chance is lost."""
    quality = enumerate(trace.quality or ())
    lost = (round for round, q in quality if q < 1 - tolerance - ROUNDING)
    return next(lost, None)


def chord_knee(trace: Trace) -> int | None:
    """The round after the metric's falling fit lies farthest above its chord (Kneedle's formula).

    Source: Satopaa et al., Finding a "Kneedle" in a Haystack, ICDCS workshops 2011; the fit is
    isotonic regression in place of a spline. A fit that falls by less than a tenth has no knee.
    """
    quality = np.array(trace.quality or [1.0])
    if quality[0] - quality[-1] < 0.1:
        return None
    share = np.arange(trace.rounds + 1) / trace.rounds
    chord = quality[0] + (quality[-1] - quality[0]) * share
    return int(np.argmax(quality - chord)) + 1


Knee = Callable[[Trace], int | None]
KNEES: dict[str, Knee] = {
    "2.5 % lost": lambda trace: tolerance_knee(trace, 0.025),
    "5 % lost": lambda trace: tolerance_knee(trace, 0.05),
    "10 % lost": lambda trace: tolerance_knee(trace, 0.1),
    "Kneedle": chord_knee,
}
PRIMARY_KNEE = "5 % lost"


@dataclass(frozen=True)
class Ring:
    """A rule rang after a round, and keeps the masks of an earlier one (0: the dense network)."""

    alarm: int
    kept: int


Rule = Callable[[Trace], Ring | None]


def monitored(rule: CollapseRule) -> Rule:
    """The monitor of the package; it names the round to keep itself."""

    def ring(trace: Trace) -> Ring | None:
        for end in range(1, len(trace.changes) + 1):
            departure = rule.departure(trace.changes[:end])
            if departure is not None:
                return Ring(trace.changes[end - 1].round, departure.last_good_round)
        return None

    return ring


def fixed_sparsity(limit: float) -> Rule:
    """Stop everything at one sparsity; the masks of the round before are kept."""
    return lambda trace: _first(trace, lambda r: 1 - trace.densities[r] >= limit, kept=1)


def fixed_jaccard(limit: float) -> Rule:
    """Stop when the mean Jaccard similarity falls to a fixed value; keep the round before.

    One-sided: it never rings because similarity rises.
    """
    return lambda trace: _first(trace, lambda r: trace.similarities[r] <= limit, kept=1)


def loss_slope(limit: float) -> Rule:
    """Stop when the training loss grows too fast: its elasticity with the inverse density.

    The loss under a round's masks is known when the next round has trained, so the masks of two
    rounds ago are the last good ones.
    """

    def steep(trace: Trace, round: int) -> bool:
        if round < 2:
            return False
        shrunk = math.log(trace.densities[round - 2] / trace.densities[round - 1])
        growth = math.log(trace.losses[round - 1] / trace.losses[round - 2])
        return shrunk > 0 and growth >= limit * shrunk

    return lambda trace: _first(trace, lambda r: steep(trace, r), kept=2)


def loss_level(limit: float) -> Rule:
    """Stop when the training loss has passed a multiple of the dense network's; keep as above."""
    return lambda trace: _first(
        trace, lambda r: r >= 2 and trace.losses[r - 1] > limit * trace.losses[0], kept=2
    )


def _first(trace: Trace, holds: Callable[[int], bool], kept: int) -> Ring | None:
    """Ring at the first round where it holds, keeping the masks of ``kept`` rounds before."""
    alarm = next((round for round in range(1, trace.rounds + 1) if holds(round)), None)
    return None if alarm is None else Ring(alarm, alarm - kept)


# A naive rule's one number is fitted to the knees of the pilot runs: with held-out labels, which
# the monitor's defaults never saw.
NAIVE: dict[str, tuple[Callable[[float], Rule], Sequence[float]]] = {
    "fixed sparsity": (fixed_sparsity, [1 - 0.02 * 1.04**k for k in range(-67, 90)]),
    "fixed Jaccard": (fixed_jaccard, [0.01 * k for k in range(2, 80)]),
    "loss slope": (loss_slope, [0.05 * k for k in range(1, 80)]),
    "loss level": (loss_level, [0.25 + 0.05 * k for k in range(1, 200)]),
}
