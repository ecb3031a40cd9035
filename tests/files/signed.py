"""Ticket files written by hand: the header is whatever a test says, the signature is right."""

import copy
import json
import struct
from pathlib import Path
from typing import Any

import torch

from rtl_plugin.checkpoint import pack_mask, write_file
from rtl_plugin.ticket import Ticket
from rtl_plugin.tickets import TicketSet

MASK = torch.tensor([[True, False, True], [False, True, True]])


def small_set() -> TicketSet:
    """Two tickets with state and everything else that a file can hold."""
    return TicketSet(
        [
            Ticket("in/door", {"a.w": MASK, "b": MASK[0]}, {"mean": torch.tensor([1.5, -2.0])}),
            Ticket("straße", {"a.w": ~MASK, "b": MASK[1]}, {"mean": torch.tensor([0.0, 3.0])}),
        ],
        structure="ab" * 32,
        theta_0="cd" * 32,
        schedule={"kind": "GeometricSchedule", "sparsity": 0.75, "rounds": 3},
        history=[{"round": 1, "group": "in/door", "loss": 0.1 + 0.2}],
        rewind_state={"a.w": torch.linspace(0, 1, 6).reshape(2, 3)},
    )


def valid_header() -> dict[str, Any]:
    return {
        "parameters": [{"name": "a.w", "shape": [2, 3]}],
        "tickets": [{"name": "x", "state": ["mean"]}],
        "fingerprint": {"structure": None, "theta_0": None},
        "schedule": None,
        "history": [],
        "rewind_state": ["a.w"],
        "weights": [],
    }


def valid_tensors() -> dict[str, torch.Tensor]:
    return {
        "mask.0.0": pack_mask(MASK),
        "state.0.0": torch.tensor([1.0]),
        "rewind.0": torch.zeros(2, 3),
    }


def changed(target: dict[str, Any], at: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A deep copy with one place changed."""
    result = copy.deepcopy(target)
    place: Any = result
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    return result


def sign(
    path: Path,
    header: dict[str, Any] | None = None,
    tensors: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write a file whose signature is right, whatever it says."""
    write_file(
        path,
        "tickets",
        valid_header() if header is None else header,
        valid_tensors() if tensors is None else tensors,
    )
    return path


def container(header: bytes, data: bytes = b"") -> bytes:
    """A safetensors file from its raw parts."""
    return struct.pack("<Q", len(header)) + header + data


def foreign(path: Path, text: str, **entries: Any) -> Path:
    """A safetensors file whose rtl_plugin header is any text, unsigned."""
    header = {"__metadata__": {"rtl_plugin": text}, **entries}
    path.write_bytes(container(json.dumps(header).encode()))
    return path
