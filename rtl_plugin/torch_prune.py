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
        InvalidTicket: a mask holds values other than 0 and 1.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> _ = prune.l1_unstructured(model[0], "weight", amount=1)
        >>> int(read_masks("pruned", model)[0]["0.weight"].sum())
        3
    """
    parameters = dict(model.named_parameters())
    persistent = model.state_dict().keys()
    masks: dict[str, torch.Tensor] = {}
    state: dict[str, torch.Tensor] = {}
    for key, buffer in model.named_buffers():
        bare = key.removesuffix(_SUFFIX)
        if bare != key and f"{bare}_orig" in parameters:
            if not bool(((buffer == 0) | (buffer == 1)).all()):
                raise InvalidTicket(f"{name!r}: {key!r} holds values other than 0 and 1")
            masks[bare] = buffer.bool()
        elif key in persistent:
            state[key] = buffer.detach().clone()
    if not masks:
        raise NothingPrunable(
            f"model {name!r} carries no torch.nn.utils.prune mask: call a prune.* method on its "
            "layers first, and import before prune.remove"
        )
    return masks, state


def apply_masks(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Put masks on a bare model as ``torch.nn.utils.prune`` does, in place.

    Args:
        model: the model; its masked parameters are renamed to ``..._orig``.
        masks: parameter name -> bool mask.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
        >>> apply_masks(model, {"0.weight": torch.tensor([[True, False]])})
        >>> model[0].weight_mask
        tensor([[1., 0.]])
    """
    for key, mask in masks.items():
        module_name, _, local = key.rpartition(".")
        module = model.get_submodule(module_name)
        device = getattr(module, local).device
        prune.custom_from_mask(module, local, mask.to(device))  # type: ignore[no-untyped-call]
