"""Channel plans in the ticket file: index lists as tensors, the rest in the header."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rtl_plugin.channel_plan import ChannelPlan
from rtl_plugin.errors import DamagedFile, InvalidTicket
from rtl_plugin.index_map import IndexMap

Tensors = dict[str, torch.Tensor]


def encode_channels(plan: ChannelPlan, position: int, tensors: Tensors) -> dict[str, Any]:
    """Write a plan's index lists to tensors, every distinct list once, and describe the rest.

    Args:
        plan: the plan of one ticket.
        position: of the ticket.
        tensors: receives ``channels.K.J``.

    Returns:
        The header object.

    Example:
        >>> plan = ChannelPlan({"w": IndexMap((3,), (torch.tensor([0, 2]),))})
        >>> tensors = {}
        >>> encode_channels(plan, 0, tensors)["tensors"], tensors
        ([{'name': 'w', 'shape': [3], 'axes': [0]}], {'channels.0.0': tensor([0, 2])})
    """
    numbers: dict[tuple[tuple[int, ...], bytes], int] = {}

    def number(positions: torch.Tensor) -> int:
        listed = positions.detach().cpu().contiguous()
        key = (tuple(listed.shape), listed.numpy().tobytes())
        if key not in numbers:
            numbers[key] = len(numbers)
            tensors[f"channels.{position}.{numbers[key]}"] = listed
        return numbers[key]

    described = []
    for name, index_map in plan.maps.items():
        entry: dict[str, Any] = {"name": name, "shape": list(index_map.shape)}
        if index_map.entries is not None:
            entry["entries"] = number(index_map.entries)
        else:
            entry["axes"] = [None if kept is None else number(kept) for kept in index_map.axes]
        described.append(entry)
    attributes = {module: dict(values) for module, values in plan.attributes.items()}
    return {
        "tensors": described,
        "lists": len(numbers),
        "attributes": attributes,
        "compact_only": list(plan.compact_only),
    }


def decode_channels(
    header: Any,
    position: int,
    take: Callable[[str], torch.Tensor],
    masks: Mapping[str, torch.Tensor],
) -> ChannelPlan | None:
    """Undo :func:`encode_channels`.

    Args:
        header: the ticket's header object for channels, or None.
        position: of the ticket.
        take: hands out a tensor of the file by key, once.
        masks: the ticket's.

    Returns:
        The plan, or None where there is none.

    Raises:
        DamagedFile: header and tensors do not make a plan, or not one of these masks.

    Example:
        >>> decode_channels(None, 0, {}.__getitem__, {}) is None
        True
    """
    if header is None:
        return None
    try:
        lists = [take(f"channels.{position}.{j}") for j in range(header["lists"])]
        maps = {entry["name"]: _index_map(entry, lists) for entry in header["tensors"]}
        if len(maps) != len(header["tensors"]):
            raise DamagedFile("a channel plan lists a tensor twice")
        attributes = {module: _plain(v) for module, v in header["attributes"].items()}
        plan = ChannelPlan(maps, attributes, tuple(header["compact_only"]))
        plan.check_masks(masks)
    except (KeyError, TypeError, AttributeError, IndexError, InvalidTicket) as error:
        raise DamagedFile(f"the channel plan of ticket {position} is malformed: {error}") from error
    return plan


def _index_map(entry: Mapping[str, Any], lists: list[torch.Tensor]) -> IndexMap:
    shape = tuple(entry["shape"])
    if not all(type(size) is int and size > 0 for size in shape):
        raise DamagedFile(f"a channel plan speaks of a tensor of shape {str(shape)[:80]}")
    if "entries" in entry:
        return IndexMap(shape, entries=lists[entry["entries"]])
    return IndexMap(shape, tuple(None if n is None else lists[n] for n in entry["axes"]))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _tuples(value) for name, value in values.items()}


def _tuples(value: Any) -> Any:
    """JSON knows lists only; a plan's sequences are tuples."""
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
