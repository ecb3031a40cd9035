"""Really smaller networks from NNI masks, checked against the masked network."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from rtl_nni.completed_masks import channel_graph, cut_of, dead_channels, norms_of
from rtl_nni.config_check import refuse_wrapped
from rtl_nni.masked_comparison import Comparison, folded_values, largest_output
from rtl_nni.masked_network import MaskedNetwork, Masks
from rtl_nni.speedup_report import LeftWhole, SpeedupReport
from rtl_plugin.integration_api import (
    InvalidArgument,
    PruningFailed,
    Ticket,
    TicketSet,
    compact_with,
    install_state,
    read_nni_masks,
)

_REASONS = 8  # in an error


def speedup(
    model: nn.Module, masks: Any, dummy_input: Any, *, complete_norms: bool = True
) -> nn.Module:
    """A physically smaller network from one NNI mask dictionary.

    A channel goes where its weights and bias are masked in every layer that produces it (residual
    sums and depthwise convolutions couple layers). NNI leaves the batch norms behind such channels
    alive, so that they put out a constant; they are masked too before cutting. The result is
    compared with this completed masked network, and never returned where it differs. What cannot
    be cut exactly keeps its zeros: see :func:`speedup_with_report`.

    Args:
        model: the network, unwrapped; left as it is.
        masks: module name -> target name -> tensor of zeros and ones, or None; or a ``Ticket``,
            whose own state (batch-norm statistics, private parameters) is the small network's
            too. After retraining pass the ticket: the masks alone go with the model's statistics.
        dummy_input: a tensor, a tuple or list of arguments, or a dict of keyword arguments.
        complete_norms: mask the norms that follow dead channels; False cuts only channels whose
            norms the given masks cover.

    Returns:
        A module of the same class in eval mode, with the model's dtype, device and
        ``requires_grad`` flags, that shares nothing with it.

    Raises:
        MissingExtra: Torch-Pruning is not installed.
        InvalidArgument: the model is still wrapped, or does not accept the input.
        InvalidTicket: masks hold values other than 0 and 1.
        StructureMismatch: masks do not fit the model.
        PruningFailed: nothing can be cut, with the reasons, or no cut computes the same.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> keep = torch.tensor([1.0, 0.0, 1.0])
        >>> masks = {"0": {"weight": keep.reshape(3, 1).expand(3, 2), "bias": keep}}
        >>> speedup(net, masks, torch.zeros(1, 2))[0]
        Linear(in_features=2, out_features=2, bias=True)

    Source:
        Fang et al., DepGraph: Towards Any Structural Pruning, arXiv 2301.12900 (what is coupled).
    """
    return speedup_with_report(model, masks, dummy_input, complete_norms=complete_norms).network


def speedup_with_report(
    model: nn.Module, masks: Any, dummy_input: Any, *, complete_norms: bool = True
) -> SpeedupReport:
    """The same as :func:`speedup`, with what was cut, completed and left whole, and why.

    Args:
        model: as there.
        masks: as there.
        dummy_input: as there.
        complete_norms: as there.

    Returns:
        The report, which holds the network; ``print`` shows it as a table.

    Raises:
        RtlError: as there.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> keep = torch.tensor([1.0, 0.0, 1.0])
        >>> masks = {"0": {"weight": keep.reshape(3, 1).expand(3, 2), "bias": keep}}
        >>> speedup_with_report(net, masks, torch.zeros(1, 2)).cut
        {'0': (1,)}
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgument(f"speedup takes an nn.Module, got {type(model).__name__}")
    refuse_wrapped(model)
    if isinstance(masks, Ticket):
        model, masks = _under_ticket(model, masks)
    _check_masks(masks)
    network = MaskedNetwork(model, read_nni_masks("the masks", masks, model))
    graph = channel_graph(model, dummy_input)
    wanted, left = {}, []
    for group in graph.groups:
        channels, staying = dead_channels(group, network, complete_norms)
        left += staying
        if channels:
            wanted[group.root] = channels
    if not wanted:
        raise PruningFailed(_nothing_cut(network.masks, left))
    comparison = Comparison(model, network.masks, graph, dummy_input)
    attempts = _Attempts(model, network, graph, comparison)
    best = attempts.all_that_works(wanted)
    if best is None:
        raise PruningFailed(_nothing_cut(network.masks, left + attempts.failed))
    return attempts.report(best, left + attempts.failed)


@dataclass(frozen=True)
class _Cut:
    """A cut that computes what its completed masked network computes."""

    channels: Mapping[str, Sequence[int]]
    network: nn.Module
    difference: float
    from_given: float
    largest_output: float


