"""Balanced batches: smaller groups are cycled, each with random streams of its own."""

from itertools import islice
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from rtl_plugin import DataGroups
from rtl_plugin.data_groups.cycling import cycled
from rtl_plugin.errors import InvalidGroups
from rtl_plugin.joint_training.group_batches import GroupBatches, balanced_length
from rtl_plugin.randomness import forked
from tests.discovery.setups import MLP, built, cross_entropy, random_tickets
from tests.joint_training.setups import trained


def test_the_largest_group_sets_the_length() -> None:
    assert balanced_length(DataGroups.from_loaders({"a": [1, 2], "b": [1, 2, 3], "c": [1]})) == 3


class Unsized:
    def __init__(self, *batches: Any) -> None:
        self._batches = batches

    def __iter__(self) -> Any:
        return iter(self._batches)


def test_a_loader_without_a_length_is_counted() -> None:
    groups = DataGroups.from_loaders({"a": Unsized(1, 2, 3, 4), "b": [1]})
    assert balanced_length(groups) == 4
    with pytest.raises(InvalidGroups, match="is empty, expected at least one batch"):
        balanced_length(DataGroups.from_loaders({"a": Unsized()}))


def test_cycling_starts_the_loader_again() -> None:
    assert list(islice(cycled([1, 2, 3], seed=0), 8)) == [1, 2, 3, 1, 2, 3, 1, 2]
    with pytest.raises(InvalidGroups, match="pass 1 over a loader gave no batch: is it one-shot"):
        next(cycled(Unsized(), seed=0))


@pytest.mark.parametrize("own", [False, True], ids=["global", "own generator"])
def test_every_pass_shuffles_anew_and_repeatably(own: bool) -> None:
    loader = DataLoader(range(20), batch_size=20, shuffle=True,
                        generator=torch.Generator() if own else None)  # fmt: skip

    def passes(seed: int) -> list[list[int]]:
        with forked(seed):
            return [batch.tolist() for batch in islice(cycled(loader, seed), 3)]

    first = passes(1)
    assert all(sorted(batch) == list(range(20)) for batch in first)
    assert len({tuple(batch) for batch in first}) == 3
    assert passes(1) == first
    assert passes(2) != first


def test_a_groups_batches_depend_on_seed_epoch_and_name_alone() -> None:
    loader = DataLoader(range(8), batch_size=4, shuffle=True)
    alone = DataGroups.from_loaders({"a": loader})
    both = DataGroups.from_loaders({"b": DataLoader(range(9), batch_size=3, shuffle=True),
                                    "a": loader})  # fmt: skip

    def drawn(groups: DataGroups, seed: int, epoch: int, disturb: bool) -> list[Any]:
        batches, result = GroupBatches(groups, "a", seed, epoch), []
        for _ in range(4):
            if disturb:
                torch.rand(3)
            with batches.stream:
                result.append((batches.next().tolist(), torch.rand(()).item()))
        return result

    expected = drawn(alone, 0, 1, False)
    assert drawn(both, 0, 1, True) == expected
    assert drawn(alone, 1, 1, False) != expected
    assert drawn(alone, 0, 2, False) != expected


def test_the_streams_leave_the_callers_alone() -> None:
    batches = GroupBatches(DataGroups.from_loaders({"a": [1]}), "a", 0, 1)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = torch.rand(1)
    with batches.stream:
        batches.next()
        torch.rand(10)
    assert torch.equal(torch.cat((first, torch.rand(1))), expected)


def test_an_epoch_gives_every_group_as_many_batches_in_turn() -> None:
    order: list[tuple[str, int]] = []
    batch = (torch.randn(4, 5), torch.tensor([0, 1, 2, 0]))
    data = {"a": [(*batch, "a", k) for k in range(3)], "b": [(*batch, "b", 0)]}

    def loss(view: Any, given: Any) -> torch.Tensor:
        order.append((given[2], given[3]))
        return cross_entropy(view, given)

    model = built(MLP)
    trained(model, random_tickets(model), DataGroups.from_loaders(data), loss)
    epoch = [("a", 0), ("b", 0), ("a", 1), ("b", 0), ("a", 2), ("b", 0)]
    assert order == epoch * 2


def test_batches_per_epoch_overrides_the_length() -> None:
    order: list[int] = []
    batch = (torch.randn(4, 5), torch.tensor([0, 1, 2, 0]))

    def loss(view: Any, given: Any) -> torch.Tensor:
        order.append(given[2])
        return cross_entropy(view, given)

    model = built(MLP)
    groups = DataGroups.from_loaders({"a": [(*batch, k) for k in range(3)]})
    report = trained(model, random_tickets(model, "a"), groups, loss, batches_per_epoch=2)
    assert order == [0, 1, 0, 1], "an epoch starts the loader from its start"
    assert report.batches_per_epoch == 2


def test_a_data_loader_with_workers_gives_the_same_batches() -> None:
    def weights(workers: int) -> torch.Tensor:
        torch.manual_seed(0)
        data = torch.utils.data.TensorDataset(torch.randn(8, 5), torch.arange(8) % 3)
        groups = DataGroups.from_loaders(
            {"a": DataLoader(data, batch_size=4, shuffle=True, num_workers=workers)}
        )
        model = built(MLP)
        trained(model, random_tickets(model, "a"), groups)
        return model[0].weight.detach()

    assert torch.equal(weights(0), weights(2))
