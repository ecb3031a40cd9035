"""Which part of an outer name code reads, and which modules a version speaks for."""

import argparse
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rtl_plugin.discovery import code_digest
from rtl_plugin.discovery.code_digest import read_code
from rtl_plugin.discovery.code_origin import Origins
from rtl_plugin.discovery.code_uses import uses

LOCK, SETTING, PARAMS = threading.Lock(), None, {"lr": 0.1, "rounds": 3}


class Doubling(dict[str, Any]):
    """What it gives is not what it holds."""

    factor = 2

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(key) * self.factor


def holding(value: Any) -> Any:
    return lambda params: value


def test_only_the_part_that_is_read() -> None:
    def factory(args: Any, params: dict[str, Any]) -> Any:
        return lambda p: torch.optim.SGD(p, args.lr * params["factor"])

    def whole(params: dict[str, Any]) -> Any:
        return lambda p: (params["factor"], sorted(params))

    def told(lr: float, factor: float, rounds: int, folder: str) -> str:
        args = argparse.Namespace(lr=lr, out=folder)
        return read_code(factory(args, {"factor": factor, "rounds": rounds})).digest

    assert told(1, 1, 3, "a") == told(1, 1, 4, "b")
    assert len({told(1, 1, 3, "a"), told(2, 1, 3, "a"), told(1, 2, 3, "a")}) == 3
    first, second = (whole({"factor": 1, "rounds": rounds}) for rounds in (3, 4))
    assert read_code(first).digest != read_code(second).digest


def test_a_mapping_of_another_kind_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Doubling(lr=1)

    def factory(params: Any) -> Any:
        return settings["lr"]

    before = read_code(factory).digest
    monkeypatch.setattr(Doubling, "factor", 3)
    assert read_code(factory).digest != before


def test_names_that_are_written_and_names_in_a_class_body() -> None:
    def writes(batch: Any) -> Any:
        global SETTING
        return (SETTING := batch)["lr"]

    def defines() -> type:
        class Inner:
            held = LOCK

        return Inner

    assert uses(writes.__code__).outer["SETTING"] == {()}
    assert uses((lambda: PARAMS[("lr", 1)]).__code__).outer["PARAMS"] == {()}
    assert read_code(defines).unseen == ("LOCK (a lock)",)


def test_where_modules_come_from() -> None:
    origins = Origins()
    assert origins.version("torch.nn") == torch.__version__
    assert origins.version("json") == origins.version("builtins")
    assert origins.version("rtl_plugin.tasks") is not None
    for own in ("__main__", __name__, "no_such_module", None):
        assert origins.version(own) is None


def test_a_version_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = (F.elu, nn.ReLU, np, nn.ReLU())
    before = [read_code(holding(each)).digest for each in installed]
    version = Origins.version
    later = {"torch": "99", "numpy": "99"}
    monkeypatch.setattr(
        code_digest.Origins,
        "version",
        lambda self, name: later.get(str(name).partition(".")[0]) or version(self, name),
    )
    for each, digest in zip(installed, before, strict=True):
        assert read_code(holding(each)).digest != digest
