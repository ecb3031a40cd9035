"""What NNI would silently not do with the ratios, groups and alignments of a configuration."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from rtl_nni.config_entries import SCHEDULED_KEYS
from rtl_nni.host import imported
from rtl_nni.target_row import TargetRow


def target_faults(model: nn.Module, rows: Sequence[TargetRow]) -> list[str]:
    """Every fault of a configuration's targets.

    Args:
        model: the network.
        rows: one a (entry, target), repeats included.

    Returns:
        One sentence a fault, with its remedy.
    """
    present = [row for row in rows if row.shape is not None]
    first = {row.name: row for row in reversed(present)}
    return [
        *_repeated(present),
        *(fault for row in present for fault in _range_faults(row)),
        *(fault for row in present for fault in _parameter_faults(model, row)),
        *_nothing_asked(present),
        *(fault for row in present for fault in (*_block_faults(row), *_method_faults(row))),
        *(fault for row in present for fault in _align_faults(row, first)),
        *_dependency_faults(list(first.values())),
        *_global_faults(list(first.values())),
        *output_faults(model, list(first.values())),
    ]


def _where(row: TargetRow) -> str:
    return f"config_list[{row.entry}], {row.name!r}"


def _repeated(rows: Sequence[TargetRow]) -> Iterator[str]:
    seen: dict[str, TargetRow] = {}
    for row in rows:
        before = seen.setdefault(row.name, row)
        if before is not row and dict(before.settings) != dict(row.settings):
            yield (
                f"{_where(row)}: config_list[{before.entry}] configures it already, otherwise, and "
                "NNI takes the first only: exclude it from one of them (exclude_op_names)"
            )


def _range_faults(row: TargetRow) -> Iterator[str]:
    settings = row.settings
    for key in SCHEDULED_KEYS:
        value = settings.get(key)
        if value is None:
            continue
        if not math.isfinite(value) or (key != "sparse_threshold" and not 0 <= value <= 1):
            yield f"{_where(row)}: {key} must be a finite number (ratios in [0, 1)), got {value}"
        elif key == "sparse_ratio" and value == 1:
            yield f"{_where(row)}: sparse_ratio 1.0 keeps nothing: at most 0.99"
    low, high = settings.get("min_sparse_ratio"), settings.get("max_sparse_ratio")
    if low is not None and high is not None and low > high:
        yield f"{_where(row)}: min_sparse_ratio {low} is above max_sparse_ratio {high}"


def _parameter_faults(model: nn.Module, row: TargetRow) -> Iterator[str]:
    module = model.get_submodule(row.layer)
    parameter = module._parameters.get(row.target)
    if parameter is None:
        yield (
            f"{_where(row)}: it is computed, not a parameter (torch.nn.utils.prune or a "
            "parametrization is on it): remove that first"
        )
        return
    uses = uses_of(model, row.name)
    if len(uses) > 1:
        yield (
            f"{_where(row)}: it is tied ({', '.join(uses)}), and NNI would untie it when it wraps "
            "the layer: exclude every use"
        )


def uses_of(model: nn.Module, name: str) -> list[str]:
    """Every name under which a parameter stands in a model; several where it is tied.

    Args:
        model: the network.
        name: one of them.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> uses_of(nn.Sequential(layer, layer), "0.bias")
        ['0.bias', '1.bias']
    """
    named = list(model.named_parameters(remove_duplicate=False))
    own = next(parameter for each, parameter in named if each == name)
    return [each for each, parameter in named if parameter is own]


def _block_faults(row: TargetRow) -> Iterator[str]:
    """Granularities and inner blocks that NNI cannot make of the parameter's shape."""
    asked, shape = row.settings.get("granularity"), row.shape or ()
    if row.ranked and not _makes_blocks(asked, shape):
        yield (
            f"{_where(row)}: granularity {asked!r} does not cut a parameter of shape {shape} into "
            "blocks: take 'default', 'out_channel', 'in_channel', or a list of whole numbers that "
            "divide its sizes ('per_channel' is for activations)"
        )
    blocks = row.settings.get("internal_metric_block")
    if blocks is not None and row.settings.get("dependency_group_id") is None:
        yield (
            f"{_where(row)}: NNI reads internal_metric_block beside a dependency_group_id only: "
            "give it one, or leave the blocks out"
        )
    elif blocks is not None and (blocks < 1 or not shape or shape[0] % blocks):
        yield (
            f"{_where(row)}: internal_metric_block {blocks} does not divide its "
            f"{shape[0] if shape else 0} channels"
        )


def _makes_blocks(granularity: Any, shape: tuple[int, ...]) -> bool:
    parameter = imported("nni.compression.base.target_space").TargetType.PARAMETER
    space = SimpleNamespace(granularity=granularity, _target_type=parameter, _scaler=None)
    if granularity in (None, "default"):
        return True
    try:
        imported("nni.compression.base.compressor").register_scalers({"": {"": space}}, None)
        space._scaler.validate(torch.empty(shape))
    except (AssertionError, TypeError, ValueError, ZeroDivisionError, RuntimeError, IndexError):
        return False
    return True


