"""The ticket file: plain data in and out (docs/ticket-file.md is its specification)."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from rtl_plugin.channel_file import decode_channels, encode_channels
from rtl_plugin.channel_plan import ChannelPlan
from rtl_plugin.checkpoint import checked_mask_bytes, pack_mask, read_file, write_file
from rtl_plugin.errors import DamagedFile
from rtl_plugin.fingerprint import structure_fingerprint, values_fingerprint
from rtl_plugin.packed_masks import PackedMasks

Tensors = Mapping[str, torch.Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class TicketRecord:
    """One ticket as plain data: its name, its masks, its own state, its channel plan if any."""

    name: str
    masks: Tensors
    state: Tensors
    channels: ChannelPlan | None = None


@dataclass(frozen=True)
class TicketFile:
    """What a ticket file holds.

    Args:
        tickets: the tickets in order, all with the same mask names and shapes.
        fingerprint: ``structure`` and ``theta_0`` (hexadecimal SHA-256), either may be None.
        schedule: how the tickets were found, or None.
        history: one JSON object a (round, group).
        rewind_state: parameters and buffers of a late rewind point, or empty.
        weights: shared weights of a mixture, or empty.
    """

    tickets: Sequence[TicketRecord]
    fingerprint: Mapping[str, str | None]
    schedule: Mapping[str, Any] | None = None
    history: Sequence[Mapping[str, Any]] = ()
    rewind_state: Tensors = field(default_factory=dict)
    weights: Tensors = field(default_factory=dict)


def save(path: str | os.PathLike[str], content: TicketFile, kind: str = "tickets") -> None:
    """Write a ticket file atomically.

    Args:
        path: the file.
        content: what to write.
        kind: ``"tickets"`` or ``"mixture"``.

    Raises:
        OSError: the folder cannot be written.
    """
    shapes = {name: list(mask.shape) for name, mask in content.tickets[0].masks.items()}
    tensors: dict[str, torch.Tensor] = {}
    header = {
        "parameters": [{"name": name, "shape": shape} for name, shape in shapes.items()],
        "tickets": [_described(t, k, tensors) for k, t in enumerate(content.tickets)],
        "fingerprint": dict(content.fingerprint),
        "schedule": content.schedule,
        "history": list(content.history),
        "rewind_state": list(content.rewind_state),
        "weights": list(content.weights),
    }
    for k, ticket in enumerate(content.tickets):
        tensors |= {f"mask.{k}.{j}": pack_mask(ticket.masks[n]) for j, n in enumerate(shapes)}
        tensors |= {f"state.{k}.{j}": value for j, value in enumerate(ticket.state.values())}
    tensors |= {f"rewind.{j}": value for j, value in enumerate(content.rewind_state.values())}
    tensors |= {f"weight.{j}": value for j, value in enumerate(content.weights.values())}
    write_file(path, kind, header, tensors)


def _described(
    ticket: TicketRecord, position: int, tensors: dict[str, torch.Tensor]
) -> dict[str, Any]:
    described: dict[str, Any] = {"name": ticket.name, "state": list(ticket.state)}
    if ticket.channels is not None:
        described["channels"] = encode_channels(ticket.channels, position, tensors)
    return described


def load(path: str | os.PathLike[str], kind: str = "tickets") -> TicketFile:
    """Read a ticket file after checking all of it.

    Args:
        path: the file.
        kind: ``"tickets"`` or ``"mixture"``.

    Returns:
        The content, tensors on the CPU.

    Raises:
        MissingFile: there is no such file, or the path is a folder.
        DamagedFile: it is damaged, foreign, or its header and tensors disagree.
    """
    header, tensors = read_file(path, kind)
    try:
        return _decoded(_Header(header), dict(tensors))
    except DamagedFile as error:
        raise DamagedFile(f"{path}: {error}") from error


def tickets_fingerprint(content: TicketFile) -> str:
    """SHA-256 over what training does not change: names, masks and channel plans.

    Args:
        content: the tickets as plain data.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> record = TicketRecord("a", {"w": torch.tensor([True])}, {})
        >>> len(tickets_fingerprint(TicketFile([record], {})))
        64
    """
    tensors: dict[str, torch.Tensor] = {}
    plans = []
    for position, ticket in enumerate(content.tickets):
        if ticket.channels is not None:
            plans.append(encode_channels(ticket.channels, position, tensors))
        tensors |= {f"{ticket.name}/{name}": mask for name, mask in ticket.masks.items()}
    described = values_fingerprint(tensors)
    return structure_fingerprint([(described + json.dumps(plans), ())]) if plans else described


class _Header:
    """Typed reading of the JSON header; anything unexpected is a damaged file."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def get(self, key: str, kind: type[T] | tuple[type[Any], ...]) -> Any:
        if key not in self._fields or not isinstance(self._fields[key], kind):
            raise DamagedFile(f"header field {key!r} is missing or of the wrong kind")
        return self._fields[key]

    def optional(self, key: str, kind: type[T]) -> Any:
        return self.get(key, kind) if key in self._fields else None

    def names(self, key: str) -> list[str]:
        return _unique_names(key, self.get(key, list))

    def objects(self, key: str) -> list["_Header"]:
        entries = self.get(key, list)
        if not all(isinstance(entry, dict) for entry in entries):
            raise DamagedFile(f"header field {key!r} must list JSON objects")
        return [_Header(entry) for entry in entries]


