"""Pooling loaders: rows of all groups mixed into batches, held-out loaders chained."""

import collections
import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from rtl_plugin.data_groups import DataGroups
from rtl_plugin.data_groups.mixed_batches import ChainedBatches, MixedBatches
from rtl_plugin.errors import InvalidGroups


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@dataclasses.dataclass
class Record:
    x: torch.Tensor
    names: list[str]
    kind: str = "record"


def batches(start: int, sizes: list[int]) -> list[torch.Tensor]:
    return list(torch.arange(start, start + sum(sizes)).split(sizes))


def test_every_group_gives_as_many_batches_as_the_longest() -> None:
    mixed = MixedBatches(
        {"a": batches(0, [2] * 5), "b": batches(100, [2, 2]), "c": [torch.ones(3)]}
    )
    with pytest.raises(InvalidGroups, match="differ at batch"):
        list(mixed)  # c is of another dtype, on purpose
    mixed = MixedBatches({"a": batches(0, [2] * 5), "b": batches(100, [2, 2])})
    counts = collections.Counter(int(i) for batch in mixed for i in batch)
    assert len(mixed) == len(list(mixed)) == 10
    assert counts == {**dict.fromkeys(range(10), 1), 100: 3, 101: 3, 102: 2, 103: 2}


def test_batches_keep_the_sizes_that_came_in() -> None:
    mixed = MixedBatches({"a": batches(0, [4, 4, 1]), "b": batches(100, [3, 2])})
    assert [len(batch) for batch in mixed] == [4, 3, 4, 2, 1, 3]


def test_rows_are_mixed_by_the_global_generator() -> None:
    mixed = MixedBatches({"a": batches(0, [16, 16]), "b": batches(100, [16, 16])})

    def epoch(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        return [batch.tolist() for batch in mixed]

    first = epoch(0)
    assert all(min(batch) < 100 <= max(batch) for batch in first)
    assert epoch(0) == first
    assert epoch(1) != first


def test_one_group_is_shuffled_within_its_batches() -> None:
    torch.manual_seed(0)
    (batch,) = MixedBatches({"a": batches(0, [20])})
    assert batch.tolist() != list(range(20))
    assert sorted(batch.tolist()) == list(range(20))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: {"x": x, "twice": {"y": 2 * x}},
        lambda x: collections.OrderedDict(x=x, y=2 * x),
        lambda x: [x, (2 * x, 3 * x)],
        lambda x: Pair(x, 2 * x),
        lambda x: Record(x, [str(int(i)) for i in x]),
        lambda x: (x, tuple(str(int(i)) for i in x), None, "fixed", 3),
        lambda x: {"x": x, "columns": ["left", "right"], "scale": [0.5]},
    ],
)
def test_nested_batches_keep_their_structure_and_rows_together(wrap: Any) -> None:
    torch.manual_seed(0)
    groups = {"a": [wrap(batch) for batch in batches(0, [5])]}
    groups["b"] = [wrap(batch) for batch in batches(100, [3])]
    mixed = list(MixedBatches(groups))
    rows = [_first(batch) for batch in mixed]
    assert [len(row) for row in rows] == [5, 3]
    assert sorted(torch.cat(rows).tolist()) == [0, 1, 2, 3, 4, 100, 101, 102]
    assert any(min(row) < 100 <= max(row) for row in rows)
    for batch, row in zip(mixed, rows, strict=True):
        assert type(batch) is type(wrap(row))
        assert str(batch) == str(wrap(row))


