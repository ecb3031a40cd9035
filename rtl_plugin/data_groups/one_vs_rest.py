"""A group against the rest: balanced training batches, held-out samples as they come."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from rtl_plugin.data_groups.building import LoaderOptions, check_enough
from rtl_plugin.data_groups.group import DataGroup
from rtl_plugin.data_groups.splits import Split, Splits
from rtl_plugin.errors import InvalidArgument, InvalidGroups
from rtl_plugin.randomness import forked


class OneVsRest(Dataset[tuple[Any, torch.Tensor]]):
    """A dataset whose target says whether the sample is in one group.

    Args:
        dataset: map-style; a sample is ``(x, y)``, or ``x`` alone where labels came apart from it.
        positives: indices of the group's samples, int64 [n].
        size: the number of samples.

    Example:
        >>> OneVsRest([("x", 7), ("z", 3)], torch.tensor([1]), 2)[1]
        ('z', tensor(1.))
    """

    def __init__(self, dataset: Any, positives: torch.Tensor, size: int) -> None:
        self.dataset = dataset
        self.targets = torch.zeros(size, dtype=torch.float32)
        self.targets[positives] = 1.0

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, torch.Tensor]:
        return input_of(self.dataset[index], index), self.targets[index]


def input_of(sample: Any, index: int) -> Any:
    """The network's input in a sample.

    Args:
        sample: ``(x, y)``, ``(x,)``, or ``x`` itself where it is not a tuple or list.
        index: the sample's index, for the message.

    Returns:
        x, of any nesting.

    Raises:
        InvalidGroups: the sample is a tuple or list of more than two parts.

    Example:
        >>> input_of(("x", 3), 0)
        'x'
    """
    if not isinstance(sample, (tuple, list)):
        return sample
    if not 1 <= len(sample) <= 2:
        raise InvalidGroups(
            f'sample {index} has {len(sample)} parts; negatives="balanced" replaces y, so it needs '
            "(x, y): return several inputs as one, ((a, b), y), or use negatives=None"
        )
    return sample[0]


def collate_pairs(samples: list[tuple[Any, torch.Tensor]]) -> tuple[Any, torch.Tensor]:
    """Collate ``(x, y)`` samples into a tuple.

    Args:
        samples: pairs of an input of any nesting and a float32 scalar.

    Returns:
        ``(x, y)`` with y float32 [B].

    Example:
        >>> collate_pairs([(1, torch.tensor(1.0)), (2, torch.tensor(0.0))])
        (tensor([1, 2]), tensor([1., 0.]))
    """
    inputs, targets = zip(*samples, strict=True)
    return default_collate(list(inputs)), torch.stack(targets)


class BalancedBatches:
    """A batch sampler: half of every batch from the group, half from the rest, in random order.

    An epoch passes over the group once; the rest is drawn anew every epoch, without replacement
    for as long as there are samples left (Stefański, Presta, Byra, Routing the Lottery,
    arXiv 2601.22141, appendix A.2).

    Args:
        positives: indices of the group's samples, int64 [n].
        negatives: indices of all other samples, int64 [m].
        half: samples from each side in a full batch; the last batch may be smaller, yet balanced.

    Example:
        >>> sampler = BalancedBatches(torch.arange(3), torch.arange(3, 9), half=2)
        >>> [len(batch) for batch in sampler]
        [4, 2]
    """

    def __init__(self, positives: torch.Tensor, negatives: torch.Tensor, half: int) -> None:
        self.positives = positives
        self.negatives = negatives
        self.half = half

    def __len__(self) -> int:
        return math.ceil(len(self.positives) / self.half)

    def __iter__(self) -> Iterator[list[int]]:
        # One draw from the global generator an epoch, as in torch's RandomSampler: what training
        # draws between batches then changes nothing here, with or without workers.
        seed = int(torch.empty((), dtype=torch.int64).random_().item())
        own = torch.Generator().manual_seed(seed)
        count = len(self.positives)
        positives = self.positives[torch.randperm(count, generator=own)]
        rounds = math.ceil(count / len(self.negatives))
        orders = [torch.randperm(len(self.negatives), generator=own) for _ in range(rounds)]
        negatives = self.negatives[torch.cat(orders)[:count]]
        for start in range(0, count, self.half):
            stop = start + self.half
            batch = torch.cat((positives[start:stop], negatives[start:stop]))
            yield batch[torch.randperm(len(batch), generator=own)].tolist()


def one_vs_rest_groups(splits: Splits, options: LoaderOptions) -> list[DataGroup]:
    """One group for each name, each against all others.

    Args:
        splits: the samples of every group.
        options: how to build the loaders; the batch size must be even.

    Returns:
        The groups, in the order of the training split. Training batches are balanced; validation
        and test batches pass over all samples of their split.

    Raises:
        InvalidArgument: the batch size is odd.
        InvalidGroups: there is one group only, or one has less than half a batch to train on.

    Example:
        >>> members = {"a": torch.arange(2), "b": torch.arange(2, 5)}
        >>> splits = Splits(Split([(0.5, "y")] * 5, members), None, None)
        >>> groups = one_vs_rest_groups(splits, LoaderOptions(batch_size=4, num_workers=0))
        >>> [len(group.train) for group in groups]
        [1, 2]
    """
    half, odd = divmod(options.batch_size, 2)
    if odd:
        raise InvalidArgument(
            f'negatives="balanced" takes half of every batch from the group, so batch_size must '
            f"be even, got {options.batch_size}"
        )
    if len(splits.train.members) == 1:
        (name,) = splits.train.members
        raise InvalidGroups(
            f'group {name!r} is the only one, so negatives="balanced" has nothing to draw from: '
            "use negatives=None"
        )
    check_enough(
        splits.train, half, f'half of batch_size={options.batch_size}, negatives="balanced"'
    )
    for split in (splits.train, splits.validation, splits.test):
        _check_form(split)
    return [
        DataGroup(
            name,
            train=_balanced(splits.train, name, options, half),
            validation=_against_all(splits.validation, name, options),
            test=_against_all(splits.test, name, options),
        )
        for name in splits.train.members
    ]


def _check_form(split: Split | None) -> None:
    if split is not None:
        first = int(split.everyone()[0])
        with forked(0):  # reading may augment at random, which must not shift the caller's streams
            input_of(split.dataset[first], first)


def _balanced(split: Split, name: str, options: LoaderOptions, half: int) -> Iterable[Any]:
    dataset = _one_vs_rest(split, name)
    others = [indices for other, indices in split.members.items() if other != name]
    sampler = BalancedBatches(split.members[name], torch.cat(others).sort().values, half)
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=options.num_workers,
        collate_fn=collate_pairs,
    )


def _against_all(split: Split | None, name: str, options: LoaderOptions) -> Iterable[Any] | None:
    if split is None:
        return None
    return options.ordered(_one_vs_rest(split, name), split.everyone(), collate_pairs)


def _one_vs_rest(split: Split, name: str) -> OneVsRest:
    return OneVsRest(split.dataset, split.members[name], len(split.dataset))
