"""Joint retraining of all tickets on shared weights: Algorithm 2 of the paper."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rtl_plugin.arguments import callable_name, whole_number
from rtl_plugin.data_groups import DataGroups
from rtl_plugin.data_groups.loading import preserved_generators
from rtl_plugin.errors import (
    InvalidArgument,
    InvalidGroups,
    MaskBypassed,
    StructureMismatch,
)
from rtl_plugin.fingerprint import bit_equal, model_structure, model_values
from rtl_plugin.joint_training.compact_training import CompactTraining
from rtl_plugin.joint_training.epoch_checkpoint import load_epoch, save_epoch
from rtl_plugin.joint_training.group_batches import GroupBatches, balanced_length
from rtl_plugin.joint_training.private_parameters import private_names
from rtl_plugin.joint_training.report import RetrainReport
from rtl_plugin.joint_training.shared_training import SharedTraining
from rtl_plugin.modes import set_aside_gradients, train_mode
from rtl_plugin.optimizers import OptimizerFactory, describe_optimizer
from rtl_plugin.progress import Progress
from rtl_plugin.progress.round_lines import figure
from rtl_plugin.run_folder import RunFolder
from rtl_plugin.structure import device_of, install_state, parameters_of
from rtl_plugin.ticket_file import tickets_fingerprint
from rtl_plugin.tickets import TicketSet
from rtl_plugin.training_step import Loss, LossLog, Where


def retrain(
    model: nn.Module,
    tickets: TicketSet,
    groups: DataGroups,
    loss: Loss,
    *,
    epochs: int,
    optimizer: OptimizerFactory,
    private_parameters: Sequence[str] = (),
    own_statistics: bool = True,
    batches_per_epoch: int | None = None,
    allow_other_weights: bool = False,
    seed: int = 0,
    run_folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> RetrainReport:
    """Train all tickets together on the model's shared weights; masks never change.

    Every epoch gives M batches of every group, in turn; a step of ticket k moves nothing outside
    its mask, no moment either. Channel tickets are trained through their small networks, which the
    loss then receives. If anything raises, model and tickets are left as after the last
    finished epoch.

    Args:
        model: the network at the weights the tickets were found from; trained in place. With late
            rewinding it is first set to ``tickets.rewind_state``.
        tickets: one a group, by name; their state is updated in place.
        groups: the data groups.
        loss: ``loss(model, batch) -> scalar tensor``.
        epochs: passes of M batches of every group, M being the largest group's number of batches.
        optimizer: ``params -> optimizer`` or ``params -> (optimizer, lr_scheduler)``, called once
            on the shared parameters (and the private ones); the scheduler is stepped after every
            optimizer step. Clip gradients in a step pre-hook of the optimizer.
        private_parameters: name patterns of unmasked parameters (norm affine, head) of which
            every ticket gets its own.
        own_statistics: False makes all tickets share one set of normalisation statistics; groups
            of different statistics then spoil each other's. For ablations.
        batches_per_epoch: instead of M.
        allow_other_weights: accept a model whose weights are not those the tickets were found from,
            and train on from them (also after late rewinding).
        seed: of every random stream, a whole number.
        run_folder: checkpoint after every epoch; the same call again resumes, and ends
            bit-identical.
        progress: show bars and one line an epoch when standard error is a terminal.

    Returns:
        The mean loss of every (epoch, group).

    Raises:
        InvalidArgument: an argument is out of range or contradicts another.
        InvalidGroups: groups and tickets have different names, or a group has no batches.
        StructureMismatch: the tickets belong to another structure, or to other initial weights.
        UnsupportedOptimizer: the optimizer's update is not element-wise.
        InvalidLoss: the loss is not a scalar, or does not depend on the model.
        TrainingDiverged: a loss is NaN or infinite.
        MaskBypassed: the forward pass reads a weight around its mask.
        RunFolderMismatch: the run folder was made with other arguments.

    Example:
        >>> import torch
        >>> from rtl_plugin import Ticket
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> tickets = TicketSet([Ticket("a", {"0.weight": torch.eye(2).bool()})])
        >>> before = model[0].weight.detach().clone()
        >>> report = retrain(
        ...     model,
        ...     tickets,
        ...     DataGroups.from_loaders({"a": [torch.ones(4, 2)]}),
        ...     lambda model, batch: model(batch).square().mean(),
        ...     epochs=2,
        ...     optimizer=lambda params: torch.optim.AdamW(params, 0.1),
        ... )
        >>> len(report.rows), bool(model[0].weight[0, 1] == before[0, 1])
        (2, True)

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, Algorithm 2.
    """
    settings = _Settings(
        epochs, optimizer, private_parameters, own_statistics, batches_per_epoch, seed
    )
    run = _Retraining(model, tickets, groups, loss, settings)
    folder = RunFolder(run_folder, "retrain") if run_folder is not None else None
    with train_mode(model), set_aside_gradients(model), preserved_generators(groups):
        rows = run.run(folder, allow_other_weights, Progress(progress))
    return RetrainReport(rows, run.length)


@dataclass(frozen=True)
class _Settings:
    epochs: int
    optimizer: OptimizerFactory
    private_parameters: Sequence[str]
    own_statistics: bool
    batches_per_epoch: int | None
    seed: int

    def __post_init__(self) -> None:
        whole_number("epochs", self.epochs, 1)
        whole_number("seed", self.seed, 0)
        if self.batches_per_epoch is not None:
            whole_number("batches_per_epoch", self.batches_per_epoch, 1)


class _Retraining:
    """One call of ``retrain``: checked arguments, the loop over epochs, checkpoints."""

    def __init__(
        self,
        model: nn.Module,
        tickets: TicketSet,
        groups: DataGroups,
        loss: Loss,
        settings: _Settings,
    ) -> None:
        if not isinstance(tickets, TicketSet) or not isinstance(groups, DataGroups):
            raise InvalidArgument("retrain takes a TicketSet and DataGroups, in this order")
        if not callable(loss):
            raise InvalidArgument(f"loss must be callable as loss(model, batch), got {loss!r}")
        if tuple(groups) != tickets.names:
            raise InvalidGroups(
                f"every ticket needs the group of its name, in order: tickets "
                f"{', '.join(tickets)}; groups {', '.join(groups)}"
            )
        tickets.check_fits(model)
        self._model, self._tickets, self._groups, self._loss = model, tickets, groups, loss
        self._settings = settings
        self._device = device_of(model)
        self._private = private_names(model, tickets, settings.private_parameters)
        self.length = settings.batches_per_epoch or balanced_length(groups)

    def run(
        self, folder: RunFolder | None, allow_other_weights: bool, progress: Progress
    ) -> list[dict[str, Any]]:
        """Train the epochs that are left; returns the rows of all."""
        self._remember_weights()
        self._own_buffers = {n: b.detach().clone() for n, b in self._model.named_buffers()}
        try:
            done, rows = self._start(folder, allow_other_weights)
            if done:
                self._finish_epoch()
            for epoch in range(done + 1, self._settings.epochs + 1):
                rows += self._one_epoch(epoch, rows, folder, progress)
        except BaseException:
            install_state(self._model, {**self._finished, **self._own_buffers})
            raise
        if folder is not None and not folder.tickets.exists():
            self._tickets.save(folder.tickets)
        return rows

    def _remember_weights(self) -> None:
        self._finished = {n: p.detach().clone() for n, p in self._model.named_parameters()}

    def _finish_epoch(self) -> None:
        # Fused optimizers, and those that write through .data, leave no trace of their own.
        for parameter in self._model.parameters():
            torch.autograd.graph.increment_version(parameter)
        self._training.publish(self._tickets)
        self._remember_weights()

    def _start(
        self, folder: RunFolder | None, allow_other_weights: bool
    ) -> tuple[int, list[dict[str, Any]]]:
        """Set the model to the start or to the last finished epoch: (epochs done, their rows)."""
        resuming = folder is not None and folder.checkpoint.exists()
        fresh_weights = model_values(self._model)
        if not resuming:
            self._check_theta_0(allow_other_weights)
            if self._tickets.rewind_state is not None and not self._trained_on(fresh_weights):
                install_state(self._model, parameters_of(self._model, self._tickets.rewind_state))
        training = CompactTraining if self._tickets.structured else SharedTraining
        self._training = training(
            self._model,
            self._tickets,
            self._private,
            self._settings.optimizer,
            self._device,
            self._settings.own_statistics,
        )
        if folder is None:
            return 0, []
        folder.open(self._arguments(None if resuming else fresh_weights, folder))
        return load_epoch(folder, self._model, self._training) if resuming else (0, [])

    def _trained_on(self, weights: str) -> bool:
        """Whether the model holds other weights than theta_0, on purpose: they are kept."""
        return self._tickets.theta_0 is not None and self._tickets.theta_0 != weights

    def _check_own_buffers(self, epoch: int) -> None:
        """Tickets train on buffers of their own, so the model's move only behind their back."""
        for name, buffer in self._model.named_buffers():
            if not bit_equal(buffer, self._own_buffers[name]):
                install_state(self._model, self._own_buffers)
                raise MaskBypassed(
                    f"retrain, epoch {epoch}: the loss ran the model itself (its own {name!r} "
                    "changed), not the one it is given, so without masks and private statistics: "
                    "call the model that the loss receives"
                )

    def _check_theta_0(self, allow_other_weights: bool) -> None:
        expected = self._tickets.theta_0
        if expected is None or allow_other_weights or expected == model_values(self._model):
            return
        raise StructureMismatch(
            "the model's weights are not those the tickets were found from (theta_0 differs): "
            "build it with the same seed, load its initial weights, or pass "
            "allow_other_weights=True to retrain from other weights on purpose"
        )

    def _arguments(self, weights: str | None, folder: RunFolder) -> dict[str, Any]:
        if weights is None:  # resumed: the model may hold any weights, the checkpoint has the right
            weights = folder.read_json(folder.arguments).get("weights")
        return {
            "model": model_structure(self._model),
            "weights": weights,
            "tickets": tickets_fingerprint(self._tickets.to_file()),
            "groups": self._groups.signature(),
            "loss": callable_name(self._loss),
            "optimizer": describe_optimizer(self._training.optimizer, self._training.scheduler),
            "private_parameters": list(self._private),
            "own_statistics": self._settings.own_statistics,
            "epochs": self._settings.epochs,
            "batches_per_epoch": self.length,
            "seed": self._settings.seed,
        }

    def _one_epoch(
        self,
        epoch: int,
        earlier: list[dict[str, Any]],
        folder: RunFolder | None,
        progress: Progress,
    ) -> list[dict[str, Any]]:
        began = time.perf_counter()
        losses = self._train(epoch, progress)
        self._training.check_finite(f"retrain, epoch {epoch}")
        self._check_own_buffers(epoch)
        self._finish_epoch()
        rows = [{"epoch": epoch, "group": name, "loss": losses[name]} for name in losses]
        seconds = time.perf_counter() - began
        shown = ", ".join(f"{name} {figure(value)}" for name, value in losses.items())
        progress.say(f"epoch {epoch}/{self._settings.epochs}: loss {shown}, {seconds:.1f} s")
        if folder is not None:
            save_epoch(folder, self._model, self._training, epoch, earlier + rows)
            folder.log("epoch", epoch=epoch, losses=losses, seconds=seconds)
        return rows

    def _train(self, epoch: int, progress: Progress) -> dict[str, float]:
        batches = {
            name: GroupBatches(self._groups, name, self._settings.seed, epoch)
            for name in self._groups
        }
        wheres = {name: Where("retrain", name, "epoch", epoch) for name in self._groups}
        logs = {name: LossLog(wheres[name]) for name in self._groups}
        for index in progress.track(range(self.length), f"epoch {epoch}"):
            for name, group in batches.items():
                with group.stream:
                    self._train_one(name, group.next(), wheres[name], logs[name], index == 0)
        return {name: log.mean() for name, log in logs.items()}

    def _train_one(self, name: str, batch: Any, where: Where, log: LossLog, look: bool) -> None:
        value = self._training.backward(name, batch, self._loss, where)
        log.record(value)  # before the step, so that on a CPU a NaN never reaches a weight
        self._training.apply(name, where, look)
