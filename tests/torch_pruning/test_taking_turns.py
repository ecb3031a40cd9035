"""Tickets take turns in one working network, and each is what a host pruner of its own gives."""

import copy
import itertools
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from rtl_torch_pruning import RTLPruner
from tests.torch_pruning.setups import (
    assert_same_network,
    example,
    groups_of,
    host_of,
    pruner_of,
    run_all,
)
from tests.torch_pruning.zoo import CONV_BN, DENSE, FUSED, SEPARATE, ZOO, Net

ROUNDS = 3


class SeededScores:
    """Random scores that depend on the group of data, the round and the layer's turn only."""

    def __init__(self) -> None:
        self.key, self.calls = "", 0

    def begin(self, key: str) -> None:
        self.key, self.calls = key, 0

    def __call__(self, group: Any) -> torch.Tensor:
        self.calls += 1
        seed = zlib.crc32(f"{self.key}/{self.calls}".encode())
        return torch.rand(len(group[0].idxs), generator=torch.Generator().manual_seed(seed))


def scored_pruner(net: Net, model: nn.Module, names: Sequence[str], **others: Any) -> RTLPruner:
    """Every group has random scores of its own; training only tells which group it is."""
    scores = SeededScores()

    def train(network: Any, group: Any, round: int) -> None:
        scores.begin(f"{group.name}/{round}")
        with torch.no_grad():
            network.head.bias += 1

    settings = {"groups": groups_of(net, names), "iterative_steps": ROUNDS, **others}
    return pruner_of(net, model, scores, train=train, **settings)


def host_alone(net: Net, model: nn.Module, name: str, **others: Any) -> nn.Module:
    own, scores = copy.deepcopy(model).eval(), SeededScores()
    keywords = {**net.keywords(own), "iterative_steps": ROUNDS, **others}
    host = host_of(own, example(net), scores, keywords)
    for round in range(1, ROUNDS + 1):
        scores.begin(f"{name}/{round}")
        host.step()
    return own


@pytest.mark.parametrize("ranking", ["local", "global"])
@pytest.mark.parametrize("net", ZOO, ids=str)
def test_every_ticket_is_what_the_host_gives_alone(net: Net, ranking: str) -> None:
    keywords: dict[str, Any] = {"pruning_ratio": 0.5}
    if ranking == "global":
        keywords |= {"global_pruning": True, "max_pruning_ratio": 0.7}
    model = net.build()
    pruner = run_all(scored_pruner(net, model, "abc", **keywords))
    for name in "abc":
        assert_same_network(pruner.compact(name), host_alone(net, model, name, **keywords))
    assert len({str(pruner.channels(name)) for name in "abc"}) > 1


@pytest.mark.parametrize("net", [FUSED, SEPARATE], ids=str)
@pytest.mark.parametrize("dims", [True, False])
def test_tickets_with_fewer_heads(net: Net, dims: bool) -> None:
    keywords = {"prune_num_heads": True, "head_pruning_ratio": 0.5, "prune_head_dims": dims}
    model = net.build()
    pruner = run_all(scored_pruner(net, model, "abc", **keywords))
    for name in "abc":
        theirs = host_alone(net, model, name, **keywords)
        assert_same_network(pruner.compact(name), theirs)


@pytest.mark.parametrize("net", [CONV_BN, DENSE, FUSED], ids=str)
def test_the_order_of_groups_does_not_matter(net: Net) -> None:
    model = net.build()
    found = {
        order: run_all(scored_pruner(net, model, order)) for order in itertools.permutations("abc")
    }
    first = found["a", "b", "c"]
    for pruner in found.values():
        for name in "abc":
            assert_same_network(first.compact(name), pruner.compact(name))
            assert first.reports[-1][name].widths == pruner.reports[-1][name].widths


def test_groups_may_be_cut_to_different_widths() -> None:
    """With a threshold over all layers every ticket has widths of its own."""
    model = DENSE.build()
    keywords = {"global_pruning": True, "pruning_ratio": 0.6, "max_pruning_ratio": 0.9}
    pruner = run_all(scored_pruner(DENSE, model, "abc", **keywords))
    widths = [str(pruner.reports[-1][name].widths) for name in "abc"]
    assert len(set(widths)) == 3
