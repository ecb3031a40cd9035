"""Sort once: the rows of a mixed batch in the order of their tickets."""

import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.mixture.rows import check_has_tensors
from rtl_plugin.nested import map_tensors, tensors_in


class Span(NamedTuple):
    """Consecutive samples of a sorted batch that go through one ticket."""

    ticket: int
    start: int
    stop: int


@dataclass
class Dispatch:
    """Which ticket every sample of a batch goes through, in sorted order.

    Args:
        order: long tensor [B], sample at every sorted position; None where the batch is sorted.
        offsets: int32 tensor [T + 1] on the inputs' device; ticket t has the sorted positions
            offsets[t] to offsets[t + 1].
        size: B.
    """

    order: torch.Tensor | None
    offsets: torch.Tensor
    size: int
    _spans: tuple[Span, ...] | None = field(default=None, repr=False)
    _made: dict[Hashable, torch.Tensor] = field(default_factory=dict, repr=False)

    @property
    def on_host(self) -> bool:
        """Whether the host knows which tickets are in the batch without waiting for a device."""
        return self._spans is not None or self.offsets.device.type == "cpu"

    @property
    def spans(self) -> tuple[Span, ...]:
        """The tickets that are in the batch; on a GPU the first look waits for the device."""
        if self._spans is None:
            edges = self.offsets.tolist()
            pairs = enumerate(itertools.pairwise(edges))
            self._spans = tuple(Span(t, a, b) for t, (a, b) in pairs if b > a)
        return self._spans

    def offsets_on(self, device: torch.device) -> torch.Tensor:
        """The offsets on a device, copied there once a batch."""
        return self._once(("offsets", device), lambda: _copied_to(device, self.offsets))

    def active_on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """The tickets in the batch, int32 [A], and their offsets, int32 [A + 1], on a device."""
        active = torch.tensor([span.ticket for span in self.spans], dtype=torch.int32)
        edges = torch.tensor([0, *(span.stop for span in self.spans)], dtype=torch.int32)
        return (
            self._once(("active", device), lambda: _copied_to(device, active)),
            self._once(("edges", device), lambda: _copied_to(device, edges)),
        )

    def ticket_of_row(self, device: torch.device, per_sample: int = 1) -> torch.Tensor:
        """The ticket of every row on a device, long tensor [B * per_sample]; waits for nothing."""

        def found() -> torch.Tensor:
            rows = torch.arange(self.size * per_sample, device=device, dtype=torch.int32)
            return torch.searchsorted(self.offsets_on(device)[1:] * per_sample, rows, right=True)

        return self._once(("rows", device, per_sample), found)

    def _once(self, key: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def sorted(self, nested: Any) -> Any:
        """Put the batch's tensors into sorted order; tensors of another first dimension pass."""
        if self.order is None:
            return nested
        order = self.order

        def take(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.dim() == 0 or tensor.shape[0] != self.size:
                return tensor
            there = self._once(("order", tensor.device), lambda: _copied_to(tensor.device, order))
            return tensor.index_select(0, there)

        return map_tensors(take, nested)

    def part(self, nested: Any, start: int, stop: int) -> Any:
        """Views of consecutive samples of sorted tensors; others pass whole."""

        def take(tensor: torch.Tensor) -> torch.Tensor:
            is_batch = tensor.dim() > 0 and tensor.shape[0] == self.size
            return tensor[start:stop] if is_batch else tensor

        return map_tensors(take, nested)

    def restored(self, nested: Any) -> Any:
        """Put the rows of outputs back into the order of the batch.

        Raises:
            InvalidArgument: an output is not batch first.
        """
        check_has_tensors(nested)
        for tensor in tensors_in(nested):
            if tensor.dim() == 0 or tensor.shape[0] != self.size:
                raise InvalidArgument(
                    "a mixed batch needs outputs with one row a sample, got shape "
                    f"{tuple(tensor.shape)} for {self.size} samples: run one ticket a call"
                )
        if self.order is None:
            return nested
        back = torch.empty_like(self.order)
        back[self.order] = torch.arange(self.size, device=back.device)

        def put_back(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.index_select(0, _copied_to(tensor.device, back))

        return map_tensors(put_back, nested)


def _copied_to(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    """On a GPU without waiting for it: from pinned memory."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def dispatch(indices: torch.Tensor, tickets: int) -> Dispatch:
    """Sort a batch by ticket, stably and on the indices' own device.

    Args:
        indices: integer tensor [B] with values in 0..tickets-1.
        tickets: T.

    Returns:
        The sorted order and where every ticket begins. Nothing is synchronised with the host.

    Example:
        >>> sorted_batch = dispatch(torch.tensor([2, 0, 2]), 3)
        >>> sorted_batch.order, [tuple(span) for span in sorted_batch.spans]
        (tensor([1, 0, 2]), [(0, 0, 1), (2, 1, 3)])
    """
    indices = indices.long()
    ordered, order = torch.sort(indices, stable=True)
    edges = torch.arange(tickets + 1, device=indices.device)
    offsets = torch.searchsorted(ordered, edges, out_int32=True)
    # Looking costs a wait on a GPU, where sorting twice costs less.
    sorted_already = indices.device.type == "cpu" and torch.equal(ordered, indices)
    return Dispatch(None if sorted_already else order, offsets, indices.numel())


def one_ticket_dispatch(ticket: int, tickets: int, size: int, device: torch.device) -> Dispatch:
    """A batch that goes through one ticket.

    Args:
        ticket: its position.
        tickets: T.
        size: B.
        device: of the inputs.

    Returns:
        What :func:`dispatch` gives for B equal indices.

    Example:
        >>> one_ticket_dispatch(1, 3, 4, torch.device("cpu")).spans
        (Span(ticket=1, start=0, stop=4),)
    """
    offsets = torch.tensor([0] * (ticket + 1) + [size] * (tickets - ticket), dtype=torch.int32)
    return Dispatch(None, offsets.to(device), size, (Span(ticket, 0, size),))
