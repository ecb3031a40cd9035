"""Loaders of groups and of all their samples together, from splits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from rtl_plugin.arguments import whole_number
from rtl_plugin.data_groups.group import DataGroup
from rtl_plugin.data_groups.splits import Split, Splits
from rtl_plugin.errors import InvalidGroups


@dataclass(frozen=True)
class LoaderOptions:
    """How all loaders of one set of groups are built.

    Args:
        batch_size: samples in a batch, at least 1.
        num_workers: worker processes of every loader, at least 0.

    Raises:
        InvalidArgument: a value is not an integer or too small.

    Example:
        >>> options = LoaderOptions(batch_size=2, num_workers=0)
        >>> [batch.tolist() for batch in options.ordered([5, 6, 7], torch.arange(3))]
        [[5, 6], [7]]
    """

    batch_size: int
    num_workers: int

    def __post_init__(self) -> None:
        whole_number("batch_size", self.batch_size, least=1)
        whole_number("num_workers", self.num_workers, least=0)

    def shuffled(self, dataset: Any, indices: torch.Tensor) -> Iterable[Any]:
        """Batches of some samples, in a new order every epoch."""
        return self._loader(dataset, indices, shuffle=True)

    def ordered(
        self, dataset: Any, indices: torch.Tensor, collate: Callable[[Any], Any] | None = None
    ) -> Iterable[Any]:
        """Batches of some samples, in their order."""
        return self._loader(dataset, indices, shuffle=False, collate=collate)

    def _loader(
        self,
        dataset: Any,
        indices: torch.Tensor,
        *,
        shuffle: bool,
        collate: Callable[[Any], Any] | None = None,
    ) -> Iterable[Any]:
        return DataLoader(
            Subset(dataset, indices.tolist()),
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            collate_fn=collate,
        )


def check_enough(train: Split, needed: int, reason: str) -> None:
    """Refuse groups with fewer training samples than one batch takes from them.

    Args:
        train: the training split.
        needed: samples of a group in one full batch.
        reason: what needs them, for the message.

    Raises:
        InvalidGroups: a group has fewer.

    Example:
        >>> check_enough(Split(None, {"a": torch.arange(4)}), 4, "batch_size=4")
    """
    for name, indices in train.members.items():
        if len(indices) < needed:
            raise InvalidGroups(
                f"group {name!r} has {len(indices)} training samples, fewer than the {needed} of "
                f"one batch ({reason}): use a smaller batch_size or smaller validation and test "
                "shares, or merge the group with another"
            )


def plain_groups(splits: Splits, options: LoaderOptions) -> list[DataGroup]:
    """One group for each name, of its own samples as the dataset gives them.

    Args:
        splits: the samples of every group.
        options: how to build the loaders.

    Returns:
        The groups, in the order of the training split.

    Raises:
        InvalidGroups: a group has fewer training samples than a batch.

    Example:
        >>> splits = Splits(Split([5, 6, 7], {"a": torch.arange(3)}), None, None)
        >>> [group.name for group in plain_groups(splits, LoaderOptions(2, 0))]
        ['a']
    """
    check_enough(splits.train, options.batch_size, f"batch_size={options.batch_size}")
    return [_group(name, splits, options, partial(_members, name)) for name in splits.train.members]


def pooled_group(splits: Splits, options: LoaderOptions) -> DataGroup:
    """One group named "all" of all groups' samples as the dataset gives them.

    Args:
        splits: the samples of every group.
        options: how to build the loaders.

    Returns:
        The group.

    Example:
        >>> members = {"a": torch.tensor([0]), "b": torch.tensor([2])}
        >>> splits = Splits(Split([5, 6, 7], members), None, None)
        >>> sorted(torch.cat(list(pooled_group(splits, LoaderOptions(1, 0)).train)).tolist())
        [5, 7]
    """
    return _group("all", splits, options, Split.everyone)


def _members(name: str, split: Split) -> torch.Tensor:
    return split.members[name]


def _group(
    name: str,
    splits: Splits,
    options: LoaderOptions,
    choose: Callable[[Split], torch.Tensor],
) -> DataGroup:
    def held_out(split: Split | None) -> Iterable[Any] | None:
        return None if split is None else options.ordered(split.dataset, choose(split))

    return DataGroup(
        name,
        train=options.shuffled(splits.train.dataset, choose(splits.train)),
        validation=held_out(splits.validation),
        test=held_out(splits.test),
    )
