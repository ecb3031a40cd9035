"""Each ticket's mean gradient on its own group, at the weights as they are."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from rtl_plugin.compact_network import compact_with
from rtl_plugin.data_groups import DataGroups
from rtl_plugin.data_groups.loading import fresh_iterator, preserved_generators
from rtl_plugin.discovery.rewinding import RewindPoint, Untouched
from rtl_plugin.errors import (
    InvalidArgument,
    InvalidGroups,
    InvalidLoss,
    MaskBypassed,
    RewindFailed,
    TrainingDiverged,
)
from rtl_plugin.joint_training.private_parameters import private_names
from rtl_plugin.masked_forward import (
    MaskedModel,
    TensorSlots,
    mask_parameters,
    masked_backward,
)
from rtl_plugin.modes import set_aside_gradients, train_mode
from rtl_plugin.nested import to_device
from rtl_plugin.randomness import derived_seed, forked
from rtl_plugin.structure import device_of
from rtl_plugin.tickets import Ticket, TicketSet
from rtl_plugin.training_step import (
    Loss,
    LossLog,
    Where,
    check_gradients,
    check_model_unused,
    checked_loss,
)

Tensors = dict[str, torch.Tensor]
# Gradients of one batch's loss by parameter name, of shared size.
Backward = Callable[[Any], Mapping[str, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class MeanGradient:
    """A ticket's gradient, averaged over batches of its group.

    Args:
        masked: masked parameter name -> gradient [kept] at the weights that the ticket keeps, in
            the order of their flat positions; on the CPU, float32 or wider.
        dense: name of a parameter that all tickets share whole -> gradient of its shape.
        loss: mean loss of the same batches.
        batches: how many there were.
    """

    masked: Tensors
    dense: Tensors
    loss: float
    batches: int


@dataclass(frozen=True)
class Sampling:
    """Which batches gradients are averaged over.

    Args:
        batches: of every group, at least 1; a loader that has fewer gives all of its own.
        seed: of every random stream.
        split: ``"train"``, ``"validation"`` or ``"test"``.
    """

    batches: int
    seed: int
    split: str


def mean_gradients(
    model: nn.Module, tickets: TicketSet, groups: DataGroups, loss: Loss, sampling: Sampling
) -> dict[str, MeanGradient]:
    """Gradients of every group's loss under its ticket, as ``retrain`` would compute them.

    In train mode, under the ticket's own buffers and private parameters, which stay as they are.
    Batches are averaged in float64: single gradients cancel to a small mean, and what is lost then
    would be lost from the sign of a conflict.

    Args:
        model: the network, left bit-identical.
        tickets: one a group, by name.
        groups: the data groups.
        loss: ``loss(model, batch) -> scalar tensor``.
        sampling: which batches.

    Returns:
        Ticket name -> its mean gradient, in the order of the tickets.

    Raises:
        StructureMismatch: the tickets do not fit the model.
        InvalidGroups: a group has no such split, or no batches.
        InvalidLoss: the loss is not a scalar, or does not depend on the masked weights.
        TrainingDiverged: a loss or a gradient is not finite.
        MaskBypassed: the forward pass reads a weight around its mask, or the loss writes to the
            model.
    """
    tickets.check_fits(model)
    loaders = {name: _loader(groups, name, sampling.split) for name in tickets}
    roles = _roles(model, tickets)
    with train_mode(model), set_aside_gradients(model), preserved_generators(groups):
        start = RewindPoint.capture(model, fingerprint=False)
        with Untouched(model, start) as untouched:
            found = {}
            for name, ticket in tickets.items():
                where = Where("interference", name, "pass", 1)
                run = _masked_backward if ticket.channels is None else _small_backward
                log = LossLog(where)
                with forked(derived_seed(sampling.seed, "interference", sampling.split, name)):
                    backward = run(model, ticket, start, _Watched(loss, where, log))
                    totals = _totals(backward, _batches(loaders[name], where, sampling), roles)
                found[name] = _mean(totals, log.mean(), ticket, roles, where)
                _check_untouched(untouched, where)
    return found


@dataclass(frozen=True)
class _Roles:
    """Parameters by what tickets share of them, with the dtype that a mean is kept in.

    Args:
        masked: those that tickets mask.
        dense: those that all tickets share whole.
    """

    masked: dict[str, torch.dtype]
    dense: dict[str, torch.dtype]


def _roles(model: nn.Module, tickets: TicketSet) -> _Roles:
    private = private_names(model, tickets, ())
    kept = {
        name: torch.promote_types(parameter.dtype, torch.float32)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and name not in private
    }
    masked = {name: kept[name] for name in tickets.shapes if name in kept}
    if not masked:
        raise InvalidArgument(
            "every masked parameter is frozen (requires_grad=False), so there are no gradients to "
            f"compare: unfreeze {', '.join(list(tickets.shapes)[:3])}"
        )
    return _Roles(masked, {n: dtype for n, dtype in kept.items() if n not in tickets.shapes})


def _loader(groups: DataGroups, name: str, split: str) -> Any:
    loader = getattr(groups[name], split)
    if loader is None:
        raise InvalidGroups(
            f"group {name!r} has no {split} batches: pass another split=, or groups that have them"
        )
    return loader


def _batches(loader: Any, where: Where, sampling: Sampling) -> Iterator[Any]:
    """The first batches of one pass."""
    seed = derived_seed(sampling.seed, "interference loader", sampling.split, where.group)
    count = 0
    for batch in islice(fresh_iterator(loader, seed), sampling.batches):
        yield batch
        count += 1
    if not count:
        raise InvalidGroups(f"group {where.group!r} has no batch in its {sampling.split} split")


@dataclass(frozen=True)
class _Watched:
    """The user's loss: checked, and logged before anything is computed from it."""

    loss: Loss
    where: Where
    log: LossLog

    def __call__(self, network: Any, batch: Any) -> torch.Tensor:
        value = checked_loss(self.loss, network, batch, self.where)
        self.log.record(value)
        return value


