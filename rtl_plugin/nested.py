"""Batches and outputs of any nesting: dict, list, tuple, named tuple, dataclass, tensor."""

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
    if isinstance(nested, Mapping):
        items = {key: map_tensors(function, value) for key, value in nested.items()}
        return items if type(nested) is dict else _rebuilt_mapping(nested, items)
    if isinstance(nested, tuple) and hasattr(nested, "_fields"):
        return type(nested)(*(map_tensors(function, value) for value in nested))
    if isinstance(nested, (list, tuple)):
        return type(nested)(map_tensors(function, value) for value in nested)
    if dataclasses.is_dataclass(nested) and not isinstance(nested, type):
        values = {f.name: getattr(nested, f.name) for f in dataclasses.fields(nested) if f.init}
        return dataclasses.replace(
            nested, **{key: map_tensors(function, value) for key, value in values.items()}
        )
    return nested


def _rebuilt_mapping(original: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    try:
        return type(original)(items)  # type: ignore[call-arg]
    except TypeError:  # a mapping with its own constructor: a plain dict carries the same items
        return items


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
    map_tensors(found.append, nested)
    return iter(found)


def to_device(nested: Any, device: torch.device) -> Any:
    """Move every tensor of a nested structure to a device.

    Args:
        nested: as in :func:`map_tensors`.
        device: where the model lives.

    Returns:
        The same nesting with its tensors on the device.

    Example:
        >>> to_device({"x": torch.zeros(1)}, torch.device("cpu"))["x"].device.type
        'cpu'
    """
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True), nested)
