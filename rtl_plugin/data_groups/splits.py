"""Training, validation and test samples of every group."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from rtl_plugin.arguments import whole_number
from rtl_plugin.data_groups.checks import fraction_of_samples
from rtl_plugin.errors import InvalidArgument, InvalidGroups
from rtl_plugin.randomness import derived_seed

Members = dict[str, torch.Tensor]
"""Group name -> indices of its samples in a dataset, int64 [n], ascending."""


@dataclass(frozen=True)
class Split:
    """Samples of one dataset, by group."""

    dataset: Any
    members: Members

    def everyone(self) -> torch.Tensor:
        """The indices of all groups' samples, int64 [n], ascending."""
        return torch.cat(list(self.members.values())).sort().values


@dataclass(frozen=True)
class Splits:
    """The three splits; None where none was asked for."""

    train: Split
    validation: Split | None
    test: Split | None


def members_of(assigned: list[str], names: tuple[str, ...], split: str) -> Members:
    """Collect the samples of every group.

    Args:
        assigned: the group name of every sample.
        names: the groups, in order.
        split: what to call these samples in an error, for example "training".

    Returns:
        Group name -> ascending indices, int64.

    Raises:
        InvalidGroups: a group has no sample, or a sample names another group.

    Example:
        >>> members_of(["b", "a", "b"], ("a", "b"), "training")
        {'a': tensor([1]), 'b': tensor([0, 2])}
    """
    indices: dict[str, list[int]] = {name: [] for name in names}
    for index, name in enumerate(assigned):
        if name not in indices:
            raise InvalidGroups(
                f"{split} sample {index} is in group {name!r}, which is not one of the groups "
                f"{list(names)}: add the group, or drop the sample"
            )
        indices[name].append(index)
    for name, found in indices.items():
        if not found:
            raise InvalidGroups(
                f"group {name!r} has no {split} samples, expected at least one: "
                "drop the group or give it data"
            )
    return {name: torch.tensor(found, dtype=torch.int64) for name, found in indices.items()}


def make_splits(
    dataset: Any,
    members: Members,
    *,
    validation: Any,
    test: Any,
    seed: Any,
    assign: Callable[[Any, str], Split],
) -> Splits:
    """Set validation and test samples apart, group by group.

    Args:
        dataset: the dataset that the members index.
        members: all its samples, by group.
        validation: a fraction in [0, 1) of every group's samples, None, or another dataset.
        test: as ``validation``.
        seed: names the random choice; torch's global generator is not used.
        assign: sorts another dataset's samples into the groups, given the split's name.

    Returns:
        The splits. A positive fraction gives at least one sample of every group.

    Raises:
        InvalidArgument: a fraction is outside [0, 1), or both leave nothing, or a bad seed.
        InvalidGroups: a group has too few samples to train on any.
    """
    seed = whole_number("seed", seed, least=0)
    held_out = (
        fraction_of_samples(validation, "validation"),
        fraction_of_samples(test, "test"),
    )
    fractions = tuple(fraction or 0.0 for fraction in held_out)
    if sum(fractions) >= 1:
        raise InvalidArgument(
            f"validation={fractions[0]} and test={fractions[1]} leave nothing to train on: "
            "their sum must be below 1"
        )
    train: Members = {}
    parts: tuple[Members, Members] = ({}, {})
    for name, indices in members.items():
        train[name], *rest = _cut(name, indices, fractions, derived_seed(seed, "split", name))
        for part, chosen in zip(parts, rest, strict=True):
            part[name] = chosen

    def finished(position: int, given: Any, split: str) -> Split | None:
        if held_out[position] is None:
            return assign(given, split)
        return Split(dataset, parts[position]) if fractions[position] else None

    return Splits(
        Split(dataset, train), finished(0, validation, "validation"), finished(1, test, "test")
    )


def _cut(
    name: str, indices: torch.Tensor, fractions: tuple[float, ...], seed: int
) -> list[torch.Tensor]:
    total = len(indices)
    sizes = [max(1, math.floor(part * total + 0.5)) if part else 0 for part in fractions]
    if sum(sizes) >= total:
        raise InvalidGroups(
            f"group {name!r} has {total} samples; {sizes[0]} for validation and {sizes[1]} for "
            "test leave none to train on: give it more data, or validation=0 and test=0"
        )
    order = indices[torch.randperm(total, generator=torch.Generator().manual_seed(seed))]
    # Ascending again, so that nothing but the choice itself depends on the permutation.
    return [part.sort().values for part in order.split([total - sum(sizes), *sizes])]