def _masked_backward(
    model: nn.Module, ticket: Ticket, start: RewindPoint, loss: _Watched
) -> Backward:
    device, slots = device_of(model), TensorSlots(model)
    leaves, buffers = start.leaves(), start.own_buffers()
    for name, value in ticket.state.items():
        if name in leaves:
            leaves[name] = value.detach().to(leaves[name], copy=True).requires_grad_()
        else:
            buffers[name] = value.detach().to(device, copy=True)
    masks = {name: mask.to(device) for name, mask in ticket.masks.items()}
    trained = {name: mask for name, mask in masks.items() if leaves[name].requires_grad}

    def backward(batch: Any) -> Mapping[str, torch.Tensor]:
        for leaf in leaves.values():
            leaf.grad = None
        view = MaskedModel(model, slots, mask_parameters(leaves, masks), buffers)
        masked_backward(view, loss(view, to_device(batch, device)))
        check_model_unused(model, loss.where)
        check_gradients(leaves, trained, loss.where)
        return {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}

    return backward


def _small_backward(
    model: nn.Module, ticket: Ticket, start: RewindPoint, loss: _Watched
) -> Backward:
    """Through the small network, which is what a channel ticket trains."""
    device = device_of(model)
    plan = None if ticket.channels is None else ticket.channels.to(device)
    maps = {} if plan is None else plan.maps
    small = compact_with(model, plan, ticket.state)

    def backward(batch: Any) -> Mapping[str, torch.Tensor]:
        small.zero_grad(set_to_none=True)
        small.train()  # an earlier loss may have said eval()
        loss(small, to_device(batch, device)).backward()
        check_model_unused(model, loss.where)
        found = {}
        for name, place in small.named_parameters():
            if place.grad is not None:
                found[name] = place.grad
                if name in maps:
                    found[name] = torch.zeros_like(start.parameters[name])
                    maps[name].scatter(place.grad, found[name])
        if not any(name in found for name in ticket.masks):
            raise InvalidLoss(
                f"{loss.where}: no parameter that was cut received a gradient: the loss must "
                f"depend on {', '.join(list(ticket.masks)[:3])}"
            )
        return found

    return backward


@dataclass(frozen=True)
class _Totals:
    """Sums over batches: parameter name -> float64 gradient on the CPU, and how many."""

    gradients: Tensors
    batches: int


def _totals(backward: Backward, batches: Iterator[Any], roles: _Roles) -> _Totals:
    gradients: Tensors = {}
    count = 0
    for batch in batches:
        for name, gradient in backward(batch).items():
            if name in roles.masked or name in roles.dense:
                wide = gradient.detach().cpu().double()
                gradients[name] = gradients[name].add_(wide) if name in gradients else wide.clone()
        count += 1
    return _Totals(gradients, count)


def _mean(
    totals: _Totals, loss: float, ticket: Ticket, roles: _Roles, where: Where
) -> MeanGradient:
    masked, dense = {}, {}
    for name, dtype in {**roles.masked, **roles.dense}.items():
        total = totals.gradients.get(name)
        if total is not None and not bool(torch.isfinite(total).all()):
            raise TrainingDiverged(
                f"{where}: the loss is finite, but its gradient for {name!r} is not (a root or "
                "logarithm at zero does that): make the loss differentiable where it is used"
            )
        if name in roles.masked:
            mask = ticket.masks[name].cpu()
            # Without a gradient the loss does not depend on it here: its gradient is zero.
            kept = torch.zeros(int(mask.sum())) if total is None else total[mask] / totals.batches
            masked[name] = kept.to(dtype)
        elif total is not None:
            dense[name] = (total.to_dense() / totals.batches).to(dtype)
    return MeanGradient(masked, dense, loss, totals.batches)


def _check_untouched(untouched: Untouched, where: Where) -> None:
    try:
        untouched.check(where)
    except RewindFailed as error:
        raise MaskBypassed(
            f"{where}: the loss, or a hook, wrote to the model's own parameters or buffers: call "
            "the model that the loss is given, and change nothing behind its back (the model was "
            "put back as it was)"
        ) from error
