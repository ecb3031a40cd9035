"""``rtl-plugin compare`` on a user's task."""

import json
from pathlib import Path
from typing import Any

import pytest

from rtl_plugin import GeometricSchedule, compare
from rtl_plugin.cli import compare as command
from rtl_plugin.cli import main
from tests.cli import toy_task

SHORT = ["--sparsity", "0.5", "--rounds", "1", "--steps", "2", "--seeds", "2"]
FEW = ["--methods", "adaptive tickets", "dense"]

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.parametrize("name", ["task", "READY", "special"])
def test_the_table_is_that_of_the_library(
    name: str, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", f"my_toys:{name}", *SHORT, *FEW]
    assert main([*words, *(["--split", split] if split != "test" else [])]) == 0
    output = capsys.readouterr()
    task = toy_task.special() if name == "special" else toy_task.task()
    expected = compare(
        task.build_model,
        task.groups,
        task.loss,
        schedule=GeometricSchedule(0.5, rounds=1),
        steps=2,
        epochs=1,
        optimizer=task.optimizer,
        methods=["adaptive tickets", "dense"],
        seeds=[0, 1],
        task="toy",
        split=split,
        prunable=task.prunable,
        protocol=task.protocol,
        single=task.single,
    )
    assert output.out == expected.table() + "\n"
    assert output.err == "", "quiet where standard error is no terminal"


def test_json_on_the_screen_and_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "my_toys:task", *SHORT, *FEW, "--json"]
    assert main([*words, "-"]) == 0
    screen = json.loads(capsys.readouterr().out)
    assert main([*words, "new/folder/result.json"]) == 0
    assert "accuracy" in capsys.readouterr().out, "a file leaves the table on the screen"
    assert json.loads(Path("new/folder/result.json").read_text()) == screen
    assert set(screen) == {"rows", "raw"}
    assert {row["task"] for row in screen["rows"]} == {"toy"}
    assert [(raw["method"], raw["seed"]) for raw in screen["raw"]] == [
        ("adaptive tickets", 0),
        ("dense", 0),
        ("adaptive tickets", 1),
        ("dense", 1),
    ]


def test_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "my_toys:task", *SHORT, "--methods", "dense"]
    assert main([*words, "--metrics", "worst group", "accuracy in low"]) == 0
    header = capsys.readouterr().out.splitlines()[0]
    columns = [column.strip() for column in header.split("  ") if column.strip()]
    assert columns[2:4] == ["worst group", "accuracy in low"]


def test_a_run_folder_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "my_toys:task", *SHORT, *FEW, "--run-folder", "runs/toy"]
    assert main(words) == 0
    first = capsys.readouterr().out
    lines = Path("runs/toy/log.jsonl").read_text().count("\n")
    assert main(words) == 0
    assert capsys.readouterr().out == first
    assert Path("runs/toy/log.jsonl").read_text().count("\n") == lines, "nothing ran again"
    assert main([*words, "--epochs", "2"]) == 1
    assert "made with epochs=1, this call has epochs=2" in capsys.readouterr().err


def test_all_methods_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "my_toys:task", *SHORT, "--seeds", "1"]) == 0
    table = capsys.readouterr().out
    assert len(table.splitlines()) == 2 + 7


def never(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("the comparison began")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["my_toys:build_model"], "my_toys:build_model gave a Sequential, not a ComparisonTask"),
        (["my_toys:NO_TASK"], "my_toys:NO_TASK gave a int, not a ComparisonTask"),
        (["my_toys:needs_a_seed"], "my_toys:needs_a_seed cannot be called without arguments"),
        (["my_toys"], "'my_toys' is not of the form package.module:name"),
        (["my_toys:task", "--metrics", "f1"], "unknown metrics ['f1']: the task has accuracy, wor"),
        (["my_toys:task", "--json", "."], "--json takes a file, . is a folder"),
        (["my_toys:task", "--sparsity", "90"], "sparsity must be in (0, 1), got 90.0"),
    ],
)
def test_errors_before_anything_is_trained(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command.baselines, "compare", never)
    assert main(["compare", *words]) == 1
    output = capsys.readouterr()
    assert message in output.err
    assert output.out == ""


def test_an_unknown_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "my_toys:task", "--methods", "rtl"]) == 1
    assert "unknown method 'rtl': one of adaptive tickets, IMP" in capsys.readouterr().err


def test_digits_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "digits_task", toy_task.task)
    assert command.task_named("digits").name == "toy"
    seen = []
    monkeypatch.setattr(command, "_check_outputs", lambda arguments, task: seen.append(task.name))
    monkeypatch.setattr(command.baselines, "compare", lambda *a, **k: seen.append(k["schedule"]))
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'rows'"):
        main(["compare"])
    assert seen[0] == "toy"
    assert repr(seen[1]) == repr(GeometricSchedule(0.9, rounds=4))
