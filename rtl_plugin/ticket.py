"""One group's subnetwork: validated masks and own state."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

from rtl_plugin.errors import InvalidTicket


@dataclass(frozen=True, eq=False)
class Ticket:
    """One group's subnetwork: which weights it keeps, and the state that is its own.

    Args:
        name: the group's name, a non-empty string.
        masks: parameter name of the user's model -> bool tensor of the parameter's shape, True
            where the weight is kept. Copied; read-only afterwards.
        state: name -> tensor of what belongs to this ticket alone: normalisation running
            statistics by default, private parameters where the user made some. Copied; retraining
            and recalibration replace its entries.

    Raises:
        InvalidTicket: the name is empty, there are no masks, a mask is not a bool tensor, the
            masks keep nothing at all, or the state does not map names to tensors.

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

    def __reduce__(self) -> tuple[Any, ...]:
        return (Ticket, (self.name, dict(self.masks), self.state))


def _copies(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
