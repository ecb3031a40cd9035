"""Samples that no ticket knows, and routers that look at outputs or give weights."""

from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import (
    ConfidenceRouter,
    ConfidenceThreshold,
    MixtureOfMasks,
    OneVsRestRouter,
    RoutingDecision,
    StochasticEnsembleRouter,
    TicketSet,
)
from rtl_plugin.errors import InvalidArgument, UnknownTicket
from rtl_plugin.mixture.rows import average_rows
from tests.mixture.plain_loop import NAMES, plain_copy, random_tickets


class Marks:
    """Routes to ticket 1 and marks the samples that the context names."""

    def __init__(self, weights: bool = False) -> None:
        self.weights = weights

    def route(self, x: torch.Tensor, context: Any = None) -> RoutingDecision:
        indices = torch.ones(len(x), dtype=torch.long)
        marked = None if context is None else torch.tensor(context)
        if self.weights:
            weights = nn.functional.one_hot(indices, 4).to(x.dtype)
            return RoutingDecision(weights=weights, fallback=marked)
        return RoutingDecision(indices, fallback=marked)


def network() -> tuple[nn.Module, TicketSet]:
    torch.manual_seed(0)
    layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)
    model = nn.Sequential(*layers).double()
    return model, random_tickets(model)


X = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
MARKED = [True, False, False, True, False]


@pytest.mark.parametrize("weights", [False, True], ids=["indices", "weights"])
@pytest.mark.parametrize("fallback", ["dense", "c"])
def test_marked_samples_go_to_the_fallback(strategy: str, weights: bool, fallback: str) -> None:
    model, tickets = network()
    mixture = MixtureOfMasks(model, tickets, Marks(weights), strategy=strategy, fallback=fallback)
    known = plain_copy(model, tickets["b"])(X)
    unknown = model.eval()(X) if fallback == "dense" else plain_copy(model, tickets["c"])(X)
    model.train()
    expected = torch.where(torch.tensor(MARKED)[:, None], unknown, known)
    torch.testing.assert_close(mixture(X, context=MARKED), expected)
    torch.testing.assert_close(mixture(X, context=[True] * 5), unknown)
    torch.testing.assert_close(mixture(X, context=[False] * 5), known)
    torch.testing.assert_close(mixture(X), known)  # the router marks nothing


def test_the_dense_network_follows_its_weights_and_is_left_alone() -> None:
    model, tickets = network()
    mixture = MixtureOfMasks(model, tickets, Marks(), fallback="dense")
    first = mixture(X, context=[True] * 5)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        model[3].bias.add_(1)
    torch.testing.assert_close(mixture(X, context=[True] * 5), first + 1)
    assert model.training
    assert all(torch.equal(buffers[name], buffer) for name, buffer in model.named_buffers())


def test_a_fallback_that_is_not_there_is_an_error() -> None:
    model, tickets = network()
    with pytest.raises(InvalidArgument, match="give it fallback="):
        MixtureOfMasks(model, tickets, Marks())(X, context=MARKED)
    with pytest.raises(UnknownTicket, match="unknown ticket 'e'"):
        MixtureOfMasks(model, tickets, fallback="e")
    with pytest.raises(InvalidArgument, match="takes a ticket's name, 'dense' or None, got int"):
        MixtureOfMasks(model, tickets, fallback=1)  # type: ignore[arg-type]
    named = random_tickets(model, ["dense", "other"])
    with pytest.raises(InvalidArgument, match="rename it"):
        MixtureOfMasks(model, named, fallback="dense")


def test_the_surest_ticket_answers_with_the_output_it_was_asked_by(strategy: str) -> None:
    model, tickets = network()
    mixture = MixtureOfMasks(model, tickets, ConfidenceRouter("entropy"), strategy=strategy)
    outputs = torch.stack([plain_copy(model, ticket)(X) for ticket in tickets.values()], dim=1)
    entropy = torch.distributions.Categorical(logits=outputs).entropy()
    expected = outputs[torch.arange(5), entropy.argmin(dim=1)]
    torch.testing.assert_close(mixture(X), expected)


def test_output_routers_with_a_fallback() -> None:
    model, tickets = network()
    outputs = torch.stack([plain_copy(model, ticket)(X) for ticket in tickets.values()], dim=1)
    entropy = torch.distributions.Categorical(logits=outputs).entropy()
    router = ConfidenceThreshold(ConfidenceRouter("entropy")).fit(outputs, quantile=0.5)
    mixture = MixtureOfMasks(model, tickets, router, fallback="dense")
    answers, dense = mixture(X), model.eval()(X)
    surest = outputs[torch.arange(5), entropy.argmin(dim=1)]
    from_dense = [bool(torch.allclose(a, d)) for a, d in zip(answers, dense, strict=True)]
    assert 1 <= sum(from_dense) <= 4
    expected = torch.where(torch.tensor(from_dense)[:, None], dense, surest)
    torch.testing.assert_close(answers, expected)


def test_one_vs_rest_takes_the_largest_logit() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    tickets = random_tickets(model)
    routed = MixtureOfMasks(model, tickets, OneVsRestRouter())(X)
    expected = MixtureOfMasks(model, tickets).one_vs_rest(X).max(dim=1, keepdim=True).values
    torch.testing.assert_close(routed, expected)


def test_a_ticket_that_has_no_say_may_overflow() -> None:
    outputs = [torch.tensor([[2.0], [4.0]]), torch.tensor([[float("inf")], [8.0]])]
    weights = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    assert average_rows(outputs, weights).flatten().tolist() == [2.0, 6.0]


def test_only_drawn_tickets_are_run(strategy: str) -> None:
    model, tickets = network()
    router = StochasticEnsembleRouter(tickets, n=2, seed=0)
    drawn = StochasticEnsembleRouter(tickets, n=2, seed=0).route(X).weights
    assert drawn is not None
    mixture = MixtureOfMasks(model, tickets, router, strategy=strategy)
    ran: list[str] = []
    run = mixture._strategy.run
    mixture._strategy.run = lambda name, *given: (ran.append(name), run(name, *given))[1]  # type: ignore[method-assign]
    outputs = mixture(X)
    assert ran == [NAMES[k] for k in drawn[0].nonzero().flatten()]
    copies = torch.stack([plain_copy(model, ticket)(X) for ticket in tickets.values()])
    torch.testing.assert_close(outputs, torch.einsum("bk,kbc->bc", drawn.double(), copies))
