"""How long a mixed batch takes a sample, for searches that weigh a metric against time."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from rtl_plugin.integration_api import (
    InvalidArgument,
    MixtureOfMasks,
    derived_seed,
    device_of,
    forked,
    to_device,
    whole_number,
)

# The first runs build what a strategy keeps; "auto" tries its ways in them.
_WARM_UP = 3


def measured_latency(
    mixture: MixtureOfMasks,
    x: torch.Tensor,
    tickets_per_sample: Sequence[str] | Sequence[int] | torch.Tensor,
    rounds: int = 15,
) -> float:
    """Seconds a sample of a batch that mixes tickets: the fastest of several runs.

    The mixture runs in eval mode, as it always does, and in inference mode. On a CPU the time is
    that of this thread, with torch set to one thread meanwhile, so other programs hardly disturb
    it; on a GPU it is the time between two events on the current stream, from an idle device.

    Args:
        mixture: what serves the tickets.
        x: a batch as the network takes it, [B, ...] with B >= 1; moved to the model's device.
        tickets_per_sample: a ticket for every sample, B names, or B indices.
        rounds: timed runs, at least 1; three more come before them and do not count.

    Returns:
        Seconds, the minimum over the rounds divided by B.

    Raises:
        InvalidArgument: no mixture, no batch, one ticket instead of one a sample, a number of
            tickets that is not B, or no rounds.
        UnknownTicket: a ticket is not in the set.

    Example:
        >>> from rtl_plugin.integration_api import Ticket, TicketSet
        >>> masks = {"weight": torch.tensor([[True, False]])}
        >>> tickets = TicketSet([Ticket("left", masks), Ticket("again", masks)])
        >>> mixture = MixtureOfMasks(torch.nn.Linear(2, 1), tickets)
        >>> measured_latency(mixture, torch.rand(4, 2), ["left", "again"] * 2) > 0
        True
    """
    whole_number("rounds", rounds, 1)
    _check(mixture, x, tickets_per_sample)
    device = device_of(mixture.model)
    batch = to_device(x, device)

    def run() -> None:
        mixture(batch, tickets=tickets_per_sample)

    with torch.inference_mode(), _one_thread(), forked(derived_seed("latency")):
        for _ in range(_WARM_UP):
            run()
        return min(_seconds(run, device) for _ in range(rounds)) / len(batch)


def _check(mixture: Any, x: Any, tickets: Any) -> None:
    if not isinstance(mixture, MixtureOfMasks):
        raise InvalidArgument(
            f"mixture must be a MixtureOfMasks, got {type(mixture).__name__}: make one of the "
            "model and its tickets"
        )
    if not isinstance(x, torch.Tensor) or x.ndim < 1 or len(x) < 1:
        came = list(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
        raise InvalidArgument(f"x must be a tensor of B >= 1 samples, [B, ...], got {came}")
    if isinstance(tickets, str | int) or (isinstance(tickets, torch.Tensor) and tickets.ndim != 1):
        raise InvalidArgument(
            f"tickets_per_sample must name a ticket for each of the {len(x)} samples, got "
            f"{tickets!r}: for one ticket alone repeat its name"
        )
    if len(tickets) != len(x):
        raise InvalidArgument(
            f"tickets_per_sample must have one entry for each of the {len(x)} samples, got "
            f"{len(tickets)}"
        )


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Of one run on a device."""
    if device.type != "cuda":
        began = time.thread_time()
        work()
        return time.thread_time() - began
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1e3


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
