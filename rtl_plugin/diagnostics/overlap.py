"""Which weights and layers the tickets keep: shared, exclusive, dead, near their floor."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from rtl_plugin.diagnostics.layer_overlap import LayerOverlap, overlap_of_layer
from rtl_plugin.discovery.keep_top import floor_counts
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.ticket import Ticket, tickets_by_name

Counts = npt.NDArray[np.int64]

_COLUMNS = 8  # tickets that get a column of their own in the table


@dataclass(frozen=True, eq=False)
class Overlap:
    """Which weights each ticket keeps, and with how many others it shares them.

    Args:
        tickets: their names, K of them, in order.
        layers: one entry a masked parameter, in the order of the masks.
        floor: the fraction that a layer keeps at least, as in ``discover``.
        near: a layer is near its floor where it keeps at most so many times the floor's count.
    """

    tickets: tuple[str, ...]
    layers: tuple[LayerOverlap, ...]
    floor: float
    near: float

    @property
    def kept(self) -> Counts:
        """Weights kept, int64 [layers, K]."""
        return np.array([layer.kept for layer in self.layers], dtype=np.int64)

    @property
    def density(self) -> npt.NDArray[np.float64]:
        """Fraction of the layer kept, float64 [layers, K]; NaN for a layer without weights."""
        return np.array([layer.density for layer in self.layers], dtype=np.float64)

    @property
    def shared_by(self) -> Counts:
        """How many weights exactly n tickets keep, int64 [K + 1], n = 0..K."""
        return _summed([layer.shared_by for layer in self.layers])

    @property
    def exclusive(self) -> Counts:
        """How many weights each ticket keeps and no other does, int64 [K]."""
        return _summed([layer.exclusive for layer in self.layers])

    def near_floor(self) -> dict[str, tuple[str, ...]]:
        """Layers that some ticket has pruned to near their floor: name -> those tickets.

        A layer counts where it keeps at most ``near`` times its floor and has lost at least one
        weight. Its floor is ``floor`` of its weights, rounded up, and at least one, as in
        ``discover``; with a floor of 0, a layer counts where it keeps nothing.
        """
        found = {layer.name: layer.near_floor(self.near) for layer in self.layers}
        return {
            name: tuple(self.tickets[k] for k in places) for name, places in found.items() if places
        }

    def table(self) -> str:
        """Tickets, layers, and how many weights are shared by how many tickets, as text.

        Up to eight tickets get a column each with the layer's density; of more, the lowest, the
        median and the highest are shown, and sharing in ranges. Dead rows and columns of a layer
        are the most that a ticket has.

        Returns:
            Three tables, and a line a layer near its floor.
        """
        parts = [self._tickets_table(), self._layers_table(), self._sharing_table()]
        lines = [
            f"near its floor: {name} in {_listed(names)}"
            for name, names in self.near_floor().items()
        ]
        return "\n\n".join([*parts, "\n".join(lines)] if lines else parts)

    def to_json(self) -> dict[str, Any]:
        """Everything as a dict that ``json.dumps`` takes; a density without weights is None."""
        return {
            "tickets": list(self.tickets),
            "floor": self.floor,
            "near": self.near,
            "shared_by": self.shared_by.tolist(),
            "exclusive": self.exclusive.tolist(),
            "near_floor": {name: list(names) for name, names in self.near_floor().items()},
            "layers": [layer.to_json() for layer in self.layers],
        }

    def _tickets_table(self) -> str:
        kept, alone = self.kept.sum(axis=0), self.exclusive
        total = sum(layer.size for layer in self.layers)
        rows = [
            [
                name,
                *(f"{kept[k]:,}", f"{kept[k] / total:.2%}"),
                *(f"{alone[k]:,}", f"{alone[k] / kept[k]:.1%}"),
                str(sum(len(layer.dead_rows[k]) for layer in self.layers)),
                str(sum(len(layer.dead_columns[k]) for layer in self.layers)),
            ]
            for k, name in enumerate(self.tickets)
        ]
        return _table(
            ["ticket", "kept", "density", "exclusive", "of its own", "dead rows", "dead columns"],
            rows,
        )

    def _layers_table(self) -> str:
        each = len(self.tickets) <= _COLUMNS
        near = self.near_floor()
        rows = [
            [
                *(layer.name, f"{layer.size:,}", f"{layer.floor:,}"),
                *map(_percent, layer.density if each else _spread(layer.density)),
                *(str(max(map(len, dead))) for dead in (layer.dead_rows, layer.dead_columns)),
                str(len(near.get(layer.name, ()))),
            ]
            for layer in self.layers
        ]
        densities = list(self.tickets) if each else ["lowest", "median", "highest"]
        end = ["dead rows", "dead columns", "near floor"]
        return _table(["layer", "weights", "floor", *densities, *end], rows)

    def _sharing_table(self) -> str:
        counts, total = self.shared_by, max(int(self.shared_by.sum()), 1)
        rows = []
        for first, last in _ranges(len(self.tickets)):
            weights = int(counts[first : last + 1].sum())
            label = str(first) if first == last else f"{first} to {last}"
            rows.append([label, f"{weights:,}", f"{weights / total:.2%}"])
        return _table(["kept by", "weights", "of all"], rows)


def overlap_of(
    tickets: Mapping[str, Ticket] | Iterable[Ticket], floor: float = 0.01, *, near: float = 2.0
) -> Overlap:
    """Count which weights and layers the tickets keep.

    Args:
        tickets: a ``TicketSet``, or tickets of one network.
        floor: fraction of a layer that ``discover`` was told to keep at least, in [0, 1); 0 for
            tickets found without one.
        near: how many times the floor counts as near it, at least 1. By default 2: there the
            next halving of the layer's survivors would run into the floor.

    Returns:
        The counts. The masks of one layer and one ticket are looked at a time, and 2 bytes a
        weight of that layer are held.

    Raises:
        InvalidTicket: no tickets, two of one name, or tickets that disagree about names or shapes.
        InvalidArgument: ``floor`` or ``near`` is out of range.

    Example:
        >>> import torch
        >>> a = Ticket("a", {"w": torch.tensor([[True, True], [False, False]])})
        >>> b = Ticket("b", {"w": torch.tensor([[True, False], [True, False]])})
        >>> found = overlap_of([a, b])
        >>> found.shared_by, found.exclusive
        (array([1, 2, 1]), array([1, 1]))
        >>> found.layers[0].dead_rows, found.layers[0].dead_columns
        (((1,), ()), ((), (1,)))
    """
    if isinstance(near, bool) or not isinstance(near, (int, float)) or not 1 <= near < np.inf:
        raise InvalidArgument(f"near must be a finite number of at least 1, got {near!r}")
    named = tickets_by_name(tickets.values() if isinstance(tickets, Mapping) else tickets)
    every = list(named.values())
    shapes = {name: tuple(mask.shape) for name, mask in every[0].masks.items()}
    floors = floor_counts(shapes, floor)
    layers = (
        overlap_of_layer(name, [ticket.masks for ticket in every], floors[name]) for name in shapes
    )
    return Overlap(tuple(named), tuple(layers), float(floor), float(near))


def _table(headers: list[str], rows: list[list[str]]) -> str:
    alignment = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers=headers, colalign=alignment, disable_numparse=True)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2%}"


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)


def _ranges(tickets: int) -> list[tuple[int, int]]:
    """0..K cut into single numbers, of more than eight tickets into doubling ranges, K apart."""
    if tickets <= _COLUMNS:
        return [(n, n) for n in range(tickets + 1)]
    starts = [0, 1, *(2**power + 1 for power in range(tickets.bit_length()))]
    inner = [start for start in starts if start < tickets]
    ends = [start - 1 for start in [*inner[1:], tickets]]
    return [*zip(inner, ends, strict=True), (tickets, tickets)]


def _summed(counts: Sequence[Sequence[int]]) -> Counts:
    result: Counts = np.array(counts, dtype=np.int64).sum(axis=0)
    return result


def _listed(names: tuple[str, ...]) -> str:
    rest = f" and {len(names) - _COLUMNS} more" if len(names) > _COLUMNS else ""
    return ", ".join(names[:_COLUMNS]) + rest
