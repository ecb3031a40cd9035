"""Assessors asked about recorded trials, as NNI's dispatcher would ask them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rtl_plugin.randomness import forked

Trial = Mapping[str, Any]


@dataclass(frozen=True)
class Stopper:
    """A way to stop trials early.

    Args:
        name: for tables.
        labels: whether it looks at a metric on labelled data.
        make: a fresh assessor, one a search.
        entry: what it hears of a round.
    """

    name: str
    labels: bool
    make: Callable[[], Any]
    entry: Callable[[Trial], Any]


class FixedLimit:
    """Stops every trial beyond a sparsity: the naive rule without labels.

    Args:
        field: "sparsity", that a trial has reached, or "target", that it is to reach.
        limit: in (0, 1).
    """

    def __init__(self, field: str, limit: float) -> None:
        self._field, self._limit = field, limit

    def assess_trial(self, trial_job_id: str, trial_history: Sequence[Any]) -> bool:
        return bool(trial_history[-1][self._field] <= self._limit)

    def trial_end(self, trial_job_id: str, success: bool) -> None: ...


def fixed_limit(field: str, limit: float) -> Stopper:
    """The naive rule as a way to stop.

    Args:
        field: "sparsity" or "target".
        limit: in (0, 1).

    Returns:
        It.
    """
    return Stopper(f"{field} above {limit:.0%}", False, lambda: FixedLimit(field, limit), dict)


def stoppers() -> list[Stopper]:
    """All but the naive rule.

    Returns:
        They.
    """
    from nni.algorithms.hpo.curvefitting_assessor import CurvefittingAssessor
    from nni.algorithms.hpo.medianstop_assessor import MedianstopAssessor

    import rtl_nni

    def counts(row: Trial) -> dict[str, Any]:
        return {"default": 0.0, "round": row}  # no metric: it must not need one

    def metric(row: Trial) -> float:
        return float(row["metric"])

    def collapse(share: float, remember: int) -> Callable[[], Any]:
        return lambda: rtl_nni.CollapseAssessor(share, "unused", remember)

    most = 9  # rounds that a trial of this space can have
    return [
        Stopper("CollapseAssessor", False, collapse(0.5, 2), counts),
        Stopper("CollapseAssessor, remember=1", False, collapse(0.5, 1), counts),
        Stopper("CollapseAssessor, remember=0", False, collapse(0.5, 0), counts),
        Stopper("CollapseAssessor, any ticket, remember=0", False, collapse(1e-9, 0), counts),
        Stopper("CollapseAssessor, all tickets, remember=0", False, collapse(1.0, 0), counts),
        Stopper("Medianstop", True, lambda: MedianstopAssessor("maximize"), metric),
        Stopper(
            "Medianstop, start_step=3", True, lambda: MedianstopAssessor("maximize", 3), metric
        ),
        Stopper("Curvefitting", True, lambda: CurvefittingAssessor(epoch_num=most), metric),
        Stopper(
            "Curvefitting, start_step=3",
            True,
            lambda: CurvefittingAssessor(epoch_num=most, start_step=3),
            metric,
        ),
    ]


@dataclass(frozen=True)
class Outcome:
    """What became of one recorded trial.

    Args:
        stopped_after: rounds; None where it went to its end.
        steps_done: optimizer steps that it took.
        broke: the assessor gave no answer, which ends a real experiment.
    """

    stopped_after: int | None
    steps_done: int
    broke: bool = False


def replayed(stopper: Stopper, search: Sequence[Trial]) -> list[Outcome]:
    """Ask a fresh assessor about the trials of one search, in their order.

    Args:
        stopper: the way to stop.
        search: trials that ran to their end.

    Returns:
        One outcome a trial.
    """
    logging.getLogger("curvefitting_Assessor").setLevel(logging.CRITICAL + 1)
    assessor, outcomes = stopper.make(), []
    with forked(0):  # Curvefitting draws from the global stream
        for number, trial in enumerate(search):
            outcome = _outcome(stopper, assessor, str(number), trial)
            assessor.trial_end(str(number), outcome.stopped_after is None)
            outcomes.append(outcome)
    return outcomes


def _outcome(stopper: Stopper, assessor: Any, name: str, trial: Trial) -> Outcome:
    history, steps, broke = [], 0, False
    for row in trial["rounds"]:
        history.append(stopper.entry(row))
        steps += row["steps"]
        answer = assessor.assess_trial(name, list(history))
        broke = broke or answer is None
        if answer is not None and not getattr(answer, "value", answer):
            return Outcome(row["round"], steps, broke)
    return Outcome(None, trial["steps"], broke)
