"""A copy of a network's modules that shares the network's tensors."""

import copy
from collections.abc import Iterable

import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument, MaskBypassed
from rtl_plugin.nested import tensors_in


def check_no_stored_references(model: nn.Module, masked: Iterable[str]) -> None:
    """Refuse a model that keeps a masked parameter elsewhere than as a parameter.

    Its forward could read the weight there, around every mask. What a closure holds is not found.

    Args:
        model: the network.
        masked: names of its masked parameters.

    Raises:
        MaskBypassed: naming the attribute and the parameter.

    Example:
        >>> check_no_stored_references(nn.Linear(1, 1), ["weight"])
    """
    own = dict(model.named_parameters())
    names = {id(own[name]): name for name in masked}
    for prefix, module in model.named_modules():
        for attribute, value in vars(module).items():
            # Recurrent layers keep a list of their own, which masking knows of.
            if attribute in ("_parameters", "_modules", "_flat_weights"):
                continue
            for tensor in tensors_in(value):
                if id(tensor) in names:
                    where = f"{prefix}.{attribute}" if prefix else attribute
                    raise MaskBypassed(
                        f"attribute {where!r} keeps {names[id(tensor)]!r} a second time, so the "
                        "forward pass may read it around its mask: read it as a parameter of its "
                        "module, or leave it out of prunable="
                    )


def storage_sharing_replica(model: nn.Module) -> nn.Module:
    """Copy the module tree, keeping every parameter and buffer the same tensor.

    Serving runs on replicas, so that the user's model is never touched while it runs.

    Args:
        model: the network, unchanged.

    Returns:
        A module of the same class in eval mode.

    Raises:
        InvalidArgument: the model cannot be deep-copied.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> storage_sharing_replica(model).weight is model.weight
        True
    """
    tensors = [*model.parameters(), *model.buffers()]
    try:
        with torch.inference_mode(False):  # copies made in it could not run outside
            replica = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    except Exception as error:
        raise InvalidArgument(
            f"{type(model).__name__} cannot be deep-copied ({type(error).__name__}: {error}): keep "
            "only parameters, buffers and plain values as attributes"
        ) from error
    replica.eval()  # what it returns is not always the module, where a model overrides train()
    return replica
