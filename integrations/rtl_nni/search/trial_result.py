"""What a trial ends with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from rtl_nni.search.collapse_stop import StopVerdict
from rtl_plugin.integration_api import TicketSet


@dataclass(frozen=True)
class TrialResult:
    """One trial's figures, and what it found.

    Args:
        metric: the aggregated metric on the validation batches after retraining; None where the
            trial was stopped.
        metrics: the same, group -> metric; empty where it was stopped.
        intermediate: the aggregated metric of every finished round.
        sparsity: mean of the tickets, in [0, 1).
        parameters: masked weights that at least one ticket keeps (the union).
        measured: name -> figure, what ``measure`` found.
        steps_planned: optimizer steps that the whole trial would take.
        steps_done: optimizer steps that it took.
        seconds: it took.
        seconds_saved: that rounds of other trials had taken, which it did not repeat.
        stopped: why it was stopped, or None.
        tickets: the retrained tickets; None where it was stopped.
        model: the retrained network; None where it was stopped.

    Example:
        >>> TrialResult(0.9, {"a": 0.9}, (0.8,), 0.5, 10, {}, 100, 100, 1.0).stopped is None
        True
    """

    metric: float | None
    metrics: Mapping[str, float]
    intermediate: tuple[float, ...]
    sparsity: float
    parameters: int | None
    measured: Mapping[str, float]
    steps_planned: int
    steps_done: int
    seconds: float
    seconds_saved: float = 0.0
    stopped: StopVerdict | None = None
    tickets: TicketSet | None = field(default=None, repr=False)
    model: nn.Module | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON-able data, without tickets and model."""
        return {
            "metric": self.metric,
            "metrics": dict(self.metrics),
            "intermediate": list(self.intermediate),
            "sparsity": self.sparsity,
            "parameters": self.parameters,
            "measured": dict(self.measured),
            "steps_planned": self.steps_planned,
            "steps_done": self.steps_done,
            "seconds": self.seconds,
            "seconds_saved": self.seconds_saved,
            "stopped": None if self.stopped is None else self.stopped.to_json(),
        }
