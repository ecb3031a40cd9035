"""The user's keywords for Torch-Pruning: checked, and speaking of the working copy."""

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from rtl_plugin.integration_api import InvalidArgument, SparsitySchedule, whole_number

# Torch-Pruning shares and fills these defaults between pruners, so every pruner gets its own.
_MUTABLE_DEFAULTS = ("in_channel_groups", "out_channel_groups", "num_heads", "channel_groups")
_RATIO_TABLES = ("pruning_ratio_dict", "head_pruning_ratio_dict", "ch_sparsity_dict")
_OURS = ("self", "model", "example_inputs", "importance")


def host_keywords(
    model: nn.Module, copy: nn.Module, given: Mapping[str, Any], steps: int
) -> dict[str, Any]:
    """Check keywords of ``tp.pruner.BasePruner`` and translate modules to those of a copy.

    Args:
        model: the user's network, which the keywords speak of.
        copy: a deep copy of it.
        given: the keywords, without ``iterative_steps``.
        steps: ``iterative_steps``.

    Returns:
        Keywords for the host, in fresh containers.

    Raises:
        InvalidArgument: a keyword that the host has not, a module or parameter that is not the
            model's, a ratio out of range, or a schedule that contradicts another keyword.
    """
    known = [n for n in inspect.signature(tp.pruner.BasePruner).parameters if n not in _OURS]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InvalidArgument(
            f"Torch-Pruning's BasePruner has no keyword {unknown[0]!r}; it has {', '.join(known)}"
        )
    whole_number("iterative_steps", steps, 1)
    _check_tables(given)
    for key in given.get("customized_pruners") or ():
        if not isinstance(key, type):
            raise InvalidArgument(
                "customized_pruners maps layer types to pruners, and Torch-Pruning cannot trace "
                f"with a single {type(key).__name__} as key: give its class, a subclass of its own "
                "where only one layer is meant"
            )
    _check_ratios(given)
    _check_schedule(given, steps)
    keywords = dict(given)
    if isinstance(keywords.get("unwrapped_parameters"), Mapping):
        # Its documentation says a mapping, its code takes pairs.
        for key in keywords["unwrapped_parameters"]:
            if not isinstance(key, nn.Parameter):
                raise InvalidArgument(
                    f"keys of unwrapped_parameters must be the model's own parameters, got {key!r}"
                )
        keywords["unwrapped_parameters"] = list(keywords["unwrapped_parameters"].items())
    if keywords.get("ignored_layers") is not None:
        keywords["ignored_layers"] = _instances(model, keywords["ignored_layers"])
    translate = _Translation(model, copy)
    translated = {name: translate(name, value) for name, value in keywords.items()}
    for name in _MUTABLE_DEFAULTS:
        translated[name] = translated.get(name) or {}
    return {**translated, "iterative_steps": steps}


def _check_tables(given: Mapping[str, Any]) -> None:
    for name in (*_MUTABLE_DEFAULTS, *_RATIO_TABLES, "customized_pruners"):
        table = given.get(name)
        if table is not None and not isinstance(table, Mapping):
            raise InvalidArgument(f"{name} must be a dict, got {type(table).__name__}: {table!r}")
    for name in (*_MUTABLE_DEFAULTS, *_RATIO_TABLES):
        for key, value in (given.get(name) or {}).items():
            layers = key if isinstance(key, tuple) and name in _RATIO_TABLES else (key,)
            if not all(isinstance(layer, nn.Module) for layer in layers):
                raise InvalidArgument(
                    f"keys of {name} must be the model's own modules, got {key!r}"
                )
            if name in _MUTABLE_DEFAULTS:
                whole_number(f"{name}[{type(key).__name__}]", value, 1)
            if name == "num_heads" and getattr(key, "out_features", 0) % value:
                raise InvalidArgument(
                    f"num_heads={value} does not divide the {key.out_features} outputs of {key}"
                )


