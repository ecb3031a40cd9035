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
    return {
        "tensors": described,
        "lists": len(numbers),
        "attributes": {m: dict(values) for m, values in plan.attributes.items()},
        "shared_attributes": {m: dict(values) for m, values in plan.shared_attributes.items()},
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
        plan = _plan(header, position, take)
        plan.check_masks(masks)
    except (InvalidTicket, RecursionError) as error:
        raise DamagedFile(f"the channel plan of ticket {position} is malformed: {error}") from error
    return plan


def _plan(header: Any, position: int, take: Callable[[str], torch.Tensor]) -> ChannelPlan:
    tables = ("attributes", "shared_attributes")
    kinds = {"tensors": list, "lists": int, "compact_only": list, **dict.fromkeys(tables, dict)}
    _check(header, kinds)
    lists = [take(f"channels.{position}.{j}") for j in range(header["lists"])]
    unused = set(range(len(lists)))
    maps: dict[str, IndexMap] = {}
    for entry in header["tensors"]:
        index_map = _index_map(entry, lists, unused)
        if entry["name"] in maps:
            raise DamagedFile("a channel plan lists a tensor twice")
        maps[entry["name"]] = index_map
    if unused or header["lists"] < 0:
        raise DamagedFile("a channel plan has lists of positions that no tensor uses")
    if not all(isinstance(v, dict) for table in tables for v in header[table].values()):
        raise DamagedFile("a channel plan's attributes are not listed by module")
    if not all(isinstance(reason, str) for reason in header["compact_only"]):
        raise DamagedFile("a channel plan gives a reason that is no text")
    attributes, shared = (
        {m: {n: _tuples(value) for n, value in v.items()} for m, v in header[table].items()}
        for table in tables
    )
    return ChannelPlan(maps, attributes, tuple(header["compact_only"]), shared)


def _index_map(entry: Any, lists: list[torch.Tensor], unused: set[int]) -> IndexMap:
    by_entry = isinstance(entry, dict) and "entries" in entry
    _check(
        entry, {"name": str, "shape": list, **({"entries": int} if by_entry else {"axes": list})}
    )
    shape = entry["shape"]
    # Beyond 63 bits no tensor has a size, and beyond 64 dimensions torch gives up.
    if len(shape) > 64 or not all(type(size) is int and 0 < size < 2**63 for size in shape):
        raise DamagedFile(f"a channel plan speaks of a tensor of shape {str(shape)[:80]}")
    numbers = [entry["entries"]] if by_entry else entry["axes"]
    for number in numbers:
        if number is None and not by_entry:
            continue
        if type(number) is not int or not 0 <= number < len(lists):
            raise DamagedFile(f"a channel plan has no list of positions {str(number)[:40]!r}")
        unused.discard(number)
    if by_entry:
        return IndexMap(tuple(shape), entries=lists[numbers[0]])
    return IndexMap(tuple(shape), tuple(None if n is None else lists[n] for n in numbers))


def _check(fields: Any, kinds: Mapping[str, type]) -> None:
    """Exactly these keys, of exactly these types: a bool is no number."""
    if not isinstance(fields, dict) or fields.keys() != kinds.keys():
        came = sorted(fields) if isinstance(fields, dict) else type(fields).__name__
        raise DamagedFile(f"a channel plan needs {sorted(kinds)}, got {str(came)[:120]}")
    for key, kind in kinds.items():
        if type(fields[key]) is not kind or fields[key] == "":
            raise DamagedFile(f"field {key!r} of a channel plan is of the wrong kind")


def _tuples(value: Any) -> Any:
    """JSON knows lists only; a plan's sequences are tuples."""
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
