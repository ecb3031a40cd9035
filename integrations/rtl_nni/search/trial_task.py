"""What a trial does with one network: discover, retrain, measure; all its arguments fixed."""

from dataclasses import dataclass

from torch import nn

from rtl_nni.search.parameters import TrialParameters
from rtl_nni.search.round_log import RoundLog
from rtl_nni.search.trial_folder import TrialFolder
from rtl_plugin.integration_api import (
    DataGroups,
    Evaluate,
    HeldOutBatches,
    Loss,
    MixtureOfMasks,
    OptimizerFactory,
    Prunable,
    TicketSet,
    WarmStart,
    balanced_length,
    derived_seed,
    device_of,
    discover,
    measured,
    retrain,
)


@dataclass(frozen=True)
class TrialTask:
    """A trial's network and data, and what was asked of it.

    Args:
        model: at its initialisation; retraining changes it.
        groups: all with validation batches.
        loss: ``loss(model, batch) -> scalar tensor``.
        evaluate: ``evaluate(model, batches) -> float``.
        optimizer: the factory.
        prunable: which parameters may be masked.
        asked: the trial's parameters.
    """

    model: nn.Module
    groups: DataGroups
    loss: Loss
    evaluate: Evaluate
    optimizer: OptimizerFactory
    prunable: Prunable
    asked: TrialParameters

    @property
    def retraining_steps(self) -> int:
        """Optimizer steps of the whole retraining."""
        return self.asked.epochs * balanced_length(self.groups) * len(self.groups)

    @property
    def steps_planned(self) -> int:
        """Optimizer steps of the whole trial."""
        rounds = self.asked.rounds * self.asked.steps * len(self.groups)
        return self.asked.rewind_to + rounds + self.retraining_steps

    def discover(
        self,
        log: RoundLog,
        files: TrialFolder | None,
        warm_start: WarmStart | None,
        progress: bool | str,
    ) -> TicketSet:
        """Find the tickets.

        Args:
            log: is called with every round.
            files: the trial's, or None.
            warm_start: where other trials' rounds lie, or None.
            progress: as in the core's ``discover``.

        Returns:
            One ticket a group.
        """
        asked = self.asked
        return discover(
            self.model, self.groups, self.loss, schedule=asked.as_schedule(), steps=asked.steps,
            optimizer=self.optimizer, prunable=self.prunable, rewind_to=asked.rewind_to,
            importance=asked.importance, floor=asked.floor, seed=asked.seed,
            evaluate=self.evaluate, closing_round=False, on_round=log,
            stop_before_collapse=asked.stop_before_collapse, warm_start=warm_start,
            run_folder=None if files is None else files.run, progress=progress,
        )  # fmt: skip

    def retrain(self, tickets: TicketSet, files: TrialFolder | None, progress: bool | str) -> None:
        """Train the tickets jointly, in place.

        Args:
            tickets: the discovered ones.
            files: the trial's, or None.
            progress: whether bars may show.
        """
        asked = self.asked
        retrain(
            self.model, tickets, self.groups, self.loss, epochs=asked.epochs,
            optimizer=self.optimizer, private_parameters=asked.private_parameters,
            seed=asked.seed, run_folder=None if files is None else files.run,
            progress=bool(progress),
        )  # fmt: skip

    def metrics(self, mixture: MixtureOfMasks) -> dict[str, float]:
        """The metric of every ticket on its group's validation batches.

        Args:
            mixture: the retrained tickets on the model.

        Returns:
            Group -> metric, finite.
        """
        found = {}
        for name, group in self.groups.items():
            plain = mixture.export(name)
            seed = derived_seed(self.asked.seed, "trial", name)
            batches = HeldOutBatches(group.validation or (), device_of(self.model), seed)
            found[name] = measured(self.evaluate, plain, plain, batches, f"group {name!r}")
        return found
