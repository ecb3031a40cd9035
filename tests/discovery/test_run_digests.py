"""What a warm start compares batches and functions by."""

import dataclasses
import datetime
import decimal
import enum
import functools
import os
import pathlib
import subprocess
import sys
from collections import OrderedDict, deque, namedtuple
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from rtl_plugin.discovery.code_digest import read_code
from rtl_plugin.discovery.content_digest import content_digest
from rtl_plugin.errors import InvalidArgument

Pair = namedtuple("Pair", "x y")
Other = namedtuple("Other", "x y")


@dataclasses.dataclass(frozen=True)
class Sample:
    x: Any
    y: Any = 0


@dataclasses.dataclass
class Slotted:
    __slots__ = ("x",)
    x: Any


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Graph:
    """Like a graph library's batch: attributes, and a way to a device of its own."""

    def __init__(self, x: Any) -> None:
        self.x = x

    def to(self, device: Any) -> "Graph":
        return self


LONG = torch.arange(5000.0)
CHANGED = LONG.clone()
CHANGED[2500] += 1

# Batches that are alike but for one thing.
DIFFERENT: dict[str, list[Any]] = {
    "plain": [1, 2, 1.0, True, "1", b"1", None, 1 + 0j, "a", "", 0, 0.0, -0.0, range(3), slice(3)],
    "tensors": [
        LONG, CHANGED, LONG.double(), LONG.long(), LONG.view(2, 2500), LONG.view(2500, 2),
        torch.tensor(1), torch.tensor([1]), torch.tensor([0.0]), torch.tensor([-0.0]),
        torch.tensor([float("nan")]), torch.empty(0), torch.empty(0, 3),
        torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.float64),
    ],
    "arrays": [
        LONG.numpy(), CHANGED.numpy(), LONG.double().numpy(), LONG.view(2, 2500).numpy(),
        np.array(["a", "b"]), np.array(["a", "c"]), np.array(["a", None], dtype=object),
        np.array([["a", None]], dtype=object), np.float32(1), np.float64(1), np.int8(1),
    ],
    "containers": [
        [], (), {}, set(), [1, 2], [2, 1], (1, 2), {1: 2}, {2: 1}, {1, 2}, frozenset({1, 2}),
        [[1], 2], [1, [2]], [1, 2, []], [[1, 2], 3],
        [[1], 2, 3], Pair(1, 2), Other(1, 2), Pair(2, 1), deque([1, 2]),
        OrderedDict({1: 2}),
    ],
    "objects": [
        Sample(LONG), Sample(CHANGED), Sample(LONG, 1), Slotted(LONG), Slotted(CHANGED),
        Graph(LONG), Graph(CHANGED), Colour.RED, Colour.BLUE, SimpleNamespace(a=1),
        SimpleNamespace(a=2), SimpleNamespace(b=1), int, str, len, max, torch.float32,
        torch.device("cpu"), datetime.date(2026, 1, 1), datetime.date(2026, 1, 2),
        decimal.Decimal("1.0"), decimal.Decimal("1.00"), pathlib.PurePosixPath("a"),
        pathlib.PurePosixPath("b"), pack_sequence([LONG[:3], LONG[:2]]),
        pack_sequence([LONG[:3], LONG[1:3]]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", DIFFERENT)
def test_what_differs_has_another_digest(kind: str) -> None:
    digests = [content_digest({"batch": value}) for value in DIFFERENT[kind]]
    alike = [
        (DIFFERENT[kind][i], DIFFERENT[kind][j])
        for i in range(len(digests))
        for j in range(i)
        if digests[i] == digests[j]
    ]
    assert alike == []


def test_what_is_alike_has_the_same() -> None:
    rows = torch.arange(6.0).view(2, 3)
    assert content_digest(rows.t()) == content_digest(rows.t().contiguous())
    assert content_digest(rows.to_sparse()) == content_digest(rows)
    turned = torch.tensor([1 + 2j]).conj()
    assert content_digest(turned) == content_digest(turned.resolve_conj())
    assert content_digest({"a", "b", "c"}) == content_digest({"c", "b", "a"})
    assert content_digest(Graph([1])) == content_digest(Graph([1]))


def test_a_circle_ends() -> None:
    first, second = Graph(1), Graph(1)
    first.x, second.x = [first], [second]
    assert content_digest(first) == content_digest(second)
    shared = [1]
    assert content_digest([shared, shared]) == content_digest([[1], [1]]), "twice is no circle"


@pytest.mark.parametrize("value", [object(), iter([1]), torch.Generator()])
def test_what_cannot_be_read_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="whose content cannot be read: give batches of"):
        content_digest({"x": [value]})


def code_digest(function: Any) -> str:
    return read_code(function).digest


def scaled(factor: Any) -> Any:
    return lambda x: factor * x


def helped(x: Any) -> Any:
    return helper(x) + RATE


RATE = 0.1


def helper(x: Any) -> Any:
    return x + 1


def defaulted(x: Any, rate: float = 0.1, *, power: int = 2) -> Any:
    return x * rate**power


class Focal:
    def __init__(self, gamma: float) -> None:
        self.gamma = gamma

    def __call__(self, model: Any, batch: Any) -> Any:
        return self.weigh(model(batch)) ** self.gamma

    def weigh(self, x: Any) -> Any:
        return x

    def method(self, x: Any) -> Any:
        return x


class Heavier(Focal):
    def weigh(self, x: Any) -> Any:
        return 2 * x


class Weighted(nn.Module):
    def __init__(self, weight: float) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(weight))

    def forward(self, x: Any) -> Any:
        return x * self.weight


