"""Checks of the arguments that all constructors of data groups share."""

from numbers import Real
from typing import Any

from torch.utils.data import IterableDataset

from rtl_plugin.errors import InvalidArgument, InvalidGroups


def fraction_of_samples(value: Any, name: str) -> float | None:
    """The fraction that ``validation`` or ``test`` asks for.

    Args:
        value: a number, None for no split, or anything else (another dataset).
        name: the argument's name.

    Returns:
        The fraction in [0, 1), or None where the value is not a number.

    Raises:
        InvalidArgument: a number outside [0, 1), or a bool.

    Example:
        >>> fraction_of_samples(0.1, "validation"), fraction_of_samples([1, 2], "validation")
        (0.1, None)
    """
    if value is None:
        return 0.0
    if not isinstance(value, Real):
        return None
    if isinstance(value, bool) or not 0 <= float(value) < 1:
        raise InvalidArgument(
            f"{name} must be a fraction in [0, 1) of every group's samples or another dataset, "
            f"got {value!r}"
        )
    return float(value)


def size_of_dataset(dataset: Any, name: str) -> int:
    """The number of samples of a map-style dataset, checked.

    Args:
        dataset: what the user passed.
        name: the argument's name.

    Returns:
        ``len(dataset)``, at least 1.

    Raises:
        InvalidArgument: it has no ``__getitem__`` or no length.
        InvalidGroups: it is empty.

    Example:
        >>> size_of_dataset([(0.5, 1), (0.7, 0)], "dataset")
        2
    """
    try:
        size = len(dataset)
    except (TypeError, NotImplementedError):
        size = None
    no_dataset = isinstance(dataset, (IterableDataset, str, bytes, dict, set))
    if size is None or no_dataset or not hasattr(dataset, "__getitem__"):
        raise InvalidArgument(
            f"{name} must be a map-style dataset with len() and integer indexing, got "
            f"{type(dataset).__name__}: for streams, build one loader per group and use "
            "DataGroups.from_loaders"
        )
    if size == 0:
        raise InvalidGroups(f"{name} has no samples, expected at least one")
    return int(size)
