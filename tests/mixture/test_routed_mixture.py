"""A mixture whose router decides: indices, soft weights, and decisions that do not fit."""

from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import KnownGroupRouter, MixtureOfMasks, RoutingDecision, Ticket, TicketSet
from rtl_plugin.errors import InvalidArgument, UnknownTicket
from tests.mixture.plain_loop import NAMES, TOLERANCES, plain_copy, random_tickets, sample_by_sample


class Fixed:
    """A router that answers what it was told, and remembers what it was asked."""

    def __init__(self, decision: Any) -> None:
        self.decision = decision
        self.asked: list[tuple[Any, Any]] = []

    def route(self, x: Any, context: Any = None) -> Any:
        self.asked.append((x, context))
        return self.decision


def made(router: Any, strategy: str) -> MixtureOfMasks:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    return MixtureOfMasks(model, random_tickets(model), router, strategy)


def batch(rows: int = 5) -> torch.Tensor:
    return torch.randn(rows, 4, dtype=torch.float64)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, **TOLERANCES[torch.float64])


def test_a_known_group_routes(strategy: str) -> None:
    mixture = made(KnownGroupRouter(NAMES), strategy)
    x = batch()
    close(
        mixture(x, context=list("cabda")),
        sample_by_sample(mixture.model, mixture.tickets, x, "cabda"),
    )
    close(mixture(x, context="b"), mixture(x, tickets=["b"] * 5))


def test_mapped_keys_as_a_tensor(strategy: str) -> None:
    mapping = {10: "d", 20: "a"}
    mixture = made(KnownGroupRouter(NAMES, mapping=mapping), strategy)
    x = batch()
    outputs = mixture(x, context=torch.tensor([20, 10, 10, 20, 10]))
    close(outputs, mixture(x, tickets=list("addad")))


def test_an_empty_batch_is_routed(strategy: str) -> None:
    mixture = made(KnownGroupRouter(NAMES), strategy)
    assert mixture(batch(0), context=[]).shape == (0, 3)
    assert mixture(batch(0), context="a").shape == (0, 3)


def test_the_router_sees_input_and_context(strategy: str) -> None:
    router = Fixed(RoutingDecision(indices=torch.tensor([3, 1], dtype=torch.int32)))
    mixture = made(router, strategy)
    x, context = batch(2), object()
    close(mixture(x, context=context), mixture(x, tickets=["d", "b"]))
    assert len(router.asked) == 1  # not asked where the call names tickets
    assert router.asked[0][0] is x
    assert router.asked[0][1] is context


def test_soft_weights_average_the_tickets(strategy: str) -> None:
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]])
    mixture = made(Fixed(RoutingDecision(weights=weights)), strategy)
    x = batch(3)
    copies = [plain_copy(mixture.model, ticket)(x) for ticket in mixture.tickets.values()]
    expected = sum(weights[:, k : k + 1].double() * output for k, output in enumerate(copies))
    assert isinstance(expected, torch.Tensor)
    close(mixture(x), expected)
    close(mixture(x)[1:2], mixture(x[1:2], tickets="a"))


class Pictures(nn.Module):
    """An output of four dimensions in a dict, and a class index beside it on request."""

    def __init__(self, with_index: bool) -> None:
        super().__init__()
        self.with_index = with_index
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.first(x)
        return {"map": y, **({"class": y.flatten(1).argmax(dim=1)} if self.with_index else {})}


def test_soft_weights_on_maps_and_on_indices(strategy: str) -> None:
    torch.manual_seed(0)
    weights = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    router = Fixed(RoutingDecision(weights=weights))
    model = Pictures(with_index=False)
    tickets = random_tickets(model, names=["a", "b"])
    x = torch.randn(2, 1, 3, 3)
    outputs = MixtureOfMasks(model, tickets, router, strategy)(x)
    maps = [plain_copy(model, ticket)(x)["map"] for ticket in tickets.values()]
    expected = torch.stack([0.25 * maps[0][0] + 0.75 * maps[1][0], maps[0][1]])
    torch.testing.assert_close(outputs["map"], expected)
    with pytest.raises(InvalidArgument, match=r"average outputs, which torch.int64 cannot hold"):
        MixtureOfMasks(Pictures(with_index=True), tickets, router, strategy)(x)


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)).mean()


def test_soft_weights_need_a_row_a_sample(strategy: str) -> None:
    model = Mean()
    router = Fixed(RoutingDecision(weights=torch.full((3, 4), 0.25)))
    mixture = MixtureOfMasks(model, random_tickets(model), router, strategy)
    with pytest.raises(InvalidArgument, match=r"one row a sample, got shape \(\) for 3 samples"):
        mixture(torch.randn(3, 4))


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        (RoutingDecision(indices=torch.tensor([0, 1])), "Fixed decided on 2 of 3 samples"),
        (RoutingDecision(weights=torch.ones(4, 4)), "Fixed decided on 4 of 3 samples"),
        (RoutingDecision(weights=torch.ones(3, 2)), "weights have 2 columns for 4 tickets"),
        (torch.tensor([0, 1, 2]), "Fixed.route must return a RoutingDecision, got Tensor"),
        (None, "Fixed.route must return a RoutingDecision, got NoneType"),
    ],
)
def test_decisions_that_do_not_fit(decision: Any, message: str, strategy: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        made(Fixed(decision), strategy)(batch(3))


def test_an_index_out_of_range(strategy: str) -> None:
    for index in (4, -1):
        router = Fixed(RoutingDecision(indices=torch.tensor([0, index])))
        with pytest.raises(UnknownTicket, match=rf"ticket index {index} is not in 0\.\.3"):
            made(router, strategy)(batch(2))


def test_what_is_no_router() -> None:
    for router in (object(), "known", len):
        with pytest.raises(InvalidArgument, match=r"router must have route\(x, context\)"):
            made(router, "auto")


@pytest.mark.parametrize("names", ["bacd", "abc", "abcde"])
def test_a_router_made_for_other_tickets(names: str) -> None:
    with pytest.raises(InvalidArgument, match=r"router was made for the tickets \['.*'\], the mix"):
        made(KnownGroupRouter(list(names)), "auto")


def test_a_router_of_one_ticket() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    tickets = TicketSet([Ticket("only", {"0.weight": torch.eye(2).bool()})])
    mixture = MixtureOfMasks(model, tickets, KnownGroupRouter(tickets))
    x = torch.randn(3, 2)
    torch.testing.assert_close(mixture(x, context="only"), mixture(x, tickets="only"))
