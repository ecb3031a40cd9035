"""What every trial of a search came to, read from the trials' folders."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rtl_nni.search.experiment_result import last_lines
from rtl_nni.search.nni_ends import NniEnd, database_of, nni_ends
from rtl_nni.search.trial_fields import Fields
from rtl_nni.search.trial_folder import TrialFolder
from rtl_plugin.integration_api import DamagedFile, MissingFile

Status: TypeAlias = Literal["finished", "stopped", "died", "unfinished"]
_EARLY = "by an assessor of NNI, or by the longest duration of a trial"
# NNI's words for an end without a result. It takes a signal from anywhere for a user's.
_ERRORS = {
    "FAILED": "its command failed and wrote no error",
    "SUCCEEDED": "its command ended without a result of run_trial",
    "USER_CANCELED": "cancelled by hand, or a signal ended it (out of memory, say)",
    "SYS_CANCELED": "cancelled by NNI",
}


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a search.

    Args:
        name: of its folder; under NNI the trial's id.
        status: "finished" with a result; "stopped" before its end by the search; "died" without a
            result, of an error or because somebody ended it; "unfinished", it still runs, or
            nobody wrote down its end.
        params: what it was asked, as the tuner gave it.
        sequence: its number in NNI's experiment, from 0; None without NNI.
        began: seconds since 1970; None where it died before it could say.
        metric: the result of a finished trial.
        metrics: group -> metric of a finished trial.
        intermediate: the metric after every finished round.
        rounds: how many were finished.
        rounds_planned: how many were asked; None where it died before it could say.
        sparsity: mean of its tickets after the last finished round, in [0, 1).
        parameters: of a finished trial: masked weights that at least one ticket keeps.
        measured: name -> figure, what ``run_trial(measure=...)`` found in a finished trial.
        steps_planned: optimizer steps from the first to the end of retraining; None where it died
            before it could say.
        steps_done: that it is known to have done itself.
        steps_reused: that another trial had done, whose rounds it took.
        steps_cut: an allowance for what it did in the round in which it was killed: all its steps.
        seconds: until the end of a finished trial, or of the last finished round.
        seconds_saved: that the reused rounds took where they were trained.
        reason: why it was stopped.
        error: what it died of, in one line.

    Example:
        >>> TrialRecord("qRmXw", "unfinished").label
        'qRmXw'
        >>> TrialRecord("qRmXw", "finished", sequence=3, metric=0.9).label
        '3'
    """

    name: str
    status: Status
    params: Mapping[str, Any] = field(default_factory=dict)
    sequence: int | None = None
    began: float | None = None
    metric: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    intermediate: tuple[float, ...] = ()
    rounds: int = 0
    rounds_planned: int | None = None
    sparsity: float | None = None
    parameters: int | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    steps_planned: int | None = None
    steps_done: int = 0
    steps_reused: int = 0
    steps_cut: int = 0
    seconds: float = 0.0
    seconds_saved: float = 0.0
    reason: str | None = None
    error: str | None = None

    @property
    def label(self) -> str:
        """The sequence number, or the name where there is none."""
        return self.name if self.sequence is None else str(self.sequence)


def read_trials(folder: str | os.PathLike[str]) -> list[TrialRecord]:
    """Read the trials of a search.

    Reading changes nothing, so a search that is still running can be looked at. Folders that are
    no trial's are passed over.

    Args:
        folder: an NNI experiment's (``<experiment_working_directory>/<experiment id>``), or one
            whose subfolders were given to :func:`rtl_nni.run_trial` as ``folder``. Trials of NNI
            whose folders lie on another machine are left out.

    Returns:
        One record a trial, by sequence number; without one, by when it began.

    Raises:
        MissingFile: the folder is not there or holds no trial.
        DamagedFile: a trial's file is damaged, naming it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trial = TrialFolder(Path(folder, "first"))
        ...     trial.write(trial.stopped, {"reason": "collapse", "by": "me"})
        ...     [(trial.name, trial.status, trial.reason) for trial in read_trials(folder)]
        [('first', 'stopped', 'collapse')]
    """
    root = Path(folder)
    if not root.is_dir():
        raise MissingFile(f"there is no folder {root}: give that of an experiment, or of trials")
    experiment = _experiment_of(root)
    ends = {} if experiment is None else nni_ends(experiment)
    folders = sorted(root.glob("environments/*/trials")) if experiment == root else [root]
    trials = [path for folder in folders for path in sorted(folder.iterdir())]
    records = [_record(path, ends.get(path.name)) for path in trials if _is_trial(path, ends)]
    if not records:
        raise MissingFile(_why_empty(root))
    return sorted(records, key=_order)


