"""One thread's copy of the module tree, into which tickets' tensors are put while layers run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from rtl_plugin.mixture.guarded_tensor import GuardedTensor
from rtl_plugin.mixture.replica import storage_sharing_replica
from rtl_plugin.mixture.scratch import Scratch
from rtl_plugin.structure import tensor_places

Forward = Callable[..., Any]
ROOT = ""  # the name of the whole network among its modules


# What torch's encoders ask before they take a path that reads all weights at once.
_FUSED_SWITCHES = {
    nn.TransformerEncoderLayer: "activation_relu_or_gelu",
    nn.TransformerEncoder: "use_nested_tensor",
}


class Session(Protocol):
    """What runs the units while a batch passes."""

    def unit(self, path: str, forward: Forward, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run one module that has tensors of tickets, on all tickets' rows."""
        ...


class Workspace:
    """A replica whose tickets' tensors are stand-ins until a ticket's own are installed.

    A *unit* is a module whose tensors differ between tickets; its ``forward`` asks the session.
    Threads share nothing of it but the storage of tensors.

    Args:
        model: the network.
        names: parameters and buffers that tickets bring their own tensors for.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        self.names = names
        self.generation = -1
        self.replica = storage_sharing_replica(model)
        self.scratch = Scratch()
        self.session: Session | None = None
        self._fused = [
            (path, module, switch, getattr(module, switch))
            for path, module in self.replica.named_modules()
            for kind, switch in _FUSED_SWITCHES.items()
            if isinstance(module, kind) and hasattr(module, switch)
        ]
        chosen = set(names)
        places = tensor_places(self.replica, "_parameters")
        places |= tensor_places(self.replica, "_buffers")
        self._places = places
        self._slots = {name: at for name, at in places.items() if name in chosen}
        self._guards = {
            name: GuardedTensor(at[0][0][at[0][1]], name) for name, at in self._slots.items()
        }
        self._tables = {path: _tables(module) for path, module in self.replica.named_modules()}
        self._buffer_tables = [buffers for _, buffers in self._tables.values() if buffers]
        self._unit_slots: dict[str, list[tuple[str, dict[str, Any], str]]] = {}
        self._units: tuple[str, ...] = ()
        self._original_forwards: dict[str, Forward | None] = {}
        self.clear(ROOT)

    def share(self, common: Mapping[str, torch.Tensor], generation: int = 0) -> None:
        """Put tensors in that hold for every ticket.

        Args:
            common: all tensors but the tickets' own, detached: outputs carry no gradients to them.
            generation: of the tickets' tensors that they go with.
        """
        self.generation = generation
        for name, tensor in common.items():
            for table, local in self._places[name]:
                table[local] = tensor

    def names_in(self, path: str) -> list[str]:
        """Tickets' tensors that a module or one inside it reads, each once."""
        return list(dict.fromkeys(name for name, _, _ in self._slots_in(path)))

    def name_of(self, path: str, local: str) -> str | None:
        """The model's name of a tensor that a module holds itself, where tickets bring their own.

        Args:
            path: the module's name.
            local: the tensor's name in the module.
        """
        own = [id(table) for table in self._tables[path]]
        slots = self._slots_in(path)
        return next((n for n, table, at in slots if at == local and id(table) in own), None)

    def dtype_of(self, path: str) -> torch.dtype | None:
        """The dtype of a module's weight."""
        weight = self.module(path)._parameters.get("weight")
        return None if weight is None else weight.dtype

    def install(self, path: str, names: Sequence[str], tensors: Sequence[torch.Tensor]) -> None:
        """Give a module and those inside it one ticket's tensors."""
        given = dict(zip(names, tensors, strict=True))
        for name, table, local in self._slots_in(path):
            table[local] = given[name]

    def clear(self, path: str) -> None:
        """Take a ticket's tensors out again, so that reading them outside is noticed."""
        for name, table, local in self._slots_in(path):
            table[local] = self._guards[name]

    def buffers(self) -> list[torch.Tensor]:
        """The buffers that the replica holds at present."""
        return [b for table in self._buffer_tables for b in table.values() if b is not None]

    def module(self, path: str) -> nn.Module:
        """A module of the replica."""
        return self.replica.get_submodule(path)

    def allow_fused(self, allowed: bool) -> None:
        """Whether torch's encoders may read all their weights at once, or must call their parts.

        Those of which a part asks the session must, while there is one.
        """
        asking = self._units if self.session is not None else ()
        for path, module, switch, asked in self._fused:
            apart = any(unit.startswith(f"{path}." if path else "") for unit in asking)
            setattr(module, switch, asked if allowed and not apart else 0)

    def use_units(self, paths: tuple[str, ...]) -> None:
        """Let these modules ask the session, and no others."""
        if paths == self._units:
            return
        for path in self._units:
            vars(self.module(path)).pop("forward")
            original = self._original_forwards.pop(path)
            if original is not None:
                vars(self.module(path))["forward"] = original
        for path in paths:
            module = self.module(path)
            self._original_forwards[path] = vars(module).get("forward")
            vars(module)["forward"] = self._asking(path, module.forward)
        self._units = paths

    def _asking(self, path: str, forward: Forward) -> Forward:
        def ask(*args: Any, **kwargs: Any) -> Any:
            if self.session is None:
                return forward(*args, **kwargs)
            return self.session.unit(path, forward, args, kwargs)

        return ask

    def _slots_in(self, path: str) -> list[tuple[str, dict[str, Any], str]]:
        if path not in self._unit_slots:
            prefix = f"{path}." if path else ""
            inside = {
                id(table)
                for at, tables in self._tables.items()
                if at == path or at.startswith(prefix)
                for table in tables
            }
            self._unit_slots[path] = [
                (name, table, local)
                for name, at in self._slots.items()
                for table, local in at
                if id(table) in inside
            ]
        return self._unit_slots[path]


