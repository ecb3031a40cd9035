"""What only NNI's manager knows of a trial, read from its database and its log."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rtl_nni.search.nni_ends import NniEnd, nni_ends
from rtl_nni.search.records import TrialRecord, read_trials
from rtl_plugin.errors import DamagedFile
from tests.nni.search.trial_files import (
    result,
    round_row,
    settings,
    trials_of,
    write_nni,
    write_trial,
)

ROWS = [round_row(1), round_row(2), round_row(3)]


def only(folder: Path) -> TrialRecord:
    (record,) = read_trials(folder)
    return record


@pytest.mark.parametrize(
    ("events", "stderr", "status", "said"),
    [
        (["RUNNING", "FAILED"], "Traceback\n  line\nRuntimeError: boom\n\n", "died", "RuntimeErr"),
        (["RUNNING", "FAILED"], "", "died", "wrote no error"),
        (["RUNNING", "SUCCEEDED"], "a warning\n", "died", "without a result of run_trial"),
        (["RUNNING", "USER_CANCELED"], "a warning\n", "died", "cancelled by hand, or a signal"),
        (["RUNNING", "SYS_CANCELED"], "", "died", "cancelled by NNI"),
        (["RUNNING", "EARLY_STOPPED"], "", "stopped", "by an assessor"),
        (["RUNNING"], "a warning\n", "unfinished", None),
        (["RUNNING", "FAILED", "ADD_RESUMED"], "", "unfinished", None),
        (["RUNNING", "FAILED", "ADD_RESUMED", "RUNNING"], "", "unfinished", None),
    ],
)
def test_ends_that_only_nni_knows(
    tmp_path: Path, events: list[str], stderr: str, status: str, said: str | None
) -> None:
    write_nni(tmp_path, [("a", event, None, None) for event in events])
    files = write_trial(trials_of(tmp_path) / "a", rows=ROWS[:1])
    (files.path / "trial.stderr").write_text(stderr)
    record = only(tmp_path)
    found = record.reason if status == "stopped" else record.error
    assert record.status == status
    assert found is None if said is None else said in str(found)
    assert record.steps_cut == (20 if status == "stopped" else 0)
    assert record.steps_done == 20


def test_early_stops_that_nni_records_as_a_users(tmp_path: Path) -> None:
    events = [(trial, "USER_CANCELED", None, n) for n, trial in enumerate(["byhand", "early"])]
    write_nni(tmp_path, events, 'NNIManager received command from dispatcher: KI, "early"\n')
    for trial in ("early", "byhand"):
        write_trial(trials_of(tmp_path) / trial, settings(None), ROWS[:1])
    assert {r.name: r.status for r in read_trials(tmp_path)} == {
        "byhand": "died",
        "early": "stopped",
    }


def test_a_trial_that_died_before_it_could_say_anything(tmp_path: Path) -> None:
    started = [("qRmXw", {"sparsity": 0.5}, 14), ("other", {"sparsity": 0.6}, 15)]
    events = [(trial, "RUNNING", params, number) for trial, params, number in started]
    # NNI recorded the parameters of the two the wrong way round.
    log = 'Trial parameter: other {"parameter_id": 14, "parameters": {"sparsity": 0.5}}\n'
    write_nni(tmp_path, [*events, ("qRmXw", "FAILED", None, 14)], log)
    trial = trials_of(tmp_path) / "qRmXw"
    trial.mkdir(parents=True)
    bar = "\r".join(f"{n} %" for n in range(99))
    (trial / "trial.stderr").write_text(f"{bar}\rModuleNotFoundError: No module named 'absent'\r\n")
    assert only(tmp_path) == TrialRecord(
        "qRmXw",
        "died",
        {"sparsity": 0.6},
        sequence=14,
        error="ModuleNotFoundError: No module named 'absent'",
    )


def test_an_experiment_and_its_trials_read_alike(tmp_path: Path) -> None:
    write_nni(
        tmp_path, [("a", "RUNNING", None, 0), ("b", "FAILED", None, 1), ("c", "WAITING", None, 2)]
    )
    write_trial(trials_of(tmp_path) / "a", settings(0), ROWS, result())
    (trials_of(tmp_path) / "b").mkdir()
    (trials_of(tmp_path) / "not a trial").mkdir()
    (trials_of(tmp_path) / "c").touch()
    records = read_trials(tmp_path)
    assert (records[0].steps_planned, records[1].steps_planned) == (100, None)
    assert [(record.name, record.status) for record in records] == [
        ("a", "finished"),
        ("b", "died"),
    ]
    assert read_trials(trials_of(tmp_path)) == records


def test_a_resumed_trial_keeps_its_number(tmp_path: Path) -> None:
    write_nni(tmp_path, [("a", "RUNNING", {"x": 1}, 3), ("a", "ADD_RESUMED", None, None)])
    assert nni_ends(tmp_path) == {"a": NniEnd("ADD_RESUMED", {"x": 1}, 3)}


def test_trials_of_several_environments(tmp_path: Path) -> None:
    write_nni(tmp_path, [])
    write_trial(tmp_path / "environments" / "one" / "trials" / "a", settings(1))
    write_trial(tmp_path / "environments" / "two" / "trials" / "b", settings(0))
    assert [record.name for record in read_trials(tmp_path)] == ["b", "a"]


def test_records_of_nni_that_cannot_be_read(tmp_path: Path) -> None:
    write_nni(tmp_path, [("a", "RUNNING", {}, 0)])
    database = tmp_path / "db" / "nni.sqlite"
    content = database.read_bytes()
    assert nni_ends(tmp_path) == {"a": NniEnd("RUNNING", {}, 0)}
    assert database.read_bytes() == content
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("UPDATE TrialJobEvent SET data = '{'")
    with pytest.raises(DamagedFile, match=r"nni\.sqlite cannot be read"):
        read_trials(tmp_path)
    for damaged in (b"nonsense" * 200, b""):
        database.write_bytes(damaged)
        with pytest.raises(DamagedFile, match=r"nni\.sqlite cannot be read"):
            read_trials(tmp_path)
