"""One data group: a name and the batches of its splits."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset

from rtl_plugin.data_groups.loading import known_length, number_of_batches, own_generators
from rtl_plugin.errors import InvalidGroups


@dataclass(frozen=True, eq=False)
class DataGroup:
    """The data of one ticket: re-iterables of batches, one for each split.

    Args:
        name: the group's name, which becomes its ticket's name.
        train: training batches; anything that can be iterated again and again.
        validation: validation batches, or None.
        test: test batches, or None.

    Example:
        >>> group = DataGroup("indoor", train=[1, 2], validation=None, test=None)
        >>> group.name, len(list(group.train)), len(list(group.train))
        ('indoor', 2, 2)
    """

    name: str
    train: Iterable[Any]
    validation: Iterable[Any] | None
    test: Iterable[Any] | None

    def loaders(self) -> Iterator[tuple[str, Iterable[Any]]]:
        """The splits that are there.

        Returns:
            Pairs of split name ("train", "validation", "test") and batches.

        Example:
            >>> group = DataGroup("indoor", train=[1, 2], validation=None, test=[3])
            >>> list(group.loaders())
            [('train', [1, 2]), ('test', [3])]
        """
        yield "train", self.train
        if self.validation is not None:
            yield "validation", self.validation
        if self.test is not None:
            yield "test", self.test


def check_names(names: Iterable[Any]) -> None:
    """Refuse group names that are not distinct, non-empty strings.

    Args:
        names: the names, in order.

    Raises:
        InvalidGroups: there is no name, one is not a str, is empty, or comes twice.

    Example:
        >>> check_names(["indoor", "street"])
    """
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            raise InvalidGroups(
                f"group names must be str, got {name!r} of type {type(name).__name__}: "
                f"use {str(name)!r}"
            )
        if not name.strip():
            raise InvalidGroups(f"group names must not be empty, got {name!r}: name every group")
        if name in seen:
            raise InvalidGroups(f"group name {name!r} comes twice: give every group its own name")
        seen.add(name)
    if not seen:
        raise InvalidGroups("expected at least one data group, got none")


def check_groups(groups: Iterable[DataGroup]) -> None:
    """Refuse groups whose loaders are empty or could not be replayed.

    Args:
        groups: the groups, in order.

    Raises:
        InvalidGroups: a loader is not iterable, is a dataset, a one-shot iterator, or empty, has
            persistent workers or unordered ones, or two groups' training loaders share a generator.

    Example:
        >>> check_groups([DataGroup("indoor", train=[1, 2], validation=None, test=None)])
    """
    owners: dict[int, str] = {}
    for group in groups:
        for split, loader in group.loaders():
            _check_loader(loader, f"{split} loader of group {group.name!r}")
        for generator in own_generators(group.train):
            owner = owners.setdefault(id(generator), group.name)
            if owner != group.name:
                raise InvalidGroups(
                    f"the training loaders of groups {owner!r} and {group.name!r} share one "
                    "torch.Generator, so what one group draws would change the other's batches: "
                    "give each loader its own generator, or none"
                )


def _check_loader(loader: Any, what: str) -> None:
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        raise InvalidGroups(
            f"the {what} is a dataset of single samples ({type(loader).__name__}), expected "
            "batches: wrap it in torch.utils.data.DataLoader"
        )
    if isinstance(loader, (str, bytes, torch.Tensor, Mapping)) or not isinstance(loader, Iterable):
        raise InvalidGroups(
            f"the {what} must be a re-iterable of batches such as a DataLoader or a list, "
            f"got {type(loader).__name__}"
        )
    # Only something with __next__ can be its own iterator; calling iter() on anything else would
    # start workers and draw random numbers.
    if hasattr(loader, "__next__") and iter(loader) is loader:
        raise InvalidGroups(
            f"the {what} is a one-shot iterator ({type(loader).__name__}), which is empty after "
            "one pass: pass a DataLoader, a list, or an object whose __iter__ starts anew"
        )
    _check_replayable(loader, what)
    if known_length(loader) == 0:
        number_of_batches(loader, what)


def _check_replayable(loader: Any, what: str) -> None:
    if getattr(loader, "persistent_workers", False):
        raise InvalidGroups(
            f"the {what} has persistent_workers=True; the random state of workers that live on "
            "cannot be re-seeded, so a run could not resume bit-identically: "
            "build the DataLoader with persistent_workers=False"
        )
    if not getattr(loader, "in_order", True) and getattr(loader, "num_workers", 0) > 1:
        raise InvalidGroups(
            f"the {what} has in_order=False with several workers; the order of its batches depends "
            "on timing, so a run could not resume bit-identically: "
            "build the DataLoader with in_order=True"
        )