def _check_ratios(given: Mapping[str, Any]) -> None:
    for name, default in (("pruning_ratio", 0.5), ("head_pruning_ratio", 0.0)):
        _check_ratio(name, given.get(name, default))
    if given.get("ch_sparsity") is not None:
        _check_ratio("ch_sparsity", given["ch_sparsity"])
    for name in _RATIO_TABLES:
        for layer, ratio in (given.get(name) or {}).items():
            _check_ratio(f"{name}[{type(layer).__name__}]", ratio)
    ceiling = given.get("max_pruning_ratio", 1.0)
    if not _is_number(ceiling) or not 0 < ceiling <= 1:
        raise InvalidArgument(f"max_pruning_ratio must be in (0, 1], got {ceiling!r}")
    if given.get("round_to") is not None:
        whole_number("round_to", given["round_to"], 1)


def _check_ratio(name: str, ratio: Any) -> None:
    if not _is_number(ratio) or not 0 <= ratio < 1:
        raise InvalidArgument(
            f"{name} must be in [0, 1), got {ratio!r}: the fraction of channels to remove, so 0.25 "
            "removes a quarter of them"
        )


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def _check_schedule(given: Mapping[str, Any], steps: int) -> None:
    schedule = given.get("iterative_pruning_ratio_scheduler")
    if schedule is None:
        return
    if not callable(schedule):
        raise InvalidArgument(
            "iterative_pruning_ratio_scheduler must be callable as (ratio, steps) -> ratios, for "
            f"example rtl_torch_pruning.geometric_scheduler, got {schedule!r}"
        )
    ratio = given.get("pruning_ratio", 0.5)
    if isinstance(schedule, SparsitySchedule) and (
        schedule.target != ratio or getattr(schedule, "rounds", steps) != steps
    ):
        raise InvalidArgument(
            f"{schedule!r} contradicts pruning_ratio={ratio} and iterative_steps={steps}: make "
            "them agree, or use rtl_torch_pruning.geometric_scheduler and the like, which have a "
            "shape only"
        )
    try:
        ratios = list(schedule(ratio, steps))
    except Exception as error:
        raise InvalidArgument(
            f"iterative_pruning_ratio_scheduler({ratio}, {steps}) failed or gave no list "
            f"({type(error).__name__}: {error}): it must return {steps + 1} ratios in [0, 1)"
        ) from error
    if len(ratios) != steps + 1 or not all(_is_number(r) and 0 <= r < 1 for r in ratios):
        raise InvalidArgument(
            f"iterative_pruning_ratio_scheduler({ratio}, {steps}) must return {steps + 1} ratios "
            f"in [0, 1), got {ratios}"
        )


def _instances(model: nn.Module, layers: Any) -> list[Any]:
    """Layers with every type replaced by the model's layers of that type; the host skips types."""
    chosen: list[Any] = []
    if isinstance(layers, (nn.Module, str)) or not isinstance(layers, Iterable):
        raise InvalidArgument(f"ignored_layers must be a list of layers, got {layers!r}")
    for layer in layers:
        if not isinstance(layer, (type, nn.Module, nn.Parameter)):
            raise InvalidArgument(
                "ignored_layers must hold modules, parameters or types of modules (Torch-Pruning "
                f"skips anything else in silence), got {layer!r}"
            )
        if isinstance(layer, type):
            found = [module for module in model.modules() if isinstance(module, layer)]
            if not found:
                raise InvalidArgument(f"ignored_layers names {layer.__name__}; the model has none")
            chosen += found
        else:
            chosen.append(layer)
    return chosen


class _Translation:
    """Finds the copy's modules and parameters for the model's, anywhere in a keyword's value."""

    def __init__(self, model: nn.Module, copy: nn.Module) -> None:
        modules = zip(model.modules(), copy.modules(), strict=True)
        parameters = zip(model.parameters(), copy.parameters(), strict=True)
        self._twins: dict[int, Any] = {id(own): twin for own, twin in (*modules, *parameters)}

    def __call__(self, keyword: str, value: Any) -> Any:
        if isinstance(value, (nn.Module, nn.Parameter)):
            if id(value) not in self._twins:
                raise InvalidArgument(
                    f"{keyword} names a {type(value).__name__} that is not part of the model: pass "
                    "the model's own modules and parameters"
                )
            return self._twins[id(value)]
        if isinstance(value, torch.Tensor):
            return value
        if isinstance(value, Mapping):
            return {self(keyword, k): self(keyword, v) for k, v in value.items()}
        if type(value) in (list, tuple, set):
            return type(value)(self(keyword, part) for part in value)
        return value
