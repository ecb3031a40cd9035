"""Config entries that make NNI mask coupled layers, and the norms behind them, alike."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from rtl_nni.completed_masks import channel_graph
from rtl_nni.host import imported
from rtl_nni.masked_network import output_dim
from rtl_plugin.integration_api import InvalidArgument

Config = dict[str, Any]

_ID, _BLOCK = "dependency_group_id", "internal_metric_block"


def add_dependency_ids(
    config_list: Sequence[Mapping[str, Any]], model: nn.Module, dummy_input: Any
) -> list[Config]:
    """One entry a layer, with ids for layers whose output channels can only go together.

    Stands for NNI's ``auto_set_denpendency_group_ids``, without tensorboard and without its tracer
    (which never returns on shufflenet_v2). The id is the name of the layer that stands for the
    group. A group that feeds or is a grouped convolution gets ``internal_metric_block``, and an id
    even if it is one layer, because NNI reads the block in groups only; depthwise convolutions are
    ordinary members. Layers whose channels are coupled in another order or only in part (behind
    concatenations and splits) get no id: NNI compares channel by channel.

    Args:
        config_list: as for an NNI pruner, legacy keys included; left as it is.
        model: the network, unwrapped.
        dummy_input: a tensor, a tuple or list of arguments, or a dict of keyword arguments.

    Returns:
        A new config list, in the order of the model's layers.

    Raises:
        MissingExtra: Torch-Pruning is not installed.
        InvalidArgument: nothing matches, an entry has an id already, a layer that makes the
            network's outputs is matched without being named in ``op_names``, or coupled layers
            have different ratios or none, on which NNI would fail with a bare assertion.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1, groups=4))
        >>> net.append(nn.Flatten()).append(nn.Linear(4, 2))[-1]
        Linear(in_features=4, out_features=2, bias=True)
        >>> config = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]
        >>> for entry in add_dependency_ids(config, net, torch.zeros(1, 1, 1, 1)):
        ...     print(entry)
        {'op_names': ['0'], 'sparse_ratio': 0.5, 'dependency_group_id': '1'}
        {'op_names': ['1'], 'sparse_ratio': 0.5, 'dependency_group_id': '1'}
    """
    entries = _one_a_layer(config_list, model)
    for entry in entries:
        if _settings(entry, _ID):
            raise InvalidArgument(
                f"the entry of {entry['op_names'][0]!r} has a dependency_group_id already: leave "
                "the ids to add_dependency_ids, or set all of them yourself"
            )
    by_name: dict[str, list[Config]] = {}
    for entry in entries:
        by_name.setdefault(entry["op_names"][0], []).append(entry)
    groups = channel_graph(model, dummy_input).groups
    _refuse_outputs(groups, by_name, config_list)
    for group in groups:
        members = [name for name in _aligned_producers(group, model) if name in by_name]
        blocks = math.lcm(*(m.blocks for m in group.members))
        if len(members) < 2 and not (members and blocks > 1):
            continue
        chosen = [entry for name in members for entry in by_name[name]]
        _check_ratios(group.root, chosen)
        for entry in chosen:
            entry[_ID] = group.root
            entry.update({_BLOCK: blocks} if blocks > 1 else {})
    return entries


def add_norm_alignment(
    config_list: Sequence[Mapping[str, Any]], model: nn.Module, dummy_input: Any
) -> list[Config]:
    """Append entries that mask batch norms together with the layers in front of them.

    NNI masks a convolution and leaves the batch norm behind it alive, whose output then is a
    constant. With these entries the masked network is what ``speedup`` cuts, to rounding, with any
    of NNI's pruners. Norms for which no entry is possible are left out; ``speedup`` completes
    their masks, and :func:`norms_left_out` names them.

    Args:
        config_list: as for an NNI pruner; left as it is.
        model: the network, unwrapped.
        dummy_input: a tensor, a tuple or list of arguments, or a dict of keyword arguments.

    Returns:
        A new config list: the given entries, and one a batch norm.

    Raises:
        MissingExtra: Torch-Pruning is not installed.
        InvalidArgument: nothing matches, or coupled layers have no common ``dependency_group_id``:
            their masks would disagree, so that the norms could follow one of them only.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Flatten())
        >>> config = [{"op_names": ["0"], "sparse_ratio": 0.5}]
        >>> _ = net.append(nn.Linear(4, 2))
        >>> add_norm_alignment(config, net, torch.zeros(1, 1, 1, 1))[1]["op_names"]
        ['1']
    """
    found = list(_alignments(config_list, model, dummy_input))
    new: list[Config] = _translated(config_list)
    return new + [_aligned_entry(a.norm, a.source) for a in found if not a.reason]


def norms_left_out(
    config_list: Sequence[Mapping[str, Any]], model: nn.Module, dummy_input: Any
) -> dict[str, str]:
    """Norms behind configured layers that :func:`add_norm_alignment` has no entry for.

    Args:
        config_list: as there.
        model: as there.
        dummy_input: as there.

    Returns:
        Name of the norm -> why.

    Raises:
        RtlError: as there.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.InstanceNorm2d(4, affine=True), nn.Flatten())
        >>> _ = net.append(nn.Linear(16, 2))
        >>> config = [{"op_names": ["0"], "sparse_ratio": 0.5}]
        >>> norms_left_out(config, net, torch.zeros(1, 1, 2, 2))
        {'1': 'NNI prunes no InstanceNorm2d'}
    """
    found = _alignments(config_list, model, dummy_input)
    return {each.norm: each.reason for each in found if each.reason}


@dataclass(frozen=True)
class _Alignment:
    norm: str
    source: str
    reason: str


def _alignments(
    config_list: Sequence[Mapping[str, Any]], model: nn.Module, dummy_input: Any
) -> Iterator[_Alignment]:
    configured = {entry["op_names"][0]: entry for entry in _one_a_layer(config_list, model)[::-1]}
    modules, seen = dict(model.named_modules()), set[str]()
    order = {name: place for place, name in enumerate(modules)}
    for group in channel_graph(model, dummy_input).groups:
        producers = [m.name for m in group.members if m.kind == "producer"]
        sources = sorted((n for n in producers if n in configured), key=order.__getitem__)
        if not sources:
            continue
        missing = [name for name in producers if name not in sources]
        alike = set(producers) == set(_aligned_producers(group, model))
        if alike and not missing:
            _check_common_id(group.root, [configured[name] for name in sources])
        for norm in (m for m in group.members if m.kind == "norm"):
            if norm.name not in configured and norm.name not in seen:
                seen.add(norm.name)
                reason = _why_not(group, norm, missing, alike, modules[norm.name])
                yield _Alignment(norm.name, sources[0], reason)


def _why_not(group: Any, norm: Any, missing: list[str], alike: bool, layer: nn.Module) -> str:
    kind = type(layer).__name__
    if kind not in imported("nni.compression.base.setting").PruningSetting.registry:
        return f"NNI prunes no {kind}"
    if getattr(layer, "weight", None) is None:
        return "it has no weight to mask"
    if group.is_output:
        return "it gives outputs of the network"
    if missing:
        return f"its channels also come from {missing[0]!r}, which no entry matches"
    if not _in_order(norm, group) or not alike:
        return "its channels come from several places, or in another order (concatenated, flat)"
    return ""


def _aligned_entry(norm: str, source: str) -> Config:
    # The source must be the weight: aligned to anything of one dimension NNI masks nothing.
    align = {"module_name": source, "target_name": "weight", "dims": [0]}
    return {
        "op_names": [norm],
        "target_names": ["weight", "bias"],
        "target_settings": {
            "weight": {"align": align, "granularity": "out_channel"},
            "bias": {"align": dict(align)},
        },
    }


def _one_a_layer(config_list: Sequence[Mapping[str, Any]], model: nn.Module) -> list[Config]:
    """Entries with one layer's name each, in the model's order, by NNI's own matching."""
    configs = imported("nni.compression.base.config")
    places = {name: i for i, (name, _) in enumerate(model.named_modules(remove_duplicate=False))}
    entries: list[Config] = []
    for config in _translated(config_list):
        selected, settings, _ = configs.select_modules_by_config(model, config)
        entries += [{"op_names": [name], **copy.deepcopy(settings)} for name in selected]
    if not entries:
        raise InvalidArgument(
            f"no entry of the config list matches a layer of {type(model).__name__}: {config_list}"
        )
    return sorted(entries, key=lambda entry: places[entry["op_names"][0]])


