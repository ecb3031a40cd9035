"""Which entries of a shared tensor a smaller tensor holds."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rtl_plugin.errors import InvalidTicket

_BLOCK = 2**16  # entries
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
            _check_kind(self.entries, "an entry")
            _check_range(self.entries.min(), self.entries.max(), math.prod(self.shape))
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
                _check_kind(kept, f"a dimension of size {size}")
                if kept.dim() != 1 or bool((kept.diff() <= 0).any()):
                    raise InvalidTicket("positions of a dimension must be one ascending list")
                _check_range(kept[0], kept[-1], size)

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
            # Indexing with a tensor of no dimensions would give a view.
            flat = shared.reshape(-1).index_select(0, self.entries.to(shared.device).reshape(-1))
            return flat.reshape(self.entries.shape)
        if self._kernels is not None and shared.is_contiguous():
            kernels = shared.reshape(-1, math.prod(self.shape[2:]))
            chosen = kernels.index_select(0, self._kernels.to(shared.device))
            return chosen.reshape(self.small_shape)
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
            if self._kernels is not None and shared.is_contiguous():
                kernels = shared.view(-1, math.prod(self.shape[2:]))
                rows = small.reshape(-1, kernels.shape[1])
                kernels.index_copy_(0, self._kernels.to(shared.device), rows)
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

    def positions(self, dtype: torch.dtype) -> torch.Tensor:
        """Where the small tensor's entries lie in the shared one: flat positions, on the CPU.

        Args:
            dtype: of the result; it must hold the positions exactly.

        Returns:
            Tensor of shape ``small_shape``.
        """
        if self.entries is not None:
            return self.entries.cpu().to(dtype)
        return _positions(self.axes, self.shape, dtype).expand(self.small_shape).contiguous()

    def mask(self) -> torch.Tensor:
        """True at the kept entries: bool tensor of shape ``shape`` on the CPU."""
        mask = torch.zeros(self.shape, dtype=torch.bool)
        self.scatter(torch.ones(self.small_shape, dtype=torch.bool), mask)
        return mask

    def lists(self) -> list[torch.Tensor]:
        """The lists of positions that this map holds in memory, one made for speed included."""
        held = (*self.axes, self.entries, vars(self).get("_kernels"))
        return [kept for kept in held if kept is not None]

    def to(self, device: torch.device | str) -> "IndexMap":
        """The same map with its positions on a device.

        Args:
            device: as for ``torch.Tensor.to``.
        """
        axes = tuple(None if kept is None else kept.to(device) for kept in self.axes)
        return IndexMap(self.shape, axes, None if self.entries is None else self.entries.to(device))

    @functools.cached_property
    def _kernels(self) -> torch.Tensor | None:
        """Positions of whole kernels, for convolutions cut on both sides: one copy, not two.

        None where the kernels are too small to be worth a list of their own.
        """
        if self.entries is not None or len(self.shape) < 3 or math.prod(self.shape[2:]) < 4:
            return None
        outer, inner, *rest = self.axes
        if outer is None or inner is None or any(kept is not None for kept in rest):
            return None
        return (outer[:, None] * self.shape[1] + inner).reshape(-1)

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
    shape, probe = tuple(shape), probe.detach().cpu()
    if probe.numel() == 0:
        if tuple(probe.shape) == shape:
            return None
        raise InvalidTicket(f"nothing is left of a tensor of shape {shape}")
    if probe.dim() == len(shape):
        axes = tuple(_axis(probe, dim, shape) for dim in range(len(shape)))
        if _is_outer(probe, axes, shape):
            return None if all(kept is None for kept in axes) else IndexMap(shape, axes)
    entries = probe.to(torch.int64)
    if not torch.equal(entries.to(probe.dtype), probe):
        raise InvalidTicket(
            "what is left of a traced tensor are not positions: they are no integers"
        )
    return IndexMap(shape, entries=entries.contiguous())


def _axis(probe: torch.Tensor, dim: int, shape: tuple[int, ...]) -> torch.Tensor | None:
    """Positions along one dimension, read off the first line of a probe in that direction."""
    if probe.shape[dim] == shape[dim]:
        return None  # whole, or no cut by dimensions at all, which _is_outer sees
    line = probe[tuple(slice(None) if d == dim else 0 for d in range(probe.dim()))]
    stride = math.prod(shape[dim + 1 :])
    return line.to(torch.int64).div(stride, rounding_mode="floor") % shape[dim]


def _is_outer(probe: torch.Tensor, axes: _Axes, shape: tuple[int, ...]) -> bool:
    """Whether a cut by whole positions of dimensions leaves exactly this probe."""
    for dim, kept in enumerate(axes):
        if kept is not None and bool((kept.diff() <= 0).any()):
            return False
        if (shape[dim] if kept is None else kept.numel()) != probe.shape[dim]:
            return False
    if probe.dim() < 2:
        return torch.equal(probe, _positions(axes, shape, probe.dtype).expand(probe.shape))
    # In blocks that stay in the cache: a big probe is read once, and nothing as big is made.
    rows = _steps(axes, shape, 0, probe.dtype)
    row = _positions((None, *axes[1:]), (1, *shape[1:]), probe.dtype)
    block = max(1, _BLOCK // max(1, math.prod(probe.shape[1:])))
    return all(
        torch.equal(part, (steps + row).expand(part.shape))
        for part, steps in zip(probe.split(block), rows.split(block), strict=True)
    )


def _positions(axes: _Axes, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Flat positions of what axes keep, made without the whole tensor's."""
    total = torch.zeros((), dtype=dtype)
    for dim in range(len(shape)):
        if shape[dim] != 1:  # else its only position adds nothing
            total = total + _steps(axes, shape, dim, dtype)
    return total


def _steps(axes: _Axes, shape: tuple[int, ...], dim: int, dtype: torch.dtype) -> torch.Tensor:
    """What the positions along one dimension add to a flat position, ready to broadcast."""
    kept = axes[dim]
    positions = torch.arange(shape[dim]) if kept is None else kept.cpu()
    steps = (positions * math.prod(shape[dim + 1 :])).to(dtype)
    return steps.reshape(-1, *(1,) * (len(shape) - dim - 1))


def _check_kind(positions: torch.Tensor, what: str) -> None:
    if not isinstance(positions, torch.Tensor) or positions.dtype != torch.int64:
        came = getattr(positions, "dtype", type(positions).__name__)
        raise InvalidTicket(f"positions of an index map must be an int64 tensor, got {came}")
    if positions.numel() == 0:
        raise InvalidTicket(f"an index map keeps nothing of {what}")


def _check_range(first: torch.Tensor, last: torch.Tensor, size: int) -> None:
    if int(first) < 0 or int(last) >= size:
        raise InvalidTicket(f"an index map's positions must lie in 0..{size - 1}")
