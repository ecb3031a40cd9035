"""Gradient conflict of tickets: toys by hand, the pairs that are worst, JSON."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rtl_plugin import DataGroups, Ticket, TicketSet
from rtl_plugin.diagnostics.interference import Interference, interference
from rtl_plugin.errors import (
    InvalidArgument,
)
from tests.diagnostics.interference_cases import (
    scaled_case,
    summed,
)


def linear_case(
    masks: dict[str, list[int]], rows: dict[str, list[list[float]]], **arguments: Any
) -> Interference:
    """Tickets over one linear output; each group's gradients are its batches themselves."""
    tickets = TicketSet(
        [Ticket(name, {"weight": torch.tensor([mask]).bool()}) for name, mask in masks.items()]
    )
    groups = DataGroups.from_loaders(
        {name: [torch.tensor([row]) for row in batches] for name, batches in rows.items()}
    )
    width = len(next(iter(masks.values())))
    return interference(nn.Linear(width, 1, bias=False), tickets, groups, summed, **arguments)


def test_a_toy_by_hand() -> None:
    found = linear_case(
        {"a": [1, 1, 1, 0], "b": [0, 1, 1, 1], "c": [1, 0, 0, 0]},
        {"a": [[2.0, 3, 4, 50]], "b": [[50.0, 6, 8, 1]], "c": [[-1.0, 50, 50, 50]]},
    )
    assert found.names == ("a", "b", "c")
    assert found.masked.overlap.tolist() == [[3, 2, 1], [2, 3, 0], [1, 0, 1]]
    assert found.masked.cosine[0, 1] == pytest.approx(1.0)
    assert found.masked.cosine[0, 2] == pytest.approx(-1.0)
    assert found.masked.conflict[0].tolist() == [0.0, 0.0, 1.0]
    norms = [math.sqrt(4 + 9 + 16), math.sqrt(36 + 64 + 1), 1.0]
    np.testing.assert_allclose(found.masked.norm, norms, rtol=1e-6)
    assert found.masked.effect[0, 2] == pytest.approx(2 / norms[0])
    assert found.masked.effect[2, 0] == pytest.approx(2.0)
    assert found.masked.effect[1, 2] == 0.0
    assert math.isnan(found.masked.cosine[1, 2])
    assert found.dense is None
    assert found.batches == {"a": 1, "b": 1, "c": 1}


def test_gradients_are_averaged_before_they_are_compared() -> None:
    both = {"a": [1, 1], "b": [1, 1]}
    rows = {"a": [[1.0, 0.0], [3.0, 4.0]], "b": [[4.0, 4.0]]}  # means (2, 2) and (4, 4)
    assert linear_case(both, rows).masked.cosine[0, 1] == pytest.approx(1.0)
    first = linear_case(both, rows, batches=1)
    assert first.masked.cosine[0, 1] == pytest.approx(math.sqrt(0.5))
    assert first.batches == {"a": 1, "b": 1}


def test_small_means_of_large_gradients_keep_their_sign() -> None:
    rows = {"a": [[1e8, 1.0], [1.0, 1.0], [-1e8, 1.0]], "b": [[-1.0, 1.0]]}
    found = linear_case({"a": [1, 1], "b": [1, 1]}, rows)
    assert found.masked.conflict[0, 1] == 0.5  # in float32 the first mean would be 0, or noise


def test_no_conflict_between_identical_tickets_of_one_group() -> None:
    rows = [[1.0, -2.0, 3.0]]
    found = linear_case({"a": [1, 0, 1], "b": [1, 0, 1]}, {"a": rows, "b": rows})
    np.testing.assert_allclose(found.masked.cosine, 1.0)
    assert found.masked.conflict.max() == 0.0
    assert found.masked.effect[0, 1] == found.masked.effect[0, 0] < 0


def test_one_ticket_has_no_pairs() -> None:
    found = linear_case({"a": [1, 1]}, {"a": [[3.0, 4.0]]})
    assert found.masked.norm.tolist() == [5.0]
    assert found.worst_pairs() == []
    assert "no two of 1 tickets" in found.table()


