"""DataGroups.from_labels: where labels come from, the groups made of them, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from rtl_plugin.data_groups import DataGroups
from rtl_plugin.errors import InvalidArgument, InvalidGroups, RtlError

SIZES = {0: 30, 1: 20, 2: 50}
WHOLE: dict[str, Any] = {"validation": 0, "test": 0}


def numbered(sizes: dict[int, int] = SIZES) -> TensorDataset:
    """Sample i is (i, label), labels interleaved."""
    labels = torch.cat([torch.full((n,), label) for label, n in sizes.items()])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))]
    return TensorDataset(torch.arange(len(labels)), labels)


def ids(loader: Any) -> list[int]:
    return [int(i) for x, _ in loader for i in x]


class Attributed(Dataset[Any]):
    """Labels in an attribute; reading a sample is an error."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("labels must not be read from samples here")


class Augmented(Dataset[Any]):
    """Reading a sample draws random numbers everywhere."""

    def __init__(self, size: int = 40) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        noise = torch.rand(2) + np.random.rand()
        return {"image": noise, "index": index}, index % 2


# --- where labels come from, and the groups made of them


@pytest.mark.parametrize(
    "labels",
    [
        [1, 0, 1, 0, 1, 0],
        (1, 0, 1, 0, 1, 0),
        np.array([1, 0, 1, 0, 1, 0], dtype=np.uint8),
        torch.tensor([1, 0, 1, 0, 1, 0]),
        [torch.tensor(1), np.int64(0), 1, 0, torch.tensor([1]), 0],
    ],
)
@pytest.mark.parametrize("attribute", ["targets", "labels"])
def test_labels_come_from_the_dataset_s_attributes(attribute: str, labels: Any) -> None:
    dataset = Attributed(**{attribute: labels})
    groups = DataGroups.from_labels(dataset, batch_size=3, negatives=None, **WHOLE)
    assert groups.names == ("0", "1")
    assert groups["1"].train.dataset.indices == [0, 2, 4]  # type: ignore[attr-defined]


def test_targets_win_over_labels_and_the_argument_over_both() -> None:
    dataset = Attributed(targets=[0, 0, 0, 1, 1, 1], labels=[5] * 6)
    assert DataGroups.from_labels(dataset, batch_size=3, negatives=None, **WHOLE).names == (
        "0",
        "1",
    )
    groups = DataGroups.from_labels(
        dataset, labels=list("aabbcc"), batch_size=2, negatives=None, **WHOLE
    )
    assert groups.names == ("a", "b", "c")


def test_attributes_that_hold_no_labels_are_passed_over() -> None:
    dataset = Attributed(targets=None, labels=[0, 1, 0, 1, 0, 1])
    assert DataGroups.from_labels(dataset, batch_size=2, negatives=None, **WHOLE).names == (
        "0",
        "1",
    )


