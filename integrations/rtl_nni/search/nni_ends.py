"""How NNI's manager saw its trials end, read from an experiment's folder."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtl_nni.search.received import corrected, handed_out, log_lines, stopped_early, unpacked
from rtl_plugin.integration_api import DamagedFile

_CANCELLED = ("USER_CANCELED", "SYS_CANCELED")
_EVENTS = (
    "SELECT trialJobId, event, data, sequenceId FROM TrialJobEvent "
    "WHERE trialJobId != '' ORDER BY rowid"
)


@dataclass(frozen=True)
class NniEnd:
    """What an experiment's records tell of one trial.

    Args:
        status: NNI's word; "EARLY_STOPPED" where an assessor or the longest duration of a trial
            stopped it, which NNI itself records as cancelled by a user.
        params: what the tuner chose for it.
        sequence: its number, from 0.

    Example:
        >>> NniEnd("FAILED", {"rounds": 3}, 0).sequence
        0
    """

    status: str
    params: Mapping[str, Any]
    sequence: int | None


def database_of(experiment: Path) -> Path:
    """Where NNI's manager keeps an experiment's records.

    Args:
        experiment: the experiment's folder.

    Returns:
        The database, which need not be there.

    Example:
        >>> database_of(Path("q3w4")).as_posix()
        'q3w4/db/nni.sqlite'
    """
    return experiment / "db" / "nni.sqlite"


def nni_ends(experiment: Path) -> dict[str, NniEnd]:
    """The trials of an experiment, also while it runs; nothing is written.

    Args:
        experiment: its folder.

    Returns:
        Trial id -> what is known of it.

    Raises:
        DamagedFile: NNI's records cannot be read.
    """
    path = database_of(experiment)
    try:
        # Opened for reading only: an experiment that runs is writing to it.
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            events = database.execute(_EVENTS).fetchall()
        recorded = {trial: unpacked(data) for trial, _, data, _ in events if data}
    except (sqlite3.Error, ValueError) as error:
        raise DamagedFile(f"{path} cannot be read as an experiment of NNI ({error})") from error
    lines = log_lines(experiment)
    packed, early = corrected(recorded, handed_out(lines)), stopped_early(lines)
    last = {trial: event for trial, event, _, _ in events}
    numbers = {trial: number for trial, _, _, number in events if number is not None}
    return {
        trial: NniEnd(
            "EARLY_STOPPED" if event in _CANCELLED and trial in early else event,
            packed.get(trial, {}).get("parameters", {}),
            numbers.get(trial),
        )
        for trial, event in last.items()
    }
