"""Typed reading of a saved router's fields; anything unexpected is a damaged file."""

from collections.abc import Mapping
from typing import Any

import torch

from rtl_plugin.errors import DamagedFile

State = dict[str, Any]


def field(state: Mapping[Any, Any], key: str, *kinds: type[Any]) -> Any:
    """One field of a saved router.

    Args:
        state: the decoded fields.
        key: which.
        kinds: the types it may have; bool is no int here.

    Returns:
        Its value.

    Raises:
        DamagedFile: it is missing or of another type.

    Example:
        >>> field({"n": 2}, "n", int)
        2
    """
    value = state.get(key)
    allowed = key in state and isinstance(value, kinds)
    if not allowed or (isinstance(value, bool) and bool not in kinds):
        raise DamagedFile(f"field {key!r} of the saved router is missing or of the wrong kind")
    return value


def names_field(state: Mapping[Any, Any], key: str) -> tuple[str, ...]:
    """A tuple of different names.

    Args:
        state: the decoded fields.
        key: which.

    Returns:
        The names.

    Raises:
        DamagedFile: it is something else.

    Example:
        >>> names_field({"tickets": ("a", "b")}, "tickets")
        ('a', 'b')
    """
    names = field(state, key, tuple, list)
    if not names or not all(isinstance(name, str) for name in names):
        raise DamagedFile(f"field {key!r} of the saved router must list names")
    if len(set(names)) != len(names):
        raise DamagedFile(f"field {key!r} of the saved router lists a name twice")
    return tuple(names)


def tensor_field(
    state: Mapping[Any, Any], key: str, shape: tuple[int | None, ...], dtype: torch.dtype
) -> torch.Tensor:
    """A tensor of known dtype and shape; floating values must be finite.

    Args:
        state: the decoded fields.
        key: which.
        shape: its shape, None where any size will do.
        dtype: its dtype.

    Returns:
        The tensor.

    Raises:
        DamagedFile: it is something else.

    Example:
        >>> tensor_field({"w": torch.zeros(2, 3)}, "w", (2, None), torch.float32).shape
        torch.Size([2, 3])
    """
    value: torch.Tensor = field(state, key, torch.Tensor)
    fits = value.dim() == len(shape) and all(
        asked in (None, size) for asked, size in zip(shape, value.shape, strict=True)
    )
    if value.dtype != dtype or not fits:
        raise DamagedFile(
            f"tensor {key!r} of the saved router is {value.dtype} {tuple(value.shape)}, expected "
            f"{dtype} {shape}"
        )
    if value.is_floating_point() and not torch.isfinite(value).all():
        raise DamagedFile(f"tensor {key!r} of the saved router is not finite")
    return value
