"""The graph as plain data says what is coupled, and cuts of it compute what masking computes."""

import pytest
import torch
from torch import nn

import rtl_torch_pruning.host_graph
from rtl_plugin.errors import InvalidArgument, PruningFailed
from rtl_plugin.fingerprint import bit_equal
from rtl_plugin.integration_api import ChannelPlan, compact_with
from rtl_plugin.randomness import forked
from rtl_torch_pruning.channel_graph import ChannelGraph, ChannelGroup
from tests.torch_pruning.setups import example
from tests.torch_pruning.zoo import (
    CONV_BN,
    DENSE,
    FLATTEN,
    GROUP_NORM,
    GROUPED,
    LAYER_NORM,
    MULTIHEAD,
    SPLIT,
    UNWRAPPED,
    ZOO,
    Net,
    images,
)

CUTTABLE = [net for net in ZOO if net.exact and net is not UNWRAPPED]


def graph_of(net: Net) -> ChannelGraph:
    return ChannelGraph(net.build(), example(net))


def group_of(graph: ChannelGraph, layer: str) -> ChannelGroup:
    return next(
        group for group in graph.groups
        if any(m.name == layer and m.kind == "producer" for m in group.members)
    )  # fmt: skip


def half(graph: ChannelGraph) -> dict[str, list[int]]:
    """Every second channel of every group that can lose some."""
    return {
        group.root: list(range(0, group.channels, 2))
        for group in graph.groups
        if not group.is_output and group.channels > 1
    }


@pytest.mark.parametrize("net", CUTTABLE, ids=str)
def test_a_cut_computes_what_masking_computes(net: Net) -> None:
    model = net.build().double().eval()
    inputs = example(net)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    graph = ChannelGraph(model, inputs)
    plan = graph.cut(half(graph))
    assert graph.why_not_exact(plan) == ()
    small = compact_with(model, plan, {})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in plan.maps:
                parameter.mul_(plan.maps[name].mask())
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            assert bool((norm.weight == 0).any()) or norm.num_features == 1
    torch.testing.assert_close(small(inputs), model(inputs), rtol=1e-10, atol=1e-10)


def test_groups_say_what_is_coupled() -> None:
    group = group_of(graph_of(ZOO[1]), "stem")
    kinds = {(m.name, m.kind) for m in group.members}
    assert kinds == {
        ("stem", "producer"), ("down", "producer"), ("bn", "norm"), ("up", "follower"),
        ("head", "follower"),
    }  # fmt: skip
    assert not group.is_output
    assert all(m.channels == m.of_root == tuple(range(8)) for m in group.members)
    assert {m.width for m in group.members} == {8}


def test_a_concatenation_shifts_channel_numbers() -> None:
    graph = graph_of(DENSE)
    norm = next(m for m in group_of(graph, "one").members if m.kind == "norm")
    assert (norm.channels, norm.of_root, norm.width) == (tuple(range(6, 14)), tuple(range(8)), 14)


def test_a_depthwise_convolution_produces_and_a_grouped_one_has_blocks() -> None:
    depthwise = next(net for net in ZOO if net.name == "depthwise")
    members = {m.name: m for m in group_of(graph_of(depthwise), "parts.0").members}
    assert (members["parts.3"].kind, members["parts.3"].blocks) == ("producer", 1)
    members = {m.name: m for m in group_of(graph_of(GROUPED), "parts.0").members}
    assert (members["parts.3"].kind, members["parts.3"].blocks) == ("follower", 2)


@pytest.mark.parametrize(
    ("net", "layer", "name", "kind"),
    [
        (LAYER_NORM, "parts.0", "parts.1", "across"),
        (GROUP_NORM, "parts.0", "parts.1", "across"),
        (MULTIHEAD, "stem", "attention", "across"),
        (UNWRAPPED, "conv", "scale", "parameter"),
        (UNWRAPPED, "after", "shift", "parameter"),
    ],
    ids=str,
)
def test_kinds_that_stand_in_the_way(net: Net, layer: str, name: str, kind: str) -> None:
    assert (name, kind) in {(m.name, m.kind) for m in group_of(graph_of(net), layer).members}


