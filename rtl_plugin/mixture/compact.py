"""The compact strategy: every channel ticket runs its own small network."""

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rtl_plugin.compact_network import checked_plan, compact
from rtl_plugin.mixture.by_ticket import ByTicket
from rtl_plugin.mixture.replica import storage_sharing_replica
from rtl_plugin.mixture.versions import Snapshot, snapshot, version
from rtl_plugin.tickets import TicketSet


@dataclass(frozen=True)
class _Made:
    """A small network and what it was made from."""

    network: nn.Module
    sources: Snapshot


class CompactStrategy(ByTicket):
    """Runs small networks, made when first asked for and again after a change of their weights.

    Outputs carry gradients to the inputs, not to weights. A write that leaves no trace is not seen:
    one through ``.data``, and a step of a fused optimizer outside ``retrain``. A network whose
    forward writes to its buffers is made afresh for every call, which is slow.

    Args:
        model: the network whose present parameters are used at every call.
        tickets: channel tickets, whose present state is used at every call.

    Raises:
        InvalidArgument: the tickets have no channel plans.
    """

    name = "compact"

    def __init__(self, model: nn.Module, tickets: TicketSet) -> None:
        for ticket in tickets.values():
            checked_plan(model, ticket)
        super().__init__(tickets)
        self._model = model
        self._made: dict[str, _Made] = {}
        self._stateful = False
        self._local = threading.local()
        self._lock = threading.Lock()  # for making networks; running them takes none

    def run(self, ticket: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one ticket's small network.

        Args:
            ticket: its name.
            args: of the network's forward.
            kwargs: of the network's forward.

        Returns:
            The network's output.
        """
        if self._stateful:
            return self.export(ticket)(*args, **kwargs)
        network = self._replica(ticket)
        before = [(id(buffer), version(buffer)) for buffer in network.buffers()]
        output = network(*args, **kwargs)
        if before != [(id(buffer), version(buffer)) for buffer in network.buffers()]:
            # Its forward counts or averages: from now on every call has a network of its own.
            self._stateful = True
        return output

    def export(self, ticket: str) -> nn.Module:
        """The small network as a snapshot in eval mode.

        Args:
            ticket: its name.
        """
        return compact(self._model, self._tickets[ticket])

    def held_bytes(self) -> dict[str, int]:
        """What is kept between calls beside weights and tickets."""
        tensors = [
            tensor
            for made in list(self._made.values())
            for tensor in (*made.network.parameters(), *made.network.buffers())
        ]
        return {"small networks": sum(tensor.nbytes for tensor in tensors)}

    def explain(self) -> str:
        """How batches are run, in words."""
        return (
            "one pass of a small network a distinct ticket in the batch, made from the shared "
            "weights when they change; memory grows by the kept weights of every ticket in use"
        )

    def _replica(self, ticket: str) -> nn.Module:
        """This thread's modules of a small network: a forward may keep things on its module."""
        made = self._network(ticket)
        replicas: dict[str, tuple[_Made, nn.Module]] = vars(self._local).setdefault("replicas", {})
        kept = replicas.get(ticket)
        if kept is None or kept[0] is not made:
            with torch.inference_mode(False):
                replica = storage_sharing_replica(made.network)
                for module in replica.modules():
                    for name, buffer in module._buffers.items():
                        module._buffers[name] = None if buffer is None else buffer.clone()
            kept = replicas[ticket] = made, replica
        return kept[1]

    def _network(self, ticket: str) -> _Made:
        sources = (
            *self._model.parameters(),
            *self._model.buffers(),
            *self._tickets[ticket].state.values(),
        )
        made = self._made.get(ticket)
        if made is None or not made.sources.still_holds(sources):
            # Made under inference_mode(), it could not run outside.
            with self._lock, torch.inference_mode(False):
                seen = snapshot(sources)  # first: a change from now on is noticed
                made = _Made(self.export(ticket).requires_grad_(False), seen)
                self._made[ticket] = made
        return made
