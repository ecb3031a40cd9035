"""DataGroups.from_loaders, the mapping itself, and what an import does."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from rtl_plugin.data_groups import DataGroup, DataGroups
from rtl_plugin.data_groups.loading import number_of_batches
from rtl_plugin.errors import InvalidArgument, InvalidGroups, RtlError


class Stream(IterableDataset[int]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Any:
        return iter(range(self.count))


def test_loaders_are_kept_in_order() -> None:
    street, indoor = [torch.zeros(2)] * 3, DataLoader(TensorDataset(torch.arange(4)), batch_size=2)
    groups = DataGroups.from_loaders(
        {"street": street, "indoor": indoor}, validation={"indoor": [1]}, test={"street": [2]}
    )
    assert groups.names == tuple(groups) == ("street", "indoor")
    assert len(groups) == 2
    assert groups["street"].train is street
    assert groups["indoor"].train is indoor
    assert groups["street"].validation is None
    assert groups["indoor"].validation == [1]
    assert groups["street"].test == [2]
    assert "street" in groups
    assert "sea" not in groups
    assert groups.get("sea") is None
    assert repr(groups) == "DataGroups(['street', 'indoor'])"


def test_one_group() -> None:
    assert DataGroups.from_loaders({"all": [1]}).names == ("all",)


def test_an_unknown_group_is_a_key_error_that_names_the_groups() -> None:
    groups = DataGroups.from_loaders({"a": [1]})
    with pytest.raises(KeyError, match=r"no data group 'b', expected one of \['a'\]") as caught:
        groups["b"]
    assert isinstance(caught.value, RtlError)


def test_signature_is_ready_for_json() -> None:
    groups = DataGroups.from_loaders({"b": [1, 2], "a": DataLoader(Stream(5), batch_size=2)})
    assert json.loads(json.dumps(groups.signature())) == {
        "names": ["b", "a"],
        "batches": {"b": 2, "a": None},
    }
    other = DataGroups.from_loaders({"b": [1, 2], "a": [1]})
    assert other.signature() != groups.signature()


def test_signature_does_not_read_an_endless_stream() -> None:
    class Endless:
        def __iter__(self) -> Any:
            while True:
                yield 1

    assert DataGroups.from_loaders({"a": Endless()}).signature()["batches"] == {"a": None}


def test_an_unsized_loader_is_not_read_at_construction() -> None:
    class Unsized:
        def __iter__(self) -> Any:
            raise AssertionError("read too early")

    assert DataGroups.from_loaders({"a": Unsized()}).names == ("a",)


class OneShot:
    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        return 1


class Restarting(OneShot):
    def __iter__(self) -> Any:
        return iter([1, 2])


def test_a_loader_with_next_that_starts_anew_is_welcome() -> None:
    groups = DataGroups.from_loaders({"a": Restarting()})
    assert number_of_batches(groups["a"].train) == 2


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(4)), **options)


SHARED = torch.Generator()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({}, "at least one data group"),
        ({1: [1]}, "must be str, got 1"),
        ({"": [1]}, "must not be empty"),
        ({"a": (i for i in range(3))}, "train loader of group 'a' is a one-shot iterator"),
        ({"a": iter([1])}, "one-shot iterator .list_iterator., which is empty after one pass"),
        ({"a": OneShot()}, "one-shot iterator"),
        ({"a": []}, "train loader of group 'a' is empty"),
        ({"a": loader(batch_size=9, drop_last=True)}, "drop_last=True leaves nothing"),
        ({"a": 3}, "must be a re-iterable of batches.* got int"),
        ({"a": "abc"}, "must be a re-iterable of batches.* got str"),
        ({"a": {"x": [1]}}, "must be a re-iterable of batches.* got dict"),
        ({"a": torch.zeros(3)}, "must be a re-iterable of batches.* got Tensor"),
        ({"a": TensorDataset(torch.arange(4))}, "is a dataset of single samples.*DataLoader"),
        ({"a": loader(num_workers=1, persistent_workers=True)}, "persistent_workers=False"),
        ({"a": loader(num_workers=2, in_order=False)}, "in_order=True"),
        (
            {"a": loader(generator=SHARED), "b": loader(generator=SHARED)},
            "groups 'a' and 'b' share one torch.Generator",
        ),
    ],
)
def test_bad_training_loaders_are_refused(train: Any, message: str) -> None:
    with pytest.raises(InvalidGroups, match=message):
        DataGroups.from_loaders(train)


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(
    ("loaders", "message"),
    [
        ({"b": [1]}, r"names groups \['b'\] that are not in train, which has \['a'\]"),
        ({"a": iter([1])}, "loader of group 'a' is a one-shot iterator"),
        ({"a": []}, "loader of group 'a' is empty"),
        ({"a": loader(num_workers=1, persistent_workers=True)}, "persistent_workers=False"),
    ],
)
def test_bad_held_out_loaders_are_refused(split: str, loaders: Any, message: str) -> None:
    with pytest.raises(InvalidGroups, match=rf"{split} .*{message}"):
        DataGroups.from_loaders({"a": [1]}, **{split: loaders})


def test_loaders_come_in_mappings() -> None:
    with pytest.raises(InvalidArgument, match="train must map group names to loaders, got list"):
        DataGroups.from_loaders([[1]])  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="test must map group names to loaders, got list"):
        DataGroups.from_loaders({"a": [1]}, test=[[1]])  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"train must map .* got NoneType"):
        DataGroups.from_loaders(None)  # type: ignore[arg-type]


def test_a_generator_shared_by_the_splits_of_one_group_is_welcome() -> None:
    generator = torch.Generator()
    groups = DataGroups.from_loaders(
        {"a": loader(generator=generator)}, test={"a": loader(generator=generator)}
    )
    assert groups.names == ("a",)


def test_two_groups_of_one_name_are_refused() -> None:
    group = DataGroup("a", train=[1], validation=None, test=None)
    with pytest.raises(InvalidGroups, match="group name 'a' comes twice"):
        DataGroups([group, group])


def test_checking_starts_no_iteration() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    DataGroups.from_loaders({"a": loader(shuffle=True)})
    assert torch.equal(torch.get_rng_state(), state)


def test_importing_brings_in_no_extra_and_no_warning() -> None:
    code = (
        "import sys, rtl_plugin.data_groups, torch; "
        "assert 'sklearn' not in sys.modules; assert not torch.cuda.is_initialized()"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