def _method_faults(row: TargetRow) -> Iterator[str]:
    method = row.settings.get("apply_method", "mul")
    if method not in (None, "mul"):
        yield (
            f"{_where(row)}: apply_method {method!r} does not multiply by the mask, so what trains "
            "is no ticket: leave it out"
        )


def _nothing_asked(rows: Sequence[TargetRow]) -> Iterator[str]:
    for row in rows:
        if not row.ranked and not row.settings.get("align"):
            yield (
                f"{_where(row)}: nothing is asked of it: give 'sparse_ratio' or "
                "'sparse_threshold', or leave it out"
            )


def _align_faults(row: TargetRow, rows: Mapping[str, TargetRow]) -> Iterator[str]:
    align = row.settings.get("align")
    if not align or row.ranked:
        return
    own = align["module_name"] is None
    layer = row.layer if own else align["module_name"]
    name = f"{layer}.{align['target_name']}" if layer else align["target_name"]
    source = rows.get(name)
    if source is None or not source.ranked:
        yield (
            f"{_where(row)}: it is to follow {name!r}, which has no ratio or threshold of its own "
            "here: configure that one too, or leave this out of target_names"
        )
    elif not own and source.shape is not None and len(source.shape) == 1:
        yield (
            f"{_where(row)}: it is to follow {name!r}, which has one dimension: NNI would keep all "
            "of it. Align to the weight of the convolution or linear layer before it"
        )
    elif source.shape is not None and not _fits(row, source, align["dims"]):
        yield (
            f"{_where(row)}: dims {align['dims']} of {name!r} (shape {source.shape}) do not have "
            f"its first size {row.shape}"
        )


def _fits(row: TargetRow, source: TargetRow, dims: Sequence[int]) -> bool:
    rank = len(source.shape or ())
    if len(dims) != 1 or not all(-rank <= d < rank for d in dims):
        return all(-rank <= d < rank for d in dims)
    return bool(row.shape) and bool(source.shape) and source.shape[dims[0]] == row.shape[0]  # type: ignore[index]


def _dependency_faults(rows: Sequence[TargetRow]) -> Iterator[str]:
    for identity, members in _grouped(rows, "dependency_group_id").items():
        where = f"dependency_group_id {identity!r} ({', '.join(row.name for row in members)})"
        ratios = {row.settings.get("sparse_ratio") for row in members} - {None}
        if len(ratios) != 1:
            yield f"{where}: its members must have one common sparse_ratio, got {_listed(ratios)}"
        if len({row.shape[0] for row in members if row.shape}) > 1:
            yield f"{where}: its members have different numbers of output channels"
        for row in members:
            for key in ("min_sparse_ratio", "max_sparse_ratio", "global_group_id"):
                if row.settings.get(key) is not None:
                    yield (
                        f"{_where(row)}: NNI ignores {key} beside a dependency_group_id: take one "
                        "of the two away"
                    )


def _global_faults(rows: Sequence[TargetRow]) -> Iterator[str]:
    for identity, members in _grouped(rows, "global_group_id").items():
        ratios = {row.settings.get("sparse_ratio") for row in members} - {None}
        if len(ratios) != 1:
            names = ", ".join(row.name for row in members)
            yield (
                f"global_group_id {identity!r} ({names}): its members must have one common "
                f"sparse_ratio, got {_listed(ratios)}"
            )
        for row in members:
            for key in ("min_sparse_ratio", "max_sparse_ratio"):
                if row.settings.get(key) is not None:
                    yield (
                        f"{_where(row)}: NNI does not hold a layer of a global group to {key}: "
                        "give the layer an entry of its own, without global_group_id"
                    )


def output_faults(model: nn.Module, rows: Sequence[TargetRow]) -> list[str]:
    """Whole outputs of the network that nobody asked by name to remove.

    Args:
        model: the network.
        rows: one a target, with the granularity that the pruner goes by.

    Returns:
        One sentence a fault, with its remedy.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [
        f"{_where(row)}: the last linear layer would lose whole outputs (classes): add it to "
        "exclude_op_names, or name it in op_names if its outputs are not the network's"
        for row in rows
        if linear
        and row.layer == linear[-1]
        and row.ranked
        and row.granularity == "out_channel"
        and not row.named
    ]


def _listed(ratios: set[Any]) -> str:
    return ", ".join(f"{ratio:g}" for ratio in sorted(ratios)) or "none"


def _grouped(rows: Sequence[TargetRow], key: str) -> dict[Any, list[TargetRow]]:
    found: dict[Any, list[TargetRow]] = defaultdict(list)
    for row in rows:
        if row.settings.get(key) is not None:
            found[row.settings[key]].append(row)
    return found
