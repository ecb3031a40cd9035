"""``rtl-plugin explain``."""

import json
from pathlib import Path

import pytest

from rtl_plugin.cli import main
from tests.cli.toy_task import build_model

pytestmark = pytest.mark.usefixtures("working_folder")


def test_a_table_of_a_module_in_the_working_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "my_toys:build_model"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    lines = output.out.splitlines()
    assert lines[0].split() == ["parameter", "shape", "verdict", "why"]
    verdicts = {line.split()[0]: line.split()[2] for line in lines[2:-2]}
    assert list(verdicts) == [name for name, _ in build_model().named_parameters()]
    assert [name for name, verdict in verdicts.items() if verdict == "prunable"] == [
        "0.weight",
        "3.weight",
    ]
    assert lines[-1] == "96 of 146 parameters are prunable"


@pytest.mark.parametrize("name", ["my_toys:build_model", "my_toys:READY.build_model"])
def test_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", name, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows if row["prunable"]] == ["0.weight", "3.weight"]
    assert set(rows[0]) == {"name", "shape", "prunable", "reason"}
    assert rows[0]["shape"] == [8, 4]


def test_patterns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "my_toys:build_model", "--json", "--prunable", "5.*", "0.w*"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows if row["prunable"]] == ["0.weight", "5.weight", "5.bias"]


def test_a_model_itself(working_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path("my_toys.py").read_text() + "\nmodel = build_model()\n"
    Path("my_toys.py").write_text(text)
    assert main(["explain", "my_toys:model"]) == 0
    assert "96 of 146" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["my_toys"], "'my_toys' is not of the form package.module:name"),
        ([":build_model"], "':build_model' is not of the form"),
        (["my_toys:"], "'my_toys:' is not of the form"),
        (["no_such_module:f"], "cannot import 'no_such_module' from "),
        (["my_toys:nothing"], "'my_toys' has no 'nothing'"),
        (["my_toys:READY.nothing"], "'my_toys' has no 'READY.nothing'"),
        (["my_toys:NO_TASK"], "my_toys:NO_TASK gave a int, not an nn.Module"),
        (["my_toys:task"], "my_toys:task gave a ComparisonTask, not an nn.Module"),
        (["torch.nn:Linear"], "torch.nn:Linear cannot be called without arguments (missing a req"),
        (["torch.nn:Linear"], "argument: 'in_features'): name a function that builds the object"),
        (["my_toys:build_model", "--prunable", "conv*"], "'conv*' matches no parameter; the mo"),
        (["torch.nn:Identity"], "no parameter of Identity may be pruned"),
        (["torch.nn:Identity", "--json"], "no parameter of Identity may be pruned"),
    ],
)
def test_errors(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *words]) == 1
    assert message in capsys.readouterr().err


def test_a_class_that_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    text = Path("my_toys.py").read_text()
    text += "\nclass Net(nn.Sequential):\n    def __init__(self, width=3):\n"
    text += "        super().__init__(nn.Linear(2, width), nn.Linear(width, 1))\n"
    Path("my_toys.py").write_text(text)
    assert main(["explain", "my_toys:Net"]) == 0
    assert "6 of 13 parameters are prunable" in capsys.readouterr().out


def test_a_fault_inside_the_users_function_is_shown() -> None:
    with pytest.raises(TypeError, match="a fault in the task itself"):
        main(["explain", "my_toys:fails"])
