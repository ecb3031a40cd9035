"""Small models, data and losses that the tests of discovery and of joint training share."""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from rtl_plugin import DataGroups, GeometricSchedule, Ticket, TicketSet, discover
from rtl_plugin.fingerprint import bit_equal, model_structure, model_values
from rtl_plugin.prunable import select_prunable
from rtl_plugin.randomness import forked
from tests.models import CLASSES, ZOO, Network

NETWORKS = {network.name: network for network in ZOO}
MLP, CONV = NETWORKS["mlp"], NETWORKS["conv_net"]


def built(network: Network, seed: int = 0) -> nn.Module:
    """The network at the initialisation of a seed."""
    with forked(seed):
        return network.build()


class NamedBatches:
    """Batches of (inputs, labels, group name), always the same."""

    def __init__(self, network: Network, name: str, count: int, dtype: torch.dtype) -> None:
        with forked(sum(map(ord, name))):
            self._batches = [
                (network.inputs(4).to(dtype) + k, torch.randint(CLASSES, (4,)), name)
                for k in range(count)
            ]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)


def named_groups(network: Network, dtype: torch.dtype = torch.float32, **counts: int) -> DataGroups:
    """Groups by name with so many batches each; by default a and b with two."""
    counts = counts or {"a": 2, "b": 2}
    return DataGroups.from_loaders(
        {name: NamedBatches(network, name, count, dtype) for name, count in counts.items()}
    )


class _Samples:
    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor, name: str) -> None:
        self.inputs, self.labels, self.name = inputs, labels, name

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        return self.inputs[index], self.labels[index], self.name


def shuffled_groups(network: Network, own_generators: bool = False, size: int = 8) -> DataGroups:
    """Groups a and b behind shuffling data loaders, two batches each unless size says else."""
    loaders = {}
    for seed, name in enumerate("ab"):
        with forked(seed):
            samples = _Samples(network.inputs(size), torch.randint(CLASSES, (size,)), name)
        generator = torch.Generator().manual_seed(seed) if own_generators else None
        loaders[name] = DataLoader(samples, batch_size=4, shuffle=True, generator=generator)
    return DataGroups.from_loaders(loaders)


def cross_entropy(model: Any, batch: Any) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.1, momentum=0.9)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, 0.02)


def found(model: nn.Module, groups: DataGroups, loss: Any = cross_entropy, **others: Any) -> Any:
    """Discover with small settings; every argument of ``discover`` can be overridden."""
    settings = {
        "schedule": GeometricSchedule(0.6, rounds=2), "optimizer": sgd, "steps": 2,
        "progress": False, **others,
    }  # fmt: skip
    if "epochs" in others:
        del settings["steps"]
    return discover(model, groups, loss, **settings)


def random_tickets(
    model: nn.Module, names: str = "ab", density: float = 0.5, known_weights: bool = True
) -> TicketSet:
    """Hand-made tickets with random masks on the default prunable weights."""
    chosen = select_prunable(model)
    tickets = []
    for name in names:
        with forked(ord(name)):
            masks = {n: torch.rand(p.shape) < density for n, p in chosen.items()}
        state = {n: b.clone() for n, b in model.named_buffers()}
        tickets.append(Ticket(name, masks, state))
    theta_0 = model_values(model) if known_weights else None
    return TicketSet(tickets, structure=model_structure(model), theta_0=theta_0)


def disjoint_tickets(model: nn.Module) -> TicketSet:
    """Two tickets over every parameter that share no weight."""
    with forked(0):
        first = {n: torch.rand(p.shape) < 0.5 for n, p in model.named_parameters()}
    second = {name: ~mask for name, mask in first.items()}
    return TicketSet([Ticket("a", first), Ticket("b", second)])


def only(tickets: TicketSet, name: str) -> TicketSet:
    """A set of one of the tickets, with state of its own."""
    ticket = tickets[name]
    return TicketSet([Ticket(name, ticket.masks, {n: v.clone() for n, v in ticket.state.items()})])


def copied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def same_bits(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(bit_equal(first[n], second[n]) for n in first)


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of parameters and of all buffers, those outside the state_dict too."""
    return copied({**dict(model.named_parameters()), **dict(model.named_buffers())})


def ticket_tensors(tickets: TicketSet) -> dict[str, torch.Tensor]:
    """Copies of all masks and of all own state."""
    return copied(
        {
            f"{ticket.name}/{kind}/{name}": value
            for ticket in tickets.values()
            for kind, part in (("mask", ticket.masks), ("state", ticket.state))
            for name, value in part.items()
        }
    )


def random_states() -> tuple[bytes, str, str]:
    """The global random states, comparable."""
    return (
        torch.get_rng_state().numpy().tobytes(),
        str([part.tolist() if hasattr(part, "tolist") else part for part in np.random.get_state()]),
        str(random.getstate()),
    )


def draw_from_all() -> None:
    """What a careless loss does: draw from every global stream."""
    torch.rand(3)
    np.random.rand(3)
    random.random()


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a run but the log: path -> bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "log.jsonl"
    }


class Interrupting:
    """A cross-entropy loss that counts its calls and raises at chosen ones."""

    def __init__(self, at: int | None = None, error: type[BaseException] = KeyboardInterrupt):
        self.calls, self._at, self._error = 0, at, error

    def __call__(self, model: Any, batch: Any) -> torch.Tensor:
        self.calls += 1
        if self.calls == self._at:
            raise self._error("interrupted by the test")
        return cross_entropy(model, batch)


class NotFinite:
    """A cross-entropy loss that is NaN or infinite for one group from its nth call for it on."""

    def __init__(self, value: float, group: str, call: int) -> None:
        self.value, self.group, self.remaining = value, group, call

    def __call__(self, model: Any, batch: Any) -> torch.Tensor:
        loss = cross_entropy(model, batch)
        self.remaining -= batch[2][0] == self.group
        return loss * self.value if self.remaining <= 0 and batch[2][0] == self.group else loss
