"""Ranking and cutting tickets one after the other, all with one dependency graph."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch_pruning.dependency import Group

from rtl_plugin.integration_api import InvalidArgument, NothingPrunable, compact_with
from rtl_torch_pruning.asked import check_asked, ratios_of
from rtl_torch_pruning.example_run import ExampleRun
from rtl_torch_pruning.host_keywords import host_keywords
from rtl_torch_pruning.host_pruner import HostPruner, OnVanishing, host_errors
from rtl_torch_pruning.stale_attributes import suspects, update_stale_attributes
from rtl_torch_pruning.working_network import Shape, WorkingNetwork

Tensors = Mapping[str, torch.Tensor]
FixAttributes = Callable[[nn.Module], Any]


class Cutter:
    """The one working network, its graph, and the host that ranks and cuts in it.

    Args:
        model: the shared network, left as it is.
        run: the example input.
        importance: the host's or the user's.
        iterative_steps: number of rounds.
        on_vanishing: see :class:`HostPruner`.
        fix_attributes: sets attributes of the cut network that the host leaves stale, or None.
        keywords: of the host, as the user gave them.

    Raises:
        InvalidArgument: keywords or example inputs do not fit.
        PruningFailed: the host cannot build its graph.
        NothingPrunable: the graph has no group to cut.
    """

    def __init__(
        self,
        model: nn.Module,
        run: ExampleRun,
        importance: Any,
        iterative_steps: int,
        on_vanishing: OnVanishing,
        fix_attributes: FixAttributes | None,
        keywords: Mapping[str, Any],
    ) -> None:
        self._model, self._run, self._fix_attributes = model, run, fix_attributes
        self._work = WorkingNetwork(model)
        network = self._work.network
        translated = host_keywords(model, network, keywords, iterative_steps)
        translated["forward_fn"] = run.trace
        with torch.enable_grad(), host_errors("building the dependency graph"):
            self._host = HostPruner(network, run.inputs, importance, on_vanishing, **translated)
        self._asked: dict[str, list[float]] = {}
        self._roots = self._prunable_roots(translated.get("pruning_ratio_dict") or {})
        self._dense_widths = self._present_widths()
        self.dense = self._work.attach(self._host)

    def asked(self, round: int) -> float:
        """Fraction of all prunable channels to be removed after a round."""
        dense = self._dense_widths
        asked = sum(dense[name] * ratios[round] for name, ratios in self._asked.items())
        return asked / sum(dense.values())

    def rank(
        self, shape: Shape, values: Tensors, gradients: Tensors, round: int
    ) -> Iterator[Group]:
        """Rank a ticket's channels.

        Args:
            shape: of the ticket before the round.
            values: trained parameters and buffers of its small network.
            gradients: for importances that read them, or empty.
            round: counted from 1.

        Returns:
            The host's groups, one after the other, whose ``prune()`` cuts the working network.

        Raises:
            InvalidImportance: scores are not finite or not one a channel.
            PruningFailed: a layer would be left without channels.
        """
        self._work.take_on(shape, values)
        self._work.set_gradients(gradients)
        self._host.current_step = round - 1
        self._host.left_whole = []
        self._heads_before = {
            layer: (heads, self._host.DG.get_out_channels(layer))
            for layer, heads in self._host.num_heads.items()
        }
        groups = self._host.step(interactive=True)
        first = next(groups, None)  # the host scores everything before it yields
        self._work.hold_probes()
        return itertools.chain([] if first is None else [first], groups)

    def cut_shape(self, look_closely: bool) -> Shape:
        """The shape after the groups were cut.

        Args:
            look_closely: also check tensors that were not cut.

        Raises:
            PruningFailed: somebody wrote to the probes, or the host's cut cannot be a ticket.
        """
        self._give_heads_back()
        update_stale_attributes(self._work, self._host)
        if self._fix_attributes is not None:
            self._work.fix(self._fix_attributes)
        return self._work.cut_shape(look_closely)

    def _give_heads_back(self) -> None:
        """The host counts heads down when it ranks, also of layers that are then left whole."""
        host = self._host
        for layer, (heads, width) in self._heads_before.items():
            if host.num_heads[layer] != heads and host.DG.get_out_channels(layer) == width:
                host.num_heads[layer] = host.out_channel_groups[layer] = heads

    def check_small(self, shape: Shape, where: object) -> None:
        """Run a ticket's small network on the example input.

        Args:
            shape: of the ticket, which the working network has at present.
            where: for the message.

        Raises:
            PruningFailed: it does not run, or its outputs have other shapes.
        """
        small = compact_with(self._model, shape.plan, {})
        changed = {dense: now for now, dense in self.widths().values() if now != dense}
        self._run.check_small(small, where, suspects(self._work, changed))

    def widths(self) -> dict[str, tuple[int, int]]:
        """Layer name -> (channels now, channels of the dense network), one layer a group."""
        now = self._present_widths()
        return {name: (now[name], dense) for name, dense in self._dense_widths.items()}

    @property
    def left_whole(self) -> tuple[str, ...]:
        """Layers that the host left whole in the last round, because one would have vanished."""
        return tuple(dict.fromkeys(self._host.left_whole))

    def _present_widths(self) -> dict[str, int]:
        return {name: int(self._host.DG.get_out_channels(m)) for name, m in self._roots.items()}

    def _prunable_roots(self, own_ratios: Mapping[Any, float]) -> dict[str, nn.Module]:
        host, roots = self._host, {}
        members: set[Any] = set()
        for group in host.dense_groups:
            self._check_outputs(group)
            name = host.root_name(group)
            roots[name] = group[0].dep.target.module
            self._asked[name] = ratios_of(group, host)
            cut = host.DG.is_out_channel_pruning_fn
            members |= {dep.target.module for dep, _ in group if cut(dep.handler)}
        host.dense_groups = []
        if not roots:
            raise NothingPrunable(
                "the dependency graph has no group of channels to cut: everything is in "
                "ignored_layers, or no layer is of root_module_types"
            )
        check_asked(self._asked.values(), members, own_ratios, host.prune_num_heads)
        return roots

    def _check_outputs(self, group: Group) -> None:
        """Refuse to cut what the network returns."""
        graph = self._host.DG
        for dep, _ in group:
            layer = dep.target.module
            if not graph.is_out_channel_pruning_fn(dep.handler) or dep.target.outputs:
                continue
            ratios = self._host.pruning_ratio_dict.get(layer, self._host.per_step_pruning_ratio)
            if isinstance(layer, nn.Module) and layer in graph._module2name and ratios[-1] > 0:
                name = graph._module2name[layer]
                raise InvalidArgument(
                    f"cutting would remove outputs of the network, those of {name!r}: add this "
                    "layer to ignored_layers"
                )