def _translated(config_list: Sequence[Mapping[str, Any]]) -> Any:
    configs = imported("nni.compression.base.config")
    return configs.trans_legacy_config_list([copy.deepcopy(dict(each)) for each in config_list])


def _aligned_producers(group: Any, model: nn.Module) -> list[str]:
    """Layers that produce the whole group in the root's order, and that NNI ranks by outputs.

    Of transposed convolutions NNI ranks the first dimension too, which are their inputs.
    """
    return [
        member.name
        for member in group.members
        if member.kind == "producer"
        and _in_order(member, group)
        and output_dim(model.get_submodule(member.name)) == 0
    ]


def _in_order(member: Any, group: Any) -> bool:
    numbers = tuple(range(group.channels))
    return bool(member.width == group.channels and member.channels == member.of_root == numbers)


def _settings(entry: Mapping[str, Any], key: str) -> list[Any]:
    """Values of a setting in an entry: the shortcut's, or those of single targets."""
    targets = entry.get("target_settings", {}).values()
    values = [entry.get(key), *(settings.get(key) for settings in targets)]
    return [value for value in values if value is not None]


def _check_ratios(root: str, entries: Sequence[Config]) -> None:
    ratios = {entry["op_names"][0]: _settings(entry, "sparse_ratio") for entry in entries}
    different = {tuple(each) for each in ratios.values()}
    if () in different or len(different) > 1:
        raise InvalidArgument(
            f"the layers coupled with {root!r} need one common sparse_ratio, got {ratios}: NNI "
            "ranks them together; give them one entry"
        )


def _refuse_outputs(
    groups: Sequence[Any], configured: Mapping[str, Any], config_list: Sequence[Mapping[str, Any]]
) -> None:
    """Before every layer has an entry with its name, which would look as if the user meant it."""
    named = {name for entry in config_list for name in entry.get("op_names", ())}
    for group in (each for each in groups if each.is_output):
        makers = [m.name for m in group.members if m.kind == "producer"]
        lost = [name for name in makers if name in configured and name not in named]
        if lost:
            raise InvalidArgument(
                f"{lost[0]!r} makes outputs of the network, which would lose whole channels "
                "(classes): add it to exclude_op_names, or name it in op_names if you mean it"
            )


def _check_common_id(root: str, entries: Sequence[Config]) -> None:
    ids = {entry["op_names"][0]: tuple(_settings(entry, _ID)) for entry in entries}
    if len(ids) > 1 and (() in ids.values() or len(set(ids.values())) > 1):
        raise InvalidArgument(
            f"the layers coupled with {root!r} have no common dependency_group_id ({ids}): call "
            "add_dependency_ids(config_list, model, dummy_input) first"
        )
