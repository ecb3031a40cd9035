"""What a discovery is to do, checked before any training."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from rtl_plugin.arguments import callable_name, whole_number
from rtl_plugin.data_groups import DataGroups
from rtl_plugin.data_groups.loading import known_length, number_of_batches
from rtl_plugin.diagnostics.collapse_rule import CollapseRule
from rtl_plugin.discovery.importance import Importance, describe_importance, importance_from
from rtl_plugin.discovery.keep_top import floor_counts
from rtl_plugin.discovery.measuring import Evaluate, check_evaluate
from rtl_plugin.discovery.round_watch import FinishedRound
from rtl_plugin.discovery.sparsity_schedules import SparsitySchedule, survivors
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.fingerprint import model_structure, model_values, values_fingerprint
from rtl_plugin.optimizers import OptimizerFactory, build_optimizer, describe_optimizer
from rtl_plugin.prunable import Prunable, select_prunable
from rtl_plugin.structure import device_of
from rtl_plugin.training_step import Loss

OnRound: TypeAlias = Callable[[FinishedRound], object]


@dataclass(frozen=True)
class DiscoveryPlan:
    """A checked discovery: model, data, and how many weights each round keeps.

    Args:
        model: the network; discovery leaves it bit-identical.
        groups: the data groups.
        loss: ``loss(model, batch) -> scalar tensor``.
        optimizer: factory, called afresh for every (round, group).
        schedule: the sparsity schedule.
        importance: how weights are ranked.
        steps: optimizer steps of every (round, group), by group name.
        kept: weights that every ticket keeps after round 1, 2, ...
        floors: parameter name -> fewest weights kept.
        masked: names of the prunable parameters.
        rewind_to: dense training steps before the rewind point.
        seed: of every random stream.
        evaluate: metric of a trained ticket on its validation batches, or None.
        rule: what counts as an abrupt change of a ticket's similarity curve.
        stop_before_collapse: whether a ticket whose alarm rings leaves the rounds.
        closing_round: whether the final masks are trained under once more, to measure them.
        on_round: called with every finished round, or None.
    """

    model: nn.Module
    groups: DataGroups
    loss: Loss
    optimizer: OptimizerFactory
    schedule: SparsitySchedule
    importance: Importance
    steps: Mapping[str, int]
    kept: tuple[int, ...]
    floors: Mapping[str, int]
    masked: tuple[str, ...]
    rewind_to: int
    seed: int
    device: torch.device
    evaluate: Evaluate | None
    rule: CollapseRule
    stop_before_collapse: bool
    closing_round: bool
    on_round: OnRound | None

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        sizes = {name: p.numel() for name, p in self.model.named_parameters()}
        return sum(sizes[name] for name in self.masked)

    def arguments(self) -> dict[str, Any]:
        """What a run folder remembers of the call, as JSON-able data."""
        buffers = dict(self.model.named_buffers())
        return {
            "model": model_structure(self.model),
            "theta_0": model_values(self.model),
            "buffers": values_fingerprint(buffers),
            "groups": self.groups.signature(),
            "loss": callable_name(self.loss),
            "prunable": list(self.masked),
            "schedule": self.schedule.description(),
            "importance": describe_importance(self.importance),
            "optimizer": self._described_optimizer(),
            "steps": dict(self.steps),
            "floor": dict(self.floors),
            "rewind_to": self.rewind_to,
            "seed": self.seed,
            "evaluate": self._described_metric(),
            # The rule alone changes no mask, so a folder of before there was one still resumes.
            "stop_before_collapse": self.rule.description() if self.stop_before_collapse else None,
            # The usual says nothing, so that folders of before one could choose still resume.
            "closing_round": None if self.closing_round == (self.evaluate is not None) else False,
        }

    def _described_metric(self) -> dict[str, Any] | None:
        if self.evaluate is None:
            return None
        held_out = {name: group.validation for name, group in self.groups.items()}
        batches = {n: None if v is None else known_length(v) for n, v in held_out.items()}
        return {"metric": callable_name(self.evaluate), "batches": batches}

    def _described_optimizer(self) -> dict[str, Any]:
        leaves = {
            name: parameter.detach().clone().requires_grad_()
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
        required = {name: leaves[name] for name in self.masked}
        return describe_optimizer(*build_optimizer(self.optimizer, list(leaves.values()), required))


def plan_discovery(
    model: nn.Module,
    groups: DataGroups,
    loss: Loss,
    *,
    schedule: SparsitySchedule,
    optimizer: OptimizerFactory,
    steps: int | None,
    epochs: int | None,
    prunable: Prunable,
    importance: str | Importance,
    floor: float,
    rewind_to: int,
    seed: int,
    evaluate: Evaluate | None,
    stop_before_collapse: bool | CollapseRule,
    closing_round: bool | None,
    on_round: OnRound | None,
) -> DiscoveryPlan:
    """Check the arguments of ``discover`` and work out the counts of every round.

    Raises:
        InvalidArgument: an argument is out of range or contradicts another, a round would prune
            nothing, or the target lies below the sum of the floors.
        NothingPrunable: no parameter may be masked.
        InvalidGroups: a group has no batches, or none to evaluate on.
    """
    _check_kinds(groups, loss, schedule)
    whole_number("rewind_to", rewind_to, 0)
    whole_number("seed", seed, 0)
    check_evaluate(evaluate, groups)
    if on_round is not None and not callable(on_round):
        raise InvalidArgument(f"on_round must be callable as on_round(round), got {on_round!r}")
    rule, stops = _rule(stop_before_collapse)
    chosen = select_prunable(model, prunable)
    floors = floor_counts({name: p.shape for name, p in chosen.items()}, floor)
    total = sum(parameter.numel() for parameter in chosen.values())
    kept = _kept_counts(schedule, total, sum(floors.values()))
    if stops:
        _check_can_ring(rule, len(groups), kept, total)
    return DiscoveryPlan(
        model=model,
        groups=groups,
        loss=loss,
        optimizer=optimizer,
        schedule=schedule,
        importance=importance_from(importance),
        steps=_steps(groups, steps, epochs),
        kept=kept,
        floors=floors,
        masked=tuple(chosen),
        rewind_to=rewind_to,
        seed=seed,
        device=device_of(model),
        evaluate=evaluate,
        rule=rule,
        stop_before_collapse=stops,
        closing_round=_closing_round(closing_round, evaluate),
        on_round=on_round,
    )


def _rule(stop: Any) -> tuple[CollapseRule, bool]:
    if isinstance(stop, CollapseRule):
        return stop, True
    if not isinstance(stop, bool):
        raise InvalidArgument(
            f"stop_before_collapse must be True, False or a CollapseRule, got {stop!r}"
        )
    return CollapseRule(), stop


def _closing_round(asked: Any, evaluate: Evaluate | None) -> bool:
    if asked is not None and not isinstance(asked, bool):
        raise InvalidArgument(f"closing_round must be True, False or None, got {asked!r}")
    if asked and evaluate is None:
        raise InvalidArgument("closing_round measures the final masks: give evaluate= too")
    return evaluate is not None if asked is None else asked


def _check_can_ring(rule: CollapseRule, groups: int, kept: tuple[int, ...], total: int) -> None:
    """Refuse to promise a stop that can never come."""
    if groups < 2:
        raise InvalidArgument(
            "stop_before_collapse compares tickets with each other and there is one group: give "
            "at least two, or prune to a fixed sparsity"
        )
    if rule.first_round([count / total for count in kept]) is None:
        raise InvalidArgument(
            f"stop_before_collapse needs rounds to see a change in: {len(kept)} rounds give fewer "
            f"than {rule.warm_up + 1} steps of {rule.window} in the logarithm of the density: use "
            "more rounds, or a smaller window or warm_up in the CollapseRule"
        )


def _check_kinds(groups: Any, loss: Any, schedule: Any) -> None:
    if not isinstance(groups, DataGroups):
        raise InvalidArgument(
            f"groups must be DataGroups, got {type(groups).__name__}: make them with "
            "DataGroups.from_labels, from_metadata, from_clusters or from_loaders"
        )
    if not isinstance(schedule, SparsitySchedule):
        raise InvalidArgument(f"schedule must be a sparsity schedule, got {schedule!r}")
    if not callable(loss):
        raise InvalidArgument(f"loss must be callable as loss(model, batch), got {loss!r}")


def _steps(groups: DataGroups, steps: int | None, epochs: int | None) -> dict[str, int]:
    if (steps is None) == (epochs is None):
        raise InvalidArgument(
            f"give either steps= (optimizer steps a group and round) or epochs=, got steps={steps} "
            f"and epochs={epochs}"
        )
    if steps is not None:
        whole_number("steps", steps, 1)
        return dict.fromkeys(groups, steps)
    whole_number("epochs", epochs, 1)
    assert epochs is not None  # noqa: S101 - one of the two is given, checked above
    return {name: epochs * number_of_batches(group.train) for name, group in groups.items()}


def _kept_counts(schedule: SparsitySchedule, total: int, floors: int) -> tuple[int, ...]:
    rounds = schedule.rounds_for(total)
    counts = [survivors(schedule.sparsity(r, total), total) for r in range(rounds + 1)]
    for number, (before, after) in enumerate(itertools.pairwise(counts), start=1):
        if after >= before:
            raise InvalidArgument(
                f"{schedule!r} prunes nothing in round {number} of {rounds}: {before} of {total} "
                "weights before and after; use fewer rounds or a higher sparsity"
            )
    if counts[-1] < max(floors, 1):
        raise InvalidArgument(
            f"{schedule!r} leaves {counts[-1]} of {total} weights, but the floors of the tensors "
            f"add up to {floors}: lower the sparsity or floor="
        )
    return tuple(counts[1:])
