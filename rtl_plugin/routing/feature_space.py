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
    rows = _rows(space, x)
    finite = torch.isfinite(rows).all(dim=1)
    if not finite.all():
        bad = int((~finite).nonzero()[0])
        raise InvalidArgument(
            f"the features of sample {bad} of the batch hold NaN or infinity, which is near to no "
            "ticket: clean the input, or check the feature space; ConfidenceThreshold sends such "
            "samples to the fallback"
        )
    return rows


def finite_features(space: FeatureSpace, x: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`features_of`, but samples that are not finite are marked, not refused.

    Args:
        space: a module in eval mode, a function, or None for the input's first tensor.
        x: the network's first input, batch first.

    Returns:
        Tensor [B, D], zeros for the marked samples, and bool tensor [B], True for these.

    Raises:
        InvalidArgument: the features are no real numbers, or not one row a sample.

    Example:
        >>> finite_features(None, torch.tensor([[float("nan")], [2.0]]))
        (tensor([[0.],
                [2.]]), tensor([ True, False]))
    """
    rows = _rows(space, x)
    unknown = ~torch.isfinite(rows).all(dim=1)
    return rows.masked_fill(unknown.unsqueeze(1), 0), unknown


def _rows(space: FeatureSpace, x: Any) -> torch.Tensor:
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
    return rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
