"""What DataGroups.from_labels gives: balanced, plain, held-out and pooled batches."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from rtl_plugin.data_groups import DataGroups
from rtl_plugin.errors import InvalidGroups

SIZES = {0: 30, 1: 20, 2: 50}
WHOLE: dict[str, Any] = {"validation": 0, "test": 0}


def numbered(sizes: dict[int, int] = SIZES) -> TensorDataset:
    """Sample i is (i, label), labels interleaved."""
    labels = torch.cat([torch.full((n,), label) for label, n in sizes.items()])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))]
    return TensorDataset(torch.arange(len(labels)), labels)


def ids(loader: Any) -> list[int]:
    return [int(i) for x, _ in loader for i in x]


class Augmented(Dataset[Any]):
    """Reading a sample draws random numbers everywhere."""

    def __init__(self, size: int = 40) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        noise = torch.rand(2) + np.random.rand()
        return {"image": noise, "index": index}, index % 2


# --- balanced training batches


def test_balanced_batches_hold_half_positives_and_pass_over_them_once() -> None:
    dataset = numbered()
    groups = DataGroups.from_labels(dataset, batch_size=8, **WHOLE)
    for label, size in SIZES.items():
        batches = list(groups[str(label)].train)
        assert len(batches) == len(groups[str(label)].train) == -(-size // 4)  # type: ignore[arg-type]
        positives: list[int] = []
        for x, y in batches:
            assert y.dtype == torch.float32
            assert y.shape == x.shape == (len(x),)
            assert (y == (dataset.tensors[1][x] == label)).all()
            assert y.sum() * 2 == len(y)
            positives += x[y == 1].tolist()
        assert sorted(positives) == (dataset.tensors[1] == label).nonzero().flatten().tolist()
    assert [len(y) for _, y in groups["0"].train] == [8] * 7 + [4]


def test_a_balanced_batch_is_a_tuple_and_its_rows_are_shuffled() -> None:
    groups = DataGroups.from_labels(numbered(), batch_size=20, **WHOLE)
    torch.manual_seed(0)
    batches = list(groups["2"].train)
    assert all(type(batch) is tuple for batch in batches)
    orders = {tuple(y.tolist()) for _, y in batches}
    assert len(orders) == len(batches)
    assert any(y[0] == 0 for _, y in batches)


def test_negatives_are_drawn_without_replacement_and_anew_every_epoch() -> None:
    groups = DataGroups.from_labels(numbered(), batch_size=10, **WHOLE)
    torch.manual_seed(0)
    epochs = [[int(i) for x, y in groups["0"].train for i in x[y == 0]] for _ in range(2)]
    assert all(len(set(epoch)) == len(epoch) == 30 for epoch in epochs)
    assert set(epochs[0]) != set(epochs[1])


def test_positives_come_in_a_new_order_every_epoch() -> None:
    loader = DataGroups.from_labels(numbered(), batch_size=10, **WHOLE)["0"].train
    torch.manual_seed(0)
    first, second = ([sorted(x[y == 1].tolist()) for x, y in loader] for _ in range(2))
    assert first != second


def test_too_few_negatives_are_cycled_evenly() -> None:
    groups = DataGroups.from_labels(numbered({0: 40, 1: 9}), batch_size=8, **WHOLE)
    counts = Counter(int(i) for x, y in groups["0"].train for i in x[y == 0])
    assert len(counts) == 9
    assert set(counts.values()) == {4, 5}
    assert sum(counts.values()) == 40


def test_training_batches_hold_training_samples_only() -> None:
    groups = DataGroups.from_labels(numbered(), batch_size=8, validation=0.2, test=0.3)
    for group in groups.values():
        held_out = set(ids(group.validation)) | set(ids(group.test))
        assert len(held_out) == 50
        torch.manual_seed(0)
        seen = {i for _ in range(60) for i in ids(group.train)}
        assert not seen & held_out
        assert len(seen) == 50


def test_inputs_of_any_nesting() -> None:
    groups = DataGroups.from_labels(Augmented(), batch_size=4, **WHOLE)
    x, y = next(iter(groups["1"].train))
    assert x["image"].shape == (4, 2)
    assert (x["index"] % 2 == y).all()


def test_samples_that_are_no_pair_are_whole_inputs_under_given_labels() -> None:
    data = [{"x": torch.tensor(float(i))} for i in range(8)]
    groups = DataGroups.from_labels(data, labels=[0, 1] * 4, batch_size=4, **WHOLE)
    x, y = next(iter(groups["1"].train))
    assert (x["x"] % 2 == y).all()


def test_samples_of_three_parts_are_refused_before_training() -> None:
    dataset = TensorDataset(torch.arange(8), torch.arange(8) % 2, torch.arange(8))
    with pytest.raises(InvalidGroups, match=r"has 3 parts.*use negatives=None"):
        DataGroups.from_labels(dataset, batch_size=2)
    whole = DataGroups.from_labels(dataset, batch_size=2, negatives=None, **WHOLE)
    assert len(next(iter(whole["0"].train))) == 3


@pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("negatives", ["balanced", None])
def test_a_seed_repeats_an_epoch_also_with_workers(negatives: Any) -> None:
    def epoch(num_workers: int, seed: int) -> list[Any]:
        loader = made[num_workers]["2"].train
        torch.manual_seed(seed)
        return [(x.tolist(), y.tolist()) for x, y in loader]

    made = {
        n: DataGroups.from_labels(numbered(), batch_size=8, negatives=negatives, num_workers=n)
        for n in (0, 2)
    }
    assert all(loader.num_workers == 2 for _, loader in made[2]["0"].loaders())  # type: ignore[attr-defined]
    reference = epoch(0, seed=1)
    assert epoch(0, seed=1) == reference
    assert epoch(2, seed=1) == reference
    assert epoch(2, seed=1) == reference
    assert epoch(0, seed=2) != reference


def test_what_training_draws_between_batches_changes_no_batch() -> None:
    loader = DataGroups.from_labels(numbered(), batch_size=8)["2"].train
    torch.manual_seed(1)
    reference = ids(loader)
    torch.manual_seed(1)
    disturbed = []
    for x, _ in loader:
        torch.rand(7)
        disturbed += x.tolist()
    assert disturbed == reference


# --- held-out splits and plain groups


def test_held_out_batches_are_all_samples_against_the_group() -> None:
    dataset = numbered()
    groups = DataGroups.from_labels(dataset, batch_size=8, validation=0.1, test=0.2)
    expected = {"validation": 10, "test": 20}
    for split, size in expected.items():
        loaders = [getattr(group, split) for group in groups.values()]
        assert all(ids(loader) == sorted(ids(loaders[0])) for loader in loaders)
        assert len(ids(loaders[0])) == size
        for label, loader in enumerate(loaders):
            for x, y in loader:
                assert y.dtype == torch.float32
                assert (y == (dataset.tensors[1][x] == label)).all()
        assert sum(float(y.sum()) for loader in loaders for _, y in loader) == size


def test_plain_groups_give_the_group_s_own_samples_and_targets() -> None:
    dataset = numbered()
    groups = DataGroups.from_labels(dataset, batch_size=7, negatives=None)
    for label, size in SIZES.items():
        group = groups[str(label)]
        sizes = [len(ids(loader)) for loader in (group.train, group.validation, group.test)]
        assert sizes == [size * 7 // 10, size // 10, size // 5]
        for _, loader in group.loaders():
            for x, y in loader:
                assert (y == label).all()
                assert (dataset.tensors[1][x] == label).all()
    assert [len(x) for x, _ in groups["1"].train] == [7, 7]
    assert [len(x) for x, _ in groups["2"].train] == [7] * 5
    assert len(list(groups["0"].train)[-1][0]) == 7
    assert [len(x) for x, _ in groups["0"].test] == [6]  # type: ignore[union-attr]


def test_plain_groups_are_shuffled_and_keep_the_last_batch() -> None:
    groups = DataGroups.from_labels(numbered(), batch_size=8, negatives=None, **WHOLE)
    torch.manual_seed(0)
    first, second = ids(groups["2"].train), ids(groups["2"].train)
    assert first != second
    assert sorted(first) == sorted(second)
    assert len(first) == 50


def test_a_single_plain_group_works() -> None:
    groups = DataGroups.from_labels(numbered({4: 20}), batch_size=4, negatives=None)
    assert groups.names == ("4",)
    assert len(ids(groups["4"].train)) == 14


# --- pooling


@pytest.mark.parametrize("negatives", ["balanced", None])
def test_pooled_is_the_union_with_the_dataset_s_own_targets(negatives: Any) -> None:
    dataset = numbered()
    groups = DataGroups.from_labels(dataset, batch_size=8, negatives=negatives)
    pooled = groups.pooled()
    assert pooled.names == ("all",)
    torch.manual_seed(0)
    trained = ids(pooled["all"].train)
    assert len(set(trained)) == len(trained) == 70
    assert trained != sorted(trained)
    validated, tested = ids(pooled["all"].validation), ids(pooled["all"].test)
    assert sorted(trained + validated + tested) == list(range(100))
    for _, loader in pooled["all"].loaders():
        for x, y in loader:
            assert (y == dataset.tensors[1][x]).all()
    assert [len(x) for x, _ in pooled["all"].train] == [8] * 8 + [6]
    if negatives == "balanced":
        assert validated == ids(groups["0"].validation)
    assert pooled.pooled()["all"] is pooled["all"]


def test_pooled_without_held_out_splits() -> None:
    pooled = DataGroups.from_labels(numbered(), batch_size=8, **WHOLE).pooled()
    assert pooled["all"].validation is None
    assert pooled["all"].test is None


def test_only_keeps_a_group_as_it_is() -> None:
    groups = DataGroups.from_labels(numbered(), batch_size=8)
    only = groups.only("1")
    assert only.names == ("1",)
    assert only["1"] is groups["1"]
    with pytest.raises(KeyError, match="no data group 'x', expected one of"):
        groups.only("x")


def test_pooling_one_group_alone_gives_its_own_batches() -> None:
    groups = DataGroups.from_labels(numbered(), batch_size=8, **WHOLE)
    pooled = groups.only("1").pooled()
    assert sum(float(y.sum()) for _, y in pooled["all"].train) == 20
