"""Optimizer and scheduler state as JSON and tensors, since files hold no pickle."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from rtl_plugin.errors import DamagedFile, InvalidArgument

_PLAIN = (str, int, float, bool, type(None))


def encode_state(value: Any, tensors: dict[str, torch.Tensor], prefix: str) -> Any:
    """Turn nested state into JSON-able data, moving tensors out.

    Args:
        value: dicts, lists, tuples, Counters, tensors, strings, numbers, None, nested.
        tensors: receives ``prefix + number`` -> tensor.
        prefix: of the tensors' keys.

    Returns:
        JSON-able data for :func:`decode_state`.

    Raises:
        InvalidArgument: a value of another type.

    Example:
        >>> tensors = {}
        >>> encoded = encode_state({0: (1, torch.zeros(2))}, tensors, "t.")
        >>> decode_state(encoded, tensors)
        {0: (1, tensor([0., 0.]))}
    """
    if isinstance(value, torch.Tensor):
        key = f"{prefix}{len(tensors)}"
        tensors[key] = value
        return {"tensor": key}
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        kind = "counter" if isinstance(value, Counter) else "dict"
        items = value.items()
        return {kind: [[encode_state(part, tensors, prefix) for part in item] for item in items]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [encode_state(item, tensors, prefix) for item in value]}
    raise InvalidArgument(
        f"optimizer or scheduler state holds a {type(value).__name__}, which a checkpoint cannot "
        "keep: leave run_folder= out, or use one whose state is tensors, numbers and strings"
    )


def decode_state(encoded: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Undo :func:`encode_state`.

    Args:
        encoded: its result, possibly after a trip through JSON.
        tensors: the tensors that it moved out.

    Returns:
        The nested state.

    Raises:
        DamagedFile: the data was not made by :func:`encode_state`.
    """
    try:
        return _decoded(encoded, tensors)
    except (TypeError, ValueError) as error:  # not pairs, not a list, not hashable
        if isinstance(error, DamagedFile):
            raise
        raise DamagedFile(f"not encoded state: {error}") from error


def _decoded(encoded: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(encoded, _PLAIN):
        return encoded
    if not isinstance(encoded, dict) or len(encoded) != 1:
        raise DamagedFile(f"not encoded state: {str(encoded)[:60]}")
    kind, content = next(iter(encoded.items()))
    if kind == "tensor" and content in tensors:
        return tensors[content].clone()
    if kind in ("dict", "counter"):
        pairs = {_decoded(k, tensors): _decoded(v, tensors) for k, v in content}
        return Counter(pairs) if kind == "counter" else pairs
    if kind in ("list", "tuple"):
        items = [_decoded(item, tensors) for item in content]
        return tuple(items) if kind == "tuple" else items
    raise DamagedFile(f"not encoded state: {kind!r} {str(content)[:60]}")
