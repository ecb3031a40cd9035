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
        confidence: floating tensor [B], higher is surer, or None. Its scale is the router's.
        fallback: bool tensor [B], True for samples that no ticket knows, or None where the router
            does not ask. A mixture then needs ``fallback=``.

    Raises:
        InvalidArgument: both or neither of indices and weights are given, or a shape or dtype is
            wrong.

    Example:
        >>> RoutingDecision(indices=torch.tensor([0, 1])).batch_size
        2
    """

    indices: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    confidence: torch.Tensor | None = None
    fallback: torch.Tensor | None = None

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
        rows = (self.batch_size,)
        if self.confidence is not None and not (
            isinstance(self.confidence, torch.Tensor)
            and self.confidence.is_floating_point()
            and self.confidence.shape == rows
        ):
            raise InvalidArgument(
                f"routing confidence must be a floating tensor [{rows[0]}], got "
                f"{_described(self.confidence)}"
            )
        if self.fallback is not None and not (
            isinstance(self.fallback, torch.Tensor)
            and self.fallback.dtype == torch.bool
            and self.fallback.shape == rows
        ):
            raise InvalidArgument(
                f"routing fallback must be a bool tensor [{rows[0]}], got "
                f"{_described(self.fallback)}"
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


@runtime_checkable
class OutputRouter(Protocol):
    """Decides from the outputs of all tickets, where there is no context to decide from.

    A mixture runs every ticket once, hands the outputs to ``decide`` and answers with rows of
    those very outputs. ``route`` of such a router raises and says so.

    Example:
        >>> class LargestFirstLogit:
        ...     def route(self, x, context=None):
        ...         raise refuse_route(self)
        ...     def decide(self, outputs, context=None):
        ...         return RoutingDecision(indices=outputs[:, :, 0].argmax(dim=1))
        >>> needs_outputs(LargestFirstLogit())
        True
    """

    def route(self, x: Any, context: Any = None) -> RoutingDecision:
        """Raise :func:`refuse_route`: the input alone decides nothing.

        Args:
            x: the network's first input.
            context: whatever the caller knows beside it.
        """
        ...

    def decide(self, outputs: torch.Tensor, context: Any = None) -> RoutingDecision:
        """Decide on every sample of a batch.

        Args:
            outputs: floating tensor [B, K, C], the outputs of all tickets in their order.
            context: whatever the caller knows beside it.

        Returns:
            A decision for every sample.
        """
        ...


def needs_outputs(router: Any) -> bool:
    """Whether a router decides from outputs rather than from the input.

    Args:
        router: any router. One that wraps another says it by an attribute ``needs_outputs``.

    Returns:
        True where ``decide`` is to be called, False where ``route`` is.

    Example:
        >>> needs_outputs(object())
        False
    """
    told = getattr(router, "needs_outputs", None)
    return bool(told) if told is not None else isinstance(router, OutputRouter)


def refuse_route(router: Any) -> InvalidArgument:
    """The error that an output router raises from ``route``.

    Args:
        router: the router.

    Returns:
        The error, to be raised.

    Example:
        >>> str(refuse_route(object()))[:48]
        'object decides from the outputs of all tickets, '
    """
    return InvalidArgument(
        f"{type(router).__name__} decides from the outputs of all tickets, not from the input: "
        "give it to a mixture, which runs every ticket and calls decide(outputs)"
    )


def refuse_decide(router: Any) -> InvalidArgument:
    """The error of a wrapper whose inner router decides from the input.

    Args:
        router: the wrapper.

    Returns:
        The error, to be raised.

    Example:
        >>> str(refuse_decide(object()))[:44]
        'object decides from the input here, not from'
    """
    return InvalidArgument(
        f"{type(router).__name__} decides from the input here, not from outputs: call route(x)"
    )
