"""What a function reads from outside is part of what it is, or is named as unseen."""

import argparse
import dataclasses
import enum
import functools
import importlib.util
import logging
import os
import random
import re
import sys
import threading
from collections import OrderedDict, defaultdict, deque
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rtl_plugin.discovery.code_digest import read_code
from rtl_plugin.discovery.importance import importance_from
from rtl_plugin.tasks import digits

LOADER = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(2)))
LOCK, SETTING, PARAMS = threading.Lock(), None, {"lr": 0.1, "rounds": 3}
LOGGER = logging.getLogger("tests")


@dataclasses.dataclass
class Config:
    lr: Any
    more: Any = None


class Slotted:
    __slots__ = ("lr",)

    def __init__(self, lr: Any) -> None:
        self.lr = lr


class Mode(enum.IntEnum):
    FAST = 1
    SLOW = 2


def holding(value: Any) -> Any:
    return lambda params: value


def reading() -> Any:
    return SETTING


def circle(lr: float) -> Any:
    config = Config(lr)
    config.more = [config]
    return config


# Settings that differ in one thing, held by a closure or by the module.
PAIRS: dict[str, tuple[Any, Any]] = {
    "dict": ({"lr": 1}, {"lr": 2}),
    "deep dict": ({"a": [({"b": 1},)]}, {"a": [({"b": 2},)]}),
    "default": (defaultdict(int, a=1), defaultdict(float, a=1)),
    "ordered": (OrderedDict(a=1), OrderedDict(a=2)),
    "list": ([1, 2], [2, 1]), "kind of sequence": ([1, 2], (1, 2)),
    "set": ({"a", ("b", 1)}, {"a", ("b", 2)}),
    "deque": (deque([1]), deque([2])),
    "tensor": (torch.zeros(2), torch.ones(2)),
    "parameter": (nn.Parameter(torch.zeros(2)), torch.zeros(2)),
    "array": (np.zeros(2), np.ones(2)),
    "objects in an array": (np.array([1, "a"], object), np.array([1, "b"], object)),
    "namespace": (SimpleNamespace(lr=1), SimpleNamespace(lr=2)),
    "arguments": (argparse.Namespace(lr=1), argparse.Namespace(lr=2)),
    "dataclass": (Config(1), Config(2)),
    "object in an object": (Config(Config(1)), Config(Config(2))),
    "slots": (Slotted(1), Slotted(2)),
    "circle": (circle(1), circle(2)),
    "enumeration": (Mode.FAST, Mode.SLOW),
    "class": (Config, Slotted),
    "module": (nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss(label_smoothing=0.2)),
    "weights": (nn.BatchNorm1d(2), nn.BatchNorm1d(2).requires_grad_(False)),
    "partial": (functools.partial(F.elu, alpha=1.0), functools.partial(F.elu, alpha=2.0)),
    "cached": (functools.lru_cache(holding(1)), functools.lru_cache(holding(2))),
    "method": (Config(1).__eq__, Config(2).__eq__),
    "method of a list": ([1].index, [2].index),
    "builtin": (max, min),
    "decorated": (torch.no_grad()(holding(1)), torch.no_grad()(holding(2))),
    "pattern": (re.compile("a"), re.compile("a", re.IGNORECASE)),
    "path": (Path("a"), Path("b")),
    "generator": (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)),
    "logger": (logging.getLogger("one"), logging.getLogger("two")),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_settings_are_looked_into(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = PAIRS[name]
    told = [read_code(holding(one)), read_code(holding(two)), read_code(holding(one))]
    assert told[0] == told[2] != told[1]
    found = []
    for value in (one, two):
        monkeypatch.setitem(globals(), "SETTING", value)
        found.append(read_code(reading))
    assert found[0].digest != found[1].digest
    assert {read.unseen for read in (*told, *found)} == {()}


OPAQUE: dict[str, Any] = {
    "lock": threading.Lock(), "iterator": iter([1]), "random": random.Random(0),
    "file": sys.__stdout__, "set of objects": {Config, Slotted},
    "meta": torch.zeros(2, device="meta"),
    "deep": functools.reduce(lambda held, _: [held], range(60), 0), "large": [[]] * 60_000,
    "within": Config(SimpleNamespace(made={"by": threading.Lock()})),
    "generator": np.random.default_rng(0), "running": (each for each in [1]),
}  # fmt: skip


@pytest.mark.parametrize("name", OPAQUE)
def test_what_cannot_be_read_is_named(name: str) -> None:
    (told, *_) = read_code(holding(OPAQUE[name])).unseen
    assert told.startswith("all that it reads" if name == "large" else "value")
    if name == "within":
        assert told == "value.lr.made['by'] (a lock)"


def test_code_that_reads_anything() -> None:
    def loads(model: Any, batch: Any) -> Any:
        return eval("1"), open("file")

    def asks() -> Any:
        return os.environ["LR"]

    def imports() -> Any:
        import tests.discovery.setups

        return tests.discovery.setups

    def counts() -> int:
        return os.cpu_count() or 1

    def standard() -> Any:
        import math

        return math.pi

    assert [name.split()[0] for name in read_code(loads).unseen] == ["eval", "open"]
    assert read_code(asks).unseen == ("os.environ (the environment)",)
    assert read_code(imports).unseen[0].startswith("tests.discovery.setups (imported inside")
    assert read_code(counts).unseen == read_code(standard).unseen == ()


def edited(source: str) -> type:
    """A class of the user's own file, as after an edit."""
    namespace: dict[str, Any] = {"__name__": "own_file", "torch": torch}
    exec(source, namespace)
    found = namespace["Own"]
    assert isinstance(found, type)
    return found


@pytest.mark.parametrize(
    "edit",
    ["def step(self): return 2", "rate = 2", "step = property(lambda self: 2)",
     "step = staticmethod(lambda: 2)", "step = classmethod(lambda kind: 2)"],
)  # fmt: skip
def test_a_class_of_the_users_own_is_its_code(edit: str) -> None:
    source = "class Base(torch.optim.SGD):\n    {}\nclass Own(Base):\n    {}\n"
    before = edited(source.format("pass", "pass"))
    for bodies in ((edit, "pass"), ("pass", edit)):
        after = edited(source.format(*bodies))
        for wrap in (holding, functools.partial, lambda kind: lambda p: kind(p)):
            assert read_code(wrap(before)).digest != read_code(wrap(after)).digest
        assert read_code(after) == read_code(edited(source.format(*bodies)))
        other = edited(source.format(*(body.replace("2", "3") for body in bodies)))
        assert read_code(after).digest != read_code(other).digest


def own_module(folder: Path, source: str) -> ModuleType:
    path = folder / "helper.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("helper", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_module_of_the_users_own(tmp_path: Path) -> None:
    source = "LR = 1\nCFG = {'a': 1}\ndef scale(x): return x * CFG['a']\nclass K:\n    pass\n"
    helper = own_module(tmp_path, source)

    def takes() -> Any:
        return helper.LR, helper.scale

    def passes() -> Any:
        return [helper]

    before = read_code(takes)
    assert before.unseen == ()
    assert read_code(passes).unseen == ("helper (a module that is used as a whole)",)
    helper.CFG["a"] = 2
    changed = read_code(takes)
    helper.LR = 2
    again = read_code(takes)
    assert len({before.digest, changed.digest, again.digest}) == 3
    helper = own_module(tmp_path, source + "# edited\n")
    assert read_code(takes).digest != before.digest
    helper = own_module(tmp_path, source)
    assert read_code(takes) == before


def test_what_is_not_used_by_name_is_nobodys_concern(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attribute of the same name as a global is not the global."""

    def loss(model: Any, batch: Any) -> Any:
        LOGGER.info("a loss of %s", batch.LOCK)
        return F.cross_entropy(model(batch.LOADER), batch.PARAMS) * np.pi

    before = read_code(loss)
    assert before.unseen == ()
    for name in ("LOADER", "LOCK", "PARAMS"):
        monkeypatch.setitem(globals(), name, None)
    LOGGER.addHandler(logging.NullHandler())
    assert read_code(loss) == before


ORDINARY = {
    "loss": F.cross_entropy, "criterion": nn.CrossEntropyLoss(weight=torch.ones(2)),
    "optimizer class": torch.optim.Adam, "partial": functools.partial(torch.optim.SGD, lr=0.1),
    "lambda": lambda params: torch.optim.Adam(params, 1e-3), "metric": digits.accuracy,
    "digits": digits.cross_entropy, "adam": digits.adam, "none": None,
    "no grad": torch.no_grad()(digits.accuracy),
    "importance": [importance_from(n).scores for n in ("magnitude", "weight_gradient", "random")],
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_functions_are_seen_whole(name: str) -> None:
    assert read_code(ORDINARY[name]).unseen == ()
