"""What an experiment's trials did, read from NNI's manager while it runs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtl_nni.search.received import corrected, handed_out, log_lines, stopped_early

# NNI ends a trial that a signal killed (out of memory, say) as if a user had stopped it.
_WITHOUT_RESULT = ("FAILED", "USER_CANCELED", "SYS_CANCELED")
_WITH_RESULT = ("SUCCEEDED", "EARLY_STOPPED")


@dataclass(frozen=True)
class ExperimentTrial:
    """One trial of an NNI experiment.

    Args:
        id: NNI's id of the trial, the name of its folder.
        sequence: its number, from 0. After a resume NNI may give a number twice.
        status: NNI's word: SUCCEEDED, EARLY_STOPPED (by an assessor or by the longest duration
            of a trial; NNI's own record says USER_CANCELED), FAILED, USER_CANCELED (also when
            a signal killed it), SYS_CANCELED, RUNNING, WAITING, UNKNOWN.
        parameters: what it was given, also where NNI's own record has another trial's.
        intermediate: what it reported on the way, in order; of the last run of a resumed trial.
        metric: what it reported in the end, or None; any value that NNI carries, NaN too.
        started: seconds since 1970, or None.
        ended: seconds since 1970, or None while it has not ended.
        folder: its folder on this machine, or None where it ran elsewhere.
        error: the last line of its standard error where it gave no result, else None.

    Example:
        >>> ExperimentTrial("a1B2c", 0, "SUCCEEDED", {"x": 1}, (0.5,), 0.7, 10.0, 12.5).seconds
        2.5
    """

    id: str
    sequence: int
    status: str
    parameters: dict[str, Any]
    intermediate: tuple[Any, ...]
    metric: Any | None
    started: float | None
    ended: float | None
    folder: Path | None = None
    error: str | None = None

    @property
    def seconds(self) -> float | None:
        """How long it ran, or None where it did not end."""
        if self.started is None or self.ended is None:
            return None
        return self.ended - self.started


@dataclass(frozen=True)
class ExperimentResult:
    """What an NNI experiment did.

    Args:
        id: the experiment's id, with which it can be resumed.
        folder: where NNI keeps it: logs, database, the trials' folders.
        status: DONE, or TUNER_NO_MORE_TRIAL where the tuner had nothing left to try.
        url: where its web page was while it ran.
        seconds: how long this call ran it.
        trials: every trial, by sequence number; after a resume those of earlier calls too.

    Example:
        >>> trial = ExperimentTrial("a1B2c", 0, "FAILED", {}, (), None, None, None, None, "boom")
        >>> result = ExperimentResult("q3w4", Path("q3w4"), "DONE", "", 12.0, (trial,))
        >>> [trial.error for trial in result.failed]
        ['boom']
    """

    id: str
    folder: Path
    status: str
    url: str
    seconds: float
    trials: tuple[ExperimentTrial, ...]

    @property
    def failed(self) -> tuple[ExperimentTrial, ...]:
        """The trials that gave no result: failed, killed or cancelled."""
        return tuple(trial for trial in self.trials if trial.status in _WITHOUT_RESULT)

    @property
    def came_to_nothing(self) -> bool:
        """Whether there were trials and each of them failed or was cancelled."""
        return bool(self.failed) and not any(t.status in _WITH_RESULT for t in self.trials)


@dataclass(frozen=True)
class ExperimentStatus:
    """Where a running experiment stands.

    Args:
        id: the experiment's id.
        url: its web page.
        status: NNI's word for the experiment.
        trials: status -> number of trials.
        seconds: since this call began.

    Example:
        >>> ExperimentStatus("q3w4", "http://localhost:8080", "RUNNING", {"RUNNING": 2}, 3.5).trials
        {'RUNNING': 2}
    """

    id: str
    url: str
    status: str
    trials: dict[str, int]
    seconds: float = field(compare=False)


def trials_of(experiment: Any, folder: Path) -> tuple[ExperimentTrial, ...]:
    """Every trial of a running experiment.

    Args:
        experiment: an nni.experiment.Experiment whose manager answers.
        folder: its folder.

    Returns:
        The trials by sequence number, each with the parameters that it was given.
    """
    metrics = experiment.get_job_metrics()
    jobs = experiment.list_trial_jobs()
    recorded = {j.trialJobId: vars(j.hyperParameters[0]) for j in jobs if j.hyperParameters}
    lines = log_lines(folder)
    right, early = corrected(recorded, handed_out(lines)), stopped_early(lines)
    trials = [
        _trial(
            job,
            "EARLY_STOPPED" if _was_ended(job) and job.trialJobId in early else job.status,
            right.get(job.trialJobId, {}).get("parameters", {}),
            metrics.get(job.trialJobId, []),
        )
        for job in jobs
    ]
    return tuple(sorted(trials, key=lambda trial: (trial.sequence, trial.started or 0.0)))


def count_by_status(experiment: Any) -> dict[str, int]:
    """Status -> number of trials, in the order of the statuses' names."""
    rows = experiment.get_job_statistics()
    return dict(sorted((row["trialJobStatus"], row["trialJobNumber"]) for row in rows))


def last_lines(path: Path, number: int) -> list[str]:
    """The last lines of a text file that hold something, none where there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.rstrip() for line in lines if line.strip()][-number:]


def _was_ended(job: Any) -> bool:
    # One that caught the signal may have ended itself with an error.
    return job.status in _WITHOUT_RESULT


def _trial(
    job: Any, status: str, parameters: dict[str, Any], metrics: list[Any]
) -> ExperimentTrial:
    folder = Path(job.logPath) if job.logPath and Path(job.logPath).is_dir() else None
    finals = [m.data for m in sorted(metrics, key=_when) if m.type == "FINAL"]
    without = status in _WITHOUT_RESULT
    return ExperimentTrial(
        id=job.trialJobId,
        sequence=job.sequenceId,
        status=status,
        parameters=parameters,
        intermediate=_intermediate(metrics),
        metric=finals[-1] if finals else None,
        started=_seconds(job.startTime),
        ended=_seconds(job.endTime),
        folder=folder,
        error=_last_error(job, folder) if without else None,
    )


def _intermediate(metrics: list[Any]) -> tuple[Any, ...]:
    values: list[Any] = []
    for metric in sorted(metrics, key=_when):
        if metric.type == "PERIODICAL":
            # A resumed trial runs again from its first report.
            values = [*values[: metric.sequence], metric.data]
    return tuple(values)


def _when(metric: Any) -> tuple[int, int]:
    return metric.timestamp, metric.sequence


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds is not None and milliseconds > 0 else None


def _last_error(job: Any, folder: Path | None) -> str:
    if folder is None:
        return f"its standard error is not on this machine: {job.stderrPath or job.logPath}"
    lines = last_lines(folder / "trial.stderr", 1)
    return lines[0] if lines else f"it wrote no standard error; see {folder}"


def summary_of(counts: dict[str, int]) -> str:
    """The counts in words: ``3 SUCCEEDED, 1 FAILED``, or ``no trials``."""
    return ", ".join(f"{number} {status}" for status, number in counts.items()) or "no trials"