@pytest.mark.parametrize("net", ZOO, ids=str)
def test_members_have_the_channels_that_they_are_said_to_have(net: Net) -> None:
    for group in graph_of(net).groups:
        for member in group.members:
            assert len(member.channels) == len(member.of_root)
            assert set(member.channels) <= set(range(member.width))
            assert set(member.of_root) <= set(range(group.channels))


class Doubled(nn.Module):
    """Two channels of the sum come from one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(3, 4), nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        once = self.one(x)
        return self.head(torch.relu(self.two(x) + torch.cat([once, once], dim=1)))


def test_channels_used_twice_are_cut_together_or_not_at_all() -> None:
    graph = ChannelGraph(Doubled(), torch.randn(2, 3))
    group = group_of(graph, "two")
    if group.root == "one":
        assert graph.why_not_exact(graph.cut({"one": [1]})) == ()
    else:
        with pytest.raises(PruningFailed, match="takes others along"):
            graph.cut({"two": [5]})


def test_rms_norm_looks_across() -> None:
    net = nn.Sequential(nn.Linear(3, 6), nn.RMSNorm(6), nn.Linear(6, 2))
    group = group_of(ChannelGraph(net, torch.randn(2, 3)), "0")
    assert ("1", "across") in {(m.name, m.kind) for m in group.members}


def digests(plans: list[ChannelPlan]) -> list[str]:
    return [plan.digest for plan in plans]


@pytest.mark.parametrize("net", [CONV_BN, DENSE, SPLIT, FLATTEN], ids=str)
def test_every_cut_starts_from_the_dense_network(net: Net) -> None:
    graph = graph_of(net)
    first, other = half(graph), {root: [1] for root in half(graph)}
    again = [graph.cut(first), graph.cut(other), graph.cut(first), graph.cut(other)]
    assert digests(again[:2]) == digests(again[2:])
    assert digests(again)[:2] == digests([graph_of(net).cut(first), graph_of(net).cut(other)])
    assert again[0].attributes == again[2].attributes


def test_the_model_stays_as_it_was() -> None:
    model = CONV_BN.build().train()
    model.parts[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = ChannelGraph(model, example(CONV_BN))
    graph.why_not_exact(graph.cut(half(graph)))
    assert all(bit_equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not model.parts[0].weight.requires_grad
    assert len(graph.groups) == 3  # a frozen layer is still there


def test_huge_layers_are_cut_without_probes_and_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(FLATTEN)
    expected = graph.cut(half(graph))
    monkeypatch.setattr(rtl_torch_pruning.host_graph, "_HUGE", 0)
    graph = graph_of(FLATTEN)
    assert graph.cut(half(graph)).digest == expected.digest
    some = {"parts.0": [1, 2]}  # leaves one of the huge layers whole
    assert graph.cut(some).digest == graph_of(FLATTEN).cut(some).digest


def grouped() -> nn.Module:
    with forked(0):
        return nn.Sequential(
            nn.Conv2d(2, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=2), nn.ReLU(),
            nn.Conv2d(12, 2, 1),
        )  # fmt: skip


def test_groups_of_a_convolution_may_lose_different_channels() -> None:
    graph = ChannelGraph(grouped(), images(2))
    plan = graph.cut({"0": [0, 6, 1, 7], "2": [0, 11]})
    assert graph.why_not_exact(plan) == ()
    assert plan.attributes["2"] == {"in_channels": 4, "out_channels": 10}


def test_unequal_groups_of_a_convolution_are_refused() -> None:
    graph = ChannelGraph(grouped(), images(2))
    for wrong in ({"0": [0]}, {"2": [0, 1, 11]}):
        with pytest.raises(PruningFailed, match=r"groups of '2' would keep \[\d, \d\] channels"):
            graph.cut(wrong)
    transposed = nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.ConvTranspose2d(4, 4, 1, groups=2), nn.Conv2d(4, 2, 1)
    )
    with pytest.raises(PruningFailed, match="transposed convolution in groups"):
        ChannelGraph(transposed, images(2)).cut({"0": [0, 2]})


def test_refused_cuts() -> None:
    graph = graph_of(CONV_BN)
    with pytest.raises(InvalidArgument, match="no group has the root 'x'; roots are"):
        graph.cut({"x": [0]})
    with pytest.raises(InvalidArgument, match="has channels 0 to 7, got"):
        graph.cut({"parts.0": [8]})
    with pytest.raises(PruningFailed, match="'head' would remove outputs"):
        graph.cut({"head": [0]})
    with pytest.raises(PruningFailed, match=r"would leave 'parts\.0' without any"):
        graph.cut({"parts.0": range(8)})
    with pytest.raises(PruningFailed, match="nothing was cut"):
        graph.cut({"parts.0": []})
    unwrapped = nn.Sequential(nn.Linear(2, 4), _Scale(4), nn.Linear(4, 1))
    with pytest.raises(PruningFailed, match=r"pass through 1\.scale"):
        ChannelGraph(unwrapped, torch.randn(2, 2)).cut({"0": [1]})


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Unflattened(nn.Module):
    """Channels that only go in blocks of four."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.conv, self.head = nn.Linear(3, 24), nn.Conv2d(6, 4, 1), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.up(x)).reshape(-1, self.conv.in_channels, 2, 2)
        return self.head(torch.relu(self.conv(x)).mean(dim=(2, 3)))


