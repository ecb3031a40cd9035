"""compare: rows, seeds and intervals, what it leaves alone, and a finished run folder."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rtl_plugin as rtl
from rtl_plugin.baselines.methods import METHODS
from rtl_plugin.errors import DamagedFile, RunFolderMismatch
from rtl_plugin.evaluation import confidence_interval
from tests.baselines.tiny import (
    RECIPE,
    Counting,
    adam,
    build_model,
    cross_entropy,
    groups,
)

FEW = ["adaptive tickets", "dense"]


def small(**changed: Any) -> rtl.Comparison:
    arguments: dict[str, Any] = {
        "optimizer": adam,
        "methods": FEW,
        "seeds": [0, 1],
        **RECIPE,
        **changed,
    }
    build, loss = arguments.pop("build", build_model), arguments.pop("loss", cross_entropy)
    data = arguments.pop("data", None)
    return rtl.compare(build, groups() if data is None else data, loss, **arguments)


@pytest.fixture(scope="module")
def everything() -> rtl.Comparison:
    return small(methods=None, seeds=[3, 5, 8], task="shifted")


def test_rows_have_the_format_of_design_md(everything: rtl.Comparison) -> None:
    keys = {
        *("task", "sparsity", "method", "metric", "mean", "low", "high"),
        *("seeds", "parameters", "bytes"),
    }
    assert all(set(row) == keys for row in everything.rows)
    assert list(dict.fromkeys(row["method"] for row in everything.rows)) == list(METHODS)
    metrics = [row["metric"] for row in everything.rows if row["method"] == "dense"]
    assert metrics == [
        *("accuracy", "worst group", "accuracy in a", "accuracy in b"),
        *("balanced accuracy", "precision", "recall", "calibrated balanced accuracy"),
    ]
    for row in everything.rows:
        assert row["task"] == "shifted"
        assert row["seeds"] == [3, 5, 8]
        assert row["sparsity"] == (0.0 if row["method"] == "dense" else 0.5)
        assert isinstance(row["parameters"], int)
        assert isinstance(row["bytes"], int)
        assert row["low"] <= row["mean"] <= row["high"]
    assert json.loads(json.dumps(everything.rows, allow_nan=False)) == everything.rows


def test_means_and_intervals_are_those_of_the_raw_results(everything: rtl.Comparison) -> None:
    assert len(everything.raw) == 3 * len(METHODS)
    for row in everything.rows:
        values = [
            raw["metrics"][row["metric"]]
            for raw in everything.raw
            if raw["method"] == row["method"]
        ]
        interval = confidence_interval(values)
        assert len(values) == 3
        assert (row["mean"], row["low"], row["high"]) == interval
    of_dense = [raw for raw in everything.raw if raw["method"] == "dense"]
    assert len({raw["theta_0"] for raw in of_dense}) == 3, "every seed has its own initialisation"
    for raw in everything.raw:
        expected = [r["theta_0"] for r in of_dense if r["seed"] == raw["seed"]]
        assert [raw["theta_0"]] == expected, "all methods of a seed start from the same weights"


def test_metrics_fit_together(everything: rtl.Comparison) -> None:
    for raw in everything.raw:
        metrics = raw["metrics"]
        of_groups = [metrics["accuracy in a"], metrics["accuracy in b"]]
        assert metrics["accuracy"] == pytest.approx(sum(of_groups) / 2)
        assert metrics["worst group"] == min(of_groups)
        assert all(0 <= value <= 1 for value in metrics.values())


def test_one_seed_has_no_interval() -> None:
    comparison = small(seeds=[4])
    assert {(row["low"], row["high"]) for row in comparison.rows} == {(None, None)}
    assert "[" not in comparison.table()


def test_the_table_leaves_single_groups_out(everything: rtl.Comparison) -> None:
    header = everything.table().splitlines()[0]
    assert "worst group" in header
    assert "accuracy in a" not in header
    assert str(everything) == everything.table()
    chosen = everything.table(["accuracy in b", "recall"], style="markdown").splitlines()
    assert chosen[0].split("|")[3].strip() == "accuracy in b"
    assert chosen[0].split("|")[4].strip() == "recall"
    assert len(chosen) == 2 + len(METHODS)
    with pytest.raises(rtl.errors.InvalidArgument, match=r"unknown metrics \['f1'\]: one of acc"):
        everything.table(["f1"])


def test_the_same_call_gives_the_same_rows(everything: rtl.Comparison) -> None:
    torch.manual_seed(123)
    again = small(methods=list(reversed(METHODS)), seeds=[8, 3, 5], task="shifted")

    def by_line(comparison: rtl.Comparison) -> dict[tuple[str, int], dict[str, Any]]:
        return {(raw["method"], raw["seed"]): raw for raw in comparison.raw}

    assert by_line(again) == by_line(everything)


def test_the_callers_random_states_are_left_alone() -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
    data = torch.utils.data.TensorDataset(x, (x.sum(1) > 0).long())
    loader = torch.utils.data.DataLoader(data, 8, shuffle=True, generator=generator)
    plain = torch.utils.data.DataLoader(data, 8)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    own = generator.get_state()
    small(data=groups(a=loader, b=plain), seeds=[0])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    assert torch.equal(generator.get_state(), own)


def test_the_validation_split_is_another(everything: rtl.Comparison) -> None:
    data = groups()
    test_only = small(data=data, seeds=[3])
    tuning = small(data=data, seeds=[3], split="validation")
    assert test_only.raw[0]["metrics"] == tuning.raw[0]["metrics"], "tiny.py holds the same twice"
    other = rtl.DataGroups.from_loaders(
        {name: group.train for name, group in data.items()},
        validation={name: group.train for name, group in data.items()},
        test={name: group.test for name, group in data.items()},
    )
    on_train = small(data=other, seeds=[3], split="validation")
    assert on_train.raw[0]["metrics"] != tuning.raw[0]["metrics"]


def test_a_metric_that_draws_is_repeatable_and_draws_from_no_stream_of_the_caller() -> None:
    def draw(model: Any, batch: Any) -> torch.Tensor:
        return torch.rand(len(batch[0]))

    def drawn() -> rtl.Comparison:
        return small(seeds=[0], protocol=rtl.protocols.MeanOfMetric(draw, "luck"))

    first, state = drawn(), torch.get_rng_state()
    assert drawn() == first
    assert torch.equal(torch.get_rng_state(), state)


# A run folder.


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "log.jsonl"
    }


def test_a_finished_folder_returns_its_result_without_training(tmp_path: Path) -> None:
    loss = Counting()
    first = small(loss=loss, run_folder=tmp_path)
    assert loss.batches > 0
    content = files(tmp_path)
    loss.batches = 0
    again = small(loss=loss, run_folder=tmp_path)
    assert loss.batches == 0
    assert again == first
    assert [list(raw["metrics"]) for raw in again.raw] == [list(r["metrics"]) for r in first.raw]
    assert files(tmp_path) == content
    assert small() == first, "a run folder changes no figure"


def test_the_results_file_holds_rows_and_raw_results(tmp_path: Path) -> None:
    comparison = small(run_folder=tmp_path)
    content = json.loads((tmp_path / "compare" / "results.json").read_text())
    assert content["rows"] == comparison.rows
    assert content["raw"] == comparison.raw
    assert content["headline"] == comparison.headline == "accuracy"


def test_seeds_and_methods_may_be_added(tmp_path: Path) -> None:
    loss = Counting()
    small(loss=loss, run_folder=tmp_path, seeds=[0], methods=["dense"])
    part = loss.batches
    loss.batches = 0
    grown = small(loss=loss, run_folder=tmp_path)
    assert grown == small(loss=Counting())
    assert loss.batches == 3 * part  # the other three of two methods and two seeds


class Wider:
    def __call__(self, seed: int) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2))


def scaled(seed: int) -> nn.Module:
    model = build_model(seed)
    with torch.no_grad():
        model[0].weight.mul_(2)
    return model


scaled.__module__, scaled.__qualname__ = build_model.__module__, build_model.__qualname__


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"steps": 4}, "steps=3, this call has steps=4"),
        ({"epochs": 3}, "epochs=2, this call has epochs=3"),
        ({"schedule": rtl.GeometricSchedule(0.6, rounds=2)}, "schedule="),
        ({"optimizer": lambda params: torch.optim.Adam(params, 0.03)}, "optimizer="),
        ({"prunable": ["0.weight"]}, "prunable="),
        ({"floor": 0.1}, "floor=0.01, this call has floor=0.1"),
        ({"rewind_to": 2}, "rewind_to=0, this call has rewind_to=2"),
        ({"importance": "random"}, "importance="),
        ({"private_parameters": ["1.*"]}, "private_parameters="),
        ({"split": "validation"}, 'split="test", this call has split="validation"'),
        ({"task": "other"}, 'task="task", this call has task="other"'),
        ({"build": Wider()}, "model="),
        ({"loss": lambda model, batch: cross_entropy(model, batch) * 2}, "loss="),
        ({"protocol": rtl.protocols.MeanOfMetric(len, "n")}, "protocol="),
        ({"single": rtl.SingleModel(Wider(), cross_entropy)}, "single="),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_folder_made_with_other_arguments_is_refused(
    changed: dict[str, Any], named: str, tmp_path: Path
) -> None:
    small(run_folder=tmp_path, seeds=[0], methods=["dense"])
    content = files(tmp_path)
    entry = named.removesuffix("=") + r"(?:\.[^ =]+)?=" if named.endswith("=") else named
    with pytest.raises(RunFolderMismatch, match=f"was made with {entry}"):
        small(run_folder=tmp_path, seeds=[0], methods=["dense"], **changed)
    assert files(tmp_path) == content


@pytest.mark.parametrize("method", ["dense", "adaptive tickets"])
def test_results_of_other_initial_weights_are_refused(method: str, tmp_path: Path) -> None:
    small(run_folder=tmp_path, seeds=[0], methods=[method])
    with pytest.raises(RunFolderMismatch, match=r"other initial weights than build_model\(0\)"):
        small(run_folder=tmp_path, seeds=[0], methods=[method], build=scaled)


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    small(run_folder=tmp_path, seeds=[0], methods=["dense"])
    result = tmp_path / "compare" / "dense-seed-0.json"
    whole = result.read_bytes()
    for content in (whole[: len(whole) // 2], b"[]", b"\xff"):
        result.write_bytes(content)
        with pytest.raises(DamagedFile, match=r"dense-seed-0.json .*delete it to redo it"):
            small(run_folder=tmp_path, seeds=[0], methods=["dense"])
    result.unlink()
    small(run_folder=tmp_path, seeds=[0], methods=["dense"])
    assert result.read_bytes() == whole


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    small(run_folder=tmp_path, seeds=[0])
    content = files(tmp_path)
    stages = {path.parent for path in tmp_path.rglob("arguments.json")}
    assert len(stages) == 4  # compare; one discovery, two retrainings
    for result in ("compare/results.json", "compare/dense-seed-0.json"):
        (tmp_path / result).unlink()
    for stage in stages:
        (stage / ".results.json.123.456.tmp").write_bytes(b"{")
    small(run_folder=tmp_path, seeds=[0], methods=["dense"])
    small(run_folder=tmp_path, seeds=[0])
    left = {name for name in files(tmp_path) if name.endswith(".tmp")}
    # Stages of a method whose result is there are not entered again.
    assert all("adaptive" in name for name in left)
    assert {name: value for name, value in files(tmp_path).items() if name not in left} == content
