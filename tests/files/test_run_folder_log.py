"""Events of a run folder's log, also after a killed write."""

import json
from pathlib import Path
from typing import Any

import pytest

from rtl_plugin.run_folder import RunFolder


def events(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.log_file.read_text(encoding="utf-8").splitlines()]


def test_an_event_a_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new" / "run", "discover")
    folder.log("round", round=1)
    folder.log("round", round=2, group="Straße")
    assert folder.log_file.read_bytes().count(b"\n") == 2
    assert [event["round"] for event in events(folder)] == [1, 2]
    assert events(folder)[1]["group"] == "Straße"
    assert {event["stage"] for event in events(folder)} == {"discover"}
    assert events(folder)[0]["time"] <= events(folder)[1]["time"]


@pytest.mark.parametrize("half", [b'{"time": 1', b"{", '{"group": "Straß'.encode()[:-1]])
def test_half_a_line_stays_alone(tmp_path: Path, half: bytes) -> None:
    folder = RunFolder(tmp_path, "discover")
    folder.log("round", round=1)
    whole = folder.log_file.read_bytes()
    folder.log_file.write_bytes(whole + half)
    folder.log("round", round=2)
    folder.log("round", round=3)
    first, cut, second, third, end = folder.log_file.read_bytes().split(b"\n")
    assert (first + b"\n", cut, end) == (whole, half, b"")
    assert [json.loads(line)["round"] for line in (second, third)] == [2, 3]


def test_an_empty_log_gets_no_empty_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "retrain")
    folder.log_file.touch()
    folder.log("epoch")
    assert folder.log_file.read_bytes().startswith(b"{")
