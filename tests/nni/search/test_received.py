"""NNI's records of what a trial was given, read from its log and put right in its database."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nni", reason="NNI cannot be imported here")

from rtl_nni.search import experiment as module
from rtl_nni.search import received, resuming
from rtl_nni.search.experiment import run_experiment
from rtl_nni.search.nni_ends import nni_ends
from rtl_nni.search.received import handed_out
from rtl_plugin.errors import DamagedFile, InvalidArgument
from tests.nni.search.experiment_support import config_of, nni_at
from tests.nni.search.trial_files import write_nni

SAID = 'INFO (LocalV3.local) Trial parameter: {} {{"parameter_id": {}, "parameters": {{"x": {}}}}}'


def said(trial: str, number: int) -> str:
    return SAID.format(trial, number, number)


@pytest.mark.parametrize(
    "cut",
    [
        'Trial parameter: b {"parameter_id": 1, "parameters": {"x": 1}',
        'Trial parameter: b {"parameter_id": 1, "parameters": {"x": {"_name": "a"}',
        "Trial parameter: b {}",
        'Trial parameter: b {"parameters": {"x',
    ],
)
def test_a_line_that_was_cut_says_nothing(cut: str, tmp_path: Path) -> None:
    right = {"parameter_id": 0, "parameters": {"x": 0}}
    assert handed_out([said("a", 0), cut]) == {"a": right}
    # A manager that goes on writes behind it.
    assert handed_out([cut + said("a", 0)]) == {"a": right}
    write_nni(tmp_path, [("a", "RUNNING", {"x": 0}, 0), ("b", "RUNNING", {"x": 1}, 1)], cut)
    assert nni_ends(tmp_path)["b"].params == {"x": 1}
    assert received.repair(tmp_path) == 0


EVENTS: list[tuple[Any, ...]] = [
    ("a", "RUNNING", {"x": 0}, 0),
    ("b", "RUNNING", {"x": 1}, 1),
    ("c", "RUNNING", {"x": 2}, 2),
    ("b", "SUCCEEDED", None, 1),
]


def rows(path: Path) -> list[tuple[str, Any]]:
    with closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT trialJobId, data FROM TrialJobEvent ORDER BY rowid")
        return [(trial, data and json.loads(data)["parameters"]["x"]) for trial, data in found]


def test_records_are_put_right_where_the_log_says_so(tmp_path: Path) -> None:
    """b asked before a and got a's; a had not asked, so nobody knows what it would have got."""
    write_nni(tmp_path, EVENTS, "\n".join([said("b", 0), said("c", 2)]))
    path = tmp_path / "db" / "nni.sqlite"
    before = rows(path)
    assert before == [("a", 0), ("b", 1), ("c", 2), ("b", None)]
    assert received.repair(tmp_path) == 1
    assert rows(path) == [("a", 0), ("b", 0), ("c", 2), ("b", None)]
    assert rows(path.with_name("nni.sqlite.before-repair")) == before
    assert received.repair(tmp_path) == 0
    assert rows(path.with_name("nni.sqlite.before-repair")) == before
    assert len(list(path.parent.iterdir())) == 2


def test_right_records_are_left_alone(tmp_path: Path) -> None:
    write_nni(tmp_path, EVENTS, "\n".join([said("b", 1), said("elsewhere", 0)]))
    path = tmp_path / "db" / "nni.sqlite"
    content = path.read_bytes()
    assert received.repair(tmp_path) == 0
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("data", ["{", "[1]", "{}", None])
def test_a_database_that_cannot_be_used(data: str | None, tmp_path: Path) -> None:
    write_nni(tmp_path, EVENTS, said("b", 0))
    path = tmp_path / "db" / "nni.sqlite"
    if data is None:
        path.write_bytes(b"nonsense" * 200)
    else:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE TrialJobEvent SET data = ? WHERE trialJobId = 'c'", (data,))
    content = path.read_bytes()
    with pytest.raises(DamagedFile, match=r"nni\.sqlite cannot be put right"):
        received.repair(tmp_path)
    with pytest.raises(DamagedFile, match=r"nni\.sqlite cannot be read"):
        nni_ends(tmp_path)
    assert path.read_bytes() == content


def test_without_its_copy_nothing_is_written(tmp_path: Path) -> None:
    write_nni(tmp_path, EVENTS, said("b", 0))
    path = tmp_path / "db" / "nni.sqlite"
    content = path.read_bytes()
    path.with_name("nni.sqlite.before-repair").mkdir()
    with pytest.raises(DamagedFile, match="cannot be put right"):
        received.repair(tmp_path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("profile", [None, "{", '"x"'])
def test_a_configuration_that_cannot_be_read(profile: str | None, tmp_path: Path) -> None:
    write_nni(tmp_path, [])
    with closing(sqlite3.connect(tmp_path / "db" / "nni.sqlite")) as database, database:
        if profile is not None:
            database.execute("CREATE TABLE ExperimentProfile (params, id, revision)")
            database.execute(
                "INSERT INTO ExperimentProfile VALUES (?, ?, 1)", (profile, tmp_path.name)
            )
    with pytest.raises(DamagedFile, match="holds no configuration to resume from"):
        resuming.stored_config(tmp_path)


def test_a_refused_resume_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nni_at(tmp_path) as home:
        folder = home / "work" / "begun"
        config = config_of(home, ["reports"])
        write_nni(folder, EVENTS, said("b", 0))
        monkeypatch.setattr(resuming, "check_resumable", lambda name: folder)
        monkeypatch.setattr(resuming, "updates", lambda config, folder: {})
        monkeypatch.setattr(resuming, "stored_config", lambda folder: config)
        with monkeypatch.context() as patch:
            patch.setattr("rtl_nni.search.ports.is_free", lambda port: False)
            with pytest.raises(InvalidArgument, match="Nothing was started"):
                run_experiment(resume="begun", port=5000)
        assert rows(folder / "db" / "nni.sqlite")[1] == ("b", 1)
        monkeypatch.setattr(module.Running, "start", lambda self, port: None)
        monkeypatch.setattr(module.Running, "stop", lambda self: None)
        monkeypatch.setattr(module, "watch", lambda *_: "DONE")
        monkeypatch.setattr(module, "_result", lambda *_: rows(folder / "db" / "nni.sqlite")[1])
        assert run_experiment(resume="begun") == ("b", 0)
