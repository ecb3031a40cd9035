"""A copy of a network's modules that shares the network's tensors."""

import copy

from torch import nn

from rtl_plugin.errors import InvalidArgument


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
        replica = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    except Exception as error:
        raise InvalidArgument(
            f"{type(model).__name__} cannot be deep-copied ({type(error).__name__}: {error}): keep "
            "only parameters, buffers and plain values as attributes"
        ) from error
    replica.eval()  # what it returns is not always the module, where a model overrides train()
    return replica
