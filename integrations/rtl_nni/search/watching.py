"""Waiting for an experiment's end, with an eye on its manager."""

import time
from collections.abc import Callable
from typing import Any

from rtl_nni.host import imported
from rtl_nni.search.experiment_result import (
    ExperimentStatus,
    count_by_status,
    summary_of,
)
from rtl_nni.search.failures import ExperimentFailed, NotStartedInTime
from rtl_nni.search.lost_manager import asking, died, how_to_resume, logs
from rtl_nni.search.running import Running

_TUNER_IS_OUT = "TUNER_NO_MORE_TRIAL"
_OPEN = ("WAITING", "RUNNING", "UNKNOWN", "ADD_RESUMED")
_NEEDS_DISPATCHER = ("RUNNING", "NO_MORE_TRIAL", _TUNER_IS_OUT)
_UNANSWERED = 5  # each of them waits for NNI's 20 seconds where the manager hangs
_SETTLED_SECONDS = 15.0  # well beyond the manager's own period of at most 5 s
_PATIENCE_LOCAL = 4.0
_PATIENCE = 60.0  # another machine may take long to start a trial
_WITHOUT_DISPATCHER = 3.0  # seconds; a manager that is about to say DONE or ERROR does so in these


def watch(
    running: Running, poll_seconds: float, on_status: Callable[[ExperimentStatus], object]
) -> str:
    """Wait until an experiment has come to its end.

    Args:
        running: the started experiment.
        poll_seconds: seconds between two looks.
        on_status: told of the first status and of every change.

    Returns:
        DONE, or TUNER_NO_MORE_TRIAL where the tuner had nothing left to try (NNI would wait on).

    Raises:
        NotStartedInTime: tuner and assessor were not up in the seconds that NNI gives them.
        ExperimentFailed: NNI reported an error, tuner or assessor raised, or the manager died or
            stopped.
    """
    begun = time.monotonic()
    last: ExperimentStatus | None = None
    since = 0.0
    unanswered = 0
    moved = not running.updates
    while True:
        running.look()
        try:
            now = _asked(running, time.monotonic() - begun)
        except OSError as error:  # every exception of requests is one
            unanswered += 1
            _check_answers(running, unanswered, error)
            time.sleep(poll_seconds)
            continue
        unanswered = 0
        if now != last:
            since = now.seconds
            on_status(now)
        # An experiment that was done and now may run on says DONE until the manager looks again.
        moved = moved or now.status != "DONE" or now.seconds > _SETTLED_SECONDS
        if moved and _has_ended(running, now, now.seconds - since):
            return now.status
        if now.status in _NEEDS_DISPATCHER:
            _check_dispatcher(running, now)
        last = now
        time.sleep(poll_seconds)


def _asked(running: Running, seconds: float) -> ExperimentStatus:
    experiment = running.experiment
    status = experiment.get_status()
    return ExperimentStatus(
        running.folder.name, running.url, status, count_by_status(experiment), seconds
    )


def _has_ended(running: Running, now: ExperimentStatus, unchanged: float) -> bool:
    if now.status == "ERROR":
        raise _error(running)
    if now.status in ("STOPPING", "STOPPED"):
        raise ExperimentFailed(
            f"experiment {now.id!r} was stopped from outside with {summary_of(now.trials)}; "
            f"{how_to_resume(now.id)}{logs(running.folder)}"
        )
    if now.status == _TUNER_IS_OUT:
        # The manager may hold trials that it has not started yet, and tells nobody.
        patience = _PATIENCE_LOCAL if _is_quick(running.config) else _PATIENCE
        return unchanged >= patience and not any(status in _OPEN for status in now.trials)
    return now.status == "DONE"


def _is_quick(config: Any) -> bool:
    """Whether the manager looks at its trials each half second, on this machine."""
    service = config.training_service
    return getattr(service, "platform", None) == "local" and not service.reuse_mode


def _check_answers(running: Running, unanswered: int, error: OSError) -> None:
    if not running.manager_is_alive():
        raise died(running) from error
    if unanswered >= _UNANSWERED:
        raise ExperimentFailed(
            f"the manager at {running.url} did not answer {unanswered} times in a row ({error}); "
            f"{how_to_resume(running.folder.name)}{logs(running.folder)}"
        ) from error


def _check_dispatcher(running: Running, now: ExperimentStatus) -> None:
    """The manager does not look after the dispatcher: it would say RUNNING for ever."""
    if running.seconds_without_dispatcher() > _WITHOUT_DISPATCHER:
        raise ExperimentFailed(
            f"tuner and assessor of experiment {now.id!r} are gone (NNI's dispatcher ended) with "
            f"{summary_of(now.trials)}: {_why(running)}\nOnce that is mended, "
            f"{how_to_resume(now.id)}{logs(running.folder)}"
        )


def _why(running: Running) -> str:
    return "" if running.dispatcher is None else running.dispatcher.why()


def _error(running: Running) -> ExperimentFailed:
    rest = imported("nni.experiment.rest")
    with asking(running):
        answer = rest.get(running.experiment.port, "/check-status", running.experiment.url_prefix)
    text = "; ".join(answer.get("errors", [])) or "without a reason"
    if "did not connect" in text and running.seconds_without_dispatcher() == 0:
        # It is alive and has raised nothing: the machine was too busy, or the tuner takes long.
        return NotStartedInTime(
            f"tuner and assessor were not up in the ten seconds that NNI gives them to be "
            f"imported and built: {text}{logs(running.folder)}"
        )
    return ExperimentFailed(f"NNI reports an error: {text} ({_why(running)}){logs(running.folder)}")
