"""Which channels of a network live and die together, as plain data, and cutting by that."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch_pruning.dependency import Dependency, Group
from torch_pruning.ops import OPTYPE

from rtl_plugin.integration_api import ChannelPlan, InvalidArgument, PruningFailed, device_of
from rtl_torch_pruning.exactness import compact_only_layers
from rtl_torch_pruning.example_run import ExampleRun
from rtl_torch_pruning.host_graph import (
    CutNetwork,
    GraphHost,
    cut_blocks,
    cut_rows_and_columns,
    is_grouped,
)
from rtl_torch_pruning.host_pruner import host_errors
from rtl_torch_pruning.stale_attributes import update_stale_attributes

Kind = Literal["producer", "norm", "across", "parameter", "follower"]

_PRODUCERS = (OPTYPE.CONV, OPTYPE.DEPTHWISE_CONV, OPTYPE.LINEAR, OPTYPE.EMBED, OPTYPE.LSTM)
_NORMS = (OPTYPE.BN, OPTYPE.IN)
_ACROSS = (OPTYPE.LN, OPTYPE.GN, OPTYPE.MHA)


@dataclass(frozen=True)
class CoupledLayer:
    """One layer of a group, on the side where it has the group's channels.

    Args:
        name: of the layer, or of a parameter that belongs to no layer.
        kind: ``"producer"`` makes the channels (its outputs); ``"norm"`` scales each by itself
            (batch and instance norm); ``"across"`` looks across them (layer, group and RMS norm,
            attention); ``"parameter"`` is a bare ``nn.Parameter``; ``"follower"`` takes them in.
        channels: its own numbers of the group's channels.
        of_root: the root's number of each of them.
        width: how many channels it has on this side, other groups' included.
        blocks: groups of a grouped convolution, which must all keep equally many channels; else 1.
    """

    name: str
    kind: Kind
    channels: tuple[int, ...]
    of_root: tuple[int, ...]
    width: int
    blocks: int = 1


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be cut together.

    Args:
        root: name of the layer whose channel numbers stand for the group's.
        channels: how many it has.
        members: every layer that loses something with them, the root first.
        is_output: the network returns them, so they cannot be cut.
    """

    root: str
    channels: int
    members: tuple[CoupledLayer, ...]
    is_output: bool


