"""What a mixture refuses, and what it says then."""

from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import MixtureOfMasks, Ticket, TicketSet
from rtl_plugin.errors import (
    InvalidArgument,
    RtlError,
    StructureMismatch,
    UnknownTicket,
)
from tests.mixture.plain_loop import random_tickets


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))


@pytest.fixture
def mixture(strategy: str) -> MixtureOfMasks:
    model = network()
    return MixtureOfMasks(model, random_tickets(model), strategy=strategy)


X = torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("tickets", "error", "message"),
    [
        ("z", UnknownTicket, "unknown ticket 'z'; this set has 'a', 'b', 'c', 'd'"),
        (["a", "z", "b"], UnknownTicket, "unknown ticket 'z'; this set has 'a'"),
        (4, UnknownTicket, "ticket index 4 is not in 0..3; the tickets are 'a', 'b', 'c', 'd'"),
        (-1, UnknownTicket, r"ticket index -1 is not in 0\.\.3"),
        ([0, 1, 4], UnknownTicket, r"ticket index 4 is not in 0\.\.3"),
        (torch.tensor([0, 1, 4]), UnknownTicket, r"ticket index 4 is not in 0\.\.3"),
        (torch.tensor([0, -1, 2]), UnknownTicket, r"ticket index -1 is not in 0\.\.3"),
        (torch.tensor([0, 255, 2], dtype=torch.uint8), UnknownTicket, "ticket index 255"),
        (torch.tensor([True, False, True]), InvalidArgument, r"integer tensor \[B\], got .*bool"),
        (torch.tensor([0.0, 1.0, 2.0]), InvalidArgument, r"integer tensor \[B\], got .*float32"),
        (torch.tensor([[0, 1, 2]]), InvalidArgument, r"integer tensor \[B\], got .*\(1, 3\)"),
        (torch.tensor(0), InvalidArgument, r"integer tensor \[B\], got torch.int64 \(\)"),
        (["a", "b"], InvalidArgument, "2 tickets for a batch of 3 samples: give one a sample"),
        (["a"] * 4, InvalidArgument, "4 tickets for a batch of 3 samples"),
        ([], InvalidArgument, "0 tickets for a batch of 3 samples"),
        (torch.tensor([0, 1]), InvalidArgument, "2 tickets for a batch of 3 samples"),
        (
            True,
            InvalidArgument,
            "or one of them a sample, got True of type bool",
        ),
        (0.5, InvalidArgument, "got 0.5 of type float"),
        (["a", None, "b"], InvalidArgument, "got None of type NoneType"),
        (["a", 1.0, "b"], InvalidArgument, "got 1.0 of type float"),
    ],
)
def test_wrong_tickets(
    mixture: MixtureOfMasks, tickets: Any, error: type[RtlError], message: str
) -> None:
    with pytest.raises(error, match=message):
        mixture(X, tickets=tickets)
    assert mixture(X, tickets=["a", "b", "c"]).shape == (3, 2)  # it still serves


def test_neither_tickets_nor_router(mixture: MixtureOfMasks) -> None:
    with pytest.raises(InvalidArgument, match=r"say which tickets: mixture\(x, tickets=\.\.\.\)"):
        mixture(X)
    with pytest.raises(InvalidArgument, match=r"say which tickets"):
        mixture(X, context="a")


def test_context_beside_tickets(mixture: MixtureOfMasks) -> None:
    with pytest.raises(InvalidArgument, match=r"context= would be ignored: give one of the two"):
        mixture(X, tickets="a", context="a")


@pytest.mark.parametrize("strategy_name", ["fast", "", "Reference", None, 3])
def test_unknown_strategy(strategy_name: Any) -> None:
    model = network()
    with pytest.raises(InvalidArgument, match=r"unknown strategy .*: one of auto, reference"):
        MixtureOfMasks(model, random_tickets(model), strategy=strategy_name)


def test_not_a_model_or_not_a_set() -> None:
    model = network()
    tickets = random_tickets(model)
    with pytest.raises(InvalidArgument, match=r"in this order, got TicketSet and Sequential"):
        MixtureOfMasks(tickets, model)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"got Sequential and dict"):
        MixtureOfMasks(model, dict(tickets))  # type: ignore[arg-type]


def test_tickets_of_another_structure() -> None:
    tickets = random_tickets(network())
    with pytest.raises(StructureMismatch, match=r"'0.weight' has shape \(3, 3\), in the model"):
        MixtureOfMasks(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), tickets)
    with pytest.raises(StructureMismatch, match=r"'0.weight' is not in the model"):
        MixtureOfMasks(nn.Linear(3, 3), tickets)


def test_state_of_another_structure() -> None:
    mask = {"0.weight": torch.ones(3, 3).bool()}
    for name, value, message in (
        ("1.running_mean", torch.zeros(3), "'1.running_mean' is not in the model"),
        ("1.bias", torch.zeros(3), r"'1.bias' has shape \(3,\), in the model it is \(2,\)"),
    ):
        tickets = TicketSet([Ticket("a", mask, {name: value})])
        with pytest.raises(StructureMismatch, match=f"state of ticket 'a'.*{message}"):
            MixtureOfMasks(network(), tickets)


def test_a_fingerprint_of_another_structure() -> None:
    model = network()
    tickets = TicketSet([*random_tickets(model).values()], structure="0" * 64)
    with pytest.raises(StructureMismatch, match="found on a network of another structure"):
        MixtureOfMasks(model, tickets)


def test_a_model_that_cannot_be_copied() -> None:
    model = network()
    model.generator = (value for value in [1])
    with pytest.raises(InvalidArgument, match=r"Sequential cannot be deep-copied \(TypeError"):
        MixtureOfMasks(model, random_tickets(network()))


@pytest.mark.parametrize(
    ("head", "came"), [(2, r"\(3, 2\)"), (1, None)], ids=["two logits", "one logit"]
)
def test_one_vs_rest_needs_one_logit(head: int, came: str | None, strategy: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, head))
    mixture = MixtureOfMasks(model, random_tickets(model), strategy=strategy)
    if came is None:
        assert mixture.one_vs_rest(X).shape == (3, 4)
        return
    with pytest.raises(InvalidArgument, match=f"one logit a sample; ticket 'a' gave {came} for 3"):
        mixture.one_vs_rest(X)


def test_one_vs_rest_of_a_nested_output(strategy: str) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (self.second(self.first(x)),)

    model = Pair()
    mixture = MixtureOfMasks(model, random_tickets(model), strategy=strategy)
    with pytest.raises(InvalidArgument, match="ticket 'a' gave a tuple for 3 samples"):
        mixture.one_vs_rest(X)
