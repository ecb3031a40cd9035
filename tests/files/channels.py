"""A small channel ticket, its header and its tensors, for files written by hand."""

from typing import Any

import torch

from rtl_plugin import Ticket, TicketSet
from rtl_plugin.channel_plan import ChannelPlan
from rtl_plugin.checkpoint import pack_mask
from rtl_plugin.index_map import IndexMap

ROWS, COLUMNS = torch.tensor([0, 2]), torch.tensor([1, 2])
ENTRIES = torch.tensor([[5, 0], [3, 7]])


def channel_set() -> TicketSet:
    """Two tickets with every kind of map and of attribute."""
    tickets = []
    for k, (name, kept) in enumerate({"in/door": ROWS, "straße": ROWS + 1}.items()):
        maps = {
            "a.w": IndexMap((4, 3), (kept, COLUMNS - k)),
            "a.b": IndexMap((4,), (kept,)),
            "g": IndexMap((2, 4), entries=ENTRIES[:, : 2 - k]),
            "norm.running_mean": IndexMap((4,), (kept,)),
        }
        attributes = {
            "": {"width": 2, "scale": 0.1 + 0.2, "kind": "grün", "nothing": None, "flag": True},
            "a": {"shape": (2, (3, ()), "x"), "out_features": 2},
        }
        plan = ChannelPlan(maps, attributes, ("layer 'norm' (é)", "another")[k:])
        masks = {n: maps[n].mask() for n in ("a.w", "a.b", "g")}
        tickets.append(Ticket(name, masks, {"norm.running_mean": torch.randn(4)}, plan))
    return TicketSet(tickets, structure="ab" * 32)


def channel_header() -> dict[str, Any]:
    return {
        "parameters": [{"name": "w", "shape": [4, 3]}, {"name": "g", "shape": [2, 4]}],
        "tickets": [
            {
                "name": "x",
                "state": [],
                "channels": {
                    "tensors": [
                        {"name": "w", "shape": [4, 3], "axes": [0, None]},
                        {"name": "g", "shape": [2, 4], "entries": 1},
                    ],
                    "lists": 2,
                    "attributes": {"layer": {"out_features": 2, "shape": [2, [3]]}},
                    "shared_attributes": {"layer": {"out_features": 4}},
                    "compact_only": ["layer 'norm'"],
                },
            }
        ],
        "fingerprint": {"structure": None, "theta_0": None},
        "schedule": None,
        "history": [],
        "rewind_state": [],
        "weights": [],
    }


def channel_tensors() -> dict[str, torch.Tensor]:
    return {
        "mask.0.0": pack_mask(IndexMap((4, 3), (ROWS, None)).mask()),
        "mask.0.1": pack_mask(IndexMap((2, 4), entries=ENTRIES).mask()),
        "channels.0.0": ROWS,
        "channels.0.1": ENTRIES,
    }