def _unique_names(key: str, names: Sequence[Any]) -> list[str]:
    if not all(isinstance(name, str) and name for name in names):
        raise DamagedFile(f"header field {key!r} must list non-empty strings")
    if len(set(names)) != len(names):
        raise DamagedFile(f"header field {key!r} lists a name twice")
    return list(names)


def _shape(parameter: _Header) -> tuple[int, ...]:
    shape = parameter.get("shape", list)
    # Beyond 64 dimensions numpy and torch give up.
    if len(shape) > 64 or not all(type(size) is int and size >= 0 for size in shape):
        raise DamagedFile(f"shape {str(shape)[:80]} is not a list of at most 64 sizes")
    return tuple(shape)


def _decoded(header: _Header, tensors: dict[str, torch.Tensor]) -> TicketFile:
    take = _taker(tensors)
    parameters = header.objects("parameters")
    names = _unique_names("parameters", [p.get("name", str) for p in parameters])
    shapes = dict(zip(names, map(_shape, parameters), strict=True))
    listed = header.objects("tickets")
    ticket_names = _unique_names("tickets", [t.get("name", str) for t in listed])
    if not names or not listed:
        raise DamagedFile("it holds no masks")
    records = []
    for k, (name, entry) in enumerate(zip(ticket_names, listed, strict=True)):
        packed = {
            n: (checked_mask_bytes(take(f"mask.{k}.{j}"), shape), shape)
            for j, (n, shape) in enumerate(shapes.items())
        }
        masks = PackedMasks.from_bytes(packed)
        if not any(octets.any() for octets, _ in packed.values()):
            raise DamagedFile(f"ticket {name!r} keeps no weight at all")
        state = {n: take(f"state.{k}.{j}") for j, n in enumerate(entry.names("state"))}
        channels = decode_channels(entry.optional("channels", dict), k, take, masks)
        records.append(TicketRecord(name, masks, state, channels))
    if len({record.channels is None for record in records}) > 1:
        raise DamagedFile("some of its tickets have a channel plan and others have none")
    rewind = {n: take(f"rewind.{j}") for j, n in enumerate(header.names("rewind_state"))}
    weights = {n: take(f"weight.{j}") for j, n in enumerate(header.names("weights"))}
    if tensors:
        raise DamagedFile(f"it holds tensors that its header does not name: {sorted(tensors)[:3]}")
    history = header.get("history", list)
    if not all(isinstance(row, dict) for row in history):
        raise DamagedFile("header field 'history' must list JSON objects")
    schedule = header.get("schedule", (dict, type(None)))
    return TicketFile(records, _fingerprint(header), schedule, history, rewind, weights)


def _fingerprint(header: _Header) -> dict[str, str | None]:
    fields = _Header(header.get("fingerprint", dict))
    return {key: fields.get(key, (str, type(None))) for key in ("structure", "theta_0")}


def _taker(tensors: dict[str, torch.Tensor]) -> Callable[[str], torch.Tensor]:
    def take(key: str) -> torch.Tensor:
        if key not in tensors:
            raise DamagedFile(f"tensor {key!r} is missing")
        return tensors.pop(key)

    return take
