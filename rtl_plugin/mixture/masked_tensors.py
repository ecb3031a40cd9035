"""The tensors that every ticket computes with, in a cache under a byte budget."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rtl_plugin.mixture.kernel_words import KernelWords
from rtl_plugin.mixture.scratch import Scratch
from rtl_plugin.mixture.versions import Snapshot, snapshot
from rtl_plugin.nested import tensors_in
from rtl_plugin.packed_masks import PackedMasks
from rtl_plugin.structure import tensor_places
from rtl_plugin.tickets import Ticket, TicketSet

Key = tuple[str, str]  # ticket, tensor


@dataclass
class _Cached:
    tensor: torch.Tensor
    last_run: int


class MaskedTensors:
    """Masked weights, own buffers and private parameters of every ticket.

    Masked weights are kept up to the budget. One that was used in the present run or the one
    before is never pushed out: a batch asks for all of its tickets in every layer, and a plain
    least-recently-used cache that is one ticket too small would then never hold what is asked for.

    Args:
        model: the network; its present parameters and buffers count.
        tickets: packed tickets; their present state counts.
        budget: bytes of masked copies, None for no limit.
    """

    def __init__(self, model: nn.Module, tickets: TicketSet, budget: int | None) -> None:
        self.budget = budget
        self._tickets = tickets
        self._places = {
            name: places[0]
            for table in ("_parameters", "_buffers")
            for name, places in tensor_places(model, table).items()
        }
        self.masked = frozenset(tickets.shapes)
        self._buffers = frozenset(name for name, _ in model.named_buffers())
        self._masked_copies: OrderedDict[Key, _Cached] = OrderedDict()
        self._own: dict[Key, torch.Tensor] = {}
        self._stacks: dict[str, torch.Tensor] = {}
        self._derived: dict[str, Any] = {}
        self._words = KernelWords(tickets)
        self._shared_seen: Snapshot | None = None
        self._seen: dict[str, Snapshot] = {}
        self._cached_bytes = 0
        self._run = 0
        self._lock = threading.Lock()
        self.generation = 0  # grows whenever something that was handed out may be out of date
        self.differing: tuple[str, ...] = ()  # what tickets bring of their own, masked or private

    def shared(self, name: str) -> torch.Tensor:
        """The model's own tensor of a name, as it is now."""
        table, local = self._places[name]
        tensor: torch.Tensor = table[local]
        return tensor

    def begin_run(self, tickets: Iterable[str]) -> None:
        """Drop what was made of tensors that have changed since.

        Args:
            tickets: names of the tickets that the run will ask for.
        """
        shared = [self.shared(name) for name in self._places]
        with self._lock:
            self._run += 1
            before = self.generation
            if self._shared_seen is None or not self._shared_seen.still_holds(shared):
                self._drop(None)
                self._shared_seen = snapshot(shared)
            for name in tickets:
                state = tuple(self._tickets[name].state.values())
                if name not in self._seen or not self._seen[name].still_holds(state):
                    self._drop(name)
                    self._seen[name] = snapshot(state)
            if self.generation != before:
                self.differing = tuple(n for n in self._places if self._differs(n))

    def common(self) -> dict[str, torch.Tensor]:
        """What is the same under every ticket.

        Returns:
            Name -> detached tensor: weights share the model's storage, buffers are copies.
        """
        first = next(iter(self._tickets.values()))
        chosen = [name for name in self._places if name not in self.differing]
        with torch.inference_mode(False), torch.no_grad():
            values = {name: self._base(first, name) for name in chosen}
            return {n: v.clone() if n in self._buffers else v for n, v in values.items()}

    def take(
        self, ticket: str, names: Sequence[str], scratch: Scratch | None = None
    ) -> list[torch.Tensor]:
        """The tensors of one ticket, detached.

        Args:
            ticket: its name.
            names: which.
            scratch: where masked weights go that the budget has no room for; None makes new ones.

        Returns:
            One tensor a name: ``weight * mask``, the private value, or a copy of the buffer.
        """
        with torch.inference_mode(False), torch.no_grad():
            total = sum(self.shared(n).numel() for n in names if n in self.masked)
            if scratch is not None:
                scratch.release()
            return [
                self._weight(ticket, name, scratch, total)
                if name in self.masked
                else self._private(ticket, name)
                for name in names
            ]

    def keeps(self, names: Iterable[str], tickets: Sequence[str]) -> bool:
        """Whether masked copies are kept between calls, or the budget has room to.

        Args:
            names: tensors.
            tickets: names of tickets.
        """
        if self.budget is None:
            return True
        with self._lock:
            missing = sum(
                self.shared(name).nbytes
                for name in names
                if name in self.masked and name not in self._stacks
                for ticket in tickets
                if (ticket, name) not in self._masked_copies
            )
            return self._cached_bytes + missing <= self.budget

    def is_private(self, name: str) -> bool:
        """Whether some ticket has values of its own for a tensor, beside its mask."""
        return any(name in ticket.state for ticket in self._tickets.values())

    def masked_rows(self, ticket: str, name: str, start: int, stop: int) -> torch.Tensor:
        """Some rows of a masked shared weight, freshly made.

        Args:
            ticket: its name.
            name: a masked parameter that is not private.
            start: first row along dimension 0, a multiple of 8.
            stop: one past the last.
        """
        masks = self._tickets[ticket].masks
        assert isinstance(masks, PackedMasks)  # noqa: S101 - the constructor's contract
        rows = self.shared(name).detach()[start:stop]
        return masks.unpacked_rows(name, start, stop).to(rows.dtype).mul_(rows)

    def has_room_for_stack(self, name: str) -> bool:
        """Whether the budget allows a masked copy for every ticket, all in one tensor."""
        if self.budget is None or name in self._stacks:
            return True
        needed = self.shared(name).nbytes * len(self._tickets)
        return self._cached_bytes + needed <= self.budget

    def stack(self, name: str) -> torch.Tensor | None:
        """The tensors of all tickets in one.

        Args:
            name: a parameter.

        Returns:
            Tensor [T, ...] whose slices are what :meth:`take` gives from then on; None where the
            budget has no room for it.
        """
        with self._lock, torch.inference_mode(False), torch.no_grad():
            if name not in self._stacks:
                if not self.has_room_for_stack(name):
                    return None
                base = self.shared(name)
                shape = (len(self._tickets), *base.shape)
                stack = torch.empty(shape, dtype=base.dtype, device=base.device)
                for own, ticket in zip(stack, self._tickets.values(), strict=True):
                    if name in self.masked:
                        self._masked(ticket, name, own)
                    else:
                        own.copy_(self._base(ticket, name))
                self._stacks[name] = stack
                self._cached_bytes += stack.nbytes
                for key in [key for key in self._masked_copies if key[1] == name]:
                    self._cached_bytes -= self._masked_copies.pop(key).tensor.nbytes
            return self._stacks[name]

    def words(self, name: str) -> torch.Tensor:
        """All tickets' masks of one weight as the kernels read them, see :class:`KernelWords`."""
        return self._words.on(self.shared(name).device, name)

    def device_mask_bytes(self) -> int:
        """Bytes of masks in the kernels' form."""
        return self._words.nbytes

    def derived(self, key: str, generation: int, make: Callable[[], Any]) -> Any:
        """Something made of tickets' tensors, kept until one of them changes.

        Args:
            key: what it is.
            generation: of the tensors that it is made of.
            make: makes it.
        """
        kept = self._derived.get(key)
        if kept is None or kept[0] != generation:
            with torch.inference_mode(False), torch.no_grad():
                kept = generation, make()
            with self._lock:
                if generation == self.generation:  # else it is of no use to later calls
                    self._derived[key] = kept
        return kept[1]

    def table(self, name: str, generation: int) -> torch.Tensor:
        """One small tensor of all tickets, [T, ...], such as a bias; no part of the budget."""

        def make() -> torch.Tensor:
            return torch.stack([self.take(ticket, [name])[0] for ticket in self._tickets])

        made: torch.Tensor = self.derived(name, generation, make)
        return made

    def table_bytes(self) -> int:
        """Bytes of tables that were derived from tickets' tensors."""
        return sum(t.nbytes for _, made in list(self._derived.values()) for t in tensors_in(made))

    def cached_bytes(self) -> int:
        """Bytes of masked copies that are held."""
        return self._cached_bytes

    def own_bytes(self) -> int:
        """Bytes of converted state and copies of buffers that are held."""
        state = [value for ticket in self._tickets.values() for value in ticket.state.values()]
        held = {value.data_ptr() for value in state}
        own = list(self._own.values())
        return sum(tensor.nbytes for tensor in own if tensor.data_ptr() not in held)

    def _weight(self, ticket: str, name: str, scratch: Scratch | None, total: int) -> torch.Tensor:
        key, nbytes = (ticket, name), self.shared(name).nbytes
        with self._lock:
            if name in self._stacks:
                return self._stacks[name][self._tickets.names.index(ticket)]
            cached = self._masked_copies.get(key)
            if cached is not None:
                cached.last_run = self._run
                self._masked_copies.move_to_end(key)
                return cached.tensor
            if self._make_room(nbytes):
                made = self._masked(self._tickets[ticket], name, None)
                self._masked_copies[key] = _Cached(made, self._run)
                self._cached_bytes += nbytes
                return made
        base = self.shared(name)
        use_scratch = scratch is not None and base.is_contiguous()
        out = scratch.take(base, total) if scratch is not None and use_scratch else None
        return self._masked(self._tickets[ticket], name, out)

    def _masked(self, ticket: Ticket, name: str, out: torch.Tensor | None) -> torch.Tensor:
        base = self._base(ticket, name)
        assert isinstance(ticket.masks, PackedMasks)  # noqa: S101 - the constructor's contract
        mask = ticket.masks.unpacked(name).to(base.device, non_blocking=True)
        return torch.mul(base, mask) if out is None else torch.mul(base, mask, out=out)

    def _differs(self, name: str) -> bool:
        if name in self.masked:
            return True
        shared = self.shared(name).detach()
        values = [ticket.state.get(name, shared).detach() for ticket in self._tickets.values()]
        first = values[0]
        return any(v is not first and not torch.equal(v.to(first), first) for v in values)

    def _base(self, ticket: Ticket, name: str) -> torch.Tensor:
        shared = self.shared(name).detach()
        value = ticket.state.get(name, shared).detach()
        return value.to(device=shared.device, dtype=shared.dtype)

    def _private(self, ticket: str, name: str) -> torch.Tensor:
        key = ticket, name
        own = self._own.get(key)
        if own is None:
            generation = self.generation
            own = self._base(self._tickets[ticket], name)
            with self._lock:
                if generation == self.generation:  # else it may be out of date already
                    self._own[key] = own
        # A forward that writes to a buffer must reach neither the ticket nor another thread.
        return own.clone() if name in self._buffers else own

    def _make_room(self, nbytes: int) -> bool:
        if self.budget is None:
            return True
        while self._cached_bytes + nbytes > self.budget:
            oldest = next(iter(self._masked_copies), None)
            if oldest is None or self._masked_copies[oldest].last_run >= self._run - 1:
                return False
            self._cached_bytes -= self._masked_copies.pop(oldest).tensor.nbytes
        return True

    def _drop(self, ticket: str | None) -> None:
        """Forget what was made for one ticket, or for all."""
        self.generation += 1
        for key in [k for k in self._masked_copies if ticket is None or k[0] == ticket]:
            self._cached_bytes -= self._masked_copies.pop(key).tensor.nbytes
        for stack in self._stacks.values():
            self._cached_bytes -= stack.nbytes
        self._stacks.clear()
        for key in [k for k in self._own if ticket is None or k[0] == ticket]:
            self._own.pop(key, None)
