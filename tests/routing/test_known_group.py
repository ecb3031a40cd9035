"""Routing decisions, and the router that is told the group."""

from typing import Any

import numpy as np
import pytest
import torch

from rtl_plugin import KnownGroupRouter, Router, RoutingDecision, Ticket, TicketSet
from rtl_plugin.errors import InvalidArgument, UnknownTicket

NAMES = ("indoor", "street", "field")
X = torch.zeros(3, 2)


def routed(context: Any, mapping: Any = None, x: Any = X) -> list[int]:
    indices = KnownGroupRouter(NAMES, mapping).route(x, context).indices
    assert indices is not None
    assert indices.dtype == torch.long
    return indices.tolist()


def test_names_or_a_ticket_set() -> None:
    tickets = TicketSet([Ticket(name, {"w": torch.tensor([True])}) for name in NAMES])
    router = KnownGroupRouter(tickets)
    assert router.tickets == NAMES
    assert isinstance(router, Router)
    indices = router.route(X, ["field", "indoor", "street"]).indices
    assert indices is not None
    assert indices.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (["street", "indoor", "field"], [1, 0, 2]),
        (("street", "indoor", "field"), [1, 0, 2]),
        (np.array(["street", "indoor", "field"]), [1, 0, 2]),
        ("street", [1, 1, 1]),
        (np.array("street"), [1, 1, 1]),
    ],
)
def test_keys_a_sample_or_one_for_the_batch(context: Any, expected: list[int]) -> None:
    assert routed(context) == expected


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (torch.tensor([7, 5, 7]), [2, 0, 2]),
        (torch.tensor([7, 5, 7], dtype=torch.int32), [2, 0, 2]),
        (np.array([7, 5, 7]), [2, 0, 2]),
        ([7, 5, 7], [2, 0, 2]),
        (7, [2, 2, 2]),
        (torch.tensor(7), [2, 2, 2]),
        (np.int64(7), [2, 2, 2]),
    ],
)
def test_mapped_keys(context: Any, expected: list[int]) -> None:
    assert routed(context, {5: "indoor", 7: "field"}) == expected


def test_several_keys_may_lead_to_one_ticket() -> None:
    mapping = {"kitchen": "indoor", "office": "indoor", None: "field", 1.5: "street"}
    assert routed(["office", "kitchen", None], mapping) == [0, 0, 2]
    assert routed(1.5, mapping) == [1, 1, 1]


def test_an_empty_batch() -> None:
    assert routed([], x=torch.zeros(0, 2)) == []
    assert routed("street", x=torch.zeros(0, 2)) == []


def test_nested_inputs_give_the_batch_size() -> None:
    x = {"image": torch.zeros(2, 3), "text": [torch.zeros(2)]}
    assert routed(["street", "indoor"], x=x) == [1, 0]


@pytest.mark.parametrize("context", [["street", "indoor"], ["street"] * 4, torch.zeros(2).long()])
def test_wrong_length(context: Any) -> None:
    count = len(context)
    with pytest.raises(InvalidArgument, match=f"context has {count} keys for a batch of 3 samples"):
        routed(context)


@pytest.mark.parametrize(
    ("context", "named"),
    [
        ("moon", "'moon'"),
        (["street", "moon", "indoor"], "'moon'"),
        (3, "3"),
        (torch.tensor([0, 1, 2]), "0"),
        (["street", ["street"], "indoor"], r"\['street'\]"),
        (0.5, "0.5"),
        (["indoor", None, "indoor"], "None"),
    ],
)
def test_unknown_key(context: Any, named: str) -> None:
    with pytest.raises(UnknownTicket, match=rf"unknown group {named}; known are \['indoor', "):
        routed(context)


def test_no_context() -> None:
    with pytest.raises(InvalidArgument, match=r"KnownGroupRouter needs context=: the group"):
        routed(None)


def test_an_input_without_rows() -> None:
    with pytest.raises(InvalidArgument, match="whose first dimension is B, got list"):
        routed("street", x=["no tensor"])
    with pytest.raises(InvalidArgument, match="got a tensor without dimensions"):
        routed("street", x=torch.tensor(1.0))


def test_a_mapping_to_no_ticket() -> None:
    with pytest.raises(
        UnknownTicket, match=r"key 1 is mapped to 'moon'; the tickets are \['indoor"
    ):
        KnownGroupRouter(NAMES, {0: "indoor", 1: "moon"})


def test_decisions_hold_one_of_the_two() -> None:
    indices, weights = torch.tensor([0, 1]), torch.full((3, 2), 0.5)
    assert RoutingDecision(indices=indices).batch_size == 2
    assert RoutingDecision(weights=weights).batch_size == 3
    for both in ({}, {"indices": indices, "weights": weights}):
        with pytest.raises(InvalidArgument, match="holds either indices or weights"):
            RoutingDecision(**both)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"indices": torch.tensor([0.0])}, r"integer tensor \[B\], got torch.float32 \(1,\)"),
        ({"indices": torch.tensor([True])}, r"integer tensor \[B\], got torch.bool \(1,\)"),
        ({"indices": torch.tensor([[0]])}, r"integer tensor \[B\], got torch.int64 \(1, 1\)"),
        ({"indices": torch.tensor(0)}, r"integer tensor \[B\], got torch.int64 \(\)"),
        ({"indices": [0, 1]}, r"integer tensor \[B\], got list"),
        ({"weights": torch.tensor([0.5])}, r"floating tensor \[B, K\], got torch.float32 \(1,\)"),
        ({"weights": torch.ones(1, 1).long()}, r"floating tensor \[B, K\], got torch.int64"),
        ({"weights": [[1.0]]}, r"floating tensor \[B, K\], got list"),
    ],
)
def test_decisions_check_dtype_and_shape(given: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        RoutingDecision(**given)
