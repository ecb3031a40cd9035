"""A dry run of an NNI configuration: what it matches, and every silent trap as an error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

from rtl_nni.config_entries import LayerEntry, checked_list, entries_by_layer
from rtl_nni.config_traps import module_faults, name_faults
from rtl_nni.host import imported
from rtl_nni.target_row import TargetRow
from rtl_nni.target_traps import target_faults
from rtl_plugin.integration_api import InvalidArgument, NothingPrunable

_RULE = "_set_default_sparse_granularity"
HEADLINE = "config_list asks for what NNI would silently not do"


@dataclass(frozen=True)
class ConfigCheck:
    """Every parameter that a configuration matches; prints as a table.

    Args:
        entries: which entry selects which layer.
        rows: one a parameter, entries in the user's order, layers in the model's.

    Example:
        >>> print(ConfigCheck((), ()))
        0 of 0 matched weights are under a ratio or threshold
    """

    entries: tuple[LayerEntry, ...]
    rows: tuple[TargetRow, ...]

    @property
    def prunable(self) -> int:
        """Number of weights under a ratio or threshold of their own."""
        return sum(row.numel for row in self.rows if row.ranked)

    def __str__(self) -> str:
        headers = ["entry", "parameter", "shape", "asked", "granularity", "group", "note"]
        table = [
            [
                row.entry,
                row.name,
                "x".join(map(str, row.shape)) if row.shape is not None else "none",
                row.asked,
                row.granularity if row.ranked else "",
                row.group,
                row.note,
            ]
            for row in self.rows
        ]
        total = sum(row.numel for row in self.rows)
        last = f"{self.prunable:,} of {total:,} matched weights are under a ratio or threshold"
        if not table:
            return last
        return f"{tabulate(table, headers=headers, disable_numparse=True)}\n\n{last}"


def check(
    config_list: Sequence[Mapping[str, Any]], model: nn.Module, pruner: Any = None
) -> ConfigCheck:
    """Print which parameters a configuration matches, at what ratio, before anything runs.

    Args:
        config_list: NNI's.
        model: the network, unwrapped.
        pruner: the pruner class it is meant for, which settles the default granularity.

    Returns:
        The printed table, as a :class:`ConfigCheck`.

    Raises:
        InvalidArgument: the configuration is not NNI's, or holds what NNI would silently ignore
            or do otherwise; every fault is listed with its remedy.
        NothingPrunable: it matches no parameter.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> _ = check([{"op_names": ["0"], "sparse_ratio": 0.5}], model)
          entry  parameter    shape    asked        granularity    group    note
        -------  -----------  -------  -----------  -------------  -------  ------
              0  0.weight     4x4      ratio 0.5    default
              0  0.bias       4        as 0.weight
        <BLANKLINE>
        16 of 20 matched weights are under a ratio or threshold
    """
    checked = checked_config(config_list, model, pruner)
    print(checked)  # noqa: T201 - printing is what this function is for
    return checked


def checked_config(config_list: Any, model: nn.Module, pruner: Any = None) -> ConfigCheck:
    """Read a configuration, or say everything that is wrong with it.

    Args:
        config_list: NNI's.
        model: the network, unwrapped.
        pruner: the pruner class it is meant for, or anything else.

    Returns:
        What it matches.

    Raises:
        InvalidArgument: see :func:`check`.
        NothingPrunable: it matches no parameter.
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgument(f"model must be a torch.nn.Module, got {type(model).__name__}")
    refuse_wrapped(model)
    listed = checked_list(config_list)
    refuse("config_list does not fit the model", name_faults(model, listed))
    entries = tuple(entries_by_layer(model, listed))
    if not entries:
        raise NothingPrunable("config_list selects no layer at all: its entries exclude them all")
    refuse("config_list selects what NNI cannot prune", module_faults(model, entries))
    rows = tuple(row for entry in entries for row in _rows(model, entry, pruner))
    refuse(HEADLINE, target_faults(model, rows))
    if not any(row.ranked and row.settings.get("sparse_ratio") != 0 for row in rows):
        raise NothingPrunable(
            "config_list asks for no sparsity: give its entries 'sparse_ratio' (a float in (0, 1)) "
            "or 'sparse_threshold'"
        )
    return ConfigCheck(entries, _without_repeats(rows))


def refuse_wrapped(model: nn.Module) -> None:
    """Refuse a model inside a parallel or an NNI wrapper.

    Args:
        model: the user's.

    Raises:
        InvalidArgument: saying how to unwrap it.
    """
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    if isinstance(model, parallel):
        raise InvalidArgument(
            f"the model is a {type(model).__name__}: pass model.module; tickets are found by one "
            "process on one device"
        )
    wrapped = [name for name, module in model.named_modules() if hasattr(module, "_nni_wrapper")]
    if wrapped:
        raise InvalidArgument(
            f"{wrapped[0]!r} is still wrapped by an NNI pruner: call its unwrap_model() first"
        )


def refuse(headline: str, faults: Sequence[str]) -> None:
    """Raise all faults at once.

    Args:
        headline: what they have in common.
        faults: one sentence each; none is fine.

    Raises:
        InvalidArgument: there is one.
    """
    if faults:
        raise InvalidArgument("\n- ".join([f"{headline}:", *faults]))


def _rows(model: nn.Module, entry: LayerEntry, pruner: Any) -> list[TargetRow]:
    settings = imported("nni.compression.base.setting").canonicalize_settings
    module = model.get_submodule(entry.layer)
    rows = []
    for target, setting in settings(module, dict(entry.settings), "pruning").items():
        parameter = getattr(module, target, None)
        shape = tuple(parameter.shape) if isinstance(parameter, torch.Tensor) else None
        granularity = _granularity(setting.get("granularity"), pruner)
        note = _note(module, target, setting, granularity, parameter)
        rows.append(
            TargetRow(
                entry.layer, target, shape, entry.number, entry.named, setting, granularity, note
            )
        )
    return rows


def _granularity(asked: Any, pruner: Any) -> Any:
    if asked != "default":
        return asked
    base = imported("nni.compression.base.compressor").Pruner
    if not (isinstance(pruner, type) and issubclass(pruner, base)):
        return "default"
    kind = imported("nni.compression.base.target_space").TargetType.PARAMETER
    try:
        rule: Any = getattr(pruner, _RULE)
        chosen = rule(None, SimpleNamespace(type=kind))
    except (AttributeError, TypeError):  # a rule that asks the pruner, or more of the parameter
        return "default"
    return "fine" if chosen is None else chosen


def _note(module: nn.Module, target: str, setting: Any, granularity: Any, value: Any) -> str:
    if value is None:
        return f"the layer has no {target}"
    align = setting.get("align")
    if align and align["module_name"] is None:
        source = getattr(module, align["target_name"], None)
        if isinstance(source, torch.Tensor) and source.dim() == 1:
            return "never masked: NNI does not align to a source of one dimension"
    if isinstance(value, nn.Parameter) and not value.requires_grad and not align:
        return "frozen: ranked as it is, alike in all groups"
    ratio = setting.get("sparse_ratio")
    blocks = value.shape[0] if granularity == "out_channel" else value.numel()
    if ratio is not None and 0 <= blocks * ratio < 1:
        return f"nothing goes: {ratio:g} of {blocks} rounds down to 0"
    return ""


def _without_repeats(rows: Sequence[TargetRow]) -> tuple[TargetRow, ...]:
    """NNI takes the first entry for a target; what comes later says the same (checked)."""
    first: dict[str, TargetRow] = {}
    for row in rows:
        first.setdefault(row.name, row)
    return tuple(first.values())
