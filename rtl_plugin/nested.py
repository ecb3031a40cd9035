"""Batches and outputs of any nesting: dict, list, tuple, named tuple, dataclass, tensor."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch


def map_tensors(function: Callable[[torch.Tensor], Any], nested: Any) -> Any:
    """Apply a function to every tensor of a nested structure, keeping the structure.

    Args:
        function: called once per tensor.
        nested: tensors in dicts, lists, tuples, named tuples and dataclasses; other leaves pass.

    Returns:
        The same nesting with every tensor replaced by the function's result.

    Example:
        >>> map_tensors(lambda t: t.shape[0], {"x": torch.zeros(3), "name": "a"})
        {'x': 3, 'name': 'a'}
    """
    if isinstance(nested, torch.Tensor):
        return function(nested)
    return _rebuilt(nested, lambda part: map_tensors(function, part))


def _rebuilt(nested: Any, rebuild: Callable[[Any], Any]) -> Any:
    """A container of the same type with every part rebuilt; anything else as it is."""
    if isinstance(nested, Mapping):
        items = {key: rebuild(value) for key, value in nested.items()}
        return items if type(nested) is dict else _rebuilt_mapping(nested, items)
    if isinstance(nested, tuple) and hasattr(nested, "_fields"):
        return type(nested)(*map(rebuild, nested))
    if isinstance(nested, (list, tuple)):
        return type(nested)(map(rebuild, nested))
    if dataclasses.is_dataclass(nested) and not isinstance(nested, type):
        clone = copy.copy(nested)  # its constructor may check or compute, and has run before
        for field in dataclasses.fields(nested):
            if hasattr(nested, field.name):
                # Also past the lock of a frozen dataclass: nobody else has the clone yet.
                object.__setattr__(clone, field.name, rebuild(getattr(nested, field.name)))
        return clone
    return nested


def _rebuilt_mapping(original: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    try:
        rebuilt = type(original)(items)  # type: ignore[call-arg]
        same = len(rebuilt) == len(items) and all(rebuilt[key] is items[key] for key in items)
    except (TypeError, ValueError, KeyError):
        same = False
    return rebuilt if same else items  # a constructor may take anything; a dict carries the items


def tensors_in(nested: Any) -> Iterator[torch.Tensor]:
    """Every tensor of a nested structure, in order.

    Args:
        nested: as in :func:`map_tensors`.

    Returns:
        An iterator of tensors.

    Example:
        >>> len(list(tensors_in([torch.zeros(1), (torch.zeros(2), "x")])))
        2
    """
    found: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor  # a named tuple may look at what it is built from

    map_tensors(note, nested)
    return iter(found)


def to_device(nested: Any, device: torch.device) -> Any:
    """Move every tensor of a nested structure to a device.

    Args:
        nested: as in :func:`map_tensors`; an object with a ``to`` of its own, such as a
            ``PackedSequence`` or a graph, is moved by it.
        device: where the model lives.

    Returns:
        The same nesting with its tensors on the device.

    Example:
        >>> to_device({"x": torch.zeros(1)}, torch.device("cpu"))["x"].device.type
        'cpu'
    """
    if isinstance(nested, torch.Tensor):
        return nested.to(device, non_blocking=True)
    if callable(getattr(nested, "to", None)) and not isinstance(nested, type):
        return nested.to(device)
    return _rebuilt(nested, lambda part: to_device(part, device))