def padding_encoders(model: nn.Module) -> list[str]:
    """Encoders of torch that leave padded positions out where no gradients are wanted.

    Their output at those positions is 0, which no part of theirs gives by itself.

    Args:
        model: the network.

    Returns:
        Module names.

    Example:
        >>> layer = nn.TransformerEncoderLayer(4, 2, 4, batch_first=True)
        >>> with torch.no_grad():
        ...     padding_encoders(nn.Sequential(nn.TransformerEncoder(layer, 1)))
        ['0']
    """
    if torch.is_grad_enabled() and any(p.requires_grad for p in model.parameters()):
        return []
    named = model.named_modules()
    encoders = ((path, m) for path, m in named if isinstance(m, nn.TransformerEncoder))
    return [path for path, encoder in encoders if getattr(encoder, "use_nested_tensor", False)]


def owners(model: nn.Module, names: Iterable[str]) -> tuple[str, ...]:
    """The modules that hold tensors of tickets themselves, outermost ones only.

    Args:
        model: the network.
        names: parameters and buffers.

    Returns:
        Module names in the order of the network; ``("",)`` where the network itself is one.

    Example:
        >>> owners(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), ["0.weight"])
        ('0',)
    """
    chosen = set(names)
    tables = {
        id(table) for name, at in _places_of(model).items() if name in chosen for table, _ in at
    }
    holding = [
        path
        for path, module in model.named_modules()
        if any(id(table) in tables for table in _tables(module))
    ]
    return outermost(holding)


def outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Module names without those that lie inside another of them.

    Args:
        paths: module names.

    Returns:
        The remaining ones, in order.

    Example:
        >>> outermost(["a", "a.b", "c"])
        ('a', 'c')
    """
    listed = list(dict.fromkeys(paths))
    if ROOT in listed:
        return (ROOT,)
    return tuple(p for p in listed if not any(p.startswith(f"{q}.") for q in listed))


def _tables(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    return module._parameters, module._buffers


def _places_of(model: nn.Module) -> dict[str, list[tuple[dict[str, Any], str]]]:
    return tensor_places(model, "_parameters") | tensor_places(model, "_buffers")