class ChannelGraph:
    """One working copy of a network with one dependency graph, which cuts any number of plans.

    Args:
        model: the network, left as it is.
        example_inputs: a tensor, a tuple or list of arguments, or a mapping of keyword arguments.

    Raises:
        InvalidArgument: the model cannot be copied, lies on several devices, or does not accept the
            inputs.
        PruningFailed: Torch-Pruning cannot build its graph.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> graph = ChannelGraph(net, torch.zeros(1, 2))
        >>> [(group.root, group.channels, group.is_output) for group in graph.groups]
        [('2', 1, True), ('0', 4, False)]
        >>> graph.cut({"0": [1, 3]}).channels("0")
        tensor([0, 2])

    Source:
        Fang et al., DepGraph: Towards Any Structural Pruning, arXiv 2301.12900.
    """

    def __init__(self, model: nn.Module, example_inputs: Any) -> None:
        self._model = model
        self._run = ExampleRun(example_inputs, device_of(model), None)
        self._work = CutNetwork(model)
        with torch.enable_grad(), host_errors("building the graph"):
            self._host = GraphHost(self._work.network, self._run.inputs, self._run.trace)
            self._groups = self._host.named_groups()
        self.groups = tuple(self._described(root, group) for root, group in self._groups.items())
        self._dense = self._work.attach(self._host)
        self._huge = self._work.blank_huge_weights()

    def cut(self, channels: Mapping[str, Sequence[int]]) -> ChannelPlan:
        """Plan the small network without some channels; always from the dense network.

        All numbers are those of the dense network, so groups do not disturb each other.

        Args:
            channels: name of a group's root -> its channels to remove.

        Returns:
            The plan; whether masking computes the same, :meth:`why_not_exact` tells.

        Raises:
            InvalidArgument: an unknown root, or channels that it has not.
            PruningFailed: nothing would be cut, a layer would be left without channels, the network
                returns these channels, they pass through a bare parameter, the blocks of a grouped
                convolution would keep different numbers, or the host cannot cut here.
        """
        removed = {root: self._checked(root, numbers) for root, numbers in channels.items()}
        self._work.take_on(self._dense, {})
        for root, numbers in removed.items():
            self._check_alone(root, numbers)
        self._work.hold_probes()
        with torch.no_grad(), host_errors("cutting channels"):
            self._cut_layers(removed)
            update_stale_attributes(self._work, self._host)
        plan = self._work.cut_shape(True).plan
        if plan is None:
            raise PruningFailed("nothing was cut: no channel was given")
        return plan

    def why_not_exact(self, plan: ChannelPlan) -> tuple[str, ...]:
        """Why masking the network does not compute what the small network computes.

        Args:
            plan: from :meth:`cut`.

        Returns:
            One reason a layer; empty where both compute the same.
        """
        return compact_only_layers(self._model, plan, self._run)

    def runner(self, inputs: Any) -> ExampleRun:
        """What runs a network on other inputs of the example's kind.

        Args:
            inputs: as ``example_inputs``.

        Returns:
            A function of a network and a dtype to convert inputs to, or None.
        """
        return ExampleRun(inputs, device_of(self._model), None)

    def _described(self, root: str, group: Group) -> ChannelGroup:
        members, is_output = [], False
        for item in group.items:
            node = item.dep.target
            outwards = self._host.DG.is_out_channel_pruning_fn(item.dep.handler)
            member = self._member(item.dep, item.idxs, item.root_idxs)
            members += [member] if member is not None else []
            # A network that ends in a layer has no operation of its own for the output.
            last = member is not None and outwards and not node.outputs
            is_output = is_output or node.type == OPTYPE.OUTPUT or last
        return ChannelGroup(root, len(group[0].idxs), tuple(members), is_output)

    def _member(
        self, dep: Dependency, channels: Sequence[int], of_root: Sequence[int | None]
    ) -> CoupledLayer | None:
        graph, node = self._host.DG, dep.target
        outwards = graph.is_out_channel_pruning_fn(dep.handler)
        if node.type == OPTYPE.PARAMETER:
            name, kind = self._parameter(graph._param_to_name[node.module])
            width, blocks = node.module.shape[node.pruning_dim], 1
        elif node.module in graph._module2name:
            name, kind = graph._module2name[node.module], _kind(node.type, outwards)
            width = (graph.get_out_channels if outwards else graph.get_in_channels)(node)
            blocks = node.module.groups if is_grouped(node.module) else 1
        else:
            return None  # an operation, not a layer
        known = [number for number in of_root if number is not None]
        if len(known) < len(channels) or max(channels) >= width:
            return CoupledLayer(name, kind if kind == "parameter" else "across", (), (), width)
        return CoupledLayer(name, kind, tuple(channels), tuple(known), width, blocks)

    def _parameter(self, name: str) -> tuple[str, Kind]:
        owner = name.rpartition(".")[0]
        known = isinstance(self._work.network.get_submodule(owner), nn.RMSNorm)
        return (owner, "across") if known else (name, "parameter")

    def _checked(self, root: str, numbers: Sequence[int]) -> frozenset[int]:
        group = next((group for group in self.groups if group.root == root), None)
        if group is None:
            raise InvalidArgument(
                f"no group has the root {root!r}; roots are {', '.join(self._groups)}"
            )
        wanted = frozenset(int(number) for number in numbers)
        if not wanted <= set(range(group.channels)):
            raise InvalidArgument(
                f"{root!r} has channels 0 to {group.channels - 1}, got {sorted(wanted)}"
            )
        if wanted:
            _check_kinds(group)
            _check_whole(group, wanted)
            _check_something_left(group, wanted)
        return wanted

    def _check_alone(self, root: str, wanted: frozenset[int]) -> None:
        """Where not every layer has every channel, ask the host whether others come along."""
        group = self._groups[root]
        if not wanted or all(len(set(i.root_idxs)) == len(group[0].idxs) for i in group.items):
            return
        first = group[0].dep
        own = self._host.DG.get_pruning_group(first.target.module, first.handler, sorted(wanted))
        expected = {_key(dep): set(numbers) for dep, numbers in _restricted(group, wanted)}
        if {_key(item.dep): set(item.idxs) for item in own.items} != expected:
            raise _takes_others(root, wanted)

    def _cut_layers(self, removed: Mapping[str, frozenset[int]]) -> None:
        """Cut every layer once, by dense numbers, whatever number of groups it is in."""
        by_layer: dict[Any, tuple[Dependency, set[int]]] = {}
        for root, wanted in removed.items():
            for dep, numbers in _restricted(self._groups[root], wanted):
                by_layer.setdefault(_key(dep), (dep, set()))[1].update(numbers)
        ours: dict[nn.Module, dict[bool, set[int]]] = {}
        for dep, gone in by_layer.values():
            layer = dep.target.module
            if layer not in self._host.DG._module2name:
                continue
            if is_grouped(layer) or layer in self._huge:
                outwards = self._host.DG.is_out_channel_pruning_fn(dep.handler)
                ours.setdefault(layer, {})[outwards] = gone
            else:
                dep(sorted(gone))
        for layer, sides in ours.items():
            cut = cut_blocks if is_grouped(layer) else cut_rows_and_columns
            name = self._host.DG._module2name[layer]
            cut(name, layer, sides.get(True, set()), sides.get(False, set()))


