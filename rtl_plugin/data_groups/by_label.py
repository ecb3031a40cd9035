"""Groups by label: which samples belong to which group of labels."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset, TensorDataset

from rtl_plugin.data_groups.checks import size_of_dataset
from rtl_plugin.data_groups.group import check_names
from rtl_plugin.data_groups.splits import Members, Split, members_of
from rtl_plugin.errors import InvalidArgument, InvalidGroups
from rtl_plugin.randomness import forked


class LabelGroups:
    """Which labels make up which group.

    Args:
        groups: group name -> labels, or None for one group per label, sorted, named ``str(label)``.
        labels: the labels of the training dataset, which the default is made from.

    Raises:
        InvalidArgument: ``groups`` is not a mapping to lists of labels.
        InvalidGroups: a name is not a distinct non-empty str, a label is in two groups, or labels
            cannot be sorted.

    Example:
        >>> LabelGroups(None, [3, 1, 3]).names
        ('1', '3')
        >>> LabelGroups({"odd": [1, 3], "even": [2]}, [1, 2, 3]).names
        ('odd', 'even')
    """

    def __init__(self, groups: Mapping[str, Iterable[Any]] | None, labels: list[Any]) -> None:
        mapping = _one_per_label(labels) if groups is None else _checked_mapping(groups)
        check_names(mapping)
        self.names = tuple(mapping)
        self._group_of: dict[Any, str] = {}
        for name, wanted in mapping.items():
            for label in wanted:
                if self._group_of.setdefault(label, name) != name:
                    raise InvalidGroups(
                        f"label {label!r} is in two groups, {self._group_of[label]!r} and "
                        f"{name!r}: every label belongs to one group"
                    )

    def members(self, labels: list[Any], split: str) -> Members:
        """The samples of every group.

        Args:
            labels: the label of every sample.
            split: what to call these samples in an error.

        Returns:
            Group name -> ascending indices, int64.

        Raises:
            InvalidGroups: a label is in no group, or a group has no sample.

        Example:
            >>> LabelGroups(None, [3, 1]).members([3, 1, 1], "training")
            {'1': tensor([1, 2]), '3': tensor([0])}
        """
        for index, label in enumerate(labels):
            if label not in self._group_of:
                raise InvalidGroups(
                    f"label {label!r} of {split} sample {index} is in none of the groups "
                    f"{list(self.names)}: add it to a group, or drop its samples"
                )
        return members_of([self._group_of[label] for label in labels], self.names, split)

    def assign(self, dataset: Any, split: str) -> Split:
        """Sort another dataset's samples into the same groups.

        Args:
            dataset: map-style, with labels where :func:`labels_of` finds them.
            split: the argument it came in, "validation" or "test".

        Returns:
            The split.

        Raises:
            InvalidArgument: it is not a map-style dataset.
            InvalidGroups: it is empty, has no labels, a label is in no group, or a group is empty.

        Example:
            >>> LabelGroups(None, [3, 1]).assign([("x", 1), ("z", 3)], "test").members
            {'1': tensor([0]), '3': tensor([1])}
        """
        return Split(dataset, self.members(labels_of(dataset, None, split), split))


def labels_of(dataset: Any, labels: Any, name: str = "dataset") -> list[Any]:
    """The label of every sample, as hashable Python values.

    Args:
        dataset: map-style; without ``labels``, they come from its ``targets``, its ``labels``, the
            second tensor of a TensorDataset, or else the second part of every sample.
        labels: a sequence, array or tensor [N], or None.
        name: the dataset's argument name.

    Returns:
        A list of N labels.

    Raises:
        InvalidArgument: the dataset is not map-style.
        InvalidGroups: there are no labels, their number is not N, they are not one value a sample,
            or one is missing (None or NaN).

    Example:
        >>> labels_of([("x", 1), ("z", torch.tensor(3))], None)
        [1, 3]
    """
    size = size_of_dataset(dataset, name)
    if labels is not None:
        return _checked(labels, size, "labels")
    return _checked(_found_labels(dataset, size, name), size, f"the labels of {name}")


def _found_labels(dataset: Any, size: int, name: str) -> Any:
    for attribute in ("targets", "labels"):
        found = getattr(dataset, attribute, None)
        if found is not None and not callable(found):
            return found
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return dataset.tensors[1]
    if type(dataset) is Subset:  # saves decoding every image; a subclass may change its samples
        indices = list(dataset.indices)
        whole = size_of_dataset(dataset.dataset, name)
        below = _values(_found_labels(dataset.dataset, whole, name), f"the labels of {name}")
        return [below[index] for index in indices]
    return list(_second_parts(dataset, size, name))


def _second_parts(dataset: Any, size: int, name: str) -> Iterator[Any]:
    with forked(0):  # reading may augment at random, which must not shift the caller's streams
        samples = [_second(dataset[index], index, name) for index in range(size)]
    return iter(samples)


def _second(sample: Any, index: int, name: str) -> Any:
    if not isinstance(sample, (tuple, list)) or len(sample) < 2:
        raise InvalidGroups(
            f"sample {index} of {name} is not a pair (x, y) but {type(sample).__name__}, so it has "
            "no label: pass labels=, or a dataset with targets"
        )
    return sample[1]


def _values(labels: Any, what: str) -> list[Any]:
    if getattr(labels, "ndim", 1) != 1:
        raise InvalidGroups(
            f"{what} must be one value a sample, got shape {tuple(labels.shape)}: "
            "flatten them, or take the argmax of one-hot labels"
        )
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Iterable):
        raise InvalidGroups(f"{what} must be a sequence of labels, got {type(labels).__name__}")
    listed = labels.tolist() if hasattr(labels, "tolist") else labels
    return [_plain(label) for label in listed]


def _plain(label: Any) -> Any:
    if isinstance(label, (torch.Tensor, np.ndarray, np.generic)) and np.prod(label.shape) == 1:
        return label.item()
    return label


def _checked(labels: Any, size: int, what: str) -> list[Any]:
    values = _values(labels, what)
    if len(values) != size:
        raise InvalidGroups(
            f"{what} must be one for each of the {size} samples, got {len(values)}: pass labels="
        )
    for index, value in enumerate(values):
        if isinstance(value, (torch.Tensor, np.ndarray, list, dict, set)):
            raise InvalidGroups(
                f"the label of sample {index} is not a single value but {value!r}: "
                "pass labels= with one label a sample"
            )
        if value is None or value != value:
            raise InvalidGroups(
                f"sample {index} is in no group, its label is {value!r}: label it or drop it"
            )
    return values


def _one_per_label(labels: list[Any]) -> dict[str, list[Any]]:
    try:
        distinct = sorted(set(labels))
    except TypeError as error:
        kinds = sorted({type(label).__name__ for label in labels})
        raise InvalidGroups(
            f"labels of types {kinds} cannot be sorted into groups: pass groups="
        ) from error
    return {str(label): [label] for label in distinct}


def _checked_mapping(groups: Any) -> dict[str, list[Any]]:
    if not isinstance(groups, Mapping):
        raise InvalidArgument(
            f"groups must map group names to lists of labels, got {type(groups).__name__}"
        )
    for name, wanted in groups.items():
        if isinstance(wanted, (str, bytes, Mapping)) or not isinstance(wanted, Iterable):
            raise InvalidArgument(
                f"groups[{name!r}] must be a list of labels, got {wanted!r}: use [{wanted!r}]"
            )
    return {name: _values(wanted, f"groups[{name!r}]") for name, wanted in groups.items()}
