"""The contract of every strategy: it gives what a plain loop over multiplied copies gives."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from rtl_plugin import MixtureOfMasks
from tests.mixture.conftest import MORE_STRATEGIES
from tests.mixture.plain_loop import (
    NAMES,
    PRIVATE,
    close,
    plain_copy,
    random_tickets,
    sample_by_sample,
    served,
)
from tests.models import ZOO, Network

# Which ticket each sample of a batch goes through.
ARRANGEMENTS = {
    "shuffled": "dbacabdc",
    "grouped": "aabbccdd",
    "reversed groups": "ddccbbaa",
    "two empty groups": "cacaacca",
    "one-sample groups": "cadb",
    "one large, one single": "aaaabaaa",
    "all one ticket": "bbbb",
    "one sample": "d",
}


@pytest.fixture(params=ZOO, ids=str)
def network(request: pytest.FixtureRequest) -> Network:
    return request.param


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=["grad", "no_grad"])
def mode(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch.no_grad() if request.param == "no_grad" else nullcontext():
        yield


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("arrangement", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
def test_mixed_batch_equals_the_plain_loop(
    network: Network, strategy: str, dtype: torch.dtype, arrangement: str
) -> None:
    model, mixture, _ = served(network, strategy, dtype)
    x = network.inputs(len(arrangement)).to(dtype)
    outputs = mixture(x, tickets=list(arrangement))
    close(outputs, sample_by_sample(model, mixture.tickets, x, arrangement))


@pytest.mark.parametrize("arrangement", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
@pytest.mark.parametrize("strategy", MORE_STRATEGIES)
def test_further_strategies_equal_the_plain_loop(
    network: Network, strategy: str, arrangement: str
) -> None:
    model, mixture, _ = served(network, strategy)
    x = network.inputs(len(arrangement)).double()
    outputs = mixture(x, tickets=list(arrangement))
    close(outputs, sample_by_sample(model, mixture.tickets, x, arrangement))


def test_one_pass_is_not_given_up_for_other_outputs(network: Network, strategy: str) -> None:
    if strategy == "reference":
        pytest.skip("the reference makes a pass a ticket")
    _, mixture, _ = served(network, strategy)
    text = mixture.explain(network.inputs(8).double())
    assert "different outputs" not in text
    assert "one pass" in text


@pytest.mark.parametrize("arrangement", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
def test_mixed_batch_equals_its_own_single_calls(
    network: Network, strategy: str, dtype: torch.dtype, arrangement: str
) -> None:
    _, mixture, _ = served(network, strategy, dtype)
    x = network.inputs(len(arrangement)).to(dtype)
    outputs = mixture(x, tickets=list(arrangement))
    for i, name in enumerate(arrangement):
        close(outputs[i : i + 1], mixture(x[i : i + 1], tickets=name))


def test_tickets_differ_so_that_mixing_them_up_would_show(network: Network, strategy: str) -> None:
    _, mixture, _ = served(network, strategy)
    x = network.inputs(2).double()
    outputs = [mixture(x, tickets=name) for name in NAMES]
    for i, first in enumerate(outputs):
        for second in outputs[:i]:
            assert (first - second).abs().max() > 1e-3


def test_many_random_orders(network: Network, strategy: str) -> None:
    model, mixture, _ = served(network, strategy)
    generator = torch.Generator().manual_seed(0)
    x = network.inputs(16).double()
    alone = {name: plain_copy(model, mixture.tickets[name])(x) for name in NAMES}
    for _ in range(10):
        rows = torch.randperm(16, generator=generator)
        choice = torch.randint(len(NAMES), (16,), generator=generator)
        outputs = mixture(x[rows], tickets=choice)
        expected = [alone[NAMES[k]][row] for k, row in zip(choice, rows, strict=True)]
        close(outputs, torch.stack(expected))


def test_an_empty_batch_gives_an_empty_output(network: Network, strategy: str) -> None:
    _, mixture, _ = served(network, strategy)
    x = network.inputs(2).double()[:0]
    like = mixture(network.inputs(2).double(), tickets="a")
    for tickets in ([], torch.tensor([], dtype=torch.long), "a"):
        assert mixture(x, tickets=tickets).shape == (0, *like.shape[1:])


@pytest.mark.parametrize(
    "choose",
    [
        lambda names: names,
        tuple,
        lambda names: [NAMES.index(name) for name in names],
        lambda names: torch.tensor([NAMES.index(name) for name in names]),
        lambda names: torch.tensor([NAMES.index(name) for name in names], dtype=torch.int32),
        lambda names: torch.tensor([NAMES.index(name) for name in names], dtype=torch.uint8),
        lambda names: torch.tensor([NAMES.index(name) for name in names]).numpy(),
    ],
    ids=["names", "tuple", "positions", "int64", "int32", "uint8", "numpy"],
)
def test_every_way_to_name_the_tickets(
    strategy: str, choose: Callable[[list[str]], object]
) -> None:
    model, mixture, network = served(ZOO[0], strategy)
    names = list("cadbbd")
    x = network.inputs(6).double()
    outputs = mixture(x, tickets=choose(names))
    close(outputs, sample_by_sample(model, mixture.tickets, x, names))


@pytest.mark.parametrize("choice", ["c", 2, torch.tensor([2, 2, 2])[0].numpy()[()]])
def test_one_ticket_for_the_batch(network: Network, strategy: str, choice: object) -> None:
    model, mixture, _ = served(network, strategy)
    x = network.inputs(3).double()
    close(mixture(x, tickets=choice), plain_copy(model, mixture.tickets["c"])(x))


def test_one_vs_rest_has_a_column_for_every_ticket(strategy: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    mixture = MixtureOfMasks(model, random_tickets(model), strategy=strategy)
    x = torch.randn(6, 5).double()
    scores = mixture.one_vs_rest(x)
    expected = [plain_copy(model, ticket)(x) for ticket in mixture.tickets.values()]
    close(scores, torch.cat(expected, dim=1))
    assert mixture.one_vs_rest(x[:0]).shape == (0, len(NAMES))


def test_private_parameters_of_a_ticket_are_its_own(network: Network, strategy: str) -> None:
    torch.manual_seed(3)
    model = network.build().double()
    tickets = random_tickets(model, private=PRIVATE[network.name])
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    x = network.inputs(6).double()
    outputs = mixture(x, tickets=list("cadbbd"))
    close(outputs, sample_by_sample(model, tickets, x, "cadbbd"))
    shared = random_tickets(model)  # the same masks, the shared norm affine and head
    others = MixtureOfMasks(model, shared, strategy=strategy)(x, tickets=list("cadbbd"))
    assert (outputs - others).abs().max() > 1e-3


def test_tied_weights_are_masked_at_every_use(strategy: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 2)).double()
    model[2].weight = model[0].weight
    tickets = random_tickets(model)
    assert list(tickets.shapes) == ["0.weight"]
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    x = torch.randn(5, 4).double()
    close(
        mixture(x, tickets=list("abcda")),
        sample_by_sample(model, tickets, x, "abcda"),
    )


def test_recurrent_layers(strategy: str) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 5, batch_first=True)
            self.fc = nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.lstm(x)[0][:, -1])

    torch.manual_seed(0)
    model = Recurrent().double()
    tickets = random_tickets(model, prunable=["lstm.weight_*"])
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    x = torch.randn(4, 6, 3).double()
    close(
        mixture(x, tickets=list("abca")),
        sample_by_sample(model, tickets, x, "abca"),
    )
