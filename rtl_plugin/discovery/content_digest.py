"""One SHA-256 over a batch of any nesting."""

import hashlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.fingerprint import raw_bytes

# Modules whose objects say in their repr what they hold, all of it.
_TELLING = {"datetime", "decimal", "fractions", "pathlib", "torch", "uuid", "zoneinfo"}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, range, slice, type(...))


def content_digest(nested: Any) -> str:
    """SHA-256 over the values of a batch, the same in every process.

    Args:
        nested: tensors, arrays, numbers and strings in mappings, sequences, sets, dataclasses and
            other objects with attributes.

    Returns:
        64 hexadecimal digits.

    Raises:
        InvalidArgument: it holds an object whose content cannot be read.

    Example:
        >>> first = content_digest({"x": torch.zeros(2), "name": ("a", 1)})
        >>> first == content_digest({"x": torch.zeros(2), "name": ("a", 2)})
        False
    """
    digest = _Digest()
    digest.feed(nested)
    return digest.sha256.hexdigest()


class _Digest:
    """Walks through an object and hashes what it meets."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self._open: list[int] = []  # what the walk is inside of, to notice a circle

    def feed(self, value: Any) -> None:
        if isinstance(value, _PLAIN):
            self._mark(type(value), repr(value))
        elif isinstance(value, torch.Tensor):
            dense = value if value.layout is torch.strided else value.to_dense()
            self._mark(torch.Tensor, str(value.dtype), tuple(value.shape))
            self.sha256.update(raw_bytes(dense.resolve_conj().resolve_neg()))
        elif isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
            self._mark(np.ndarray, value.dtype.str, value.shape)
            self.sha256.update(value.tobytes())
        elif id(value) in self._open:
            self._mark(type(value), "circle")
        else:
            self._open.append(id(value))
            self._feed_parts(value)
            self._open.pop()

    def _feed_parts(self, value: Any) -> None:
        parts = _parts(value)
        self._mark(type(value), len(parts))
        for part in parts:
            self.feed(part)

    def _mark(self, kind: type, *more: Any) -> None:
        """What follows, with its length, so that no two nestings give the same bytes."""
        self.sha256.update(f"{kind.__module__}.{kind.__qualname__} {more!r};".encode())


def dotted_name(value: Any) -> str:
    """Module and qualified name of a class or function, also of one written in C.

    Args:
        value: it has a ``__qualname__``.

    Returns:
        For example ``builtins.len``; None for a module that it does not say.

    Example:
        >>> dotted_name(len), dotted_name(str.join)
        ('builtins.len', 'None.str.join')
    """
    return f"{getattr(value, '__module__', None)}.{value.__qualname__}"


def attributes(value: Any) -> dict[str, Any]:
    """What an object holds in its ``__dict__`` and in its slots.

    Args:
        value: any object.

    Returns:
        Attribute name -> value; empty for an object that has neither.

    Example:
        >>> attributes(torch.optim.lr_scheduler.LambdaLR), attributes(3)
        ({}, {})
    """
    if isinstance(value, type):
        return {}
    slots = (getattr(kind, "__slots__", ()) for kind in type(value).__mro__)
    names = [n for each in slots for n in ([each] if isinstance(each, str) else each)]
    own = [name for name in names if not name.startswith("__") and hasattr(value, name)]
    held = {name: getattr(value, name) for name in own}
    return {**held, **getattr(value, "__dict__", {})}


def _parts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [part for item in value.items() for part in item]
    if isinstance(value, AbstractSet):
        return sorted(content_digest(part) for part in value)  # its order is nobody's
    if isinstance(value, np.ndarray):
        return [value.shape, *value.reshape(-1).tolist()]
    if isinstance(value, Sequence):
        return list(value)
    if hasattr(value, "__qualname__"):
        return [dotted_name(value)]
    if type(value).__module__ in _TELLING:
        return [repr(value)]
    held = attributes(value)
    if held:
        return [part for item in held.items() for part in item]
    raise InvalidArgument(
        f"warm_start compares batches by value, and one holds a {type(value).__qualname__}, whose "
        "content cannot be read: give batches of tensors, arrays, numbers and strings, or leave "
        "warm_start= out"
    )
