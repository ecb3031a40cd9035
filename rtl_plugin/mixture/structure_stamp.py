"""Whether a network is still built as it was: modules, parameters, dtypes and devices."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class StructureStamp:
    """What a network consisted of at one moment.

    Args:
        parts: its modules and parameters; held, so that none is mistaken for a later one.
        described: names, dtypes, devices and shapes of its tensors.
    """

    parts: tuple[Any, ...]
    described: tuple[Any, ...]

    def same(self, other: "StructureStamp") -> bool:
        """Whether another stamp was taken of the same parts."""
        return (
            self.described == other.described
            and len(self.parts) == len(other.parts)
            and all(a is b for a, b in zip(self.parts, other.parts, strict=True))
        )


def structure_stamp(model: nn.Module) -> StructureStamp:
    """What a network consists of now; values are not looked at.

    Args:
        model: the network.

    Returns:
        What :meth:`StructureStamp.same` compares.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
        >>> before = structure_stamp(model)
        >>> before.same(structure_stamp(model)), before.same(structure_stamp(model.double()))
        (True, False)
    """
    parts: list[Any] = []
    described: list[Any] = []
    for module in model.modules():
        parts.append(module)
        for name, parameter in module._parameters.items():
            parts.append(parameter)
            described.append((name, _kind(parameter)))
        described += [(name, _kind(buffer)) for name, buffer in module._buffers.items()]
    return StructureStamp(tuple(parts), tuple(described))


def _kind(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else (tensor.dtype, tensor.device, tensor.shape)