class _Attempts:
    """Cuts one set of groups after the other until one is exact."""

    def __init__(
        self, model: nn.Module, network: MaskedNetwork, graph: Any, comparison: Comparison
    ) -> None:
        self._model, self._masked, self._graph = model, network, graph
        self._comparison = comparison
        self.failed: list[LeftWhole] = []

    def all_that_works(self, wanted: Mapping[str, Sequence[int]]) -> _Cut | None:
        """All groups at once, or else without those that do not go with the others."""
        return self._added(None, list(wanted.items()))

    def _added(self, base: _Cut | None, more: list[tuple[str, Sequence[int]]]) -> _Cut | None:
        try:
            return self._tried({**(base.channels if base is not None else {}), **dict(more)})
        except PruningFailed as error:
            if len(more) == 1:
                root, channels = more[0]
                self.failed.append(LeftWhole(root, tuple(channels), str(error)))
                return base
        half = len(more) // 2
        return self._added(self._added(base, more[:half]), more[half:])

    def _tried(self, channels: Mapping[str, Sequence[int]]) -> _Cut:
        plan = self._graph.cut(channels)
        folded = folded_values(self._model, self._masked.completed(self.norms(channels)))
        small = compact_with(self._model, plan, folded)
        reference = self._comparison.reference(folded)
        gone = {name: own for name, (own, _) in self._gone(channels).items()}
        gaps = self._comparison.check(small, reference, gone)
        return _Cut(channels, small, *gaps, largest_output(reference))

    def norms(self, channels: Mapping[str, Sequence[int]]) -> dict[str, set[int]]:
        """Norm -> its channels that a cut takes away."""
        norms: dict[str, set[int]] = {}
        for group in self._graph.groups:
            for name, own in norms_of(group, channels.get(group.root, ())).items():
                norms.setdefault(name, set()).update(own)
        return {name: own for name, own in norms.items() if own}

    def _gone(self, channels: Mapping[str, Sequence[int]]) -> dict[str, tuple[set[int], int]]:
        """Layer -> its output channels that a cut takes away, and how many it has."""
        gone: dict[str, tuple[set[int], int]] = {}
        for group in self._graph.groups:
            for layer, own in cut_of(group, channels.get(group.root, ())):
                gone.setdefault(layer.name, (set(), layer.width))[0].update(own)
        return gone

    def report(self, cut: _Cut, left: list[LeftWhole]) -> SpeedupReport:
        """Say what a cut did."""
        completed = {
            name: tuple(alive)
            for name, own in self.norms(cut.channels).items()
            if (alive := self._masked.alive_in_norm(name, own))
        }
        gone = self._gone(cut.channels)
        return SpeedupReport(
            network=cut.network,
            parameters=sum(p.numel() for p in cut.network.parameters()),
            dense_parameters=sum(p.numel() for p in self._model.parameters()),
            cut={name: tuple(sorted(own)) for name, (own, _) in gone.items()},
            widths={name: (width - len(own), width) for name, (own, width) in gone.items()},
            completed=completed,
            left_whole=tuple(left),
            difference=cut.difference,
            from_given=cut.from_given,
            largest_output=cut.largest_output,
        )


def _under_ticket(model: nn.Module, ticket: Ticket) -> tuple[nn.Module, Any]:
    """A copy with a ticket's own state, and the ticket's masks in NNI's format."""
    tickets = TicketSet([ticket])
    tickets.check_fits(model)
    twin = copy.deepcopy(model)
    install_state(twin, ticket.state)
    return twin, tickets.to_nni(ticket.name)


def _check_masks(masks: Any) -> None:
    if not isinstance(masks, Mapping):
        raise InvalidArgument(
            f"masks must be one NNI mask dictionary, got {type(masks).__name__}: read a file with "
            "rtl_nni.load_masks"
        )
    nested = [
        key for key, one in masks.items() if isinstance(one, Mapping)
        and any(isinstance(targets, Mapping) for targets in one.values())
    ]  # fmt: skip
    if nested:
        raise InvalidArgument(
            f"masks must be those of one ticket, got several by name: pass masks[{nested[0]!r}]"
        )


def _nothing_cut(masks: Masks, left: list[LeftWhole]) -> str:
    if not any(not bool(mask.all()) for mask in masks.values()):
        return "nothing is masked, so nothing can be cut: pass masks that a pruner made"
    masked = [name for name, mask in masks.items() if not bool(mask.all())]
    if not left and all(masks[name].dim() == 1 for name in masked):
        return (
            f"only norms and biases are masked ({', '.join(masked[:3])}, as SlimPruner does), and "
            "the layers in front of them are alive: mask these, for example with L1NormPruner and "
            "add_norm_alignment"
        )
    if not left:
        return (
            "no channel is masked as a whole (weights and bias), so nothing can be cut: masks of "
            "single weights make no layer smaller; prune whole channels, for example with "
            "L1NormPruner, or LevelPruner with granularity 'out_channel'"
        )
    lines = [f"{len(x.channels)} channels of {x.group!r}: {x.reason}" for x in left[:_REASONS]]
    more = f"; and {len(left) - _REASONS} more" if len(left) > _REASONS else ""
    return f"no masked channel can be cut exactly: {'; '.join(lines)}{more}"
