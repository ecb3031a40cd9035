"""How the alarms of benchmarks/collapse.py meet the knees: counts, rates and their intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.collapse_rules import NAIVE, Knee, Rule, Trace

KINDS = ("hits", "early", "late", "missed", "needless")
DRAWS, LEVEL = 2000, 0.95


@dataclass(frozen=True)
class Outcome:
    """One ticket under one rule and one knee. Kept is of the masks that the rule ends with."""

    run: tuple[str, int]
    alarm: int | None
    knee: int | None
    quality_kept: float | None
    sparsity_kept: float

    @property
    def lead(self) -> int | None:
        """Rounds from the alarm to the knee; negative for a late alarm."""
        return None if self.alarm is None or self.knee is None else self.knee - self.alarm

    @property
    def kind(self) -> str | None:
        """One of KINDS; None where there was nothing to say and nothing was said."""
        if self.lead is not None:
            return "hits" if abs(self.lead) <= 1 else "early" if self.lead > 1 else "late"
        if self.knee is not None:
            return "missed"
        return None if self.alarm is None else "needless"


def outcomes_of(traces: Sequence[Trace], rule: Rule, knee: Knee) -> list[Outcome]:
    """Set a rule's alarms against the knees; a ticket without an alarm is pruned to the end."""
    found = []
    for trace in traces:
        ring = rule(trace)
        kept = trace.rounds if ring is None else ring.kept
        found.append(
            Outcome(
                run=(trace.task, trace.seed),
                alarm=None if ring is None else ring.alarm,
                knee=knee(trace),
                quality_kept=None if trace.quality is None else trace.quality[kept],
                sparsity_kept=1 - trace.densities[kept],
            )
        )
    return found


def counts_of(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Tickets, knees and alarms, and how often each kind of outcome came."""
    return {
        "tickets": len(outcomes),
        "knees": sum(each.knee is not None for each in outcomes),
        "alarms": sum(each.alarm is not None for each in outcomes),
        **{kind: sum(each.kind == kind for each in outcomes) for kind in KINDS},
    }


# What a ticket adds to the numerator and to the denominator of a rate.
RATES: dict[str, Callable[[Outcome], tuple[float, float]]] = {
    "hit rate": lambda each: (each.kind == "hits", each.knee is not None),
    "precision": lambda each: (each.kind == "hits", each.alarm is not None),
    "false alarms": lambda each: (each.kind in ("early", "needless"), 1),
    "quality kept": lambda each: (each.quality_kept or 0.0, each.quality_kept is not None),
    "sparsity kept": lambda each: (each.sparsity_kept, 1),
}


def rates_of(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float | None] | None]:
    """Every rate over all tickets alike, with its interval; None where it has no ticket."""
    return {name: pooled(outcomes, share) for name, share in RATES.items()}


def pooled(
    outcomes: Sequence[Outcome], share: Callable[[Outcome], tuple[float, float]]
) -> dict[str, float | None] | None:
    """A ratio of sums over tickets, with a bootstrap interval over runs.

    Tickets of one run share its network, so whole runs are drawn. Both ends are None for a single
    run; where all runs agree, the interval has no width.
    """
    runs = sorted({each.run for each in outcomes})
    sums = np.zeros((len(runs), 2))
    for each in outcomes:
        sums[runs.index(each.run)] += share(each)
    above, below = sums.sum(axis=0)
    if below == 0:
        return None
    low, high = bootstrap_ends(sums) if len(runs) > 1 else (None, None)
    return {"mean": float(above / below), "low": low, "high": high}


def bootstrap_ends(sums: Any) -> tuple[float, float]:
    """Percentile interval of a ratio of sums. Draws without a denominator are left out.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    drawn = np.random.default_rng(0).integers(0, len(sums), (DRAWS, len(sums)))
    above, below = sums[drawn].sum(axis=1).T
    ratios = above[below > 0] / below[below > 0]
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def best_limit(name: str, traces: Sequence[Trace], knee: Knee) -> float:
    """The number of a naive rule that hits most knees; among equals, with fewest false alarms.

    Where these are equal too, the one whose alarms are on average nearest to the knees.
    """
    make, limits = NAIVE[name]

    def rank(limit: float) -> tuple[int, int, int]:
        outcomes = outcomes_of(traces, make(limit), knee)
        counts = counts_of(outcomes)
        leads = sum(each.lead or 0 for each in outcomes)
        return counts["hits"], -counts["early"] - counts["needless"], -abs(leads)

    return max(limits, key=rank)
