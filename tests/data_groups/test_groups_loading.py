"""Iterating loaders from their start: counting, own generators, restoring them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    TensorDataset,
)

from rtl_plugin.data_groups import DataGroups
from rtl_plugin.data_groups.loading import (
    fresh_iterator,
    known_length,
    number_of_batches,
    own_generators,
    preserved_generators,
)
from rtl_plugin.data_groups.mixed_batches import ChainedBatches, MixedBatches
from rtl_plugin.errors import InvalidGroups
from rtl_plugin.randomness import forked

DATA = TensorDataset(torch.arange(12))


class Noisy(IterableDataset[Any]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Any:
        return (torch.rand(1) for _ in range(self.count))


class UnlengthedSampler(RandomSampler):
    def __len__(self) -> int:
        raise NotImplementedError


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def shuffled(own: torch.Generator | None = None, **options: Any) -> DataLoader[Any]:
    return DataLoader(DATA, batch_size=5, shuffle=True, generator=own, **options)


def order(batches: Any) -> list[int]:
    return [int(i) for (x,) in batches for i in x]


def test_number_of_batches() -> None:
    assert number_of_batches([1, 2, 3]) == 3
    assert number_of_batches(shuffled()) == 3
    assert number_of_batches(DataLoader(Noisy(5), batch_size=2)) == 3
    assert known_length(DataLoader(Noisy(5), batch_size=2)) is None


def test_counting_leaves_all_random_states_alone() -> None:
    own = generator()
    sampler = UnlengthedSampler(DATA, generator=own)
    torch.manual_seed(3)
    before = torch.get_rng_state(), own.get_state()
    assert number_of_batches(DataLoader(Noisy(5), batch_size=2)) == 3
    assert number_of_batches(DataLoader(DATA, batch_size=5, sampler=sampler)) == 3
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(own.get_state(), before[1])


@pytest.mark.parametrize("empty", [[], DataLoader(Noisy(0)), ()])
def test_no_batches_is_an_error(empty: Any) -> None:
    with pytest.raises(InvalidGroups, match="the loader of 'a' is empty, expected at least one"):
        number_of_batches(empty, "loader of 'a'")


@pytest.mark.parametrize(
    "place", ["loader", "sampler", "unbatched", "batch_sampler", "inner_sampler"]
)
def test_own_generators_are_found_and_reseeded_wherever_they_are(place: str) -> None:
    own = generator()

    class DrawingBatchSampler(BatchSampler):
        generator = own

        def __iter__(self) -> Any:
            return iter(torch.randperm(12, generator=own).view(3, 4).tolist())

    sampler = RandomSampler(DATA, generator=own)
    makers: dict[str, Callable[[], DataLoader[Any]]] = {
        "loader": lambda: shuffled(own),
        "sampler": lambda: DataLoader(DATA, batch_size=5, sampler=sampler),
        "unbatched": lambda: DataLoader(
            TensorDataset(torch.arange(12)[:, None]), batch_size=None, sampler=sampler
        ),
        "batch_sampler": lambda: DataLoader(
            DATA, batch_sampler=DrawingBatchSampler(range(12), 4, False)
        ),
        "inner_sampler": lambda: DataLoader(DATA, batch_sampler=BatchSampler(sampler, 5, False)),
    }
    loader = makers[place]()
    assert own_generators(loader) == [own]
    first = order(fresh_iterator(loader, 7))
    assert first != sorted(first)
    assert order(loader) != first
    assert order(fresh_iterator(loader, 7)) == first
    assert order(fresh_iterator(loader, 8)) != first


def test_loaders_without_own_generators() -> None:
    for loader in ([1], shuffled(), DataLoader(Noisy(3))):
        assert own_generators(loader) == []
    assert list(fresh_iterator([1, 2], 0)) == [1, 2]


def test_the_first_own_generator_gets_the_seed_itself() -> None:
    own = generator()
    fresh_iterator(shuffled(own), 42)
    assert own.initial_seed() == 42


def test_several_own_generators_are_all_reseeded_differently() -> None:
    outer, inner = generator(), generator()
    loader = DataLoader(
        DATA, batch_size=5, sampler=RandomSampler(DATA, generator=inner), generator=outer
    )
    fresh_iterator(loader, 42)
    seeds = [outer.initial_seed(), inner.initial_seed()]
    assert seeds[0] == 42
    assert seeds[1] not in (1, 42)
    fresh_iterator(loader, 42)
    assert [outer.initial_seed(), inner.initial_seed()] == seeds


def test_generators_inside_composite_loaders_are_found_once() -> None:
    first, second = generator(), generator()
    parts = {"a": shuffled(first), "b": shuffled(second)}
    mixed = MixedBatches(parts)
    assert own_generators(mixed) == [first, second]
    assert own_generators(ChainedBatches([mixed, parts["b"]])) == [first, second]


def test_a_mixture_of_loaders_with_own_generators_can_be_replayed() -> None:
    mixed = MixedBatches({"a": shuffled(generator()), "b": shuffled(generator())})

    def epoch(seed: int) -> list[int]:
        with forked(5):
            return order(fresh_iterator(mixed, seed))

    reference = epoch(3)
    assert epoch(3) == reference
    assert epoch(4) != reference


@pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("own", [True, False])
def test_replaying_a_shuffled_loader_with_workers(own: bool) -> None:
    loader = shuffled(generator() if own else None, num_workers=2)

    def epoch(seed: int) -> list[int]:
        with forked(seed):
            return order(fresh_iterator(loader, seed))

    reference = epoch(1)
    assert epoch(2) != reference
    assert epoch(1) == reference


@pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")
def test_what_workers_draw_is_replayed_too() -> None:
    loader = DataLoader(Noisy(3), batch_size=3, num_workers=2)

    def epoch(seed: int) -> list[float]:
        with forked(seed):
            return torch.cat(list(fresh_iterator(loader, seed))).flatten().tolist()

    reference = epoch(1)
    assert len(set(reference)) == 6
    assert epoch(2) != reference
    assert epoch(1) == reference


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_preserved_generators_covers_every_split(split: str) -> None:
    own = generator()
    plain: dict[str, Any] = {"train": {"a": [1]}}
    groups = DataGroups.from_loaders(**{**plain, split: {"a": shuffled(own)}})
    before = own.get_state()
    with preserved_generators(groups):
        own.manual_seed(99)
        torch.rand(3, generator=own)
    assert torch.equal(own.get_state(), before)


def test_preserved_generators_restores_after_an_exception() -> None:
    own = generator()
    groups = DataGroups.from_loaders({"a": shuffled(own), "b": shuffled(generator())})
    before = own.get_state()

    def fail() -> None:
        with preserved_generators(groups):
            list(fresh_iterator(groups["a"].train, 5))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert torch.equal(own.get_state(), before)


def test_preserved_generators_covers_pooled_groups() -> None:
    own = generator()
    pooled = DataGroups.from_loaders({"a": shuffled(own)}).pooled()
    before = own.get_state()
    with preserved_generators(pooled):
        list(pooled["all"].train)
        assert not torch.equal(own.get_state(), before)
    assert torch.equal(own.get_state(), before)
