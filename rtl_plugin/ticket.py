"""One group's subnetwork: validated masks and own state."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

from rtl_plugin.channel_plan import ChannelPlan
from rtl_plugin.errors import InvalidTicket
from rtl_plugin.packed_masks import PackedMasks


@dataclass(frozen=True, eq=False)
class Ticket:
    """One group's subnetwork: which weights it keeps, and the state that is its own.

    Args:
        name: the group's name, a non-empty string.
        masks: parameter name of the user's model -> bool tensor of the parameter's shape, True
            where the weight is kept. Copied (but for packed ones); read-only afterwards.
        state: name -> tensor of what belongs to this ticket alone: normalisation running
            statistics by default, private parameters where the user made some. Copied; retraining
            and recalibration replace its entries.
        channels: for a structured ticket, how its small network is cut from the shared one; the
            masks must keep just the weights that the small network has.

    Raises:
        InvalidTicket: the name is empty, there are no masks, a mask is not a bool tensor, the
            masks keep nothing at all, the state does not map names to tensors, or masks and
            channel plan keep different weights.

    Example:
        >>> ticket = Ticket("indoor", {"fc.weight": torch.tensor([[True, False]])})
        >>> ticket.density, ticket.kept, ticket.empty_masks
        (0.5, 1, ())

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, adaptive tickets.
    """

    name: str
    masks: Mapping[str, torch.Tensor]
    state: dict[str, torch.Tensor] = field(default_factory=dict)
    channels: ChannelPlan | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidTicket(f"a ticket's name must be a non-empty string, got {self.name!r}")
        if not isinstance(self.masks, Mapping) or not self.masks:
            raise InvalidTicket(
                f"ticket {self.name!r} needs a mapping parameter name -> bool tensor with at "
                f"least one entry, got {self.masks!r}"
            )
        for name, mask in self.masks.items():
            self._check_mask(name, mask)
        if not any(bool(mask.any()) for mask in self.masks.values()):
            raise InvalidTicket(f"ticket {self.name!r} keeps no weight at all")
        if not isinstance(self.state, Mapping):
            raise InvalidTicket(
                f"ticket {self.name!r}: state must be a mapping name -> tensor, got "
                f"{type(self.state).__name__}"
            )
        for name, value in self.state.items():
            if not isinstance(name, str) or not name or not isinstance(value, torch.Tensor):
                raise InvalidTicket(
                    f"ticket {self.name!r}: state maps names to tensors, got "
                    f"{name!r} -> {type(value).__name__}"
                )
        if self.channels is not None:
            try:
                self.channels.check_masks(self.masks)
            except InvalidTicket as error:
                raise InvalidTicket(f"ticket {self.name!r}: {error}") from error
        if not isinstance(self.masks, PackedMasks):
            object.__setattr__(self, "masks", MappingProxyType(_copies(self.masks)))
        object.__setattr__(self, "state", _copies(self.state))

    def _check_mask(self, name: str, mask: torch.Tensor) -> None:
        if not isinstance(name, str) or not name:
            raise InvalidTicket(f"ticket {self.name!r}: {name!r} is not a parameter name")
        if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
            came = mask.dtype if isinstance(mask, torch.Tensor) else type(mask).__name__
            raise InvalidTicket(
                f"ticket {self.name!r}: mask of {name!r} must be a torch.bool tensor, got {came}; "
                "convert with mask.bool() if it holds zeros and ones"
            )

    @property
    def kept(self) -> int:
        """Number of weights kept."""
        return sum(int(mask.sum()) for mask in self.masks.values())

    @property
    def density(self) -> float:
        """Fraction of the prunable weights kept, in (0, 1]."""
        return self.kept / sum(mask.numel() for mask in self.masks.values())

    @property
    def empty_masks(self) -> tuple[str, ...]:
        """Names of the parameters of which nothing is kept."""
        return tuple(name for name, mask in self.masks.items() if not bool(mask.any()))

    def to(self, device: torch.device | str) -> "Ticket":
        """The same ticket with masks, own state and channel plan on a device.

        Args:
            device: as for ``torch.Tensor.to``.
        """
        plan = None if self.channels is None else self.channels.to(device)
        return Ticket(self.name, moved(self.masks, device), moved(self.state, device), plan)

    def packed(self) -> "Ticket":
        """The same ticket with masks at one bit a weight, unpacked at every look.

        Returns:
            A ticket that shares this one's state, so that it sees its later changes.
        """
        lean = object.__new__(Ticket)  # its masks are checked already, and are not to be copied
        for name, value in vars(self).items():
            object.__setattr__(lean, name, value)
        if not isinstance(self.masks, PackedMasks):
            object.__setattr__(lean, "masks", PackedMasks(self.masks))
        return lean

    def __reduce__(self) -> tuple[Any, ...]:
        return (Ticket, (self.name, dict(self.masks), self.state, self.channels))


def tickets_by_name(given: Iterable[Ticket]) -> dict[str, Ticket]:
    """Tickets of one set by name, checked against each other.

    Args:
        given: the tickets.

    Returns:
        Name -> ticket, in order.

    Raises:
        InvalidTicket: no tickets, two of one name, tickets that disagree about parameters, or
            channel tickets among others.

    Example:
        >>> list(tickets_by_name([Ticket("a", {"w": torch.tensor([True])})]))
        ['a']
    """
    tickets = list(given) if isinstance(given, Iterable) else []
    if not tickets or not all(isinstance(ticket, Ticket) for ticket in tickets):
        raise InvalidTicket(f"TicketSet takes a sequence of at least one Ticket, got {given!r}")
    first = tickets[0]
    shapes = {name: mask.shape for name, mask in first.masks.items()}
    result: dict[str, Ticket] = {}
    for ticket in tickets:
        if ticket.name in result:
            raise InvalidTicket(f"two tickets are named {ticket.name!r}: give each its own name")
        result[ticket.name] = ticket
        if (ticket.channels is None) != (first.channels is None):
            raise InvalidTicket(
                f"one of {first.name!r} and {ticket.name!r} has a channel plan, the other none: "
                "keep channel tickets and unstructured ones in sets of their own"
            )
        theirs = {name: mask.shape for name, mask in ticket.masks.items()}
        if theirs != shapes:
            differing = sorted(set(shapes.items()) ^ set(theirs.items()))[0][0]
            raise InvalidTicket(
                f"tickets {first.name!r} and {ticket.name!r} disagree about {differing!r}: "
                f"{shapes.get(differing)} against {theirs.get(differing)}; the tickets of one set "
                "mask the same parameters of one network"
            )
    return result


def moved(
    tensors: Mapping[str, torch.Tensor], device: torch.device | str
) -> dict[str, torch.Tensor]:
    """Named tensors on a device.

    Args:
        tensors: name -> tensor.
        device: as for ``torch.Tensor.to``.

    Returns:
        The same names.

    Example:
        >>> moved({"w": torch.ones(1)}, "cpu")
        {'w': tensor([1.])}
    """
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _copies(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
