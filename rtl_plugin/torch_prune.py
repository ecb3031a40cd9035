"""The masks of ``torch.nn.utils.prune`` as plain data, in and out."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import prune

from rtl_plugin.errors import InvalidTicket, NothingPrunable

_SUFFIX = "_mask"


def read_masks(
    name: str, model: nn.Module
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Read the masks that ``torch.nn.utils.prune`` left in a model.

    Args:
        name: what to call the model in errors.
        model: a model with ``weight_orig`` parameters and ``weight_mask`` buffers.

    Returns:
        Parameter name of the *bare* model -> bool mask, and the model's other persistent buffers.

    Raises:
        NothingPrunable: the model carries no ``torch.nn.utils.prune`` mask.
        InvalidTicket: not a module, a mask holds values other than 0 and 1, or the uses of a tied
            parameter are not masked alike.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> _ = prune.l1_unstructured(model[0], "weight", amount=1)
        >>> int(read_masks("pruned", model)[0]["0.weight"].sum())
        3
    """
    if not isinstance(model, nn.Module):
        raise InvalidTicket(
            f"from_torch_prune takes a module, or ticket name -> module, got "
            f"{type(model).__name__} for {name!r}"
        )
    originals = dict(model.named_parameters(remove_duplicate=False))
    persistent = model.state_dict().keys()
    masks: dict[str, torch.Tensor] = {}
    state: dict[str, torch.Tensor] = {}
    first_uses: dict[int, str] = {}
    for key, buffer in model.named_buffers():
        bare = key.removesuffix(_SUFFIX)
        original = originals.get(f"{bare}_orig") if bare != key else None
        if original is None:
            if key in persistent:
                state[key] = buffer.detach().clone()
            continue
        if not bool(((buffer == 0) | (buffer == 1)).all()):
            raise InvalidTicket(f"{name!r}: {key!r} holds values other than 0 and 1")
        first = first_uses.setdefault(id(original), bare)
        if not torch.equal(masks.setdefault(first, buffer.bool()), buffer.bool()):
            raise InvalidTicket(
                f"{name!r}: {first!r} and {bare!r} are one tied parameter under two different "
                "masks: a ticket masks every use, so prune every use alike"
            )
    if not masks:
        raise NothingPrunable(
            f"model {name!r} carries no torch.nn.utils.prune mask: call a prune.* method on its "
            "layers first, and import before prune.remove"
        )
    _check_every_use_is_masked(name, model, first_uses)
    return masks, state


def _check_every_use_is_masked(name: str, model: nn.Module, masked: Mapping[int, str]) -> None:
    buffers = dict(model.named_buffers(remove_duplicate=False))
    for key, parameter in model.named_parameters(remove_duplicate=False):
        first = masked.get(id(parameter))
        if first is not None and key.removesuffix("_orig") + _SUFFIX not in buffers:
            raise InvalidTicket(
                f"{name!r}: {first!r} is pruned, but not where it is tied as {key!r}: a ticket "
                "masks every use, so prune every use alike"
            )


def apply_masks(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Put masks on a bare model as ``torch.nn.utils.prune`` does, in place.

    Args:
        model: the model; its masked parameters are renamed to ``..._orig``, tied ones at every
            use.
        masks: parameter name -> bool mask.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
        >>> apply_masks(model, {"0.weight": torch.tensor([[True, False]])})
        >>> model[0].weight_mask
        tensor([[1., 0.]])
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for key, mask in masks.items():
        tied = [name for name, other in parameters.items() if other is parameters[key]]
        for module_name, _, local in (name.rpartition(".") for name in tied):
            module = model.get_submodule(module_name)
            prune.custom_from_mask(module, local, mask.to(parameters[key].device))
