"""What the tickets keep of one layer: counts, sharing, and channels without a weight."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Masks = Mapping[str, torch.Tensor]
Bools = npt.NDArray[np.bool_]
Places = tuple[int, ...]

_STRETCH = 1 << 20  # bincount takes eight bytes an entry, so it is given one stretch at a time


@dataclass(frozen=True)
class LayerOverlap:
    """What K tickets keep of one masked parameter.

    A row (index along dimension 0) or column (along dimension 1) is dead for a ticket that keeps
    no weight of it. For linear and convolution layers, row i makes output channel i, and column j
    reads input channel j (of a group j, where there are groups); in a transposed convolution the
    two change places. Dead says that no kept weight of *this parameter* leads there. It does not
    say that the channel is zero: a dead row still gives out its bias, a norm behind it turns even
    zero into a constant, and a residual sum adds what comes around it; what a dead column does
    not read may be read elsewhere. So dead channels are candidates for cutting; that they can be
    cut is another question (channel tickets answer it).

    Args:
        name: the parameter's name.
        shape: its shape.
        kept: weights that each ticket keeps, K counts.
        exclusive: weights that each ticket keeps and no other does, K counts.
        shared_by: how many weights exactly n tickets keep, K + 1 counts, n = 0..K.
        dead_rows: indices of each ticket's dead rows, K tuples; empty ones for a parameter with
            fewer than two dimensions or without weights.
        dead_columns: indices of each ticket's dead columns, likewise.
        floor: the fewest weights that discovery would leave here; 0 where it has no floor.
    """

    name: str
    shape: tuple[int, ...]
    kept: Places
    exclusive: Places
    shared_by: Places
    dead_rows: tuple[Places, ...]
    dead_columns: tuple[Places, ...]
    floor: int

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(self.shared_by)

    @property
    def density(self) -> tuple[float, ...]:
        """Fraction that each ticket keeps, in [0, 1]; NaN for a parameter without weights."""
        return tuple(count / self.size if self.size else float("nan") for count in self.kept)

    def near_floor(self, near: float) -> Places:
        """Places of the tickets that keep at most ``near`` times the floor, and not all weights.

        Args:
            near: at least 1; 1 asks for layers at their floor.
        """
        limit = near * self.floor
        return tuple(k for k, kept in enumerate(self.kept) if kept <= limit and kept < self.size)

    def to_json(self) -> dict[str, Any]:
        """Everything as a dict that ``json.dumps`` takes."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "floor": self.floor,
            "kept": list(self.kept),
            "density": [None if np.isnan(value) else value for value in self.density],
            "exclusive": list(self.exclusive),
            "shared_by": list(self.shared_by),
            "dead_rows": [list(places) for places in self.dead_rows],
            "dead_columns": [list(places) for places in self.dead_columns],
        }


def overlap_of_layer(name: str, tickets: Sequence[Masks], floor: int = 0) -> LayerOverlap:
    """Count what the tickets keep of one parameter.

    Args:
        name: the parameter's name.
        tickets: at least one mapping parameter name -> bool mask, this parameter's all of one
            shape; each is looked at twice, so packed ones are unpacked one at a time.
        floor: the fewest weights that discovery would leave here.

    Returns:
        The counts.

    Example:
        >>> a, b = torch.tensor([True, True, False]), torch.tensor([True, False, False])
        >>> found = overlap_of_layer("w", [{"w": a}, {"w": b}])
        >>> found.kept, found.exclusive, found.shared_by
        ((2, 1), (1, 0), (1, 1, 1))
    """

    def masks() -> Iterator[Bools]:
        return (ticket[name].detach().cpu().numpy() for ticket in tickets)

    times, kept, rows, columns = _first_look(masks, tickets[0][name].shape, len(tickets))
    alone = times == 1
    return LayerOverlap(
        name,
        times.shape,
        tuple(kept),
        tuple(int(np.count_nonzero(mask & alone)) for mask in masks()),
        _histogram(times.reshape(-1), len(tickets)),
        tuple(rows),
        tuple(columns),
        floor,
    )


def _first_look(
    masks: Callable[[], Iterator[Bools]], shape: torch.Size, tickets: int
) -> tuple[npt.NDArray[np.integer[Any]], list[int], list[Places], list[Places]]:
    """How many tickets keep each weight; what each keeps, and its dead rows and columns."""
    narrow = tickets <= np.iinfo(np.int16).max
    times = np.zeros(tuple(shape), np.int16 if narrow else np.int32)
    kept: list[int] = []
    rows: list[Places] = []
    columns: list[Places] = []
    for mask in masks():
        times += mask
        kept.append(int(np.count_nonzero(mask)))
        dead = dead_channels(mask)
        rows.append(dead[0])
        columns.append(dead[1])
    return times, kept, rows, columns


def dead_channels(mask: Bools) -> tuple[Places, Places]:
    """Indices along dimension 0, and along dimension 1, under which a mask keeps nothing.

    Args:
        mask: bool array of any shape.

    Returns:
        Rows and columns; none for fewer than two dimensions, and none without weights, where
        nothing was pruned.

    Example:
        >>> dead_channels(np.array([[True, False], [False, False]]))
        ((1,), (1,))
    """
    if mask.ndim < 2 or mask.size == 0:
        return (), ()
    by_row = mask.reshape(mask.shape[0], -1)
    # Reducing the outermost dimension first runs over contiguous memory, and many times faster.
    by_column = np.asarray(by_row.any(axis=0)).reshape(mask.shape[1], -1)
    return _rows_without(by_row), _rows_without(by_column)


def _rows_without(mask: Bools) -> Places:
    return tuple(np.flatnonzero(~np.asarray(mask.any(axis=1))).tolist())


def _histogram(times: npt.NDArray[np.integer[Any]], tickets: int) -> Places:
    counts = np.zeros(tickets + 1, np.int64)
    for start in range(0, times.size, _STRETCH):
        counts += np.bincount(times[start : start + _STRETCH], minlength=tickets + 1)
    return tuple(counts.tolist())