def _experiment_of(root: Path) -> Path | None:
    """The experiment of NNI that a folder is, or whose trials lie in it."""
    above = list(root.resolve().parents)
    if database_of(root).is_file():
        return root
    # <experiment>/environments/<its environment>/trials
    if root.name == "trials" and len(above) > 2 and database_of(above[2]).is_file():
        return above[2]
    return None


def _is_trial(path: Path, ends: Mapping[str, NniEnd]) -> bool:
    files = TrialFolder(path)
    ours = (files.settings, files.rounds, files.result, files.stopped)
    return path.is_dir() and (path.name in ends or any(file.exists() for file in ours))


def _why_empty(root: Path) -> str:
    if _is_trial(root, {}):
        return f"{root} is the folder of one trial: give the folder that it lies in"
    inside = sorted(path.name for path in root.iterdir() if database_of(path).is_file())
    if inside:
        return f"{root} holds experiments, not trials: give one of {', '.join(inside[:5])}"
    return (
        f"{root} holds no trial of this machine: under NNI a trial's folder appears when it "
        "starts; elsewhere give run_trial(folder=...) a subfolder of this one"
    )


def _order(record: TrialRecord) -> tuple[Any, ...]:
    began = math.inf if record.began is None else record.began
    return (record.sequence is None, record.sequence or 0, began, record.name)


def _record(path: Path, end: NniEnd | None) -> TrialRecord:
    files = TrialFolder(path)
    settings = Fields.read(files, files.settings)
    known: dict[str, Any] = {"name": path.name}
    if end is not None:
        known |= {"params": end.params, "sequence": end.sequence}
    if settings is not None:
        known |= _asked(settings)
    known |= _rounds(files, settings)
    result = Fields.read(files, files.result)
    if result is not None:
        return TrialRecord(status="finished", **(known | _result(result)))
    return TrialRecord(**known, **_unfinished(files, settings, end))


def _asked(settings: Fields) -> dict[str, Any]:
    return {
        "params": settings.mapping("params"),
        "sequence": settings.optional_count("sequence"),
        "began": settings.number("began"),
        "rounds_planned": settings.inner("asked").count("rounds"),
        "steps_planned": settings.count("steps_planned"),
    }


def _rounds(files: TrialFolder, settings: Fields | None) -> dict[str, Any]:
    rows = [Fields(files.rounds, row, f"round {n}") for n, row in enumerate(files.read_rounds(), 1)]
    if not rows:
        return {}
    if settings is None:
        raise DamagedFile(
            f"{files.settings} is missing although {files.rounds} tells of rounds: delete this "
            "trial's folder"
        )
    return {
        "intermediate": tuple(row.number("metric") for row in rows),
        "rounds": len(rows),
        "sparsity": rows[-1].number("sparsity"),
        "steps_done": sum(row.count("steps") for row in rows),
        "steps_reused": sum(row.count("steps_reused") for row in rows),
        "seconds": sum(row.number("seconds") for row in rows),
        "seconds_saved": sum(row.number("seconds_saved") for row in rows),
    }


def _result(result: Fields) -> dict[str, Any]:
    return {
        "metric": result.number("metric"),
        "metrics": result.numbers("metrics"),
        "sparsity": result.number("sparsity"),
        "parameters": result.count("parameters"),
        "measured": result.numbers("measured"),
        "steps_done": result.count("steps_done"),
        "seconds": result.number("seconds"),
        "seconds_saved": result.number("seconds_saved"),
    }


def _unfinished(files: TrialFolder, settings: Fields | None, end: NniEnd | None) -> dict[str, Any]:
    """How a trial without a result ended."""
    stopped = Fields.read(files, files.stopped)
    if stopped is not None:
        # run_trial stops between two rounds; whoever else does, kills it in the middle of one.
        killed = stopped.text("by") != "run_trial"
        cut = _steps_of_a_round(settings) if killed else 0
        return {"status": "stopped", "reason": stopped.text("reason"), "steps_cut": cut}
    status = None if end is None else end.status
    if status == "EARLY_STOPPED":
        cut = _steps_of_a_round(settings)
        return {"status": "stopped", "reason": _EARLY, "steps_cut": cut}
    if status in _ERRORS:
        last = last_lines(files.path / "trial.stderr", 1) if status == "FAILED" else []
        return {"status": "died", "error": last[0].strip() if last else _ERRORS[status]}
    return {"status": "unfinished"}


def _steps_of_a_round(settings: Fields | None) -> int:
    if settings is None:
        return 0
    return settings.inner("asked").count("steps") * len(settings.sequence("groups"))
