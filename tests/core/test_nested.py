"""Batches and outputs of any nesting keep their types; leaves that are no tensors pass."""

import dataclasses
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from rtl_plugin.nested import map_tensors, tensors_in, to_device

CPU = torch.device("cpu")


class Pair(NamedTuple):
    x: torch.Tensor
    y: Any = None


@dataclasses.dataclass
class Sample:
    x: torch.Tensor
    label: Any = None
    rows: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.rows = self.x.shape[0]


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    scale: dataclasses.InitVar[float]
    scaled: torch.Tensor = dataclasses.field(init=False)

    def __post_init__(self, scale: float) -> None:
        object.__setattr__(self, "scaled", self.x * scale)


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    x: torch.Tensor


class OwnMapping(Mapping[str, Any]):
    """Its constructor takes something else than its items."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __getitem__(self, key: str) -> Any:
        return {"x": torch.ones(self.size)}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(["x"])

    def __len__(self) -> int:
        return 1


class Emptied(OwnMapping):
    """Accepts its items and forgets them."""

    def __init__(self, anything: object = None) -> None:
        self.size = 2
        self.forgotten = isinstance(anything, dict)

    def __iter__(self) -> Iterator[str]:
        return iter([] if self.forgotten else ["x"])


def plus_one(tensor: torch.Tensor) -> torch.Tensor:
    return tensor + 1


def same(result: Any, expected: Any) -> None:
    assert type(result) is type(expected)
    torch.testing.assert_close(result, expected)


def test_a_bare_tensor() -> None:
    same(map_tensors(plus_one, torch.zeros(2)), torch.ones(2))


@pytest.mark.parametrize("kind", [list, tuple, dict, OrderedDict, MappingProxyType, UserDict])
def test_containers_keep_their_type(kind: type) -> None:
    zeros, ones = torch.zeros(2), torch.ones(2)
    if kind in (list, tuple):
        same(map_tensors(plus_one, kind([zeros, zeros])), kind([ones, ones]))
        return
    result = map_tensors(plus_one, kind({"b": zeros, "a": [zeros]}))
    assert type(result) is kind
    assert list(result) == ["b", "a"]
    torch.testing.assert_close([result["b"], result["a"][0]], [ones, ones])


def test_named_tuples() -> None:
    result = map_tensors(plus_one, Pair(torch.zeros(1), {"deep": torch.zeros(2)}))
    assert type(result) is Pair
    torch.testing.assert_close((result.x, result.y["deep"]), (torch.ones(1), torch.ones(2)))
    classic = namedtuple("classic", "a b")
    torch.testing.assert_close(map_tensors(plus_one, classic(torch.zeros(1), 3)).a, torch.ones(1))


def test_what_torch_returns_from_max() -> None:
    result = map_tensors(plus_one, torch.tensor([[1.0, 5.0]]).max(dim=1))
    torch.testing.assert_close(result.values, torch.tensor([6.0]))
    torch.testing.assert_close(result.indices, torch.tensor([2]))


def test_a_dataclass_is_not_constructed_again() -> None:
    original = Sample(torch.zeros(3), label="a")
    result = map_tensors(lambda t: t[:1], original)
    assert type(result) is Sample
    assert (result.label, result.rows) == ("a", 3)  # __post_init__ would have made it 1
    torch.testing.assert_close(result.x, torch.zeros(1))
    torch.testing.assert_close(original.x, torch.zeros(3))


def test_a_frozen_dataclass_with_computed_fields() -> None:
    result = map_tensors(plus_one, Frozen(torch.ones(1), scale=3.0))
    torch.testing.assert_close(
        (result.x, result.scaled), (torch.tensor([2.0]), torch.tensor([4.0]))
    )
    torch.testing.assert_close(map_tensors(plus_one, Slotted(torch.zeros(1))).x, torch.ones(1))


def test_a_dataclass_class_is_a_leaf() -> None:
    assert map_tensors(plus_one, Sample) is Sample


@pytest.mark.parametrize("mapping", [OwnMapping(2), Emptied()])
def test_a_mapping_with_its_own_constructor_becomes_a_dict(mapping: Mapping[str, Any]) -> None:
    same(map_tensors(plus_one, mapping), {"x": torch.full((2,), 2.0)})


def test_a_default_dict_becomes_a_dict() -> None:
    same(map_tensors(plus_one, defaultdict(list, x=torch.zeros(1))), {"x": torch.ones(1)})


@pytest.mark.parametrize("leaf", [None, 3, "text", b"bytes", {1, 2}, object, range(2)])
def test_other_leaves_pass_untouched(leaf: object) -> None:
    assert map_tensors(plus_one, leaf) is leaf
    assert map_tensors(plus_one, [leaf, (leaf,)]) == [leaf, (leaf,)]
    assert to_device(leaf, CPU) is leaf
    assert list(tensors_in([leaf, {"x": leaf}])) == []


def test_empty_containers() -> None:
    for empty in ([], (), {}, OrderedDict()):
        same(map_tensors(plus_one, empty), empty)


def test_tensors_come_in_order_and_are_the_same_objects() -> None:
    a, b, c, d = (torch.full((1,), float(k)) for k in range(4))
    found = list(tensors_in({"z": a, "a": [b, Pair(c, None)], "s": Sample(d)}))
    assert [id(tensor) for tensor in found] == [id(a), id(b), id(c), id(d)]


def test_looking_for_tensors_constructs_nothing_from_nothing() -> None:
    packed = pack_sequence([torch.zeros(2, 3), torch.ones(1, 3)])
    assert [tuple(t.shape) for t in tensors_in(packed)] == [(3, 3), (2,)]
    assert [tuple(t.shape) for t in tensors_in(Frozen(torch.ones(2), scale=1.0))] == [(2,), (2,)]


class Graph:
    """Moves itself, as PyTorch Geometric's batches do."""

    def __init__(self, edges: torch.Tensor) -> None:
        self.edges = edges

    def to(self, device: torch.device) -> "Graph":
        return Graph(self.edges.to(device))


def test_everything_is_moved() -> None:
    meta = torch.device("meta")
    batch = {"x": torch.ones(2), "more": (Pair(torch.ones(1)), [Sample(torch.ones(1))]), "n": None}
    moved = to_device(batch, meta)
    assert [t.device.type for t in tensors_in(moved)] == ["meta"] * 3
    assert [t.device.type for t in tensors_in(batch)] == ["cpu"] * 3
    assert moved["n"] is None
    assert to_device([Graph(torch.ones(1))], meta)[0].edges.device.type == "meta"


def test_a_packed_sequence_moves_by_its_own_rules() -> None:
    # Its batch sizes must stay on the CPU wherever its data goes.
    moved = to_device({"x": pack_sequence([torch.zeros(2, 3)])}, torch.device("meta"))["x"]
    assert type(moved) is PackedSequence
    assert (moved.data.device.type, moved.batch_sizes.device.type) == ("meta", "cpu")
