"""How weights are ranked: a small contract and three ways to fill it."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch

from rtl_plugin.errors import InvalidArgument

Tensors = Mapping[str, torch.Tensor]


@runtime_checkable
class Importance(Protocol):
    """Ranks weights; a higher score is kept.

    ``needs_gradients`` asks for the mean gradient over one pass of the group's batches at the
    trained weights; otherwise the gradients are an empty mapping.

    Example:
        >>> class Squared:
        ...     needs_gradients = False
        ...
        ...     def scores(self, values, gradients):
        ...         return {name: value.square() for name, value in values.items()}
        >>> isinstance(Squared(), Importance)
        True
    """

    needs_gradients: bool

    def scores(self, values: Tensors, gradients: Tensors) -> Mapping[str, torch.Tensor]:
        """Score every weight.

        Args:
            values: prunable parameter name -> trained values.
            gradients: the same names -> gradients, or empty.

        Returns:
            The same names -> real scores of the parameters' shapes, without NaN.
        """
        ...


class Magnitude:
    """Absolute value of the trained weight.

    Example:
        >>> Magnitude().scores({"w": torch.tensor([-2.0, 1.0])}, {})["w"]
        tensor([2., 1.])

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, Algorithm 1.
    """

    needs_gradients = False

    def scores(self, values: Tensors, gradients: Tensors) -> dict[str, torch.Tensor]:
        """Score every weight by its magnitude."""
        return {name: value.abs() for name, value in values.items()}


class WeightGradient:
    """``abs(weight * gradient)``, the first-order change of the loss when the weight goes.

    Example:
        >>> w = {"w": torch.tensor([2.0, 1.0])}
        >>> WeightGradient().scores(w, {"w": torch.tensor([0.0, -3.0])})["w"]
        tensor([0., 3.])
    """

    needs_gradients = True

    def scores(self, values: Tensors, gradients: Tensors) -> dict[str, torch.Tensor]:
        """Score every weight by the product of weight and gradient."""
        return {name: (value * gradients[name]).abs() for name, value in values.items()}


class Random:
    """Uniform random scores from torch's generator, which discovery seeds for each round.

    Example:
        >>> Random().scores({"w": torch.zeros(3)}, {})["w"].shape
        torch.Size([3])
    """

    needs_gradients = False

    def scores(self, values: Tensors, gradients: Tensors) -> dict[str, torch.Tensor]:
        """Score every weight at random."""
        return {name: torch.rand(value.shape).to(value.device) for name, value in values.items()}


_BY_NAME: Mapping[str, Callable[[], Importance]] = {
    "magnitude": Magnitude,
    "weight_gradient": WeightGradient,
    "random": Random,
}


def importance_from(importance: str | Importance) -> Importance:
    """The importance of a name, or the given object.

    Args:
        importance: ``"magnitude"``, ``"weight_gradient"``, ``"random"``, or an object with
            ``needs_gradients`` and ``scores``.

    Returns:
        An object that fills the contract.

    Raises:
        InvalidArgument: an unknown name, or the object does not fill the contract.

    Example:
        >>> importance_from("magnitude").needs_gradients
        False
    """
    if isinstance(importance, str):
        if importance not in _BY_NAME:
            raise InvalidArgument(
                f"unknown importance {importance!r}: one of {', '.join(_BY_NAME)}, or an object "
                "with needs_gradients and scores(values, gradients)"
            )
        return _BY_NAME[importance]()
    if isinstance(importance, type) or not isinstance(importance, Importance):
        raise InvalidArgument(
            f"importance= takes a name or an object with needs_gradients and scores(values, "
            f"gradients), got {importance!r}"
        )
    return importance


def checked_scores(
    importance: Importance, values: Tensors, gradients: Tensors
) -> dict[str, torch.Tensor]:
    """Call an importance and refuse scores that cannot rank.

    Args:
        importance: fills the contract.
        values: prunable parameter name -> trained values.
        gradients: the same names -> gradients, or empty.

    Returns:
        The scores.

    Raises:
        InvalidArgument: a name is missing, a shape is another, or a score is NaN.
    """
    scores = importance.scores(values, gradients)
    kind = type(importance).__name__
    if not isinstance(scores, Mapping):
        raise InvalidArgument(f"{kind}.scores must return name -> tensor, got {scores!r}")
    for name, value in values.items():
        given = scores.get(name)
        if not isinstance(given, torch.Tensor) or given.shape != value.shape:
            came = tuple(given.shape) if isinstance(given, torch.Tensor) else given
            raise InvalidArgument(
                f"{kind} must give {name!r} a tensor of shape {tuple(value.shape)}, got {came!r}"
            )
        if bool(torch.isnan(scores[name]).any()):
            raise InvalidArgument(f"{kind} gave NaN scores for {name!r}: they cannot rank weights")
    return {name: scores[name].detach() for name in values}


def describe_importance(importance: str | Importance) -> dict[str, str]:
    """Class and settings of an importance, for comparing runs.

    Args:
        importance: as for :func:`importance_from`.

    Returns:
        ``class`` and one entry an attribute, as text.

    Example:
        >>> describe_importance("magnitude")
        {'class': 'rtl_plugin.discovery.importance.Magnitude'}
    """
    found = importance_from(importance)
    settings = {
        key: repr(value)
        for key, value in sorted(getattr(found, "__dict__", {}).items())
        if isinstance(value, (str, int, float, bool, tuple, list, dict, type(None)))
    }
    return {"class": f"{type(found).__module__}.{type(found).__qualname__}", **settings}
