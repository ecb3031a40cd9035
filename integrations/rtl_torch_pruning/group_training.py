"""Training one group's small network from theta_0, and the gradients that importances read."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from rtl_plugin.integration_api import (
    ChannelPlan,
    DataGroup,
    DataGroups,
    InvalidArgument,
    InvalidLoss,
    Loss,
    LossLog,
    OptimizerFactory,
    RewindFailed,
    RewindPoint,
    StructureMismatch,
    Untouched,
    Where,
    bit_equal,
    build_optimizer,
    check_finite,
    check_model_unused,
    checked_loss,
    compact_with,
    cycled,
    derived_seed,
    device_of,
    number_of_batches,
    preserved_generators,
    set_aside_gradients,
    to_device,
    train_mode,
    whole_number,
)

Train: TypeAlias = Callable[[nn.Module, DataGroup, int], Any]


@dataclass(frozen=True)
class TrainingSettings:
    """How a group is trained before its channels are ranked.

    Args:
        loss: ``loss(model, batch) -> scalar tensor``, or None where nothing needs one.
        steps: optimizer steps, or None with ``train``; 0 ranks theta_0 itself.
        optimizer: ``params -> optimizer`` or a pair of it and a scheduler.
        train: the user's own loop ``train(network, group, round)``.
        gradients: the importance reads gradients.
        squared: as mean squares.
        seed: of every random stream.

    Raises:
        InvalidArgument: settings are missing or contradict each other.
    """

    loss: Loss | None
    steps: int | None
    optimizer: OptimizerFactory | None
    train: Train | None
    gradients: bool
    squared: bool
    seed: int

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.train is None):
            raise InvalidArgument(
                "say how a group is trained before its channels are ranked: either steps= (with "
                "loss= and optimizer=) or train=, your own loop train(network, group, round); "
                f"steps=0 ranks the weights as they are; got steps={self.steps}, "
                f"train={self.train}"
            )
        if self.steps is not None:
            whole_number("steps", self.steps, 0)
        trained_here = bool(self.steps)
        if trained_here and not (callable(self.optimizer) and callable(self.loss)):
            raise InvalidArgument(
                f"steps={self.steps} needs loss=, a callable loss(model, batch), and optimizer=, a "
                f"callable params -> optimizer, got loss={self.loss!r} and "
                f"optimizer={self.optimizer!r}"
            )
        if not trained_here and self.optimizer is not None:
            raise InvalidArgument("optimizer= is used with steps= of at least 1 only: leave it out")
        if self.train is not None and not callable(self.train):
            raise InvalidArgument(f"train must be callable, got {self.train!r}")
        if self.gradients and not callable(self.loss):
            raise InvalidArgument(
                "this importance reads gradients over the group's batches, so it needs loss=, a "
                "callable loss(model, batch) -> scalar tensor"
            )


@dataclass(frozen=True)
class Ranked:
    """What the host's importance looks at.

    Args:
        values: the trained small network's parameters and buffers, by name.
        gradients: parameter name -> gradient; empty where none are read.
        loss: mean training loss, or None.
        batches: number of batches that the gradients are the mean over.
    """

    values: Mapping[str, torch.Tensor]
    gradients: Mapping[str, torch.Tensor]
    loss: float | None
    batches: int


@contextmanager
def left_alone(
    model: nn.Module, groups: DataGroups, point: RewindPoint, where: Where
) -> Iterator[None]:
    """Leave a model and its groups' loaders as they were, and refuse a loss that writes to it.

    Args:
        model: the shared network.
        groups: all groups.
        point: theta_0, which the model holds.
        where: for the message.

    Raises:
        RewindFailed: something was written to; the model is put back.
    """
    with (
        train_mode(model),
        set_aside_gradients(model),
        preserved_generators(groups),
        Untouched(model, point) as untouched,
    ):
        yield
        untouched.check(where)


def trained_group(
    model: nn.Module,
    point: RewindPoint,
    plan: ChannelPlan | None,
    group: DataGroup,
    where: Where,
    settings: TrainingSettings,
) -> Ranked:
    """Train a group's small network from theta_0, on its own data alone.

    Args:
        model: the shared network, left as it is.
        point: theta_0.
        plan: of the group's ticket so far, None before the first cut.
        group: its data.
        where: the group's name and the round.
        settings: how.

    Returns:
        Trained values, and gradients where the importance reads them.

    Raises:
        RewindFailed: the small network does not start from theta_0.
        InvalidLoss: the loss is not a scalar, or does not depend on the network it is given.
        TrainingDiverged: a loss or a weight is NaN or infinite.
        InvalidArgument: ``train`` moved nothing.
    """
    small = compact_with(model, plan, {})
    _verify_rewind(small, point, plan, where)
    loss = None
    if settings.train is not None:
        _train_by_user(small, group, where, settings.train)
    elif settings.steps:
        loss = _train(model, small, group, where, settings)
    gradients: dict[str, torch.Tensor] = {}
    batches = 0
    if settings.gradients:
        gradients, batches = _gradients(model, small, group, where, settings)
    check_finite({n: p for n, p in small.named_parameters() if p.requires_grad}, where)
    values = {n: p.detach() for n, p in small.named_parameters()} | dict(small.named_buffers())
    return Ranked(values, gradients, loss, batches)


def _verify_rewind(
    small: nn.Module, point: RewindPoint, plan: ChannelPlan | None, where: Where
) -> None:
    maps = plan.maps if plan is not None else {}
    for name, parameter in small.named_parameters():
        source = point.parameters[name]
        expected = maps[name].gather(source) if name in maps else source
        if not bit_equal(parameter.detach(), expected):
            raise RewindFailed(f"{where}: after the rewind {name!r} differs from theta_0")


def _train(
    model: nn.Module, small: nn.Module, group: DataGroup, where: Where, settings: TrainingSettings
) -> float:
    small.train()
    trainable = [p for p in small.parameters() if p.requires_grad]
    assert settings.optimizer is not None  # noqa: S101 - TrainingSettings has seen to it
    optimizer, scheduler = build_optimizer(settings.optimizer, trainable, {})
    log = LossLog(where)
    batches = cycled(group.train, derived_seed(settings.seed, "loader", where.number, where.group))
    for step in range(settings.steps or 0):
        log.record(_backward(model, small, next(batches), where, settings, look=step == 0))
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        optimizer.zero_grad(set_to_none=True)
    return log.mean()


def _backward(
    model: nn.Module,
    small: nn.Module,
    batch: Any,
    where: Where,
    settings: TrainingSettings,
    look: bool,
) -> torch.Tensor:
    assert settings.loss is not None  # noqa: S101 - TrainingSettings has seen to it
    value = checked_loss(settings.loss, small, to_device(batch, device_of(model)), where)
    value.backward()
    if look:
        check_model_unused(model, where)
        if all(parameter.grad is None for parameter in small.parameters()):
            raise InvalidLoss(
                f"{where}: no parameter of the network received a gradient: compute the loss from "
                "the model that it is given"
            )
    return value.detach()


def _train_by_user(small: nn.Module, group: DataGroup, where: Where, train: Train) -> None:
    before = {name: p.detach().clone() for name, p in small.named_parameters()}
    small.train()
    train(small, group, where.number)
    after = dict(small.named_parameters())
    if {n: p.shape for n, p in after.items()} != {n: p.shape for n, p in before.items()}:
        raise StructureMismatch(
            f"{where}: train= changed names or shapes of the network's parameters: train it in "
            "place and leave its structure alone"
        )
    if all(bit_equal(after[name].detach(), value) for name, value in before.items()):
        raise InvalidArgument(
            f"{where}: train= left every parameter as it was: it must train the network that it is "
            "given, in place; pass steps=0 instead to rank the weights as they are"
        )


def _gradients(
    model: nn.Module, small: nn.Module, group: DataGroup, where: Where, settings: TrainingSettings
) -> tuple[dict[str, torch.Tensor], int]:
    """Mean gradient (or mean square of it) over one pass of the group's batches; zero if none."""
    small.train()
    count = number_of_batches(group.train)
    seed = derived_seed(settings.seed, "importance", where.number, where.group)
    log = LossLog(where)
    sums = {name: torch.zeros_like(p) for name, p in small.named_parameters()}
    for position, batch in enumerate(itertools.islice(cycled(group.train, seed), count)):
        small.zero_grad(set_to_none=True)
        log.record(_backward(model, small, batch, where, settings, look=position == 0))
        for name, parameter in small.named_parameters():
            if parameter.grad is not None:
                gradient = parameter.grad
                sums[name] += gradient.square() if settings.squared else gradient
    log.mean()
    small.zero_grad(set_to_none=True)
    return {name: total / count for name, total in sums.items()}, count