CODES: dict[str, tuple[Any, Any]] = {
    "constant": (lambda x: x + 1, lambda x: x + 2),
    "operation": (lambda x: x + 1, lambda x: x - 1),
    "name": (lambda x: x.exp(), lambda x: x.log()),
    "closure": (scaled(1), scaled(2)),
    "tensor in a closure": (scaled(torch.ones(2)), scaled(torch.zeros(2))),
    "function in a closure": (scaled(scaled(1)), scaled(scaled(2))),
    "list in a closure": (scaled([1, (2,)]), scaled([1, (3,)])),
    "dict in a closure": (scaled({"a": 1}), scaled({"a": 2})),
    "type in a closure": (scaled(1), scaled(1.0)),
    "nested function": (lambda: lambda: 1, lambda: lambda: 2),
    "set constant": (lambda x: x in {1, 2}, lambda x: x in {1, 3}),
    "partial": (functools.partial(helper, x=1), functools.partial(helper, x=2)),
    "class in a partial": (
        functools.partial(torch.optim.SGD, lr=0.1), functools.partial(torch.optim.Adam, lr=0.1),
    ),
    "object": (Focal(1.0), Focal(2.0)),
    "class": (Focal(1.0), Heavier(1.0)),
    "method": (Focal(1.0).method, Focal(2.0).method),
    "method's name": (Focal(1.0).method, Focal(1.0).weigh),
    "object in a partial": (functools.partial(Focal(1.0), 1), functools.partial(Focal(2.0), 1)),
    "module": (Weighted(1.0), Weighted(2.0)),
    "builtin": (len, max),
    "nothing": (None, len),
}  # fmt: skip


@pytest.mark.parametrize("name", CODES)
def test_other_code_has_another_digest(name: str) -> None:
    first, second = CODES[name]
    assert code_digest(first) != code_digest(second)
    assert code_digest(first) == code_digest(first)


def test_what_a_function_reads_in_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_digest(helped)
    monkeypatch.setitem(globals(), "RATE", 0.2)
    assert code_digest(helped) != before
    monkeypatch.undo()
    assert code_digest(helped) == before
    monkeypatch.setitem(globals(), "helper", scaled(3))
    assert code_digest(helped) != before


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_digest(defaulted)
    monkeypatch.setattr(defaulted, "__defaults__", (0.2,))
    assert code_digest(defaulted) != before
    monkeypatch.undo()
    monkeypatch.setattr(defaulted, "__kwdefaults__", {"power": 3})
    assert code_digest(defaulted) != before


def test_functions_that_call_each_other_end_soon() -> None:
    code = "\n".join(f"def f{k}(x):\n    return {' + '.join(f'f{j}(x)' for j in range(40))}"
                     for k in range(40))  # fmt: skip
    module: dict[str, Any] = {"__name__": "many"}
    exec(code, module)
    first = code_digest(module["f0"])
    assert first == code_digest(module["f0"])
    module["f7"].__code__ = (lambda x: x).__code__
    assert code_digest(module["f0"]) != first


def test_the_same_in_every_process() -> None:
    """Strings in sets, and addresses, differ from process to process."""
    script = (
        "from tests.discovery.test_run_digests import *\n"
        "kinds = [v for k in DIFFERENT.values() for v in k] + [{'ab', 'cd', 'ef', 'gh'}]\n"
        "names = lambda x: x in {'ab', 'cd', 'ef', 'gh'}\n"
        "codes = [c for pair in CODES.values() for c in pair] + [helped, names]\n"
        "print(content_digest([*map(content_digest, kinds), *map(code_digest, codes)]))\n"
    )
    told = set()
    for seed in ("1", "2"):
        path = os.pathsep.join(filter(None, sys.path))
        ran = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120,
            cwd=pathlib.Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        told.add(ran.stdout)
    assert len(told) == 1
