"""Which parameters a trial really ran with, and why it ended, where NNI's records are wrong.

NNI 3.0's local and remote services hand the next parameters to whichever trial asks first, but
record them for the trial that was submitted first. With two or more trials at a time the records
of two trials are swapped now and then: in the REST interface, on the web page, and, in a resumed
experiment, in what the tuner is told. And a trial that an assessor stopped is recorded as if a
user had cancelled it. The manager's log, at the level info, says what was handed to whom, and
who asked for an end.
"""

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from rtl_plugin.integration_api import DamagedFile

# The last of a line: a manager that died while it wrote one leaves the begin of another.
_HANDED_OUT = re.compile(r".*Trial parameter: (\w+) (\{.*\})\s*$")
_STOPPED = (
    re.compile(r'received command from dispatcher: KI, "(\w+)"'),
    re.compile(r"Trial job (\w+) has been canceled because it is over max trial duration"),
)
Packed = dict[str, Any]


def handed_out(lines: list[str]) -> dict[str, Packed]:
    """What a manager's log says that each trial was given.

    Args:
        lines: of ``log/nnimanager.log``, at the level info.

    Returns:
        Trial id -> NNI's packed parameters (``parameter_id``, ``parameters``, ...); of a trial
        that ran twice, the last. A line that was cut while it was written says nothing.

    Example:
        >>> handed_out(['[..] INFO (LocalV3.local) Trial parameter: a1 {"parameters": {"x": 1}}'])
        {'a1': {'parameters': {'x': 1}}}
    """
    found = {}
    for line in lines:
        match = _HANDED_OUT.search(line)
        if match:
            try:
                found[match[1]] = unpacked(match[2])
            except ValueError:
                continue  # cut, and yet it ends in a brace
    return found


def unpacked(text: str) -> Packed:
    """What NNI's manager wrote about a trial's parameters.

    Args:
        text: JSON.

    Returns:
        ``parameter_id``, ``parameters`` and more.

    Raises:
        ValueError: it is no JSON, or not that of a trial's parameters.

    Example:
        >>> unpacked('{"parameter_id": 3, "parameters": {"rounds": 5}}')["parameters"]
        {'rounds': 5}
    """
    packed = json.loads(text)
    if not isinstance(packed, dict) or not isinstance(packed.get("parameters"), dict):
        raise ValueError(f"no parameters of a trial: {text[:80]}")
    return packed


def stopped_early(lines: list[str]) -> set[str]:
    """The trials that an assessor or the longest duration of a trial stopped.

    Args:
        lines: of ``log/nnimanager.log``, at the level info.

    Returns:
        Their ids.

    Example:
        >>> stopped_early(['NNIManager received command from dispatcher: KI, "a1"'])
        {'a1'}
    """
    found = (pattern.search(line) for line in lines for pattern in _STOPPED)
    return {match[1] for match in found if match}


def corrected(recorded: Mapping[str, Packed], given: Mapping[str, Packed]) -> dict[str, Packed]:
    """The records with every trial's own parameters.

    Args:
        recorded: trial id -> what NNI recorded for it, in the order of submission.
        given: trial id -> what it was given, of those that asked.

    Returns:
        Trial id -> what it was given. A trial that had not asked keeps its record, unless
        another trial was given that; it takes the first that nobody was given then.

    Example:
        >>> a, b = {"parameters": {"x": 1}}, {"parameters": {"x": 2}}
        >>> corrected({"first": a, "second": b}, {"second": a}) == {"first": b, "second": a}
        True
    """
    chosen = {trial: given[trial] for trial in recorded if trial in given}
    unclaimed = list(recorded.values())
    for packed in chosen.values():
        _take(unclaimed, packed)
    waiting = [trial for trial in recorded if trial not in chosen]
    for trial in waiting:
        if _take(unclaimed, recorded[trial]):
            chosen[trial] = recorded[trial]
    for trial in waiting:
        if trial not in chosen:
            chosen[trial] = unclaimed.pop(0) if unclaimed else recorded[trial]
    return {trial: chosen[trial] for trial in recorded}


def log_lines(folder: Path) -> list[str]:
    """The manager's log of an experiment's folder, none where there is none."""
    path = folder / "log" / "nnimanager.log"
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def repair(folder: Path) -> int:
    """Put the records of an experiment that does not run right, so that it is resumed right.

    Only what the log says is put right. Where something is, the database as it was is kept
    beside it, as ``nni.sqlite.before-repair``.

    Args:
        folder: the experiment's folder.

    Returns:
        The number of trials whose record was wrong.

    Raises:
        DamagedFile: the database cannot be read or written; it is as it was.
    """
    path = folder / "db" / "nni.sqlite"
    given = handed_out(log_lines(folder))
    try:
        with closing(sqlite3.connect(path)) as database, database:
            wrong = _wrong(database, given)
            if wrong:
                _keep(path)
                database.executemany(
                    "UPDATE TrialJobEvent SET data = ? WHERE trialJobId = ? AND data != ''",
                    [(json.dumps(packed), trial) for trial, packed in wrong.items()],
                )
    except (sqlite3.Error, ValueError, OSError) as error:
        raise DamagedFile(
            f"{path} cannot be put right to resume the experiment ({error}): free it if another "
            "program has it open, else begin a new experiment"
        ) from error
    return len(wrong)


def _wrong(database: sqlite3.Connection, given: Mapping[str, Packed]) -> dict[str, Packed]:
    """Trial id -> what it was given, of those whose record says something else."""
    rows = database.execute(
        "SELECT trialJobId, data FROM TrialJobEvent WHERE trialJobId != '' AND data != ''"
    )
    recorded: dict[str, Packed] = {}
    for trial, data in rows.fetchall():
        recorded.setdefault(trial, unpacked(data))
    known = {trial: given[trial] for trial in recorded if trial in given}
    return {t: packed for t, packed in known.items() if _key(packed) != _key(recorded[t])}


def _keep(path: Path) -> None:
    """No manager runs, and what one left half written was put right as it was opened."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    shutil.copyfile(path, unfinished)
    os.replace(unfinished, path.with_name(f"{path.name}.before-repair"))


def _take(packed: list[Packed], wanted: Packed) -> bool:
    for index, each in enumerate(packed):
        if _key(each) == _key(wanted):
            del packed[index]
            return True
    return False


def _key(packed: Packed) -> tuple[Any, Any]:
    """The source differs between a trial and its second run, these do not."""
    return packed.get("parameter_id"), packed.get("parameters")
