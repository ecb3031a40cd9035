"""What makes two calls alike enough to share a plan, and two outputs equal."""

import dataclasses
import types
from collections.abc import Hashable, Mapping
from typing import Any

import torch

from rtl_plugin.errors import MaskBypassed
from rtl_plugin.nested import tensors_in

# Between strategies, by dtype: absolute, relative.
TOLERANCES = {
    torch.float64: (1e-10, 1e-10),
    torch.float32: (2e-4, 1e-3),
    torch.bfloat16: (2e-2, 2e-2),
    torch.float16: (2e-3, 1e-2),
}


# Hashed by identity, and the same object whenever the same is meant.
_ONE_OF_A_KIND = (
    *(type, types.FunctionType, types.BuiltinFunctionType, types.EllipsisType),
    *(torch.dtype, torch.layout, torch.memory_format),
)


class Indescribable(MaskBypassed):
    """An input that cannot be compared with that of another call, or is another at each."""


def signature(inputs: Any, size: int) -> Hashable:
    """Shapes but for the batch, dtypes, devices and plain options of a call, but for floats.

    Args:
        inputs: args and kwargs of a network's forward.
        size: B.

    Returns:
        Something hashable.

    Raises:
        Indescribable: an input can neither be hashed nor looked into.

    Example:
        >>> signature(((torch.ones(2, 3),), {}), 2) == signature(((torch.ones(5, 3),), {}), 5)
        True
    """
    modes = torch.is_grad_enabled(), *(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda"))
    return _described(inputs, size), modes


def _described(part: Any, size: int) -> Hashable:
    if isinstance(part, torch.Tensor):
        batched = part.dim() > 0 and part.shape[0] == size
        shape = tuple(part.shape[1:]) if batched else tuple(part.shape)
        return batched, shape, part.dtype, str(part.device)
    if isinstance(part, Mapping):
        return tuple((key, _described(value, size)) for key, value in part.items())
    if isinstance(part, (list, tuple)):
        return type(part).__name__, tuple(_described(value, size) for value in part)
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        fields = [(f.name, getattr(part, f.name, None)) for f in dataclasses.fields(part)]
        return type(part), tuple((name, _described(value, size)) for name, value in fields)
    if isinstance(part, float):  # a number may be another at every call, a timestep for example
        return float
    plain = part is None or isinstance(part, _ONE_OF_A_KIND)
    if not plain and (not isinstance(part, Hashable) or type(part).__hash__ is object.__hash__):
        raise Indescribable(f"an input of type {type(part).__name__} may be another at every call")
    return type(part), part


def close(outputs: Any, expected: Any) -> bool:
    """Whether two outputs are equal within what strategies may differ by.

    Args:
        outputs: nested tensors.
        expected: nested tensors.

    Returns:
        True where every tensor is, by the tolerance of its dtype; autocast computes in bfloat16.

    Example:
        >>> close(torch.ones(2), torch.ones(2) + 1e-5), close(torch.ones(2), torch.zeros(2))
        (True, False)
    """
    pairs = list(zip(tensors_in(outputs), tensors_in(expected), strict=False))
    if len(list(tensors_in(outputs))) != len(list(tensors_in(expected))):
        return False
    return all(_tensors_close(a, b) for a, b in pairs)


def _tensors_close(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    rough = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
    atol, rtol = TOLERANCES[torch.bfloat16] if rough else TOLERANCES.get(a.dtype, (0.0, 0.0))
    return torch.allclose(a, b, atol=atol, rtol=rtol, equal_nan=True)
