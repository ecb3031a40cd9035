"""What masks leave for dead, on groups written down as plain data."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from rtl_nni.completed_masks import dead_channels, norms_of
from rtl_nni.masked_network import MaskedNetwork
from rtl_torch_pruning.channel_graph import ChannelGroup, CoupledLayer, Kind


def member(
    name: str, kind: Kind, numbers: range, first: int = 0, width: int = 8, blocks: int = 1
) -> CoupledLayer:
    own = tuple(first + number for number in numbers)
    return CoupledLayer(name, kind, own, tuple(numbers), width, blocks)


ALL = range(8)
PAIR = ChannelGroup(
    "a", 8,
    (
        member("a", "producer", ALL),
        member("bn", "norm", ALL, first=2, width=10),
        member("b", "producer", ALL),
        member("next", "follower", ALL),
    ),
    False,
)  # fmt: skip


def network(a: list[int], b: list[int], norm: list[int] | None = None) -> MaskedNetwork:
    model = nn.ModuleDict(
        {"a": nn.Linear(3, 8, bias=False), "b": nn.Linear(3, 8), "bn": nn.BatchNorm1d(10)}
    )
    masks = {
        "a.weight": torch.ones(8, 3, dtype=torch.bool),
        "b.weight": torch.ones(8, 3, dtype=torch.bool),
        "b.bias": torch.ones(8, dtype=torch.bool),
        "bn.weight": torch.ones(10, dtype=torch.bool),
        "bn.bias": torch.ones(10, dtype=torch.bool),
    }
    masks["a.weight"][a] = masks["b.weight"][b] = masks["b.bias"][b] = False
    masks["bn.weight"][norm or []] = masks["bn.bias"][norm or []] = False
    return MaskedNetwork(model, masks)


def test_dead_is_the_intersection() -> None:
    dead, (left,) = dead_channels(PAIR, network([0, 1, 5], [1, 5, 6]), True)
    assert dead == [1, 5]
    assert left.channels == (0, 6)
    assert left.reason == "masked in 'a', 'b', not in 'a', 'b'"


def test_nothing_masked_says_nothing() -> None:
    assert dead_channels(PAIR, network([], []), True) == ([], [])


def test_norms_that_must_be_masked_already() -> None:
    dead, (left,) = dead_channels(PAIR, network([1, 5], [1, 5], norm=[7]), False)
    assert dead == [5]
    assert left.channels == (1,)
    assert left.reason == "'bn' is not masked there"


def test_norms_have_numbers_of_their_own() -> None:
    assert norms_of(PAIR, [0, 3]) == {"bn": {2, 5}}


def test_completing_writes_to_copies() -> None:
    given = network([1], [1])
    masks = given.completed({"bn": [3]})
    assert given.masks["bn.weight"].all()
    assert masks["bn.weight"].tolist() == masks["bn.bias"].tolist() == [i != 3 for i in range(10)]
    assert masks["a.weight"] is given.masks["a.weight"]


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        (replace(PAIR, is_output=True), "outputs of the network"),
        (replace(PAIR, members=(*PAIR.members, member("ln", "across", ALL))), "'ln' looks across"),
        (replace(PAIR, members=(*PAIR.members, member("p", "parameter", ALL))), "parameter 'p'"),
    ],
    ids=["output", "across", "parameter"],
)
def test_kinds_that_keep_everything(group: ChannelGroup, reason: str) -> None:
    dead, (left,) = dead_channels(group, network([1, 5], [1, 5]), True)
    assert dead == []
    assert left.channels == (1, 5)
    assert reason in left.reason


def test_blocks_lose_equally_many() -> None:
    group = replace(PAIR, members=(*PAIR.members, member("g", "follower", ALL, blocks=2)))
    dead, (left,) = dead_channels(group, network([0, 1, 2, 7], [0, 1, 2, 7]), True)
    assert dead == [0, 7]
    assert left.channels == (1, 2)
    assert "groups of 'g'" in left.reason
    everything = list(ALL)
    assert len(dead_channels(group, network(everything, everything), True)[0]) == 6


def test_a_group_in_one_block_only_keeps_everything() -> None:
    half = member("g", "follower", ALL, width=16, blocks=2)
    group = replace(PAIR, members=(*PAIR.members, half))
    assert dead_channels(group, network([0, 7], [0, 7]), True)[0] == []


def test_one_channel_of_every_layer_stays() -> None:
    everything = list(ALL)
    assert dead_channels(PAIR, network(everything, everything), True)[0] == everything[1:]
    part = replace(PAIR, members=(*PAIR.members, member("part", "follower", range(2, 4))))
    assert dead_channels(part, network([2, 3, 4], [2, 3, 4]), True)[0] == [3, 4]


def test_parts_of_one_channel_go_together() -> None:
    joined = CoupledLayer("conv", "follower", (0, 0, 0, 0, 1, 1, 1, 1), tuple(ALL), 2)
    group = replace(PAIR, members=(*PAIR.members, joined))
    dead, (left,) = dead_channels(group, network([0, 4, 5, 6, 7], [0, 4, 5, 6, 7]), True)
    assert dead == [4, 5, 6, 7]
    assert left.channels == (0,)
    assert "parts of channels of 'conv'" in left.reason


def test_layers_without_a_known_layout_are_never_dead() -> None:
    model = nn.ModuleDict({"lstm": nn.LSTM(2, 3), "up": nn.ConvTranspose2d(4, 4, 1, groups=2)})
    masks = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in model.named_parameters()}
    masked = MaskedNetwork(model, masks)
    assert masked.dead_outputs("lstm", range(3)) == masked.dead_outputs("up", range(4)) == set()


def test_other_layouts_of_outputs() -> None:
    model = nn.ModuleDict(
        {"embed": nn.Embedding(5, 3), "up": nn.ConvTranspose2d(2, 3, 1, bias=False)}
    )
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters()}
    masks["embed.weight"][:, 1] = masks["up.weight"][:, 2] = False
    masked = MaskedNetwork(model, masks)
    assert masked.dead_outputs("embed", range(3)) == {1}
    assert masked.dead_outputs("up", range(3)) == {2}
