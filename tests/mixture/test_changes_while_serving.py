"""What a network does, or what is done to it, between and during calls."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import MixtureOfMasks, RoutingDecision
from rtl_plugin.errors import StructureMismatch
from tests.channels import zoo
from tests.mixture.plain_loop import NAMES, close, random_tickets, sample_by_sample

X = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
MIXED = list("abcdabcd")


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()


def exchange_an_activation(model: nn.Sequential) -> None:
    model[1] = nn.Tanh()


def exchange_a_layer(model: nn.Sequential) -> None:
    model[2] = nn.Linear(8, 3).double()


def assign_weights(model: nn.Sequential) -> None:
    fresh = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    model.load_state_dict(fresh, assign=True)


@pytest.mark.parametrize("change", [exchange_an_activation, exchange_a_layer, assign_weights])
def test_a_changed_network_is_served_as_it_is(
    strategy: str, change: Callable[[nn.Sequential], None]
) -> None:
    model = small_network()
    tickets = random_tickets(model)
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    mixture(X, tickets=MIXED)
    change(model)
    close(mixture(X, tickets=MIXED), sample_by_sample(model, tickets, X, MIXED))
    close(mixture(X, tickets="b"), sample_by_sample(model, tickets, X, "bbbbbbbb"))


def test_the_unmasked_network_is_served_as_it_is_too() -> None:
    class Nobody:
        def route(self, x: torch.Tensor, context: Any = None) -> RoutingDecision:
            everybody = torch.ones(len(x), dtype=torch.bool)
            return RoutingDecision(torch.zeros(len(x), dtype=torch.long), fallback=everybody)

    model = small_network()
    mixture = MixtureOfMasks(model, random_tickets(model), Nobody(), fallback="dense")
    close(mixture(X), model(X))
    exchange_an_activation(model)
    close(mixture(X), model(X))


def test_a_network_that_the_tickets_no_longer_fit_is_refused(strategy: str) -> None:
    model = small_network()
    mixture = MixtureOfMasks(model, random_tickets(model), strategy=strategy)
    model[0] = nn.Linear(4, 9).double()
    with pytest.raises(StructureMismatch, match=r"0\.weight"):
        mixture(X, tickets=MIXED)


class CastsToItsWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.fc(x.to(self.fc.weight.dtype))))


def test_a_converted_network_shows_its_dtype(strategy: str) -> None:
    torch.manual_seed(0)
    model = CastsToItsWeights().double()
    mixture = MixtureOfMasks(model, random_tickets(model), strategy=strategy)
    mixture(X, tickets=MIXED)
    mixture.float()
    assert mixture(X, tickets=MIXED).dtype == torch.float32


class CountsNegatives(nn.Module):
    """Writes to a buffer for some batches only, and reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x < 0).any()):
            self.seen += 1
        return self.head(torch.relu(self.fc(x))) + self.seen


def test_a_buffer_that_a_later_batch_writes_to_starts_afresh_at_every_call(strategy: str) -> None:
    torch.manual_seed(0)
    model = CountsNegatives().double()
    tickets = random_tickets(model)
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    quiet = mixture(X.abs(), tickets=MIXED)
    fresh = MixtureOfMasks(model, tickets, strategy="reference")(X, tickets=MIXED)
    for _ in range(3):
        close(mixture(X, tickets=MIXED), fresh)
        close(mixture(X.abs(), tickets=MIXED), quiet)
    assert float(model.seen) == 0


def test_trying_ways_on_a_batch_that_writes_to_a_buffer_counts_it_once(strategy: str) -> None:
    torch.manual_seed(0)
    model = CountsNegatives().double()
    tickets = random_tickets(model)
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    mixture(X.abs(), tickets=MIXED)
    longer, names = torch.cat([X, X, X]), MIXED * 3  # another size, so its ways are timed anew
    fresh = MixtureOfMasks(model, tickets, strategy="reference")(longer, tickets=names)
    close(mixture(longer, tickets=names), fresh)