def _first(batch: Any) -> Any:
    if isinstance(batch, dict):
        return batch["x"]
    return batch.x if isinstance(batch, Record) else batch[0]


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ((X, X), [X, X], "'a' and 'b' differ at batch: .*tuple.* against .*list"),
        ({"x": X}, {"y": X}, "'a' and 'b' differ at batch"),
        ({"x": X}, {"x": X, "y": X}, "'a' and 'b' differ at batch"),
        ([X], [X, X], "'a' and 'b' differ at batch"),
        ({"x": X}, {"x": [X]}, r"differ at batch\['x'\]"),
        ({"x": [X, X]}, {"x": [X, X[:, :2]]}, r"differ at batch\['x'\]\[1\].*\[3\].*\[2\]"),
        (X, X.double(), "torch.float32.*torch.float64"),
        (X, X.to("meta"), "cpu.*meta"),
        ((X, "one"), (X, "two"), r"differ at batch\[1\]: one against two"),
        ((X, ["u", "v"]), (X, ["u", "v", "w"]), r"differ at batch\[1\]"),
        ((X, np.zeros(2)), (X, np.zeros(2)), r"batch\[1\] of group 'a' is a ndarray"),
        ((X, X[0, 0]), (X, X[0, 0]), "a batch of group 'a' cannot be mixed.*first dimension"),
        ((X, X[:1]), (X, X), "a batch of group 'a' cannot be mixed.* shapes"),
        (X, [1, 2], "a batch of group 'b' cannot be mixed"),
    ],
)
def test_batches_that_cannot_be_mixed_name_the_groups(a: Any, b: Any, message: str) -> None:
    with pytest.raises(InvalidGroups, match=message):
        list(MixedBatches({"a": [a], "b": [b]}))


def test_a_loader_that_does_not_start_anew_is_found_out() -> None:
    class Spent:
        def __init__(self) -> None:
            self.left = iter([X])

        def __len__(self) -> int:
            return 1

        def __iter__(self) -> Any:
            return self.left

    with pytest.raises(InvalidGroups, match="group 'b' gave no batch when iterated again"):
        list(MixedBatches({"a": [X, X, X], "b": Spent()}))


def test_an_empty_loader_is_refused() -> None:
    with pytest.raises(InvalidGroups, match="training loader of group 'b' is empty"):
        len(MixedBatches({"a": [X], "b": []}))


def test_chained_batches() -> None:
    chained = ChainedBatches([[1, 2], (3,)])
    assert list(chained) == list(chained) == [1, 2, 3]
    assert len(chained) == 3


def test_pooling_groups_made_from_loaders() -> None:
    torch.manual_seed(0)
    loaders = {
        name: DataLoader(TensorDataset(torch.arange(n), torch.full((n,), n)), 4, shuffle=True)
        for name, n in {"a": 12, "b": 8}.items()
    }
    groups = DataGroups.from_loaders(
        loaders, validation={"b": [5], "a": [6, 7]}, test={"a": [torch.zeros(1)]}
    )
    pooled = groups.pooled()
    assert pooled.names == ("all",)
    assert pooled.signature() == {"names": ["all"], "batches": {"all": 6}}
    assert list(pooled["all"].validation or ()) == [6, 7, 5]
    assert len(list(pooled["all"].test or ())) == 1
    labels = torch.cat([y for _, y in pooled["all"].train])
    assert (int((labels == 12).sum()), int((labels == 8).sum())) == (12, 12)
    assert pooled.pooled()["all"] is pooled["all"]


def test_pooling_loaders_without_held_out_batches() -> None:
    pooled = DataGroups.from_loaders({"a": [X], "b": [X]}).pooled()
    assert pooled["all"].validation is None
    assert pooled["all"].test is None


@pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")
def test_mixing_is_repeatable_with_workers() -> None:
    def epoch(num_workers: int) -> list[Any]:
        torch.manual_seed(4)
        made = MixedBatches(
            {
                name: DataLoader(
                    TensorDataset(torch.arange(start, start + 9)),
                    batch_size=4,
                    shuffle=True,
                    num_workers=num_workers,
                )
                for name, start in {"a": 0, "b": 100}.items()
            }
        )
        return [batch[0].tolist() for batch in made]

    assert epoch(2) == epoch(2) == epoch(0)
