"""Groups by metadata: a function of the sample names its group."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from rtl_plugin.data_groups.checks import size_of_dataset
from rtl_plugin.data_groups.group import check_names
from rtl_plugin.data_groups.splits import Split, members_of
from rtl_plugin.errors import InvalidArgument, InvalidGroups
from rtl_plugin.randomness import forked


class MetadataGroups:
    """Sorts samples into groups by what a function says of each.

    Args:
        key: sample -> group name; converted with ``str``.
        names: the allowed names, in order, or None to take the sorted names found first.

    Raises:
        InvalidArgument: ``key`` is not callable.
        InvalidGroups: a name is not a distinct non-empty str.

    Example:
        >>> by_parity = MetadataGroups(lambda sample: sample % 2)
        >>> by_parity.assign([4, 7, 9], "training").members
        {'0': tensor([0]), '1': tensor([1, 2])}
    """

    def __init__(self, key: Callable[[Any], Any], names: Iterable[str] | None = None) -> None:
        if not callable(key):
            raise InvalidArgument(
                f"key must be a function of a sample, got {key!r}: "
                f"for example key=lambda sample: sample[{key!r}]"
            )
        if isinstance(names, str):
            raise InvalidArgument(f"names must be a list of names, got {names!r}: use [{names!r}]")
        self.key = key
        self.names = None if names is None else tuple(names)
        if self.names is not None:
            check_names(self.names)

    def assign(self, dataset: Any, split: str) -> Split:
        """Sort a dataset's samples into the groups.

        Args:
            dataset: map-style; every sample is read once.
            split: what to call it in an error.

        Returns:
            The split.

        Raises:
            InvalidArgument: it is not a map-style dataset.
            InvalidGroups: it is empty, a sample is in no group or in one not allowed, or a group
                has no sample.

        Example:
            >>> MetadataGroups(str.upper, names=["B", "A"]).assign("a b".split(), "test").members
            {'B': tensor([1]), 'A': tensor([0])}
        """
        size = size_of_dataset(dataset, "dataset" if split == "training" else split)
        with forked(0):  # reading may augment at random, which must not shift the caller's streams
            assigned = [self._name_of(dataset[index], index, split) for index in range(size)]
        if self.names is None:
            found = tuple(sorted(set(assigned)))
            check_names(found)
            self.names = found
        return Split(dataset, members_of(assigned, self.names, split))

    def _name_of(self, sample: Any, index: int, split: str) -> str:
        found = self.key(sample)
        if isinstance(found, (torch.Tensor, np.ndarray, np.generic)):
            found = found.item() if np.prod(found.shape) == 1 else found.tolist()
        if found is None or found != found:
            raise InvalidGroups(
                f"{split} sample {index} is in no group: key returned {found!r}, expected a name; "
                "give the sample a group, or drop it"
            )
        return str(found)
