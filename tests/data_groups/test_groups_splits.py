"""How validation and test samples are set apart, whatever the constructor."""

from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from rtl_plugin.data_groups import DataGroups
from rtl_plugin.errors import InvalidArgument, InvalidGroups


def dataset(labels: list[int], start: int = 0) -> TensorDataset:
    return TensorDataset(torch.arange(start, start + len(labels)), torch.tensor(labels))


def made(**options: Any) -> DataGroups:
    data = options.pop("data", dataset([0] * 40 + [1] * 20))
    return DataGroups.from_labels(data, **{"batch_size": 2, "negatives": None, **options})


def chosen(groups: DataGroups) -> dict[tuple[str, str], list[int]]:
    return {
        (name, split): sorted(int(i) for x, _ in loader for i in x)
        for name, group in groups.items()
        for split, loader in group.loaders()
    }


def test_fractions_are_cut_from_every_group() -> None:
    found = chosen(made(validation=0.1, test=0.25))
    sizes = {key: len(value) for key, value in found.items()}
    assert sizes == {
        ("0", "train"): 26,
        ("0", "validation"): 4,
        ("0", "test"): 10,
        ("1", "train"): 13,
        ("1", "validation"): 2,
        ("1", "test"): 5,
    }
    assert sorted(i for part in found.values() for i in part) == list(range(60))


def test_the_split_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = chosen(made(seed=3))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    groups = made(seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert chosen(groups) == first
    assert chosen(made(seed=4)) != first


def test_the_split_of_a_group_does_not_depend_on_other_groups() -> None:
    more = dataset([0] * 40 + [1] * 20 + [2] * 30)
    found, alone = chosen(made(data=more)), chosen(made())
    assert {key: found[key] for key in alone} == alone


def test_a_split_is_no_prefix() -> None:
    found = chosen(made(validation=0.25, test=0.25))
    assert found["0", "validation"] != list(range(30, 40))
    assert max(found["0", "train"]) > min(found["0", "test"])


@pytest.mark.parametrize("nothing", [0, 0.0, None])
def test_no_split_is_none(nothing: Any) -> None:
    groups = made(validation=nothing, test=nothing)
    assert groups["0"].validation is None
    assert groups["0"].test is None
    assert [split for split, _ in groups["0"].loaders()] == ["train"]


def test_a_small_positive_fraction_gives_one_sample() -> None:
    found = chosen(made(validation=0.001, test=0))
    assert len(found["1", "validation"]) == 1
    assert len(found["1", "train"]) == 19


def test_another_dataset_is_used_whole() -> None:
    other = dataset([1, 0, 0, 1, 1], start=1000)
    found = chosen(made(validation=other, test=0.5))
    assert found["0", "validation"] == [1001, 1002]
    assert found["1", "validation"] == [1000, 1003, 1004]
    assert len(found["0", "train"]) == len(found["0", "test"]) == 20


def test_another_dataset_under_balanced_negatives() -> None:
    other = dataset([1, 0, 0, 1, 1], start=1000)
    groups = made(test=other, negatives="balanced")
    ((x, y),) = [(x, y) for x, y in groups["1"].test if len(x) == 1]  # type: ignore[union-attr]
    assert (x.item(), y.item()) == (1004, 1.0)
    whole = [(int(i), float(t)) for x, y in groups["0"].test for i, t in zip(x, y, strict=True)]  # type: ignore[union-attr]
    assert whole == [(1000, 0), (1001, 1), (1002, 1), (1003, 0), (1004, 0)]
    pooled = [int(t) for _, y in groups.pooled()["all"].test for t in y]  # type: ignore[union-attr]
    assert pooled == [1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"validation": 1}, InvalidArgument, r"validation must be a fraction in \[0, 1\)"),
        ({"validation": -0.1}, InvalidArgument, "validation must be a fraction.* got -0.1"),
        ({"test": float("nan")}, InvalidArgument, "test must be a fraction"),
        ({"test": True}, InvalidArgument, "test must be a fraction.* got True"),
        ({"validation": 0.5, "test": 0.5}, InvalidArgument, "leave nothing to train on"),
        ({"validation": "0.1"}, InvalidArgument, "validation must be a map-style dataset"),
        ({"validation": object()}, InvalidArgument, "validation must be a map-style dataset"),
        ({"test": []}, InvalidGroups, "test has no samples"),
        ({"test": dataset([0, 1, 7])}, InvalidGroups, "label 7 of test sample 2 is in none of"),
        ({"validation": dataset([0, 0])}, InvalidGroups, "group '1' has no validation samples"),
        ({"validation": [1, 2]}, InvalidGroups, "sample 0 of validation is not a pair"),
        ({"data": dataset([0] * 9 + [1, 1])}, InvalidGroups, "group '1' has 2 samples; 1 for"),
        ({"data": dataset([0] * 9 + [1] * 3)}, InvalidGroups, "group '1' has 1 training samples"),
    ],
)
def test_bad_splits_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        made(**options)