def test_channels_that_bring_others_along_are_refused() -> None:
    graph = ChannelGraph(Unflattened(), torch.randn(2, 3))
    with pytest.raises(PruningFailed, match="takes others along"):
        graph.cut({"up": [0, 5]})
    plan = graph.cut({"up": range(4, 12)})
    assert graph.why_not_exact(plan) == ()
    assert plan.attributes["conv"] == {"in_channels": 4}
    assert graph.cut({"conv": [0]}).channels("conv").tolist() == [1, 2, 3]


class Shuffled(nn.Module):
    """The unit of shufflenet_v2: half of the channels pass, then all are shuffled."""

    def __init__(self, swapped: bool) -> None:
        super().__init__()
        self.swapped = swapped
        self.stem = nn.Conv2d(2, 8, 1)
        self.one, self.two = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)
        self.last, self.head = nn.Conv2d(8, 6, 1), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        worked, passed = torch.relu(self.stem(x)).chunk(2, dim=1)
        if not self.swapped:
            worked, passed = passed, worked
        x = torch.cat([passed, torch.relu(self.two(torch.relu(self.one(worked))))], dim=1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        x = x.view(batch, channels, height, width)
        return self.head(torch.relu(self.last(x)).mean(dim=(2, 3)))


@pytest.mark.parametrize("swapped", [False, True])
def test_chunks_and_channel_shuffles_are_followed(swapped: bool) -> None:
    graph = ChannelGraph(Shuffled(swapped), images(2))
    follower = {m.name: m for m in group_of(graph, "two").members}["last"]
    assert follower.channels == (1, 3, 5, 7)  # every second channel, after the shuffle
    assert follower.of_root == (0, 1, 2, 3)
    worked = {m.name: m for m in group_of(graph, "stem").members}["one"]
    assert (worked.channels, worked.of_root) == (
        (0, 1, 2, 3),
        (0, 1, 2, 3) if swapped else (4, 5, 6, 7),
    )
    plan = graph.cut({"one": [0, 3], "last": [5]})
    assert graph.why_not_exact(plan) == ()


def test_inputs_that_the_network_does_not_take() -> None:
    with pytest.raises(InvalidArgument, match="does not accept example_inputs"):
        ChannelGraph(CONV_BN.build(), torch.randn(1, 5, 4, 4))
    with pytest.raises(InvalidArgument, match="must hold a tensor"):
        ChannelGraph(CONV_BN.build(), ())
