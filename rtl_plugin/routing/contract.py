"""What a router answers."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.nested import tensors_in


@dataclass(frozen=True)
class RoutingDecision:
    """One ticket a sample, or a weight for every ticket and sample.

    Args:
        indices: integer tensor [B] of positions in the ticket set, or None.
        weights: floating tensor [B, K], rows summing to 1 (which is the router's to see to), or
            None. Exactly one of the two.

    Raises:
        InvalidArgument: both or neither are given, or a shape or dtype is wrong.

    Example:
        >>> RoutingDecision(indices=torch.tensor([0, 1])).batch_size
        2
    """

    indices: torch.Tensor | None = None
    weights: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if (self.indices is None) == (self.weights is None):
            raise InvalidArgument("a routing decision holds either indices or weights")
        if self.indices is not None and not is_index(self.indices):
            raise InvalidArgument(
                f"routing indices must be an integer tensor [B], got {_described(self.indices)}"
            )
        if self.weights is not None and not _are_weights(self.weights):
            raise InvalidArgument(
                f"routing weights must be a floating tensor [B, K], got {_described(self.weights)}"
            )

    @property
    def batch_size(self) -> int:
        """Number of samples decided on."""
        chosen = self.indices if self.indices is not None else self.weights
        assert chosen is not None  # noqa: S101 - __post_init__ has refused neither
        return chosen.shape[0]


def is_index(value: Any) -> bool:
    """Whether a value can say which ticket every sample goes through.

    Args:
        value: anything.

    Returns:
        True for an integer tensor of one dimension; bool is none.

    Example:
        >>> is_index(torch.tensor([1, 0])), is_index(torch.tensor([True, False]))
        (True, False)
    """
    if not isinstance(value, torch.Tensor) or value.dim() != 1:
        return False
    return not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)


def _are_weights(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 2 and value.is_floating_point()


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__


def batch_size(x: Any) -> int:
    """The first dimension of the first tensor of a network's first input.

    Args:
        x: nested tensors.

    Returns:
        B.

    Raises:
        InvalidArgument: there is no tensor, or it has no dimension.

    Example:
        >>> batch_size({"image": torch.zeros(3, 8)})
        3
    """
    first = next(tensors_in(x), None)
    if first is None or first.dim() == 0:
        raise InvalidArgument(
            "a mixed batch needs an input tensor whose first dimension is B, got "
            f"{type(x).__name__ if first is None else 'a tensor without dimensions'}"
        )
    return first.shape[0]


@runtime_checkable
class Router(Protocol):
    """Decides on the tickets of a batch from its input or its context.

    Example:
        >>> class FirstForAll:
        ...     def route(self, x, context=None):
        ...         return RoutingDecision(indices=torch.zeros(len(x), dtype=torch.long))
        >>> isinstance(FirstForAll(), Router)
        True
    """

    def route(self, x: Any, context: Any = None) -> RoutingDecision:
        """Decide on every sample of a batch.

        Args:
            x: the network's first input, batch first.
            context: whatever the caller knows beside it.

        Returns:
            A decision for every sample.
        """
        ...
