"""The mask dictionaries of NNI as plain data, in and out; NNI itself is not needed."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from rtl_plugin.errors import InvalidTicket, StructureMismatch

NniMasks: TypeAlias = Mapping[str, Mapping[str, torch.Tensor | None]]

# What DataParallel and DistributedDataParallel put before every name.
_PREFIX = "module."


def masks_by_ticket(masks: Any, name: str) -> dict[str, NniMasks]:
    """Tell one NNI mask dictionary from a mapping of several.

    Args:
        masks: module -> target -> tensor, or ticket name -> such a mapping.
        name: the ticket's name when there is one dictionary.

    Returns:
        Ticket name -> module -> target -> tensor or None.

    Raises:
        InvalidTicket: it is neither.

    Example:
        >>> list(masks_by_ticket({"fc": {"weight": torch.ones(1, 1)}}, "pruned"))
        ['pruned']
    """
    if isinstance(masks, Mapping) and masks and all(_is_module(v) for v in masks.values()):
        return {name: masks}
    several = isinstance(masks, Mapping) and bool(masks)
    if several and all(isinstance(v, Mapping) and v for v in masks.values()):
        if all(_is_module(targets) for one in masks.values() for targets in one.values()):
            return dict(masks)
    raise InvalidTicket(
        "from_nni takes NNI's masks, module name -> target name -> tensor, or a mapping of ticket "
        f"names to such dictionaries, got {_described(masks)}"
    )


def read_nni_masks(ticket: str, masks: NniMasks, model: nn.Module) -> dict[str, torch.Tensor]:
    """Translate one NNI mask dictionary to masks by parameter name.

    Args:
        ticket: what to call the masks in errors.
        masks: module name -> target name -> tensor of zeros and ones that broadcasts to the
            parameter, or None where the module has no such parameter.
        model: the network the masks were made for, unwrapped.

    Returns:
        Parameter name -> bool mask of the parameter's shape, in the model's order.

    Raises:
        StructureMismatch: a module or target is unknown, or a mask does not fit its parameter.
        InvalidTicket: a mask holds values other than 0 and 1, or the uses of a tied parameter are
            not masked alike.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> read_nni_masks("a", {"0": {"weight": torch.tensor([[1.0], [0.0]])}}, model)
        {'0.weight': tensor([[ True,  True],
                [False, False]])}
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    found: dict[str, torch.Tensor] = {}
    first_names = {id(parameter): name for name, parameter in model.named_parameters()}
    _refuse_unknown_modules(ticket, masks, modules)
    _refuse_doubled_modules(ticket, masks, modules)
    for module_name, targets in masks.items():
        module = modules[_bare(module_name, modules)]
        for target, mask in targets.items():
            parameter = getattr(module, target, None)
            if mask is None and parameter is None:
                continue
            where = f"{ticket!r}: the mask of {module_name!r}, target {target!r},"
            if not isinstance(parameter, nn.Parameter):
                raise StructureMismatch(f"{where} {_no_parameter(target, parameter)}")
            kept = _kept(mask, parameter, where)
            name = first_names[id(parameter)]
            if not torch.equal(found.setdefault(name, kept), kept):
                raise InvalidTicket(
                    f"{where} differs from that of {name!r}, which is the same tied parameter: a "
                    "ticket masks every use alike"
                )
    return {name: found[name] for name in first_names.values() if name in found}


def write_nni_masks(masks: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Masks by parameter name as an NNI mask dictionary.

    Args:
        masks: parameter name -> bool mask.

    Returns:
        Module name -> target name -> float tensor of zeros and ones, each of its own memory.

    Example:
        >>> write_nni_masks({"fc.weight": torch.tensor([True, False])})
        {'fc': {'weight': tensor([1., 0.])}}
    """
    written: dict[str, dict[str, torch.Tensor]] = {}
    for name, mask in masks.items():
        module, _, target = name.rpartition(".")
        written.setdefault(module, {})[target] = mask.float()
    return written


def _is_module(targets: Any) -> bool:
    return isinstance(targets, Mapping) and all(
        isinstance(target, str) and (mask is None or isinstance(mask, torch.Tensor))
        for target, mask in targets.items()
    )


def _bare(name: str, modules: Mapping[str, nn.Module]) -> str:
    if name in modules:
        return name
    return name.removeprefix(_PREFIX) if name != _PREFIX.removesuffix(".") else ""


def _refuse_unknown_modules(ticket: str, masks: NniMasks, modules: Mapping[str, nn.Module]) -> None:
    unknown = [name for name in masks if _bare(name, modules) not in modules]
    if unknown:
        known = [name for name in modules if name][:6]
        raise StructureMismatch(
            f"{ticket!r}: {len(unknown)} of {len(masks)} masked modules are not in the model, "
            f"such as {unknown[:3]}; it has {known}. Masks go by the names of the model they were "
            "made for: pass that model, unwrapped (a leading 'module.' is understood)"
        )


def _refuse_doubled_modules(ticket: str, masks: NniMasks, modules: Mapping[str, nn.Module]) -> None:
    first: dict[str, str] = {}
    for name in masks:
        if first.setdefault(_bare(name, modules), name) != name:
            raise StructureMismatch(
                f"{ticket!r}: {first[_bare(name, modules)]!r} and {name!r} are masks of the same "
                "module, with and without the prefix of DataParallel: keep one of them"
            )


def _no_parameter(target: str, parameter: object) -> str:
    if target.startswith(("_input_", "_output_")):
        return "masks activations: a ticket masks parameters only, drop this target"
    came = "does not exist" if parameter is None else f"is a {type(parameter).__name__}"
    return (
        f"names no parameter (it {came}): pass the model unwrapped, as it was given to the pruner"
    )


def _kept(mask: torch.Tensor | None, parameter: nn.Parameter, where: str) -> torch.Tensor:
    if mask is None:
        return torch.ones_like(parameter, dtype=torch.bool)
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise InvalidTicket(f"{where} holds values other than 0 and 1")
    same_rank = mask.dim() == parameter.dim()
    fits = same_rank and all(m in (1, p) for m, p in zip(mask.shape, parameter.shape, strict=True))
    if not fits:
        raise StructureMismatch(
            f"{where} has shape {tuple(mask.shape)}, the parameter {tuple(parameter.shape)}"
        )
    return mask.to(parameter.device).bool().expand(parameter.shape).clone()


def _described(masks: object) -> str:
    if not isinstance(masks, Mapping):
        return type(masks).__name__
    if not masks:
        return "an empty mapping"
    key, value = next(iter(masks.items()))
    return f"{key!r} -> {type(value).__name__}"
