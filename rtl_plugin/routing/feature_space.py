"""Features of a batch: the input itself, or what a module or a function makes of it."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.nested import tensors_in
from rtl_plugin.routing.contract import batch_size

FeatureSpace: TypeAlias = Callable[[Any], torch.Tensor] | nn.Module | None


def check_feature_space(space: Any) -> None:
    """Refuse what cannot make features.

    Args:
        space: a function, a module or None.

    Raises:
        InvalidArgument: it is something else.

    Example:
        >>> check_feature_space(None)
    """
    if space is not None and not callable(space):
        raise InvalidArgument(
            "feature_space= must be an nn.Module or a function x -> tensor [B, ...], got "
            f"{type(space).__name__}"
        )


def features_of(space: FeatureSpace, x: Any) -> torch.Tensor:
    """One finite feature vector a sample.

    Args:
        space: a module in eval mode, a function, or None for the input's first tensor.
        x: the network's first input, batch first.

    Returns:
        Tensor [B, D], float32 or float64, without gradient history.

    Raises:
        InvalidArgument: the features are no real numbers, not one row a sample, or not finite.

    Example:
        >>> features_of(None, torch.ones(2, 3, 4)).shape
        torch.Size([2, 12])
    """
    size = batch_size(x)
    with torch.no_grad():
        made = next(tensors_in(x)) if space is None else space(x)
    if not isinstance(made, torch.Tensor) or made.dim() == 0 or made.shape[0] != size:
        came = tuple(made.shape) if isinstance(made, torch.Tensor) else f"a {type(made).__name__}"
        raise InvalidArgument(
            f"feature_space must give a tensor with one row for each of {size} samples, got {came}"
        )
    if made.is_complex():
        raise InvalidArgument(f"features must be real numbers, got {made.dtype}")
    rows = made.detach().reshape(size, made.shape[1:].numel())
    rows = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
    if not torch.isfinite(rows).all():
        bad = int((~torch.isfinite(rows).all(dim=1)).nonzero()[0])
        raise InvalidArgument(
            f"the features of sample {bad} of the batch hold NaN or infinity, which is near to no "
            "ticket: clean the input, or check the feature space"
        )
    return rows
