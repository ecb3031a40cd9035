"""How one round is trained: each group from the rewind point, under its own ticket."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from rtl_plugin.data_groups.cycling import cycled
from rtl_plugin.data_groups.loading import number_of_batches
from rtl_plugin.discovery.importance import checked_scores
from rtl_plugin.discovery.measuring import HeldOutBatches, measured
from rtl_plugin.discovery.plan import DiscoveryPlan
from rtl_plugin.discovery.rewinding import RewindPoint, verify_rewind
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.masked_forward import (
    MaskedModel,
    TensorSlots,
    mask_parameters,
    masked_backward,
)
from rtl_plugin.nested import to_device
from rtl_plugin.optimizers import build_optimizer
from rtl_plugin.progress import RoundsView
from rtl_plugin.randomness import derived_seed, forked
from rtl_plugin.training_step import (
    LossLog,
    Where,
    check_finite,
    check_gradients,
    check_model_unused,
    checked_loss,
)

Masks: TypeAlias = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Trained:
    """What a backend reports of one (round, group).

    Args:
        scores: prunable parameter name -> importance of its trained weights.
        loss: mean training loss.
        metric: what ``evaluate`` says of the trained ticket; None where nobody asked.
    """

    scores: Mapping[str, torch.Tensor]
    loss: float
    metric: float | None = None


Backend: TypeAlias = Callable[
    [DiscoveryPlan, RewindPoint, Mapping[str, Masks], int, RoundsView],
    Iterator[tuple[str, Trained]],
]


def sequential(
    plan: DiscoveryPlan,
    point: RewindPoint,
    masks: Mapping[str, Masks],
    round: int,
    progress: RoundsView,
) -> Iterator[tuple[str, Trained]]:
    """The reference backend: one group after the other.

    Args:
        plan: the checked discovery.
        point: where every group starts from.
        masks: group -> the masks it trains under; groups already done are left out.
        round: counted from 1.
        progress: shows the steps.

    Returns:
        Pairs of group and result, as they are finished.
    """
    for group, alive in masks.items():
        with forked(derived_seed(plan.seed, "discover", round, group)):
            run = _GroupRun(plan, point, alive, Where("discover", group, "round", round))
            trained = run.train(progress)
        yield group, trained  # outside the fork, whose end must not wait for the caller


class _GroupRun:
    """One group's training of one round, on leaves that nobody else holds."""

    def __init__(self, plan: DiscoveryPlan, point: RewindPoint, masks: Masks, where: Where) -> None:
        self._plan = plan
        self._masks = masks
        self._where = where
        self._leaves = point.leaves()
        self._buffers = point.own_buffers()
        self._slots = TensorSlots(plan.model)
        theta_0 = dict(plan.model.named_parameters()) if point.step == 0 else None
        verify_rewind(point, self._leaves, masks, theta_0, where)
        trainable = [leaf for leaf in self._leaves.values() if leaf.requires_grad]
        prunable = {name: self._leaves[name] for name in plan.masked}
        self._optimizer, self._scheduler = build_optimizer(plan.optimizer, trainable, prunable)
        loader = plan.groups[where.group].train
        seed = derived_seed(plan.seed, "loader", where.number, where.group)
        self._loader = loader
        self._batches = cycled(loader, seed)

    def train(self, progress: RoundsView) -> Trained:
        """Train this round's steps and score the prunable weights."""
        log = LossLog(self._where)
        steps = self._plan.steps[self._where.group]
        for step in progress.track(range(steps), self._where.group, self._where.number):
            log.record(self._backward(look=step == 0))
            self._optimizer.step()
            if self._scheduler is not None:
                self._scheduler.step()
            self._optimizer.zero_grad(set_to_none=True)
        loss = log.mean()
        trained = {name: leaf for name, leaf in self._leaves.items() if leaf.requires_grad}
        check_finite(trained, f"{self._where}, step {steps}")
        metric = self._metric()  # before the scores, which may pass more training batches
        return Trained(self._scores(), loss, metric)

    def _metric(self) -> float | None:
        if self._plan.evaluate is None:
            return None
        # Copies and random streams of its own: a metric must not change what is pruned.
        buffers = {name: buffer.clone() for name, buffer in self._buffers.items()}
        leaves = {name: leaf.detach().clone() for name, leaf in self._leaves.items()}
        masked = mask_parameters(leaves, self._masks)
        return evaluated(self._plan, self._slots, masked, buffers, self._where)

    def _backward(self, look: bool) -> torch.Tensor:
        batch = to_device(next(self._batches), self._plan.device)
        masked = mask_parameters(self._leaves, self._masks)
        view = MaskedModel(self._plan.model, self._slots, masked, self._buffers)
        loss = checked_loss(self._plan.loss, view, batch, self._where)
        masked_backward(view, loss)
        if look:
            check_model_unused(self._plan.model, self._where)
            check_gradients(self._leaves, self._masks, self._where)
        return loss.detach()

    def _scores(self) -> dict[str, torch.Tensor]:
        gradients = self._gradients() if self._plan.importance.needs_gradients else {}
        values = {name: self._leaves[name].detach() for name in self._plan.masked}
        return checked_scores(self._plan.importance, values, gradients)

    def _gradients(self) -> dict[str, torch.Tensor]:
        """Mean gradient over one pass of the group's batches; zero where there was none."""
        count = number_of_batches(self._loader)
        # Training may have stopped in the middle of a pass; a mean over one needs a new one.
        seed = derived_seed(self._plan.seed, "importance", self._where.number, self._where.group)
        self._batches = cycled(self._loader, seed)
        log = LossLog(self._where)
        for _ in itertools.repeat(None, count):
            log.record(self._backward(look=False))
        log.mean()
        result = {}
        for name in self._plan.masked:
            leaf = self._leaves[name]
            result[name] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad / count
        return result