class Trims(nn.Module):
    """Cuts every batch to its longest sample, so tickets' outputs may differ in length."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        kept = x[:, : int(lengths.max())]
        return self.head(torch.relu(self.cell(kept)).sum(dim=1))


def test_lengths_that_differ_between_batches(strategy: str) -> None:
    torch.manual_seed(0)
    model = Trims().double()
    mixture = MixtureOfMasks(model, random_tickets(model), strategy=strategy)
    reference = MixtureOfMasks(model, mixture.tickets, strategy="reference")
    x, full = torch.randn(8, 5, 4, dtype=torch.float64), torch.full((8,), 5)
    mixture(x, full, tickets=MIXED)
    short = torch.tensor([1, 2, 3, 4, 1, 2, 3, 4])
    expected = reference(x, torch.full((8,), 4), tickets=MIXED)
    assert mixture(x, short, tickets=MIXED).shape == expected.shape


class NormalisesInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.sub_(0.5).div_(0.25))


def test_inputs_that_a_forward_writes_into_are_given_afresh_to_every_ticket(strategy: str) -> None:
    class Halves:
        def route(self, x: torch.Tensor, context: Any = None) -> RoutingDecision:
            return RoutingDecision(weights=torch.full((len(x), 4), 0.25, dtype=torch.float64))

    torch.manual_seed(0)
    model = NormalisesInPlace().double()
    tickets = random_tickets(model, prunable=["fc.weight"])
    mixture = MixtureOfMasks(model, tickets, Halves(), strategy=strategy)
    alone = [sample_by_sample(model, tickets, X.clone(), name * 8) for name in NAMES]
    close(mixture(X.clone()), sum(alone[1:], alone[0]) / 4)
    close(mixture(X.clone(), tickets=MIXED), sample_by_sample(model, tickets, X.clone(), MIXED))


class Stashes(zoo.Residual):
    """Keeps an activation on the module while a call lasts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept = self.features(x)
        time.sleep(0)  # lets another thread in
        return self.fc(self.kept.mean(dim=(2, 3)))


@pytest.mark.parametrize("strategy", ["compact", "slices"])
def test_threads_share_no_modules(strategy: str) -> None:
    torch.manual_seed(0)
    network = zoo.ChannelNet("residual", Stashes, zoo.images, True, zoo.cut_residual)
    model = Stashes().double()
    tickets = zoo.channel_tickets(network, model, "ab")
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    inputs = [zoo.images(2).double() + k for k in range(3)]
    expected = [mixture(x, tickets="a") for x in inputs]
    together = threading.Barrier(3)

    def wrong(worker: int) -> int:
        together.wait()
        runs = (mixture(inputs[worker], tickets="a") for _ in range(150))
        return sum(not torch.allclose(run, expected[worker]) for run in runs)

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(wrong, range(3))) == 0


def test_samples_that_show_nothing_are_told_and_looked_at_again() -> None:
    model = small_network()
    tickets = random_tickets(model)
    mixture = MixtureOfMasks(model, tickets, strategy="slices")
    alike = torch.zeros(8, 4, dtype=torch.float64).fill_(float("nan"))
    mixture(alike, tickets=MIXED)
    assert "do not show where they are" in mixture.explain()
    close(mixture(X, tickets=MIXED), sample_by_sample(model, tickets, X, MIXED))
    told = mixture.explain()
    assert "one pass" in told
    assert "do not show" not in told


def test_private_weights_count_under_the_budget() -> None:
    model = small_network()
    tickets = random_tickets(model, private=["2.weight", "2.bias"])
    mixture = MixtureOfMasks(model, tickets, strategy="grouped", budget=0)
    with torch.no_grad():
        close(mixture(X, tickets=MIXED), sample_by_sample(model, tickets, X, MIXED))
    assert mixture.memory().parts["masked copies"] == 0
