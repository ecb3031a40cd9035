"""The masked weights of one layer for all tickets in a batch, in one tensor."""

from dataclasses import dataclass

import torch

from rtl_plugin.errors import MaskBypassed
from rtl_plugin.mixture import kernels
from rtl_plugin.mixture.masked_pass import UnitCall
from rtl_plugin.mixture.runner import Runner


class NoRoom(MaskBypassed):
    """Another thread took the room that a call had seen."""


@dataclass(frozen=True)
class Stacked:
    """Masked weights, and the sorted samples that each is for.

    Args:
        weights: [A, ...], one copy a ticket.
        offsets: int32 [A + 1]; copy a is for the samples offsets[a] to offsets[a + 1].
        tickets: long [A], which tickets; None stands for all of them in order.
    """

    weights: torch.Tensor
    offsets: torch.Tensor
    tickets: torch.Tensor | None

    def table(self, values: torch.Tensor) -> torch.Tensor:
        """The rows of a table [T, ...] that belong to the copies."""
        return values if self.tickets is None else values[self.tickets]


def why_not_stacked(runner: Runner, weight: str | None) -> str | None:
    """Why a weight cannot be had for all tickets in one tensor.

    Args:
        runner: has the tensors.
        weight: its name in the model; None where it is the same in all tickets.

    Returns:
        The reason in words, or None where it can.
    """
    if weight is None:
        return "its weight is the same in all tickets"
    if runner.tensors.has_room_for_stack(weight):
        return None
    if weight not in runner.tensors.masked or runner.tensors.is_private(weight):
        return "its weight is private, and the budget has no room for all tickets' copies"
    reason = kernels.why_not(runner.tensors.shared(weight).device)
    return reason and f"the budget has no room for all tickets' copies, and {reason}"


def stacked(runner: Runner, call: UnitCall, weight: str) -> Stacked:
    """A weight's masked copies: those that are kept, or expanded for this call.

    Args:
        runner: has the tensors.
        call: says which tickets are in the batch.
        weight: a parameter that :func:`why_not_stacked` has nothing against.

    Returns:
        The copies; expanded ones are overwritten by the next layer.
    """
    tensors, dispatch = runner.tensors, call.dispatch
    device = tensors.shared(weight).device
    kept = tensors.stack(weight)
    if kept is not None:
        return Stacked(kept, dispatch.offsets_on(device), None)
    if weight not in tensors.masked or not kernels.available(device):
        raise NoRoom(f"the budget's room for {weight!r} was taken meanwhile")
    base = tensors.shared(weight).detach()
    words = tensors.words(weight)
    if dispatch.on_host:  # fewer tickets than there are, usually
        tickets, offsets = dispatch.active_on(device)
    else:
        tickets = torch.arange(words.shape[0], dtype=torch.int32, device=device)
        offsets = dispatch.offsets_on(device)
    matrix = base.reshape(base.shape[0], -1)
    scratch = runner.workspace.scratch
    scratch.release()
    shape = (tickets.numel(), *matrix.shape)
    room = scratch.take(matrix.new_empty(1).expand(shape), matrix.numel() * tickets.numel())
    expanded = kernels.expand_masked(matrix, words, tickets, out=room)
    return Stacked(expanded.view(-1, *base.shape), offsets, tickets.long())