def evaluated(
    plan: DiscoveryPlan,
    slots: TensorSlots,
    masked: dict[str, torch.Tensor],
    buffers: dict[str, torch.Tensor],
    where: Where,
) -> float:
    """What the plan's metric says of a network.

    Args:
        plan: the checked discovery, with a metric.
        slots: the model's.
        masked: parameter name -> value; may be written to.
        buffers: buffer name -> value; may be written to.
        where: the group to measure on, and for messages.

    Returns:
        A finite number.

    Raises:
        InvalidArgument: the metric is none.
    """
    assert plan.evaluate is not None  # noqa: S101 - callers have looked
    loader = plan.groups[where.group].validation or ()
    seed = derived_seed(plan.seed, "evaluate", where.number, where.group)
    batches = HeldOutBatches(loader, plan.device, seed)
    view = MaskedModel(plan.model, slots, masked, buffers)
    return measured(plan.evaluate, plan.model, view, batches, where)


def rehearse_evaluate(plan: DiscoveryPlan, point: RewindPoint) -> dict[str, float]:
    """Measure the dense rewind point once a group, so that a metric fails before any training.

    Args:
        plan: the checked discovery.
        point: the rewind point.

    Returns:
        Group -> its metric; empty where there is none.

    Raises:
        InvalidArgument: the metric is no finite number.
    """
    if plan.evaluate is None:
        return {}
    slots, found = TensorSlots(plan.model), {}
    for group in plan.groups:
        values = {name: value.clone() for name, value in point.parameters.items()}
        where = Where("evaluate", group, "round", 0)
        found[group] = evaluated(plan, slots, values, point.own_buffers(), where)
    return found


_BACKENDS: dict[str, Backend] = {"sequential": sequential}


def backend_named(name: str) -> Backend:
    """The backend of a name.

    Args:
        name: ``"auto"`` or ``"sequential"``; auto is sequential.

    Returns:
        The backend.

    Raises:
        InvalidArgument: there is no such backend.

    Example:
        >>> backend_named("auto") is sequential
        True
    """
    if name != "auto" and name not in _BACKENDS:
        raise InvalidArgument(f"unknown backend {name!r}: one of auto, {', '.join(_BACKENDS)}")
    return _BACKENDS["sequential" if name == "auto" else name]
