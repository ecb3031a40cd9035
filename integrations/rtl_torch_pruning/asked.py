"""What the schedule asks of every layer: the host's ratios, as they reach each group."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch_pruning as tp
from torch import nn
from torch_pruning.dependency import Group

from rtl_plugin.integration_api import InvalidArgument


def ratios_of(group: Group, host: tp.pruner.BasePruner) -> list[float]:
    """Fractions of a group's channels to be removed after round 0, 1, 2, ...

    Args:
        group: a group of the dense network.
        host: the pruner.

    Returns:
        One fraction a round: the layer's own ratio or the common one, capped.
    """
    members = [m for dep, _ in group for m in (dep.source.module, dep.target.module)]
    own = next((m for m in members if m in host.pruning_ratio_dict), None)
    ratios = host.per_step_pruning_ratio if own is None else host.pruning_ratio_dict[own]
    heads = next((m for m in members if m in host.num_heads), None)
    if heads is not None and not host.prune_head_dims:
        by_head = host.head_pruning_ratio_dict.get(heads, host.per_step_head_pruning_ratio)
        ratios = by_head if host.prune_num_heads else [0.0] * len(ratios)
    return [float(min(ratio, host.max_pruning_ratio)) for ratio in ratios]


def check_asked(
    ratios: Iterable[Sequence[float]],
    members: set[Any],
    own_ratios: Mapping[Any, float],
    heads_go: bool,
) -> None:
    """Refuse to ask for nothing, and ratios of layers that no group holds.

    Args:
        ratios: of every group, by round.
        members: modules of all groups.
        own_ratios: the user's ``pruning_ratio_dict``, of the working network's modules.
        heads_go: heads are to be pruned.

    Raises:
        InvalidArgument: naming the argument.
    """
    if not heads_go and all(each[-1] == 0 for each in ratios):
        raise InvalidArgument(
            "nothing is asked for: pruning_ratio is 0 for every layer that can be cut; give "
            "pruning_ratio= (a fraction of channels), or pruning_ratio_dict= for such layers"
        )
    for key, ratio in own_ratios.items():
        layers: tuple[nn.Module, ...] = key if isinstance(key, tuple) else (key,)
        inside = {module for layer in layers for module in layer.modules()}
        if ratio and not inside & members:
            raise InvalidArgument(
                f"pruning_ratio_dict asks {ratio} of {type(layers[0]).__name__}, of which nothing "
                "can be cut: it is in ignored_layers, or in no group of the dependency graph"
            )
