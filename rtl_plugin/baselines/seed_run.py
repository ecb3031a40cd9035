"""One seed of a comparison: fresh models, and discoveries that several methods share."""

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from rtl_plugin.baselines.settings import BuildModel, SingleModel, TrainingSettings, stage_folder
from rtl_plugin.data_groups import DataGroups
from rtl_plugin.discovery import discover
from rtl_plugin.discovery.importance import Random
from rtl_plugin.discovery.keep_top import floor_counts, keep_top
from rtl_plugin.discovery.sparsity_schedules import survivors
from rtl_plugin.fingerprint import model_structure, model_values
from rtl_plugin.joint_training import retrain
from rtl_plugin.joint_training.group_batches import balanced_length
from rtl_plugin.prunable import select_prunable
from rtl_plugin.randomness import derived_seed, forked
from rtl_plugin.structure import persistent_buffers
from rtl_plugin.tickets import Ticket, TicketSet
from rtl_plugin.training_step import Loss


class SeedRun:
    """Everything that the methods of one seed train from.

    Args:
        build_model: ``seed -> nn.Module``; called afresh for every training.
        groups: the data groups.
        loss: for tickets and independent models.
        settings: what every method shares.
        seed: of initialisation and training.
        root: where to checkpoint, or None.
        single: model and loss of the single-model methods, where they differ.
    """

    def __init__(
        self,
        build_model: BuildModel,
        groups: DataGroups,
        loss: Loss,
        settings: TrainingSettings,
        seed: int,
        root: Path | None = None,
        single: SingleModel | None = None,
    ) -> None:
        self.groups, self.loss, self.settings, self.seed = groups, loss, settings, seed
        self.build_model, self._root = build_model, root
        self.single = single or SingleModel(build_model, loss)
        self.has_own_single_model = single is not None

    def model(self, *, single: bool = False) -> nn.Module:
        """A fresh model at this seed's initialisation."""
        build = self.single.build_model if single else self.build_model
        with forked(derived_seed(self.seed, "build")):
            return build(self.seed)

    @cached_property
    def pooled(self) -> DataGroups:
        """All groups' data as one group."""
        return self.groups.pooled()

    @cached_property
    def adaptive_tickets(self) -> TicketSet:
        """One ticket a group; independent models have the same masks, since discovery is apart."""
        return self._discover(self.model(), self.groups, self.loss, self.settings.steps, "adaptive")

    @cached_property
    def pooled_ticket(self) -> TicketSet:
        """One ticket for all data, found with as many samples as all groups' tickets together."""
        steps = self.settings.steps * len(self.groups)
        loss = self.single.loss
        return self._discover(self.model(single=True), self.pooled, loss, steps, "pooled")

    def _discover(
        self, model: nn.Module, groups: DataGroups, loss: Loss, steps: int, name: str
    ) -> TicketSet:
        settings = self.settings
        return discover(
            model, groups, loss, schedule=settings.schedule, optimizer=settings.optimizer,
            steps=steps, prunable=settings.prunable, importance=settings.importance,
            floor=settings.floor, rewind_to=settings.rewind_to, seed=self.seed,
            run_folder=stage_folder(self._root, f"seed-{self.seed}", f"discover-{name}"),
            progress=settings.progress,
        )  # fmt: skip

    def retrain_tickets(
        self,
        tickets: TicketSet,
        name: str,
        *,
        own_statistics: bool = True,
        discovered: bool = True,
    ) -> tuple[nn.Module, TicketSet]:
        """Retrain tickets jointly on a fresh model: the trained model and tickets."""
        model, tickets = self.model(), _copied(tickets)
        private = self.settings.private_parameters
        batches = self._batches(discovered)
        self._retrain(
            model, tickets, self.groups, self.loss, name, batches, private, own_statistics
        )
        return model, tickets

    def retrain_single(
        self, ticket: TicketSet, name: str, *, discovered: bool = True
    ) -> tuple[nn.Module, TicketSet]:
        """Retrain the single model under one ticket on all data."""
        model, ticket = self.model(single=True), _copied(ticket)
        batches = len(self.groups) * self._batches(discovered)
        self._retrain(model, ticket, self.pooled, self.single.loss, name, batches, (), True)
        return model, ticket

    def _batches(self, discovered: bool) -> int:
        """Batches of every group in an epoch; without a discovery, its share comes on top."""
        batches = balanced_length(self.groups)
        if discovered:
            return batches
        chosen = select_prunable(self.model(), self.settings.prunable)
        rounds = self.settings.schedule.rounds_for(sum(p.numel() for p in chosen.values()))
        spared = rounds * self.settings.steps + math.ceil(
            self.settings.rewind_to / len(self.groups)
        )
        return batches + math.ceil(spared / self.settings.epochs)

    def retrain_alone(self, tickets: TicketSet, group: str) -> tuple[nn.Module, TicketSet]:
        """Retrain one group's ticket on a model that nobody shares."""
        model = self.model()
        content = tickets.to_file()
        chosen = [record for record in content.tickets if record.name == group]
        alone = TicketSet.from_file(dataclasses.replace(content, tickets=chosen))
        alone = _copied(alone)
        batches = balanced_length(self.groups)
        name = f"independent-{list(self.groups).index(group):04d}"
        self._retrain(model, alone, self.groups.only(group), self.loss, name, batches, (), True)
        return model, alone

    def _retrain(
        self,
        model: nn.Module,
        tickets: TicketSet,
        groups: DataGroups,
        loss: Loss,
        name: str,
        batches: int | None,
        private: Sequence[str],
        own_statistics: bool,
    ) -> None:
        retrain(
            model, tickets, groups, loss, epochs=self.settings.epochs,
            optimizer=self.settings.optimizer, private_parameters=private,
            own_statistics=own_statistics, batches_per_epoch=batches, seed=self.seed,
            run_folder=stage_folder(self._root, f"seed-{self.seed}", f"retrain-{name}"),
            progress=self.settings.progress,
        )  # fmt: skip

    def full_ticket(self) -> TicketSet:
        """One ticket that keeps everything: the dense model."""
        model = self.model(single=True)
        chosen = select_prunable(model, self.settings.prunable)
        masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in chosen.items()}
        return _ticket_set(model, {"all": masks}, None)

    def shared_mask_tickets(self) -> TicketSet:
        """The pooled ticket's mask for every group, each with statistics of its own."""
        pooled = next(iter(self.pooled_ticket.values()))
        masks = {name: dict(pooled.masks) for name in self.groups}
        return _ticket_set(self.model(), masks, self.pooled_ticket.rewind_state)

    def random_tickets(self) -> TicketSet:
        """Random masks of the schedule's final sparsity, with the same floors, one a group."""
        chosen = select_prunable(self.model(), self.settings.prunable)
        floors = floor_counts({n: p.shape for n, p in chosen.items()}, self.settings.floor)
        count = survivors(self.settings.schedule.target, sum(p.numel() for p in chosen.values()))
        masks = {}
        for name in self.groups:
            with forked(derived_seed(self.seed, "random ticket", name)):
                scores = Random().scores(chosen, {})
            alive = {n: torch.ones_like(p, dtype=torch.bool) for n, p in chosen.items()}
            masks[name] = keep_top(scores, alive, count, floors).masks
        return _ticket_set(self.model(), masks, None)


def _ticket_set(
    model: nn.Module,
    masks: dict[str, dict[str, torch.Tensor]],
    rewind_state: dict[str, torch.Tensor] | None,
) -> TicketSet:
    buffers = persistent_buffers(model)
    own = buffers if rewind_state is None else {name: rewind_state[name] for name in buffers}
    return TicketSet(
        [
            Ticket(name, of_group, {n: value.detach().clone() for n, value in own.items()})
            for name, of_group in masks.items()
        ],
        structure=model_structure(model),
        theta_0=model_values(model),
        rewind_state=rewind_state,
    )


def _copied(tickets: TicketSet) -> TicketSet:
    """The same masks with state that retraining may update."""
    content = tickets.to_file()
    records = [
        dataclasses.replace(r, state={n: v.clone() for n, v in r.state.items()})
        for r in content.tickets
    ]
    return TicketSet.from_file(dataclasses.replace(content, tickets=records))
