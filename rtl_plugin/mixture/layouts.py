"""Where the samples of a batch lie in a tensor inside a network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rtl_plugin.nested import map_tensors


@dataclass(frozen=True)
class Layout:
    """Along one axis every sample has ``repeats`` rows.

    Args:
        axis: the dimension that holds the batch.
        repeats: rows a sample: 1, or for example the number of tokens that were merged into it.
        sample_major: a sample's rows lie side by side; else they lie B apart, as after
            ``x.transpose(0, 1).flatten(0, 1)``.

    Example:
        >>> layout = Layout(axis=0, repeats=2, sample_major=False)
        >>> layout.take(torch.tensor([0, 1, 2, 10, 11, 12]), 1, 3)
        tensor([ 1,  2, 11, 12])
    """

    axis: int
    repeats: int = 1
    sample_major: bool = True

    def fits(self, tensor: torch.Tensor, size: int) -> bool:
        """Whether a tensor of B samples can have this layout."""
        return self.axis < tensor.dim() and tensor.shape[self.axis] == self.repeats * size

    def take(self, tensor: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """The rows of samples start to stop; a view where the layout allows one."""
        if self.sample_major:
            return tensor.narrow(self.axis, start * self.repeats, (stop - start) * self.repeats)
        size = tensor.shape[self.axis] // self.repeats
        apart: torch.Tensor = tensor.unflatten(self.axis, (self.repeats, size))
        return apart.narrow(self.axis + 1, start, stop - start).flatten(self.axis, self.axis + 1)

    def join(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Put the parts of consecutive samples together again."""
        if self.sample_major:
            return torch.cat(list(parts), dim=self.axis)
        sizes = [part.shape[self.axis] // self.repeats for part in parts]
        apart = [
            part.unflatten(self.axis, (self.repeats, size))
            for part, size in zip(parts, sizes, strict=True)
        ]
        return torch.cat(apart, dim=self.axis + 1).flatten(self.axis, self.axis + 1)


# One entry a tensor, in the order of a nesting; None passes whole to every ticket.
Layouts = tuple[Layout | None, ...]


def take_samples(nested: Any, layouts: Layouts, start: int, stop: int) -> Any:
    """The rows of consecutive samples of every tensor.

    Args:
        nested: nested tensors.
        layouts: of its tensors, in order.
        start: first sample.
        stop: one past the last.

    Returns:
        The same nesting; a tensor that occurs twice stays one tensor.

    Example:
        >>> take_samples([torch.arange(4), torch.ones(1)], (Layout(0, 2), None), 1, 2)
        [tensor([2, 3]), tensor([1.])]
    """
    following: Iterator[Layout | None] = iter(layouts)
    taken: dict[int, torch.Tensor] = {}  # attention looks whether query and key are one tensor

    def take(tensor: torch.Tensor) -> torch.Tensor:
        layout = next(following)
        if layout is None:
            return tensor
        if id(tensor) not in taken:
            taken[id(tensor)] = layout.take(tensor, start, stop)
        return taken[id(tensor)]

    return map_tensors(take, nested)


def fitted(changed: Sequence[torch.Tensor], axis: int, samples: int) -> Layout | None:
    """The layout that explains which rows depend on which sample.

    Args:
        changed: for every sample, a bool tensor [rows] of the rows along the axis that changed
            with it alone.
        axis: the dimension that the rows are along.
        samples: their number n; rows are a multiple of it.

    Returns:
        A layout, or None where no layout explains it: rows that depend on several samples, or
        samples in another order. Rows that depend on none are taken to lie as the others do.

    Example:
        >>> rows = torch.tensor([0, 0, 1, 1])
        >>> fitted([rows == 0, rows == 1], axis=1, samples=2)
        Layout(axis=1, repeats=2, sample_major=True)
    """
    repeats = changed[0].numel() // samples
    rows = torch.arange(repeats * samples, device=changed[0].device)
    for sample_major, owner in ((True, rows // repeats), (False, rows % samples)):
        if not any(bool((dep & (owner != i)).any()) for i, dep in enumerate(changed)):
            return Layout(axis, repeats, sample_major)
    return None
