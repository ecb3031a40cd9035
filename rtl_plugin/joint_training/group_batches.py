"""Balanced batches: every group gives as many as the largest."""

from collections.abc import Iterator
from typing import Any

from rtl_plugin.data_groups import DataGroups
from rtl_plugin.data_groups.cycling import cycled
from rtl_plugin.data_groups.loading import number_of_batches
from rtl_plugin.randomness import RandomStream, derived_seed


def balanced_length(groups: DataGroups) -> int:
    """Batches that every group gives in an epoch: the most that any group has.

    Args:
        groups: the data groups.

    Returns:
        ``M = max_k M_k``.

    Raises:
        InvalidGroups: a group has no batches.

    Example:
        >>> balanced_length(DataGroups.from_loaders({"a": [1, 2, 3], "b": [1]}))
        3

    Source:
        Stefański, Presta, Byra, arXiv 2601.22141, Algorithm 2.
    """
    return max(number_of_batches(group.train) for group in groups.values())


class GroupBatches:
    """One group's batches of one epoch, drawn and trained on inside its own random stream.

    Args:
        groups: the data groups.
        name: which group.
        seed: of the run.
        epoch: counted from 1.

    Example:
        >>> groups = DataGroups.from_loaders({"a": [1, 2], "b": [3]})
        >>> batches = GroupBatches(groups, "b", seed=0, epoch=1)
        >>> with batches.stream:
        ...     batches.next(), batches.next()
        (3, 3)
    """

    def __init__(self, groups: DataGroups, name: str, seed: int, epoch: int) -> None:
        self.stream = RandomStream(derived_seed(seed, "retrain", epoch, name))
        loader_seed = derived_seed(seed, "retrain loader", epoch, name)
        self._batches: Iterator[Any] = cycled(groups[name].train, loader_seed)

    def next(self) -> Any:
        """The next batch, starting the group's loader again when it has run out."""
        return next(self._batches)
