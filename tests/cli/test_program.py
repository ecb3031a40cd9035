"""The program as a whole: help, exit codes, and as a process of its own."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rtl_plugin.cli import explain as explain_command
from rtl_plugin.cli import main
from rtl_plugin.errors import InvalidArgument

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "": ["quickstart", "explain", "inspect", "compare", "Exit codes: 0 done", "2 a wrong"],
    "quickstart": ["-o FOLDER", "--output FOLDER", "--seeds N", "default quickstart-output"],
    "explain": ["model", "--prunable PATTERN", "--json", "package.module:name"],
    "inspect": ["file", "--json", "TicketSet.save"],
    "compare": [
        *("task", "--sparsity S", "--rounds N", "--steps N", "--epochs N", "--seeds N"),
        *("--methods METHOD", "--metrics METRIC", "--split {test,validation}"),
        *("--run-folder FOLDER", "--json FILE", "default 0.9", "'adaptive tickets'", "my_task"),
    ],
}


@pytest.mark.parametrize("command", OPTIONS)
def test_help(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for wanted in OPTIONS[command]:
        assert wanted in text
    assert max(map(len, text.splitlines())) <= 80
    # Every option says what it does: argparse prints a lone option where it has no help.
    for line, after in itertools.pairwise([*text.splitlines(), ""]):
        if line.startswith("  -"):
            assert "  " in line.strip() or after.startswith(" " * 20), f"no help: {line}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["discover"], "invalid choice: 'discover'"),
        (["explain"], "the following arguments are required: model"),
        (["inspect"], "the following arguments are required: file"),
        (["compare", "--seeds", "0"], "--seeds: expected a whole number of at least 1, got '0'"),
        (["compare", "--rounds", "two"], "--rounds: expected a whole number of at least 1"),
        (["compare", "--steps", "-5"], "--steps"),
        (["compare", "--epochs", "1.5"], "--epochs: expected a whole number of at least 1"),
        (["compare", "--sparsity", "much"], "--sparsity: invalid float value: 'much'"),
        (["compare", "--split", "train"], "--split: invalid choice: 'train'"),
        (["quickstart", "--seeds", "0"], "--seeds: expected a whole number of at least 1, got '0'"),
        (["inspect", "a", "b"], "unrecognized arguments: b"),
    ],
)
def test_a_wrong_command_line_ends_with_two(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "usage: rtl-plugin" in output.err
    assert output.out == ""


def test_errors_of_ours_and_of_files_end_with_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (InvalidArgument("say so"), PermissionError("no entry")):
        monkeypatch.setattr(explain_command, "load_object", raising(error))
        assert main(["explain", "a:b"]) == 1
        output = capsys.readouterr()
        assert output.err == f"rtl-plugin: {error}\n"
        assert output.out == ""


def test_an_interrupt_ends_with_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain_command, "load_object", raising(KeyboardInterrupt()))
    assert main(["explain", "a:b"]) == 130
    assert "interrupted; with --run-folder the same command resumes" in capsys.readouterr().err


def test_a_fault_in_the_users_code_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_command, "load_object", raising(ZeroDivisionError("theirs")))
    with pytest.raises(ZeroDivisionError, match="theirs"):
        main(["explain", "a:b"])


def raising(error: BaseException) -> object:
    def load_object(spec: str) -> None:
        raise error

    return load_object


def process(*words: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "rtl_plugin.cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_as_a_process(working_folder: Path) -> None:
    done = process("explain", "my_toys:build_model", folder=working_folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "96 of 146 parameters are prunable" in done.stdout
    failed = process("inspect", "nowhere.safetensors", folder=working_folder)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "rtl-plugin: no such file: nowhere.safetensors\n"
