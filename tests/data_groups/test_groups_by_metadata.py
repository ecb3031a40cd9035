"""DataGroups.from_metadata."""

from typing import Any

import numpy as np
import pytest
import torch

from rtl_plugin.data_groups import DataGroups
from rtl_plugin.errors import InvalidArgument, InvalidGroups


def scenes(count: int = 40, start: int = 0) -> list[dict[str, Any]]:
    names = ("street", "indoor", "street", "train")
    return [{"x": float(i), "scene": names[i % 4]} for i in range(start, start + count)]


def scene(sample: dict[str, Any]) -> Any:
    return sample["scene"]


def test_groups_are_sorted_and_hold_their_samples() -> None:
    groups = DataGroups.from_metadata(scenes(), key=scene, batch_size=4, validation=0.1, test=0.2)
    assert groups.names == ("indoor", "street", "train")
    for name, group in groups.items():
        for _, loader in group.loaders():
            assert {found for batch in loader for found in batch["scene"]} == {name}
    assert len(groups["street"].train) == 4  # type: ignore[arg-type]
    assert [len(batch["x"]) for batch in groups["street"].train] == [4, 4, 4, 2]


def test_names_fix_the_order() -> None:
    names = ["train", "street", "indoor"]
    groups = DataGroups.from_metadata(scenes(), key=scene, names=names, batch_size=4)
    assert groups.names == ("train", "street", "indoor")


@pytest.mark.parametrize("kind", [int, np.int64, torch.tensor, float])
def test_names_are_converted_with_str(kind: Any) -> None:
    groups = DataGroups.from_metadata(
        list(range(20)), key=lambda i: kind(i % 2), batch_size=4, validation=0, test=0
    )
    assert groups.names == (("0.0", "1.0") if kind is float else ("0", "1"))
    assert sorted(int(i) for batch in groups[groups.names[1]].train for i in batch) == list(
        range(1, 20, 2)
    )


def test_one_group() -> None:
    groups = DataGroups.from_metadata(scenes(), key=lambda _: "only", batch_size=4)
    assert groups.names == ("only",)


def test_another_dataset_goes_by_the_same_key() -> None:
    other = scenes(8, start=100)
    groups = DataGroups.from_metadata(scenes(), key=scene, batch_size=4, test=other)
    (batch,) = groups["street"].test  # type: ignore[misc]
    assert batch["x"].tolist() == [100.0, 102.0, 104.0, 106.0]


def test_pooled_is_the_union_of_the_samples() -> None:
    groups = DataGroups.from_metadata(scenes(), key=scene, batch_size=4, validation=0.1, test=0.2)
    pooled = groups.pooled()["all"]
    torch.manual_seed(0)
    mixed = [batch["scene"] for batch in pooled.train]
    assert any(len(set(batch)) > 1 for batch in mixed)
    assert sum(map(len, mixed)) == 28
    apart = [float(x) for _, loader in pooled.loaders() for batch in loader for x in batch["x"]]
    assert sorted(apart) == [float(i) for i in range(40)]


def test_reading_leaves_random_states_alone() -> None:
    class Augmented:
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> Any:
            return torch.rand(1), index % 2

    torch.manual_seed(3)
    state = torch.get_rng_state()
    DataGroups.from_metadata(Augmented(), key=lambda sample: sample[1], batch_size=4)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": lambda s: None if s["x"] == 3 else "a"}, "training sample 3 is in no group"),
        ({"key": lambda _: float("nan")}, "training sample 0 is in no group: key returned nan"),
        ({"key": lambda _: ""}, "must not be empty"),
        ({"names": ["street", "indoor"]}, "training sample 3 is in group 'train', which is not"),
        ({"names": ["street", "indoor", "train", "sea"]}, "group 'sea' has no training samples"),
        ({"names": ["street", "street"]}, "group name 'street' comes twice"),
        ({"names": ["street", 3]}, "must be str, got 3"),
        ({"names": []}, "at least one data group"),
        ({"batch_size": 8}, "group 'indoor' has 7 training samples, fewer than the 8 of one batch"),
        ({"test": [{"scene": "sea"}]}, "test sample 0 is in group 'sea', which is not one of"),
        ({"test": [{"scene": None}]}, "test sample 0 is in no group"),
        ({"test": [{"scene": "street"}]}, "group 'indoor' has no test samples"),
    ],
)
def test_bad_groups_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidGroups, match=message):
        DataGroups.from_metadata(scenes(), **{"key": scene, "batch_size": 4, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "scene"}, r"key must be a function of a sample.*sample\['scene'\]"),
        ({"names": "street"}, r"names must be a list of names, got 'street'"),
        ({"test": 7.5}, "test must be a fraction"),
        ({"test": {"scene": "sea"}}, "test must be a map-style dataset"),
        ({"batch_size": -1}, "batch_size must be a whole number of at least 1"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        DataGroups.from_metadata(scenes(), **{"key": scene, "batch_size": 4, **options})
