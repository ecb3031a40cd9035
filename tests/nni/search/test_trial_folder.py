"""The files of a trial: what a kill leaves, and damage."""

from pathlib import Path

import pytest
from torch import nn

from rtl_nni.search.collapse_stop import StopVerdict
from rtl_nni.search.trial_folder import TrialFolder
from rtl_nni.search.trial_result import TrialResult
from rtl_plugin.errors import DamagedFile


def test_rows_are_added_line_by_line(tmp_path: Path) -> None:
    files = TrialFolder(tmp_path / "not yet")
    assert files.read_rounds() == []
    for number in (1, 2):
        files.append_round({"round": number, "name": "Straße\n"})
        assert len(files.rounds.read_text().splitlines()) == number
    assert files.read_rounds() == [{"round": n, "name": "Straße\n"} for n in (1, 2)]


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    files = TrialFolder(tmp_path)
    files.append_round({"round": 1})
    whole = files.rounds.read_bytes()
    files.append_round({"round": 22})
    for length in range(len(whole), files.rounds.stat().st_size):
        cut = TrialFolder(tmp_path / str(length))
        cut.rounds.parent.mkdir(parents=True)
        cut.rounds.write_bytes(files.rounds.read_bytes()[:length])
        assert cut.read_rounds() == [{"round": 1}]


@pytest.mark.parametrize("line", [b"{", b"[1]", b"3", b"\xff", b""])
def test_a_damaged_line_is_an_error_that_names_the_file(line: bytes, tmp_path: Path) -> None:
    files = TrialFolder(tmp_path)
    files.append_round({"round": 1})
    with files.rounds.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(DamagedFile, match=r"rounds\.jsonl has a line that is no"):
        files.read_rounds()


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b""])
def test_a_damaged_file_is_an_error_that_names_it(content: bytes, tmp_path: Path) -> None:
    files = TrialFolder(tmp_path)
    assert files.read(files.result) is None
    files.write(files.result, {"metric": 0.5})
    assert files.read(files.result) == {"metric": 0.5}
    files.result.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"result\.json .* delete its trial's folder"):
        files.read(files.result)


def test_starting_again_keeps_what_was_trained(tmp_path: Path) -> None:
    files = TrialFolder(tmp_path)
    files.start_again()
    for path in (files.settings, files.result, files.stopped, files.run / "discover" / "round-1"):
        files.write(path, {})
    files.append_round({})
    files.start_again()
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["round-1", "trial.json"]


def test_a_result_is_told_whole_but_for_network_and_tickets(tmp_path: Path) -> None:
    verdict = StopVerdict(2, 3, 0.5, ("a",), "why")
    result = TrialResult(
        metric=0.1, metrics={"a": 0.2}, intermediate=(0.3,), sparsity=0.4, parameters=5,
        measured={"ms": 0.6}, steps_planned=7, steps_done=6, seconds=9.0, seconds_saved=10.0,
        stopped=verdict, model=nn.Identity(),
    )  # fmt: skip
    files = TrialFolder(tmp_path)
    files.write(files.result, result.to_json())
    told = files.read(files.result) or {}
    assert told.pop("stopped") == verdict.to_json()
    assert told.pop("intermediate") == [0.3]
    assert set(told) == set(vars(result)) - {"stopped", "intermediate", "model", "tickets"}
    assert told == {name: getattr(result, name) for name in told}
