"""What makes a ticket a smaller network: where its tensors' entries come from, and its widths."""

import functools
import hashlib
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rtl_plugin.errors import InvalidTicket, StructureMismatch
from rtl_plugin.fingerprint import raw_bytes
from rtl_plugin.index_map import IndexMap

Attributes = Mapping[str, Mapping[str, Any]]
_ABSENT = object()


@dataclass(frozen=True, eq=False)
class ChannelPlan:
    """How one ticket's small network is made from the shared one.

    Args:
        maps: name of every parameter and buffer that was cut -> its map into the shared tensor.
        attributes: module name -> attribute -> value in the small network, for attributes that
            differ from the shared network's (``out_channels``, ``groups``, ...): numbers, strings,
            None, or tuples of them.
        compact_only: why the masked network is not the small one, one layer an entry; empty where
            both compute the same.
        shared_attributes: the same attributes' values in the shared network, where known: a model
            that has others is refused.

    Raises:
        InvalidTicket: nothing was cut, or an attribute is not plain data.

    Example:
        >>> plan = ChannelPlan({"conv.weight": IndexMap((4, 3), (torch.tensor([0, 2]), None))})
        >>> plan.channels("conv")
        tensor([0, 2])
    """

    maps: Mapping[str, IndexMap]
    attributes: Attributes = field(default_factory=dict)
    compact_only: tuple[str, ...] = ()
    shared_attributes: Attributes = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.maps:
            raise InvalidTicket("a channel plan needs at least one tensor that was cut")
        object.__setattr__(self, "maps", MappingProxyType(dict(self.maps)))
        object.__setattr__(self, "attributes", _frozen(self.attributes))
        object.__setattr__(self, "shared_attributes", _frozen(self.shared_attributes))
        object.__setattr__(self, "compact_only", tuple(self.compact_only))

    def __reduce__(self) -> tuple[Any, ...]:
        tables = [
            {module: dict(values) for module, values in table.items()}
            for table in (self.attributes, self.shared_attributes)
        ]
        return (ChannelPlan, (dict(self.maps), tables[0], self.compact_only, tables[1]))

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over which entries are left, so that small networks of equal widths differ."""
        described = hashlib.sha256()
        for name, index_map in self.maps.items():
            described.update(json.dumps([name, list(index_map.shape)]).encode())
            for kept in (*index_map.axes, index_map.entries):
                described.update(b"-" if kept is None else raw_bytes(kept))
        return described.hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes of the lists of positions in memory, those that maps share once."""
        lists = [kept for index_map in self.maps.values() for kept in index_map.lists()]
        return sum({kept.data_ptr(): kept.nbytes for kept in lists}.values())

    def channels(self, layer: str, dim: int = 0) -> torch.Tensor | None:
        """Which of a layer's original output channels the small network has.

        Args:
            layer: a module's name; ``""`` is the network itself.
            dim: of the layer's weight that counts output channels; 1 for transposed convolutions
                and embeddings.

        Returns:
            Ascending int64 [n], or None where the layer has all of them.

        Raises:
            InvalidTicket: the layer's weight was cut in another way than by channels.
        """
        index_map = self.maps.get(f"{layer}.weight" if layer else "weight")
        if index_map is None:
            return None
        if index_map.entries is not None:
            raise InvalidTicket(f"{layer!r} was cut by single entries, not by channels")
        return index_map.axes[dim]

    def check_masks(self, masks: Mapping[str, torch.Tensor]) -> None:
        """Refuse masks that keep other weights than the small network has.

        Args:
            masks: the ticket's masks.

        Raises:
            InvalidTicket: naming the parameter.
        """
        for name, mask in masks.items():
            index_map = self.maps.get(name)
            wrong = index_map is not None and index_map.shape != tuple(mask.shape)
            expected = torch.ones_like(mask) if index_map is None or wrong else index_map.mask()
            if wrong or not torch.equal(expected.to(mask.device), mask):
                raise InvalidTicket(f"mask and channel plan of {name!r} keep different weights")

    def check_fits(self, model: nn.Module, masked: Container[str]) -> None:
        """Refuse a model that this plan was not made for.

        Args:
            model: the shared network.
            masked: names of the ticket's masked parameters.

        Raises:
            StructureMismatch: a tensor or module is unknown or of another shape.
        """
        own = dict(model.named_parameters()) | dict(model.named_buffers())
        for name, index_map in self.maps.items():
            came = tuple(own[name].shape) if name in own else "not in the model"
            if came != index_map.shape:
                raise StructureMismatch(
                    f"the channel plan cuts {name!r} of shape {index_map.shape}, which is {came}: "
                    "build the model as it was built for the pruner"
                )
        for name, _ in model.named_parameters():
            if name in self.maps and name not in masked:
                raise StructureMismatch(f"the channel plan cuts {name!r}, which has no mask")
        modules = dict(model.named_modules())
        for module, values in self.shared_attributes.items():
            for name, value in values.items():
                now = getattr(modules.get(module), name, _ABSENT)
                if now != value:
                    raise StructureMismatch(
                        f"{name!r} of {module!r} was {value!r} in the network that the ticket was "
                        f"cut from, and is {'missing' if now is _ABSENT else repr(now)} here: "
                        "build the model as it was built for the pruner"
                    )
        for module, values in self.attributes.items():
            # What is no plain data now (a method, the parameters) no pruner sets.
            known = vars(modules[module]) if module in modules else {}
            unknown = [name for name in values if not is_plain(known.get(name, _ABSENT))]
            if unknown:
                raise StructureMismatch(
                    f"the channel plan sets {unknown[0]!r} of {module!r}, which the model has not: "
                    "build the model as it was built for the pruner"
                )

    def to(self, device: torch.device | str) -> "ChannelPlan":
        """The same plan with its positions on a device.

        Args:
            device: as for ``torch.Tensor.to``.
        """
        maps = {name: index_map.to(device) for name, index_map in self.maps.items()}
        return ChannelPlan(maps, self.attributes, self.compact_only, self.shared_attributes)


def _frozen(attributes: Attributes) -> Attributes:
    for module, values in attributes.items():
        for name, value in values.items():
            if not is_plain(value):
                raise InvalidTicket(
                    f"attribute {name!r} of {module!r} is {type(value).__name__}; a channel plan "
                    "holds numbers, strings, None and tuples of them"
                )
    return MappingProxyType({m: MappingProxyType(dict(v)) for m, v in attributes.items()})


def is_plain(value: Any) -> bool:
    """Whether a value can stand in a ticket file's header and come back alike.

    Args:
        value: anything.

    Returns:
        True for numbers, strings, booleans, None, and tuples of them.

    Example:
        >>> is_plain((3, 3)), is_plain([3])
        (True, False)
    """
    if isinstance(value, tuple):
        return all(is_plain(part) for part in value)
    return value is None or type(value) in (bool, int, float, str)
