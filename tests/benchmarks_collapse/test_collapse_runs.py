"""Recorded runs: what a file's name and content must be for it to be taken."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import rtl_plugin as rtl
from benchmarks import collapse_runs
from benchmarks.collapse_rules import traces_of
from benchmarks.collapse_runs import ENVIRONMENTS, CollapseTask, inr_task, run_of
from rtl_plugin.errors import DamagedFile


def groups() -> rtl.DataGroups:
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    loaders = {name: [(x.roll(k, 1), (x[:, :3].sum(1) > 0).long())] for k, name in enumerate("ab")}
    return rtl.DataGroups.from_loaders(loaders, validation=loaders, test=loaders)


def network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        *(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16), torch.nn.ReLU()),
        torch.nn.Linear(16, 2),
    )


def another_network(seed: int) -> torch.nn.Module:
    return network(seed)


def small_task() -> CollapseTask:
    return dataclasses.replace(
        ENVIRONMENTS, name="a small task", build_model=network, groups=groups, steps=2, rounds=3,
        sparsity=0.8, chance=lambda found: dict.fromkeys(found, 0.5),
    )  # fmt: skip


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds that were really run."""
    seeds: list[int] = []

    def fake(task: CollapseTask, seed: int) -> dict[str, Any]:
        seeds.append(seed)
        return {"settings": task.settings(), "seed": seed}

    monkeypatch.setattr(collapse_runs, "measured", fake)
    return seeds


def test_a_real_run_is_recorded_and_taken_again(tmp_path: Path) -> None:
    run = run_of(small_task(), 1, tmp_path)
    [file] = tmp_path.iterdir()
    assert file == small_task().file(1, tmp_path)
    assert file.name.startswith("a-small-task-1-")
    assert json.loads(file.read_text()) == run
    assert run["settings"] == small_task().settings()
    assert [len(run[key][0]) for key in ("metrics", "losses")] == [4, 4]
    assert len(run["shared"]) == 3
    traces = traces_of(run)
    assert [trace.ticket for trace in traces] == ["a", "b"]
    assert traces[0].densities[-1] == pytest.approx(0.2, abs=0.01)
    stamp = file.stat().st_mtime_ns
    assert run_of(small_task(), 1, tmp_path) == run
    assert file.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    "change",
    [{"steps": 3}, {"rounds": 4}, {"sparsity": 0.7}, {"learning_rate": 0.1}, {"floor": 0.01},
     {"build_model": another_network}, {"evaluate": another_network}, {"loss": another_network},
     {"name": "A-small-task"}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_other_settings_are_another_file(
    tmp_path: Path, counted: list[int], change: dict[str, Any]
) -> None:
    other = dataclasses.replace(small_task(), **change)
    run_of(small_task(), 0, tmp_path)
    assert run_of(other, 0, tmp_path)["settings"] == other.settings()
    assert counted == [0, 0]
    assert len(list(tmp_path.iterdir())) == 2
    run_of(small_task(), 0, tmp_path)
    run_of(other, 0, tmp_path)
    assert counted == [0, 0], "both are there"


def test_photographs_are_told_apart_by_name() -> None:
    coffee, astronaut = inr_task("coffee"), inr_task("astronaut")
    assert coffee.settings() != astronaut.settings()
    assert inr_task("coffee").settings() == coffee.settings()


@pytest.mark.parametrize("wrong", [{"settings": {}}, {"seed": 5}, {}])
def test_a_file_that_says_otherwise_is_not_taken(
    tmp_path: Path, counted: list[int], wrong: dict[str, Any]
) -> None:
    task = small_task()
    right = {"settings": task.settings(), "seed": 0}
    task.file(0, tmp_path).write_text(json.dumps({**right, **wrong} if wrong else {}))
    assert run_of(task, 0, tmp_path) == right
    assert counted == [0]
    assert run_of(task, 0, tmp_path) == right
    assert counted == [0], "it was written anew"


@pytest.mark.parametrize(
    ("content", "said"), [(b"{", "not JSON"), (b"\xff", "not JSON"), (b"[]", "object")]
)
def test_a_damaged_file_is_named(
    tmp_path: Path, counted: list[int], content: bytes, said: str
) -> None:
    file = small_task().file(0, tmp_path)
    file.write_bytes(content)
    with pytest.raises(DamagedFile, match=said) as error:
        run_of(small_task(), 0, tmp_path)
    assert str(file) in str(error.value)
    assert counted == []