def test_three_hundred_tickets() -> None:
    names = [f"g{k}" for k in range(300)]
    masks = {name: [1, k % 2, 1 - k % 2] for k, name in enumerate(names)}
    rows = {name: [[(-1.0) ** (k // 2), 1.0, 1.0]] for k, name in enumerate(names)}
    found = linear_case(masks, rows)
    assert found.masked.cosine[0, 4] == pytest.approx(1.0)
    assert found.masked.cosine[0, 2] == pytest.approx(0.0)
    assert found.masked.cosine[0, 3] == pytest.approx(-1.0)
    assert found.masked.cosine.shape == (300, 300)
    assert len(found.table(count=5).splitlines()) == 8


def test_a_layer_that_a_ticket_empties_is_nan_there_and_nowhere_else() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    full = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters()}
    empty = {**full, "0.weight": torch.zeros(2, 2, dtype=torch.bool)}
    groups = DataGroups.from_loaders({"a": [torch.ones(1, 2)], "b": [torch.ones(1, 2)]})
    # The emptied layer gives zeros, so the second layer's gradient is zero as well: add a shift.
    found = interference(
        model,
        TicketSet([Ticket("a", full), Ticket("b", empty)]),
        groups,
        lambda model, batch: (model(batch) + model[1].weight.sum()).sum(),
    )
    assert list(found.layers) == ["0.weight", "1.weight"]
    assert math.isnan(found.layers["0.weight"].cosine[0, 1])
    assert found.layers["0.weight"].overlap[0, 1] == 0
    assert not math.isnan(found.layers["1.weight"].cosine[0, 1])
    assert not math.isnan(found.masked.cosine[0, 1])


def test_worst_pairs_come_by_falling_effect() -> None:
    found = linear_case(
        {"a": [1, 1, 0], "b": [1, 1, 0], "c": [0, 1, 1], "d": [0, 0, 1]},
        {"a": [[3.0, 4, 0]], "b": [[-1.0, 0, 0]], "c": [[0.0, 1, 0]], "d": [[0.0, 0, 0]]},
    )
    pairs = found.worst_pairs()
    # d has no gradient, so its steps go nowhere; a and d share nothing.
    assert [(p.stepping, p.affected) for p in pairs][:2] == [("b", "a"), ("a", "b")]
    assert pairs[0].effect == pytest.approx(3.0)
    assert pairs[1].effect == pytest.approx(0.6)
    assert (pairs[0].cosine, pairs[0].conflict) == (pytest.approx(-0.6), 0.5)
    assert pairs[0].overlap == 2
    assert pairs[-1].effect == pytest.approx(-4.0)  # a step of c helps a
    assert "d" not in {p.stepping for p in pairs}
    assert ("a", "d") not in {(p.stepping, p.affected) for p in pairs}
    assert len(found.worst_pairs(1)) == 1
    lines = found.table(2).splitlines()
    assert lines[2].split() == ["b", "a", "+3", "-0.600", "0.500", "2"]
    assert lines[-1].startswith("2 of 12 ordered pairs")


def test_json_is_strict_and_whole() -> None:
    model, tickets, groups = scaled_case()
    found = interference(model, tickets, groups, summed)
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["names"] == ["a", "b"]
    assert content["batches"] == {"a": 3, "b": 3}
    assert content["dense"]["norm"] == [8.0, 2.0]
    assert list(content["layers"]) == ["fc.weight"]
    assert content["layers"]["fc.weight"] == content["masked"]


def test_parts_that_are_not_there() -> None:
    found = linear_case({"a": [1], "b": [1]}, {"a": [[1.0]], "b": [[1.0]]})
    with pytest.raises(InvalidArgument, match="share no unmasked parameter"):
        found.worst_pairs(part="dense")
    with pytest.raises(InvalidArgument, match="part must be one of"):
        found.table(part="names")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="count must be"):
        found.worst_pairs(0)
