"""What a router answers."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from rtl_plugin.errors import InvalidArgument


@dataclass(frozen=True)
class RoutingDecision:
    """One ticket a sample, or a weight for every ticket and sample.

    Args:
        indices: integer tensor [B] of positions in the ticket set, or None.
        weights: floating tensor [B, K], rows summing to 1, or None. Exactly one of the two.

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
        if self.indices is not None and not _is_index(self.indices):
            raise InvalidArgument(
                f"routing indices must be an integer tensor [B], got {self.indices.dtype} "
                f"{tuple(self.indices.shape)}"
            )
        if self.weights is not None and not (
            self.weights.dim() == 2 and self.weights.is_floating_point()
        ):
            raise InvalidArgument(
                f"routing weights must be a floating tensor [B, K], got {self.weights.dtype} "
                f"{tuple(self.weights.shape)}"
            )

    @property
    def batch_size(self) -> int:
        """Number of samples decided on."""
        chosen = self.indices if self.indices is not None else self.weights
        assert chosen is not None  # noqa: S101 - __post_init__ has refused neither
        return chosen.shape[0]


def _is_index(tensor: torch.Tensor) -> bool:
    whole = not tensor.is_floating_point() and not tensor.is_complex()
    return tensor.dim() == 1 and whole and tensor.dtype != torch.bool


@runtime_checkable
class Router(Protocol):
    """Decides on the tickets of a batch from its input or its context."""

    def route(self, x: Any, context: Any = None) -> RoutingDecision:
        """Decide on every sample of a batch.

        Args:
            x: the network's first input, batch first.
            context: whatever the caller knows beside it.

        Returns:
            A decision for every sample.
        """
        ...
