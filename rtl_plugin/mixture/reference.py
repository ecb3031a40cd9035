"""The reference strategy: one ticket after the other, masked afresh at every call."""

import copy
import threading
from typing import Any

import torch
from torch import nn

from rtl_plugin.masked_forward import TensorSlots, mask_parameters
from rtl_plugin.mixture.by_ticket import ByTicket
from rtl_plugin.mixture.replica import check_no_stored_references, storage_sharing_replica
from rtl_plugin.structure import install_state
from rtl_plugin.tickets import Ticket, TicketSet


def ticket_tensors(
    model: nn.Module, ticket: Ticket
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The parameters and buffers that a network computes with under a ticket.

    Args:
        model: the network.
        ticket: masks and own state.

    Returns:
        Parameter name -> ``weight * mask`` (or the ticket's private copy), and buffer name -> a
        copy of the ticket's buffer (or of the model's, where the ticket has none), in the model's
        dtypes and on its devices.

    Example:
        >>> ticket = Ticket("a", {"weight": torch.tensor([[True, False]])})
        >>> bool(ticket_tensors(nn.Linear(2, 1), ticket)[0]["weight"][0, 1] == 0)
        True
    """
    state = ticket.state
    own = {n: _like(state[n], p) if n in state else p for n, p in model.named_parameters()}
    masks = {name: mask.to(own[name].device) for name, mask in ticket.masks.items()}
    buffers = {
        n: (_like(state[n], b) if n in state else b).clone() for n, b in model.named_buffers()
    }
    return mask_parameters(own, masks), buffers


def _like(value: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    return value.to(device=own.device, dtype=own.dtype)


def masked_copy(model: nn.Module, ticket: Ticket) -> nn.Module:
    """One ticket as an ordinary module of the user's class, masks folded in.

    Args:
        model: the network, left as it is.
        ticket: masks and own state.

    Returns:
        A copy in eval mode that shares nothing with the model or the ticket.

    Example:
        >>> ticket = Ticket("a", {"weight": torch.tensor([[True, False]])})
        >>> bool(masked_copy(nn.Linear(2, 1), ticket).weight[0, 1] == 0)
        True
    """
    parameters, buffers = ticket_tensors(model, ticket)
    plain = copy.deepcopy(model)
    install_state(plain, {**{n: p.detach() for n, p in parameters.items()}, **buffers})
    plain.eval()  # what it returns is not always the module, where a model overrides train()
    return plain


class ReferenceStrategy(ByTicket):
    """Slow and obviously right: what every other strategy is held against.

    Args:
        model: the network whose present parameters are used at every call.
        tickets: the tickets, whose present state is used at every call.

    Raises:
        CompactOnly: masked networks are not the small ones.
        MaskBypassed: the model keeps a masked parameter in a second place.
    """

    name = "reference"

    def __init__(self, model: nn.Module, tickets: TicketSet) -> None:
        tickets.check_maskable('strategy="reference"')
        super().__init__(tickets)
        self._model = model
        check_no_stored_references(model, tickets.shapes)
        self._replica = storage_sharing_replica(model)
        self._slots = TensorSlots(self._replica)
        # The replica holds one ticket's tensors while it runs, so runs take turns.
        self._lock = threading.Lock()

    def run(self, ticket: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the network under one ticket.

        Args:
            ticket: its name.
            args: of the network's forward.
            kwargs: of the network's forward.

        Returns:
            The network's output.
        """
        parameters, buffers = ticket_tensors(self._model, self._tickets[ticket])
        with self._lock, self._slots.holding(parameters, buffers):
            return self._replica(*args, **kwargs)

    def export(self, ticket: str) -> nn.Module:
        """The network with one ticket's masks folded in, a snapshot in eval mode.

        Args:
            ticket: its name.
        """
        return masked_copy(self._model, self._tickets[ticket])

    def held_bytes(self) -> dict[str, int]:
        """What is kept between calls beside weights and tickets."""
        return {}

    def explain(self) -> str:
        """How batches are run, in words."""
        return (
            "one pass a distinct ticket in the batch, weights masked at every call; cost grows "
            "with the number of distinct tickets"
        )
