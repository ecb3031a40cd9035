"""Tensors that hold their own flat positions, so that what survives a cut says what it was."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from rtl_plugin.integration_api import IndexMap, traced_map

_EXACT_IN_FLOAT32 = 2**24


@dataclass(frozen=True)
class Probe:
    """The probe of one parameter or buffer.

    Args:
        shape: of the shared tensor.
        device: where the host cuts.
        whole_kernels: the host cuts only the first two dimensions, so the probe holds one position
            a kernel; a tenth of the work for 3 x 3 convolutions.
    """

    shape: tuple[int, ...]
    device: torch.device
    whole_kernels: bool = False

    def positions(self, index_map: IndexMap | None) -> torch.Tensor:
        """The probe, cut as the tensor has been cut so far.

        Args:
            index_map: of the tensor, None where it is whole.

        Returns:
            Floating tensor (the host makes parameters of it) that holds positions exactly.
        """
        shape = self._small_shape()
        size = math.prod(shape)
        dtype = torch.float32 if size <= _EXACT_IN_FLOAT32 else torch.float64
        if index_map is None:
            return torch.arange(size, dtype=dtype, device=self.device).reshape(shape)
        if self.whole_kernels:
            index_map = self._by_kernel(index_map)
        return index_map.positions(dtype).to(self.device)

    def read(self, probe: torch.Tensor, look_closely: bool = True) -> IndexMap | None:
        """The map that a probe shows after a cut, None where the tensor is whole.

        Args:
            probe: what is left of :meth:`positions`.
            look_closely: read every entry; else, of convolutions that the host itself has cut by
                rows and columns, the border only.

        Raises:
            InvalidTicket: it does not hold positions any more.
        """
        if self.whole_kernels and not look_closely:
            axes = _border(probe, self.shape[1])
            if axes is not None:
                pairs = zip(axes, self.shape[:2], strict=True)
                kept = [None if axis.numel() == size else axis for axis, size in pairs]
                whole = all(axis is None for axis in kept)
                rest = (None,) * (len(self.shape) - 2)
                return None if whole else IndexMap(self.shape, (*kept, *rest))
        index_map = traced_map(probe, self._small_shape())
        if index_map is None or not self.whole_kernels:
            return index_map
        if index_map.entries is None:
            return IndexMap(self.shape, index_map.axes)
        kernel = math.prod(self.shape[2:])
        inner = torch.arange(kernel).reshape(self.shape[2:])
        return IndexMap(self.shape, entries=index_map.entries * kernel + inner)

    def _by_kernel(self, index_map: IndexMap) -> IndexMap:
        shape = self._small_shape()
        if index_map.entries is None:
            return IndexMap(shape, (*index_map.axes[:2], *(None,) * (len(shape) - 2)))
        firsts = index_map.entries.flatten(2)[:, :, :1] // math.prod(self.shape[2:])
        return IndexMap(shape, entries=firsts.reshape(*firsts.shape[:2], *shape[2:]))

    def _small_shape(self) -> tuple[int, ...]:
        if not self.whole_kernels:
            return self.shape
        return (*self.shape[:2], *(1,) * (len(self.shape) - 2))


def _border(probe: torch.Tensor, columns: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Kept rows and columns, read off a probe's first lines; None if its last ones disagree."""
    kernels = probe.detach().cpu().flatten(1)
    rows = kernels[:, 0].to(torch.int64) // columns
    kept = kernels[0].to(torch.int64) % columns
    last_row = torch.equal(kernels[-1].to(torch.int64), rows[-1] * columns + kept)
    last_column = torch.equal(kernels[:, -1].to(torch.int64), rows * columns + kept[-1])
    return (rows, kept) if last_row and last_column else None


def whole_kernel_weights(network: nn.Module, customized: Iterable[object]) -> set[str]:
    """Names of the convolution weights that the host cuts by whole kernels only.

    Args:
        network: the working network.
        customized: module types and modules that the user has pruners of their own for.

    Returns:
        Parameter names.
    """
    own = list(customized)
    types = tuple(kind for kind in own if isinstance(kind, type))
    return {
        f"{name}.weight" if name else "weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.modules.conv._ConvNd)
        and not isinstance(module, types)
        and not any(module is one for one in own)
    }