def _kind(type_: OPTYPE, outwards: bool) -> Kind:
    if type_ in _PRODUCERS:
        return "producer" if outwards else "follower"
    if type_ in _NORMS:
        return "norm"
    return "across" if type_ in _ACROSS else "follower"


def _check_kinds(group: ChannelGroup) -> None:
    if group.is_output:
        raise PruningFailed(f"cutting {group.root!r} would remove outputs of the network")
    bare = [member.name for member in group.members if member.kind == "parameter"]
    unknown = [member.name for member in group.members if len(member.of_root) == 0]
    if bare or unknown:
        raise PruningFailed(
            f"the channels of {group.root!r} pass through {', '.join(bare or unknown)}, where it "
            "is not known which dimension or entries belong to a channel: leave the group whole"
        )


def _check_something_left(group: ChannelGroup, wanted: frozenset[int]) -> None:
    for member in group.members:
        if wanted.issuperset(member.of_root):
            raise PruningFailed(
                f"cutting {len(wanted)} of {group.channels} channels of {group.root!r} would leave "
                f"{member.name!r} without any of them: keep at least one"
            )


def _check_whole(group: ChannelGroup, wanted: frozenset[int]) -> None:
    """Refuse to cut a part of what is one channel further on."""
    for member in group.members:
        if len(set(member.channels)) < len(member.channels):
            pairs = set(zip(member.channels, member.of_root, strict=True))
            gone = {own for own, root in pairs if root in wanted}
            if any(own in gone and root not in wanted for own, root in pairs):
                raise _takes_others(group.root, wanted)


def _takes_others(root: str, wanted: frozenset[int]) -> PruningFailed:
    return PruningFailed(
        f"cutting channels {sorted(wanted)[:6]} of {root!r} takes others along, which is how they "
        "pass through a reshape or a concatenation: cut whole blocks, or none"
    )


def _restricted(group: Group, wanted: frozenset[int]) -> Iterator[tuple[Dependency, list[int]]]:
    for item in group.items:
        pairs = zip(item.idxs, item.root_idxs, strict=True)
        numbers = [number for number, root in pairs if root in wanted]
        if numbers:
            yield item.dep, numbers


def _key(dep: Dependency) -> tuple[int, Any]:
    return id(dep.target), dep.handler