def test_labels_come_from_the_second_tensor_of_a_tensor_dataset() -> None:
    class Unreadable(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            raise AssertionError("labels must not be read from samples here")

    dataset = Unreadable(torch.arange(6), torch.tensor([0, 1, 0, 1, 0, 1]))
    groups = DataGroups.from_labels(dataset, batch_size=3, negatives=None, **WHOLE)
    assert groups["1"].train.dataset.indices == [1, 3, 5]  # type: ignore[attr-defined]


def test_labels_of_a_subset_are_those_of_its_samples() -> None:
    subset = Subset(Attributed(targets=[0, 1, 2, 0, 1, 2]), [5, 1, 2, 4])
    groups = DataGroups.from_labels(subset, batch_size=2, negatives=None, **WHOLE)
    assert groups.names == ("1", "2")
    assert groups["2"].train.dataset.indices == [0, 2]  # type: ignore[attr-defined]


def test_labels_read_from_samples_leave_random_states_alone() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    groups = DataGroups.from_labels(Augmented(), batch_size=4)
    assert groups.names == ("0", "1")
    assert torch.equal(torch.get_rng_state(), expected[0])
    assert (np.random.get_state()[1] == expected[1]).all()  # type: ignore[index]


def test_default_groups_are_sorted_by_label_not_by_name() -> None:
    dataset = TensorDataset(torch.arange(12), torch.tensor([10, 9, 2] * 4))
    assert DataGroups.from_labels(dataset, batch_size=2).names == ("2", "9", "10")


def test_groups_of_labels_keep_the_given_order() -> None:
    groups = DataGroups.from_labels(
        numbered(), groups={"big": [2], "small": (0, 1)}, batch_size=10, negatives=None, **WHOLE
    )
    assert groups.names == ("big", "small")
    assert [len(ids(group.train)) for group in groups.values()] == [50, 50]


def test_string_labels() -> None:
    data = [(float(i), "dog" if i % 2 else "cat") for i in range(8)]
    groups = DataGroups.from_labels(data, batch_size=2, negatives=None, **WHOLE)
    assert groups.names == ("cat", "dog")
    assert {y for _, ys in groups["dog"].train for y in ys} == {"dog"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": {"a": [0], "b": [1]}}, r"label 2 of training sample \d+ is in none"),
        ({"groups": {"a": [0, 1], "b": [1, 2]}}, "label 1 is in two groups, 'a' and 'b'"),
        ({"groups": {"a": [0, 1, 2], "b": [7]}}, "group 'b' has no training samples"),
        ({"groups": {"a": [0, 1, 2], "b": []}}, "group 'b' has no training samples"),
        ({"groups": {0: [0], "b": [1, 2]}}, "must be str, got 0"),
        ({"groups": {" ": [0], "b": [1, 2]}}, "must not be empty"),
        ({"groups": {}}, "at least one data group"),
        ({"labels": [0, 1]}, "one for each of the 100 samples, got 2"),
        ({"labels": [0] * 99 + [None]}, "sample 99 is in no group"),
        ({"labels": [0.0] * 99 + [float("nan")]}, "sample 99 is in no group, its label is nan"),
        ({"labels": [0] * 99 + ["x"]}, "types .'int', 'str'. cannot be sorted"),
        ({"labels": [[0, 1]] * 100}, "label of sample 0 is not a single value"),
        ({"labels": torch.zeros(100, 3)}, r"one value a sample, got shape \(100, 3\)"),
        ({"labels": "abc"}, "must be a sequence of labels, got str"),
        ({"labels": [""] * 50 + ["a"] * 50}, "must not be empty"),
        ({"labels": [7] * 100}, "group '7' is the only one.*use negatives=None"),
        ({"batch_size": 62}, "group '0' has 21 training samples, fewer than the 31"),
        ({"batch_size": 22, "negatives": None}, "group '0' has 21 training samples.* 22 "),
    ],
)
def test_bad_groups_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidGroups, match=message):
        DataGroups.from_labels(numbered(), **{"batch_size": 4, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 5}, "batch_size must be even, got 5"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 4.0}, "batch_size must be a whole number"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"num_workers": -1}, "num_workers must be a whole number of at least 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"negatives": "hard"}, "negatives must be \"balanced\" or None, got 'hard'"),
        ({"groups": ["a"]}, "groups must map group names to lists of labels, got list"),
        ({"groups": {"a": 0}}, r"groups\['a'\] must be a list of labels, got 0"),
        ({"groups": {"a": "cat"}}, r"must be a list of labels, got 'cat': use \['cat'\]"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        DataGroups.from_labels(numbered(), **{"batch_size": 4, **options})


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([(1, 0)])


@pytest.mark.parametrize("dataset", [Stream(), "abc", {"x": 1}, 7, Dataset()])
def test_a_dataset_must_be_map_style(dataset: Any) -> None:
    with pytest.raises(InvalidArgument, match="must be a map-style dataset"):
        DataGroups.from_labels(dataset, batch_size=2)


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(InvalidGroups, match="dataset has no samples"):
        DataGroups.from_labels([], batch_size=2)


@pytest.mark.parametrize("dataset", [[1, 2, 3], TensorDataset(torch.arange(4)), [{"y": 1}]])
def test_samples_without_a_label_are_refused(dataset: Any) -> None:
    with pytest.raises(InvalidGroups, match=r"sample 0 of dataset is not a pair.*pass labels="):
        DataGroups.from_labels(dataset, batch_size=2)


def test_every_error_is_ours_and_a_value_error() -> None:
    for error in (InvalidGroups, InvalidArgument):
        assert issubclass(error, (RtlError,))
        assert issubclass(error, ValueError)
