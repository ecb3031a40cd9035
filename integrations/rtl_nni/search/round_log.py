"""What a trial tells after every round: a line in its folder, a number to whoever searches."""

import math
import time
from collections.abc import Callable, Mapping
from numbers import Real
from statistics import fmean
from typing import Any

import numpy as np
import torch

from rtl_nni.search.collapse_stop import CollapseStop, StopVerdict
from rtl_nni.search.parameters import TrialParameters
from rtl_nni.search.reporting import Reporter
from rtl_nni.search.trial_folder import TrialFolder
from rtl_plugin.integration_api import FinishedRound, InvalidArgument

Aggregate = Callable[[Mapping[str, float]], float]
_AGGREGATES: Mapping[str, Callable[[Any], float]] = {"mean": fmean, "min": min, "max": max}


class TrialStopped(Exception):
    """Ends a trial's rounds from inside; never leaves ``run_trial``.

    Args:
        verdict: why.

    Example:
        >>> TrialStopped(StopVerdict(6, 9, 0.98, ("a",), "collapsed")).verdict.round
        6
    """

    def __init__(self, verdict: StopVerdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


class RoundLog:
    """Called with every finished round of a discovery.

    Args:
        asked: the trial's parameters.
        own: what the user's own parameters and the grouping's are.
        aggregate: group -> metric to one number.
        reporter: is told the aggregated metric.
        folder: where the lines go, or None.
        send_counts: whether the counts travel with the metric.
        stop: stops the trial from inside, or None.
    """

    def __init__(
        self,
        asked: TrialParameters,
        own: Mapping[str, Any],
        aggregate: Aggregate,
        reporter: Reporter,
        folder: TrialFolder | None,
        send_counts: bool,
        stop: CollapseStop | None,
    ) -> None:
        self._asked, self._aggregate, self._stop = asked, aggregate, stop
        self._alike = asked.kind() | dict(own)
        self._reporter, self._folder, self._send_counts = reporter, folder, send_counts
        self._metrics: dict[str, float] = {}
        self._sparsities: dict[str, list[float]] = {}
        self._at: dict[str, float] = {}
        self._began = time.perf_counter()
        self.rows: list[dict[str, Any]] = []

    @property
    def intermediate(self) -> tuple[float, ...]:
        """The aggregated metric of every finished round."""
        return tuple(row["metric"] for row in self.rows)

    @property
    def steps_done(self) -> int:
        """Optimizer steps that were done here, those to a late rewind point among them."""
        return sum(row["steps"] for row in self.rows)

    @property
    def seconds_saved(self) -> float:
        """Seconds that reused rounds had taken where they were trained."""
        return float(sum(row["seconds_saved"] for row in self.rows))

    def __call__(self, finished: FinishedRound) -> None:
        """Tell of one round.

        Args:
            finished: the round.

        Raises:
            TrialStopped: ``stop`` says so.
        """
        row = self._row(finished)
        self.rows.append(row)
        if self._folder is not None:
            if finished.round == 1:  # no sooner: a call that is refused forgets nothing
                self._folder.start_again()
            self._folder.append_round(row)
        value = {"default": row["metric"], "round": row} if self._send_counts else row["metric"]
        self._reporter.round(finished.round, value)
        verdict = None if self._stop is None else self._stop.verdict(self.rows)
        if verdict is not None:
            raise TrialStopped(verdict)

    def _row(self, finished: FinishedRound) -> dict[str, Any]:
        names, reused = list(finished.names), len(finished.reused)
        to_rewind = self._asked.rewind_to if finished.round == 1 else 0
        # Seconds saved without a group taken over are those of the rewind point.
        taken = bool(reused) or finished.seconds_saved > 0
        for row in finished.rows:
            self._follow(row)
        seconds, self._began = time.perf_counter() - self._began, time.perf_counter()
        shared = sum(layer.shared for layer in finished.counts)
        return {
            "round": finished.round,
            "of": self._asked.rounds,
            # Tickets that stop by themselves have none.
            "target": None if self._asked.stop_before_collapse else self._asked.target,
            "alike": self._alike,
            "sparsity": fmean(self._at.values()),
            "metric": self._aggregate(self._metrics),
            "metrics": dict(self._metrics),
            "loss": fmean(row["loss"] for row in finished.rows),
            "prunable": sum(layer.size for layer in finished.counts),
            "names": names,
            "shared": np.asarray(shared).tolist(),
            "left": [row["group"] for row in finished.rows if row["left"]],
            "alarms": [row["group"] for row in finished.rows if row["alarm"]],
            "steps": self._asked.steps * (len(names) - reused) + (0 if taken else to_rewind),
            "steps_reused": self._asked.steps * reused + (to_rewind if taken else 0),
            "seconds": seconds,
            "reused": list(finished.reused),
            "seconds_saved": finished.seconds_saved,
        }

    def _follow(self, row: Mapping[str, Any]) -> None:
        """A ticket that left keeps its last metric, and the sparsity of its last good round."""
        name = row["group"]
        self._metrics[name] = row["metric"]
        past = self._sparsities.setdefault(name, [0.0])
        past.append(row["achieved"])
        good = row["alarm"]["last_good_round"] if row["left"] and row["alarm"] else -1
        self._at[name] = past[good]


def aggregate_from(aggregate: Any) -> Aggregate:
    """One number of a metric for every group.

    Args:
        aggregate: "mean", "min", "max", or a function of group -> metric.

    Returns:
        The function; what it returns is checked to be a number.

    Raises:
        InvalidArgument: it is something else.

    Example:
        >>> aggregate_from("min")({"a": 0.5, "b": 0.25})
        0.25
    """
    if isinstance(aggregate, str) and aggregate in _AGGREGATES:
        combine = _AGGREGATES[aggregate]
        return lambda metrics: float(combine(list(metrics.values())))
    if isinstance(aggregate, str) or not callable(aggregate):
        raise InvalidArgument(
            f"aggregate must be one of {list(_AGGREGATES)}, or a function of group -> metric, got "
            f"{aggregate!r}"
        )
    return lambda metrics: finite_number("aggregate", aggregate(dict(metrics)))


def finite_number(what: str, value: Any) -> float:
    """A figure that a function of the user's returned, checked.

    Args:
        what: who returned it, for the message.
        value: a number, or a tensor with one.

    Returns:
        It as float.

    Raises:
        InvalidArgument: it is no finite number.

    Example:
        >>> finite_number("aggregate", 1)
        1.0
    """
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InvalidArgument(f"{what} must return a finite number, got {value!r}")
    return float(value)
