"""What NNI would ignore in a configuration's selection of layers, in words."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from rtl_nni.config_entries import LayerEntry
from rtl_nni.host import imported


def name_faults(model: nn.Module, config_list: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names, types and patterns that match nothing.

    Args:
        model: the network.
        config_list: in NNI's present format.

    Returns:
        One sentence a fault.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    types = dict.fromkeys(type(module).__name__ for module in modules.values())
    faults = []
    for number, entry in enumerate(config_list):
        for key, known in (("op_names", modules), ("op_types", types)):
            for prefix in ("", "exclude_"):
                missing = [v for v in entry.get(prefix + key, ()) if v not in known]
                faults += [_unmatched(number, prefix + key, value, known) for value in missing]
        for key in ("op_names_re", "exclude_op_names_re"):
            for pattern in entry.get(key, ()):
                faults += _pattern_faults(number, key, pattern, modules)
    return faults


def module_faults(model: nn.Module, entries: Sequence[LayerEntry]) -> list[str]:
    """Selected layers that NNI cannot mask, or whose masks their network would not see.

    Args:
        model: the network.
        entries: which entry selects which layer.

    Returns:
        One sentence a fault.
    """
    registry = imported("nni.compression.base.setting").PruningSetting.registry
    faults: list[str] = []
    for entry in entries:
        where = f"config_list[{entry.number}], {entry.layer!r}"
        module = model.get_submodule(entry.layer)
        kind = type(module).__name__
        attention = _attention_above(model, entry.layer)
        if attention:
            faults.append(
                f"{where}: {attention} reads this weight without calling the layer, so a mask "
                "would change nothing: add it to exclude_op_names"
            )
        elif kind not in registry:
            faults.append(
                f"{where}: NNI has no setting for {kind}; it knows {', '.join(registry)}. Exclude "
                f"it, or PruningSetting.register({kind!r}, ...) first"
            )
        else:
            faults += _target_name_faults(where, entry.settings, registry[kind])
    return faults


def _target_name_faults(
    where: str, settings: Mapping[str, Any], known: Mapping[str, Any]
) -> Iterator[str]:
    asked = [*(settings.get("target_names") or ()), *settings.get("target_settings", {})]
    for target in dict.fromkeys(asked):
        if target.startswith(("_input_", "_output_")):
            yield (
                f"{where}: {target!r} masks activations, and a ticket masks parameters only: "
                "leave it out of target_names"
            )
        elif target not in known:
            yield f"{where}: there is no target {target!r}, only {', '.join(map(repr, known))}"


def _attention_above(model: nn.Module, layer: str) -> str:
    parent, _, local = layer.rpartition(".")
    above = model.get_submodule(parent)
    attends = isinstance(above, nn.MultiheadAttention) and local == "out_proj"
    return f"{parent!r} (MultiheadAttention)" if attends else ""


def _pattern_faults(
    number: int, key: str, pattern: str, modules: Mapping[str, nn.Module]
) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        return [f"config_list[{number}]: {key} holds {pattern!r}, no regular expression ({error})"]
    # As NNI does: match, so anchored at the start of a name.
    if any(compiled.match(name) for name in modules):
        return []
    return [_unmatched(number, key, pattern, modules)]


def _unmatched(number: int, key: str, value: str, known: Any) -> str:
    listed = [str(name) for name in known if name][:6]
    what = "types" if key.endswith("op_types") else "names"
    return (
        f"config_list[{number}]: {value!r} in {key} matches nothing, so NNI would leave it out "
        f"in silence; {what} in the model are such as {listed}"
    )
