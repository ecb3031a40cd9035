"""How many bytes a mixture takes, by part."""

from collections.abc import Mapping
from dataclasses import dataclass

from tabulate import tabulate
from torch import nn

from rtl_plugin.mixture.strategies import Strategy
from rtl_plugin.packed_masks import PackedMasks
from rtl_plugin.tickets import TicketSet


@dataclass(frozen=True)
class Memory:
    """Bytes by part.

    Args:
        parts: part -> bytes.
        copies: bytes of K masked copies of the network, which the mixture stands in for.

    Example:
        >>> memory = Memory({"weights": 100, "masks": 25}, copies=500)
        >>> memory.total, memory.ratio
        (125, 4.0)
    """

    parts: Mapping[str, int]
    copies: int

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())

    @property
    def ratio(self) -> float:
        """How many times more K masked copies would take."""
        return self.copies / self.total

    def __str__(self) -> str:
        rows = [(part, _shown(count)) for part, count in self.parts.items() if count]
        rows.append(("all", _shown(self.total)))
        rows.append(("K masked copies instead", _shown(self.copies)))
        return tabulate(rows, headers=("part", "size"), colalign=("left", "right"))


def _shown(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} KB"


def memory_of(model: nn.Module, tickets: TicketSet, strategy: Strategy) -> Memory:
    """Count the bytes that a mixture holds.

    Args:
        model: the network.
        tickets: packed tickets.
        strategy: at work on both.

    Returns:
        Bytes by part. Activations and the bool masks of a ticket set that the caller still holds
        are not among them.
    """
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    masks = sum(t.masks.nbytes for t in tickets.values() if isinstance(t.masks, PackedMasks))
    state = sum(v.nbytes for ticket in tickets.values() for v in ticket.state.values())
    held = strategy.held_bytes()
    parts = {"weights": weights, "masks": masks, "own state": state + held.pop("own state", 0)}
    return Memory(parts | held, weights * len(tickets))
