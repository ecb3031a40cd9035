"""Folders of trials as `run_trial` and NNI's manager leave them."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from rtl_nni.search.trial_folder import TrialFolder

GROUPS = ["indoor", "street"]
ROUND_STEPS = 20  # 10 steps of two groups


def settings(sequence: int | None = None, **changed: Any) -> dict[str, Any]:
    """Two groups, three rounds of 10 steps each, then 40 steps of retraining: 100 in all."""
    made = {
        "params": {"sparsity": 0.9, "rounds": 3, "steps": 10, "epochs": 1},
        "asked": {"rounds": 3, "steps": 10, "epochs": 1, "rewind_to": 0, "sparsity": 0.9},
        "groups": GROUPS,
        "steps_planned": 100,
        "sequence": sequence,
        "began": 1000.0,
        "versions": {},
    }
    return {**made, **changed}


def round_row(number: int, **changed: Any) -> dict[str, Any]:
    made = {
        "round": number,
        "of": 3,
        "sparsity": 0.3 * number,
        "metric": 0.9 - 0.1 * number,
        "steps": ROUND_STEPS,
        "seconds": 2.0,
        "steps_reused": 0,
        "reused": [],
        "seconds_saved": 0.0,
    }
    return {**made, **changed}


def result(**changed: Any) -> dict[str, Any]:
    made = {
        "metric": 0.85,
        "metrics": {"indoor": 0.8, "street": 0.9},
        "sparsity": 0.9,
        "parameters": 1234,
        "measured": {"latency": 0.002},
        "steps_done": 100,
        "seconds": 7.5,
        "seconds_saved": 0.0,
    }
    return {**made, **changed}


def write_trial(
    path: Path,
    asked: dict[str, Any] | None = None,
    rows: list[dict[str, Any]] | None = None,
    ended: dict[str, Any] | None = None,
    stopped: dict[str, Any] | None = None,
) -> TrialFolder:
    """A trial's own files; what is None is not written, but for the settings."""
    files = TrialFolder(path)
    files.write(files.settings, settings() if asked is None else asked)
    for row in rows or []:
        files.append_round(row)
    if ended is not None:
        files.write(files.result, ended)
    if stopped is not None:
        files.write(files.stopped, stopped)
    return files


def write_nni(experiment: Path, events: list[tuple[Any, ...]], log: str = "") -> None:
    """The records of NNI's manager: (trial, event, parameters or None, sequence or None) a row."""
    (experiment / "db").mkdir(parents=True)
    (experiment / "log").mkdir()
    (experiment / "log" / "nnimanager.log").write_text(log)
    with closing(sqlite3.connect(experiment / "db" / "nni.sqlite")) as database, database:
        database.execute(
            "CREATE TABLE TrialJobEvent (timestamp integer, trialJobId text, event text, data text,"
            " logPath text, sequenceId integer, message text, environmentId text)"
        )
        rows = [
            (
                1700000000000 + n,
                trial,
                event,
                _packed(params, number),
                None,
                number,
                None,
                "local-env",
            )
            for n, (trial, event, params, number) in enumerate(events)
        ]
        database.executemany("INSERT INTO TrialJobEvent VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def trials_of(experiment: Path) -> Path:
    """Where NNI's local service puts trials."""
    return experiment / "environments" / "local-env" / "trials"


def _packed(params: dict[str, Any] | None, number: int | None) -> str | None:
    if params is None:
        return None
    fixed = {"parameter_source": "algorithm", "parameter_index": 0}
    return json.dumps({"parameter_id": number, "parameters": params, **fixed})
