"""Which tickets a call names: by name, by position, one for the batch or one a sample."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from rtl_plugin.errors import InvalidArgument, UnknownTicket
from rtl_plugin.routing.contract import is_index
from rtl_plugin.tickets import TicketSet

Tickets = str | int | Sequence[str] | Sequence[int] | torch.Tensor | None


def is_one_ticket(choice: Any) -> bool:
    """Whether a choice speaks of the whole batch.

    Args:
        choice: what a call gave as ``tickets=``, not None.

    Returns:
        True for a name or a number, False for a tensor or anything with one entry a sample.

    Example:
        >>> is_one_ticket("indoor"), is_one_ticket(["indoor", "street"])
        (True, False)
    """
    if isinstance(choice, torch.Tensor):
        return False
    return isinstance(choice, str) or not isinstance(choice, Iterable)


def ticket_named(tickets: TicketSet, choice: Any) -> str:
    """The name of the ticket that a name or a position means.

    Args:
        tickets: the set.
        choice: a name, or an integer in 0..K-1.

    Returns:
        The name.

    Raises:
        UnknownTicket: there is no such ticket; positions do not count from the end.
        InvalidArgument: the choice is neither a name nor an integer.

    Example:
        >>> from rtl_plugin.tickets import Ticket
        >>> tickets = TicketSet([Ticket("a", {"w": torch.tensor([True])})])
        >>> ticket_named(tickets, 0)
        'a'
    """
    if isinstance(choice, str):
        return tickets[choice].name
    try:
        position = None if isinstance(choice, bool) else operator.index(choice)
    except TypeError:
        position = None
    if position is None:
        raise InvalidArgument(
            f"tickets= takes a name, a position, or one of them a sample, got {choice!r} of type "
            f"{type(choice).__name__}"
        )
    if not 0 <= position < len(tickets):
        raise UnknownTicket(
            f"ticket index {position} is not in 0..{len(tickets) - 1}; the tickets are "
            f"{', '.join(map(repr, tickets))}"
        )
    return tickets.names[position]


def ticket_indices(tickets: TicketSet, choices: Any, size: int) -> torch.Tensor:
    """One position a sample.

    Args:
        tickets: the set.
        choices: B names or positions, or an integer tensor [B].
        size: B.

    Returns:
        Integer tensor [B] of positions in 0..K-1.

    Raises:
        UnknownTicket: a name or position is not in the set.
        InvalidArgument: not one choice a sample, or a tensor of another dtype or shape.

    Example:
        >>> from rtl_plugin.tickets import Ticket
        >>> tickets = TicketSet([Ticket(n, {"w": torch.tensor([True])}) for n in "ab"])
        >>> ticket_indices(tickets, ["b", "a"], 2)
        tensor([1, 0])
    """
    if isinstance(choices, torch.Tensor):
        indices = _checked_tensor(tickets, choices)
    else:
        position = {name: k for k, name in enumerate(tickets)}
        chosen = [position[ticket_named(tickets, choice)] for choice in choices]
        indices = torch.tensor(chosen, dtype=torch.long)
    if indices.numel() != size:
        raise InvalidArgument(
            f"{indices.numel()} tickets for a batch of {size} samples: give one a sample, or a "
            "single name for all"
        )
    return indices


def _checked_tensor(tickets: TicketSet, choices: torch.Tensor) -> torch.Tensor:
    if not is_index(choices):
        raise InvalidArgument(
            f"tickets= takes an integer tensor [B], got {choices.dtype} {tuple(choices.shape)}"
        )
    indices = choices.long()  # torch has no minimum of unsigned 16-bit integers and the like
    if indices.is_cuda:
        # Looking would wait for the GPU at every call; it looks itself, and fails the next wait.
        inside = ((indices >= 0) & (indices < len(tickets))).all()
        torch._assert_async(inside, f"ticket indices must be in 0..{len(tickets) - 1}")
    elif indices.numel():
        for extreme in (indices.min(), indices.max()):
            ticket_named(tickets, int(extreme))
    return indices
