"""Many batches, and many threads on one mixture: nothing is ever mixed up."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from rtl_plugin import MixtureOfMasks, Ticket, TicketSet
from tests.mixture.plain_loop import NAMES, plain_copy, random_tickets

CALLS = 10_000
THREADS = 4


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()


def test_a_thousand_random_batches_equal_the_plain_copies(strategy: str) -> None:
    model = small_network()
    tickets = random_tickets(model)
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    copies = [plain_copy(model, ticket) for ticket in tickets.values()]
    generator = torch.Generator().manual_seed(1)
    samples = torch.randn(64, 4, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        alone = torch.stack([copy(samples) for copy in copies])
        for _ in range(1000):
            size = int(torch.randint(1, 9, (), generator=generator))
            rows = torch.randint(64, (size,), generator=generator)
            choice = torch.randint(4, (size,), generator=generator)
            outputs = mixture(samples[rows], tickets=choice)
            torch.testing.assert_close(outputs, alone[choice, rows], atol=1e-10, rtol=1e-10)


def constant_tickets(model: nn.Linear) -> TicketSet:
    """Ticket k keeps weight k alone, so its output on ones is that weight's value."""
    masks = [torch.zeros(1, 4, dtype=torch.bool) for _ in NAMES]
    for k, mask in enumerate(masks):
        mask[0, k] = True
    return TicketSet([Ticket(n, {"weight": m}) for n, m in zip(NAMES, masks, strict=True)])


@pytest.mark.parametrize("budget", [None, 0])
def test_threads_with_different_tickets_never_mix(budget: int | None) -> None:
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 10.0, 100.0, 1000.0]]))
    mixture = MixtureOfMasks(model, constant_tickets(model), strategy="slices", budget=budget)
    together = threading.Barrier(THREADS)

    def hammer(worker: int) -> int:
        generator = torch.Generator().manual_seed(worker)
        x, wrong = torch.ones(3, 4), 0
        together.wait()
        with torch.no_grad():
            for _ in range(CALLS // THREADS // 2):
                wrong += int(mixture(x, tickets=NAMES[worker])[0]) != 10**worker
                choice = torch.randint(4, (3,), generator=generator)
                wrong += mixture(x, tickets=choice).flatten().tolist() != (10.0**choice).tolist()
        return wrong

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(hammer, range(THREADS))) == 0


def test_three_hundred_tickets_and_a_single_one(strategy: str) -> None:
    model = small_network()
    many = random_tickets(model, [f"t{k}" for k in range(300)])
    mixture = MixtureOfMasks(model, many, strategy=strategy)
    x, names = torch.randn(4, 4, dtype=torch.float64), ["t299", "t0", "t150", "t299"]
    expected = [plain_copy(model, many[n])(x[i : i + 1]) for i, n in enumerate(names)]
    torch.testing.assert_close(mixture(x, tickets=names), torch.cat(expected))
    one = TicketSet([many["t7"]])
    alone = MixtureOfMasks(model, one, strategy=strategy)(x, tickets=["t7"] * 4)
    torch.testing.assert_close(alone, plain_copy(model, many["t7"])(x))
