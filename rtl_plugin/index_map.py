"""Which entries of a shared tensor a smaller tensor holds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rtl_plugin.errors import InvalidTicket

_Axes = tuple[torch.Tensor | None, ...]


@dataclass(frozen=True, eq=False)
class IndexMap:
    """The map from a small tensor's entries to those of the shared tensor it was cut from.

    Either one list of kept positions a dimension (what cutting channels gives), or, for cuts of
    any other kind, one flat position an entry.

    Args:
        shape: of the shared tensor.
        axes: int64 positions [n] in ascending order a dimension, None where all are kept; empty if
            ``entries`` is given.
        entries: int64 flat positions, of the small tensor's shape, or None.

    Raises:
        InvalidTicket: positions are of another dtype or shape, out of range, none, or twice there.

    Example:
        >>> columns = IndexMap((2, 3), (None, torch.tensor([0, 2])))
        >>> columns.gather(torch.arange(6).reshape(2, 3))
        tensor([[0, 2],
                [3, 5]])
    """

    shape: tuple[int, ...]
    axes: _Axes = ()
    entries: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.entries is not None:
            if self.axes:
                raise InvalidTicket("an index map has positions by dimension or by entry, not both")
            _check_positions(self.entries, math.prod(self.shape), "an entry")
            if self.entries.unique().numel() != self.entries.numel():
                raise InvalidTicket("an index map names an entry twice")
            return
        if len(self.axes) != len(self.shape):
            raise InvalidTicket(
                f"an index map of a tensor of shape {self.shape} needs {len(self.shape)} lists of "
                f"positions, got {len(self.axes)}"
            )
        for size, kept in zip(self.shape, self.axes, strict=True):
            if kept is not None:
                _check_positions(kept, size, f"a dimension of size {size}")
                if kept.dim() != 1 or bool((kept.diff() <= 0).any()):
                    raise InvalidTicket("positions of a dimension must be one ascending list")

    @property
    def small_shape(self) -> tuple[int, ...]:
        """Shape of the small tensor."""
        if self.entries is not None:
            return tuple(self.entries.shape)
        pairs = zip(self.shape, self.axes, strict=True)
        return tuple(size if kept is None else kept.numel() for size, kept in pairs)

    def gather(self, shared: torch.Tensor) -> torch.Tensor:
        """The small tensor: a copy of the kept entries; differentiable.

        Args:
            shared: tensor of shape ``shape``.

        Returns:
            Tensor of shape ``small_shape``.
        """
        if self.entries is not None:
            return shared.reshape(-1)[self.entries.to(shared.device)]
        small = shared
        for dim, kept in enumerate(self.axes):
            if kept is not None:
                small = small.index_select(dim, kept.to(shared.device))
        return small.clone() if small is shared else small

    def scatter(self, small: torch.Tensor, shared: torch.Tensor) -> None:
        """Write the small tensor's entries to their places in the shared one; no other moves.

        Args:
            small: tensor of shape ``small_shape``.
            shared: tensor of shape ``shape``, written in place, outside autograd.
        """
        with torch.no_grad():
            if self.entries is not None:
                flat = shared.reshape(-1)  # a copy where the tensor is not contiguous
                flat[self.entries.to(shared.device).reshape(-1)] = small.reshape(-1)
                if not shared.is_contiguous():
                    shared.copy_(flat.reshape(shared.shape))
                return
            self._scatter(small, shared, 0)

    def _scatter(self, small: torch.Tensor, shared: torch.Tensor, start: int) -> None:
        """Write along the dimensions from ``start``: whole rows are copied, which is fastest."""
        cut = [d for d in range(start, len(self.axes)) if self.axes[d] is not None]
        if not cut:
            shared.copy_(small)
            return
        kept = self._kept(cut[0], shared.device)
        if len(cut) == 1:
            shared.index_copy_(cut[0], kept, small)
            return
        rows = shared.index_select(cut[0], kept)
        self._scatter(small, rows, cut[0] + 1)
        shared.index_copy_(cut[0], kept, rows)

    def mask(self) -> torch.Tensor:
        """True at the kept entries: bool tensor of shape ``shape`` on the CPU."""
        mask = torch.zeros(self.shape, dtype=torch.bool)
        self.scatter(torch.ones(self.small_shape, dtype=torch.bool), mask)
        return mask

    def to(self, device: torch.device | str) -> "IndexMap":
        """The same map with its positions on a device.

        Args:
            device: as for ``torch.Tensor.to``.
        """
        axes = tuple(None if kept is None else kept.to(device) for kept in self.axes)
        return IndexMap(self.shape, axes, None if self.entries is None else self.entries.to(device))

    def _kept(self, dim: int, device: torch.device) -> torch.Tensor:
        kept = self.axes[dim]
        assert kept is not None  # noqa: S101 - asked only for dimensions that are cut
        return kept.to(device)


def traced_map(probe: torch.Tensor, shape: Sequence[int]) -> IndexMap | None:
    """Read the map off a tensor that held its own flat positions before it was cut.

    Args:
        probe: what is left, any dtype that holds the positions exactly.
        shape: of the tensor before.

    Returns:
        The map, or None if nothing was cut.

    Raises:
        InvalidTicket: what is left are not distinct positions of the tensor.

    Example:
        >>> whole = torch.arange(6.0).reshape(2, 3)
        >>> traced_map(whole[1:, :2], (2, 3)).axes
        (tensor([1]), tensor([0, 1]))
    """
    shape, entries = tuple(shape), probe.detach().to("cpu", torch.int64)
    if entries.numel() == 0:
        raise InvalidTicket(f"nothing is left of a tensor of shape {shape}")
    if tuple(entries.shape) == shape and _is_outer(entries, (None,) * len(shape), shape):
        return None
    if entries.dim() == len(shape):
        axes = tuple(_axis(entries, dim, shape) for dim in range(len(shape)))
        if _is_outer(entries, axes, shape):
            return IndexMap(shape, axes)
    return IndexMap(shape, entries=entries.contiguous())


def _axis(entries: torch.Tensor, dim: int, shape: tuple[int, ...]) -> torch.Tensor | None:
    """Positions along one dimension, read off the first line of entries in that direction."""
    stride = math.prod(shape[dim + 1 :])
    line = entries.movedim(dim, 0).flatten(1)[:, 0] if entries.dim() > 1 else entries
    kept = line.div(stride, rounding_mode="floor") % shape[dim]
    return None if torch.equal(kept, torch.arange(shape[dim])) else kept.contiguous()


def _is_outer(entries: torch.Tensor, axes: _Axes, shape: tuple[int, ...]) -> bool:
    """Whether a cut by whole positions of dimensions leaves exactly these entries."""
    expected = torch.zeros((), dtype=torch.int64)
    for dim, kept in enumerate(axes):
        positions = torch.arange(shape[dim]) if kept is None else kept
        if bool((positions.diff() <= 0).any()) or positions.numel() != entries.shape[dim]:
            return False
        step = positions * math.prod(shape[dim + 1 :])
        expected = expected + step.reshape(-1, *(1,) * (len(shape) - dim - 1))
    return torch.equal(entries, expected.expand(entries.shape))


def _check_positions(positions: torch.Tensor, size: int, what: str) -> None:
    if not isinstance(positions, torch.Tensor) or positions.dtype != torch.int64:
        came = getattr(positions, "dtype", type(positions).__name__)
        raise InvalidTicket(f"positions of an index map must be an int64 tensor, got {came}")
    if positions.numel() == 0:
        raise InvalidTicket(f"an index map keeps nothing of {what}")
    if int(positions.min()) < 0 or int(positions.max()) >= size:
        raise InvalidTicket(f"an index map's positions must lie in 0..{size - 1}")
