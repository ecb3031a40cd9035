"""What benchmarks/collapse.py compares: when a ticket's accuracy breaks down, and who says so when.

Knees are seen with held-out labels and alarms are not. All of it is pure: a recorded ticket in,
a round out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression

from rtl_plugin import CollapseMonitor, CollapseRule
from rtl_plugin.diagnostics.collapse_rule import RoundChange
from rtl_plugin.diagnostics.mask_counts import LayerCounts, MaskCounts


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

    def quality(self, round: int) -> float:
        """Share of the way from chance to the best metric, 1 at the best."""
        best = max(self.metrics)
        return (self.metrics[round] - self.chance) / (best - self.chance)


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
    """The first round from which on a share ``tolerance`` of the best above chance is lost."""
    below = [trace.quality(round) < 1 - tolerance for round in range(trace.rounds + 1)]
    if not below[-1]:
        return None
    return max((round for round, lost in enumerate(below) if not lost), default=-1) + 1


def chord_knee(trace: Trace) -> int | None:
    """The round after the metric's falling fit lies farthest above its chord (Kneedle's formula).

    Source: Satopaa et al., Finding a "Kneedle" in a Haystack, ICDCS workshops 2011; the fit is
    isotonic regression in place of a spline.
    """
    quality = [trace.quality(round) for round in range(trace.rounds + 1)]
    rounds = np.arange(trace.rounds + 1)
    fit = IsotonicRegression(increasing=False).fit_transform(rounds, quality)
    if fit[0] - fit[-1] < 0.1:
        return None
    chord = fit[0] + (fit[-1] - fit[0]) * rounds / rounds[-1]
    return int(np.argmax(fit - chord)) + 1


Knee = Callable[[Trace], int | None]
KNEES: dict[str, Knee] = {
    "2.5 % lost": lambda trace: tolerance_knee(trace, 0.025),
    "5 % lost": lambda trace: tolerance_knee(trace, 0.05),
    "10 % lost": lambda trace: tolerance_knee(trace, 0.1),
    "Kneedle": chord_knee,
}
PRIMARY_KNEE = "5 % lost"

Alarm = Callable[[Trace], int | None]


def monitored(rule: CollapseRule) -> Alarm:
    """The monitor of the package."""

    def alarm(trace: Trace) -> int | None:
        ends = range(1, len(trace.changes) + 1)
        return next((e for e in ends if rule.departure(trace.changes[:e]) is not None), None)

    return alarm


def fixed_sparsity(limit: float) -> Alarm:
    """Stop everything at one sparsity."""
    return lambda trace: _first(trace, lambda r: 1 - trace.densities[r] >= limit)


def fixed_jaccard(limit: float) -> Alarm:
    """Stop when the mean Jaccard similarity has fallen to a fixed value."""
    return lambda trace: _first(trace, lambda r: trace.similarities[r] <= limit)


def loss_slope(limit: float) -> Alarm:
    """Stop when the training loss grows too fast: its elasticity with the inverse density.

    The loss under a round's masks is known when the next round has trained.
    """

    def steep(trace: Trace, round: int) -> bool:
        if round < 2:
            return False
        growth = math.log(trace.losses[round - 1] / trace.losses[round - 2])
        return growth >= limit * math.log(trace.densities[round - 2] / trace.densities[round - 1])

    return lambda trace: _first(trace, lambda r: steep(trace, r))


def loss_level(limit: float) -> Alarm:
    """Stop when the training loss has passed a multiple of the dense network's."""
    return lambda trace: _first(
        trace, lambda r: r >= 2 and trace.losses[r - 1] > limit * trace.losses[0]
    )


def _first(trace: Trace, holds: Callable[[int], bool]) -> int | None:
    return next((round for round in range(1, trace.rounds + 1) if holds(round)), None)


# A naive rule's one number is the one that hits most knees of the pilot runs: with labels, which
# the monitor's defaults never saw.
NAIVE: dict[str, tuple[Callable[[float], Alarm], Sequence[float]]] = {
    "fixed sparsity": (fixed_sparsity, [1 - 0.02 * 1.04**k for k in range(-45, 90)]),
    "fixed Jaccard": (fixed_jaccard, [0.01 * k for k in range(2, 80)]),
    "loss slope": (loss_slope, [0.05 * k for k in range(1, 80)]),
    "loss level": (loss_level, [0.25 + 0.05 * k for k in range(1, 200)]),
}


@dataclass(frozen=True)
class Score:
    """How alarms and knees of some tickets meet."""

    tickets: int
    knees: int
    alarms: int
    hits: int
    early: int
    late: int
    missed: int
    needless: int
    leads: tuple[int, ...]

    @property
    def hit_rate(self) -> float:
        """Share of the tickets with a knee whose alarm rang within one round of it (recall)."""
        return self.hits / self.knees if self.knees else math.nan

    @property
    def precision(self) -> float:
        """Share of the alarms that rang within one round of a knee."""
        return self.hits / self.alarms if self.alarms else math.nan

    @property
    def false_alarms(self) -> float:
        """Share of the tickets whose alarm rang more than one round early, or without a knee."""
        return (self.early + self.needless) / self.tickets


def scored(traces: Sequence[Trace], alarm: Alarm, knee: Knee) -> Score:
    """Compare a rule's alarms with the knees."""
    pairs = [(alarm(trace), knee(trace)) for trace in traces]
    leads = tuple(k - a for a, k in pairs if a is not None and k is not None)
    return Score(
        tickets=len(pairs),
        knees=sum(k is not None for _, k in pairs),
        alarms=sum(a is not None for a, _ in pairs),
        hits=sum(abs(lead) <= 1 for lead in leads),
        early=sum(lead > 1 for lead in leads),
        late=sum(lead < -1 for lead in leads),
        missed=sum(a is None and k is not None for a, k in pairs),
        needless=sum(a is not None and k is None for a, k in pairs),
        leads=leads,
    )


def best_limit(name: str, traces: Sequence[Trace], knee: Knee) -> float:
    """The parameter of a naive rule that hits most knees with fewest false alarms."""
    make, limits = NAIVE[name]

    def rank(limit: float) -> tuple[float, float]:
        score = scored(traces, make(limit), knee)
        return score.hits - score.early - score.needless, -abs(sum(score.leads))

    return max(limits, key=rank)
