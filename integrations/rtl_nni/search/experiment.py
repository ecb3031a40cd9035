"""An NNI experiment from its configuration to its results, and nothing left behind."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtl_nni.host import imported
from rtl_nni.search import experiment_config, received, resuming
from rtl_nni.search.experiment_result import (
    ExperimentResult,
    ExperimentStatus,
    last_lines,
    trials_of,
)
from rtl_nni.search.failures import ExperimentFailed, NotStartedInTime
from rtl_nni.search.interrupts import ending_on_signals, holding_signals_back
from rtl_nni.search.lost_manager import asking
from rtl_nni.search.ports import checked_port
from rtl_nni.search.running import Running, stop_all
from rtl_nni.search.watching import watch
from rtl_plugin.integration_api import InvalidArgument

OnStatus = Callable[[ExperimentStatus], object]
_STARTS = 3


def run_experiment(
    config: Any | None = None,
    *,
    port: int | None = None,
    experiment_id: str | None = None,
    resume: str | None = None,
    poll_seconds: float = 1.0,
    on_status: OnStatus | None = None,
    before_stop: Callable[[ExperimentResult], object] | None = None,
) -> ExperimentResult:
    """Run an NNI experiment with its own manager process to its end.

    Whatever ends it (its end, an error, Ctrl-C, SIGTERM), the manager, the dispatcher and the
    trials on this machine are gone when this returns. Only SIGKILL leaves them running:
    `stop_experiment` finds and stops them, and `resume` goes on.

    NNI gives its manager some three seconds, and tuner and assessor ten, to come up. On a busy
    machine that may fail; as nothing has run then, the experiment is started again, up to three
    times in all (`on_status` sees ERROR, then RUNNING again).

    A resumed experiment keeps its finished trials, and its tuner is told of those with a final
    metric. Trials that were running run again from their start, under the same id and in the
    same folder; NNI does not show their intermediate results to the assessor again. A tuner
    keeps no state of its own: a seeded one draws from its beginning, so it may repeat itself.

    Args:
        config: an nni.experiment.ExperimentConfig, or the path of an NNI YAML file with NNI's
            own keys. None only with `resume`: as it was begun. With `resume` its longest
            duration, number of trials and concurrency may differ from what was stored.
        port: of the web page and REST server; None takes a free one.
        experiment_id: of a new experiment, 1 to 32 letters, digits, hyphens, underscores; None
            lets NNI choose.
        resume: the id of an experiment to go on with, or None to begin one. Where NNI's
            records gave a trial another one's parameters, they are put right by its log first.
        poll_seconds: seconds between two looks at the manager, above 0.
        on_status: called with an `ExperimentStatus` at the start and at every change. What it
            raises stops the experiment.
        before_stop: called with the result while the manager still serves the web page.

    Returns:
        The trials and where they lie.

    Raises:
        MissingFile: the configuration file does not exist.
        InvalidArgument: something in the arguments or the configuration is wrong, the port is
            in use, or the experiment to resume is unknown or still runs. Nothing was started.
        DamagedFile: the database of the experiment to resume cannot be used. Nothing was started.
        ExperimentFailed: NNI reported an error, tuner or assessor raised, the manager died or
            did not start, every trial failed, or a process could not be stopped.

    Example:
        >>> run_experiment("search.yml")
        Traceback (most recent call last):
        rtl_plugin.errors.MissingFile: there is no configuration file search.yml
    """
    if not poll_seconds > 0:
        raise InvalidArgument(f"poll_seconds must be above 0, got {poll_seconds!r}")
    running = _prepared(config, experiment_id, resume)
    ports = experiment_config.number_of_ports(running.config)
    chosen = checked_port(port, ports)
    if running.resume:
        received.repair(running.folder)
    begun = time.monotonic()
    with ending_on_signals():
        for starts_left in reversed(range(_STARTS)):
            try:
                running.start(chosen)
                status = watch(running, poll_seconds, on_status or _ignore)
                result = _result(running, status, time.monotonic() - begun)
                if before_stop is not None:
                    before_stop(result)
                break
            except NotStartedInTime as error:
                if starts_left == 0:
                    message = f"{_STARTS} starts failed; the last because {error}"
                    raise ExperimentFailed(message) from error
            finally:
                with holding_signals_back():
                    running.stop()
            running.forget_start()
            chosen = checked_port(port, ports)
    return result


def stop_experiment(experiment_id: str) -> int:
    """Stop an experiment that still runs, for example because its caller was killed.

    The manager is found by its command line, dispatcher and trials by the environment that NNI
    gave them, so this also clears up behind a manager that was killed. The experiment can be
    resumed afterwards.

    Args:
        experiment_id: the experiment's id, which is in NNI's list of this user's experiments.

    Returns:
        How many processes there were; 0 where nothing ran.

    Raises:
        InvalidArgument: NNI's list does not have the id.
        ExperimentFailed: a process could not be stopped.

    Example:
        >>> stop_experiment("never-begun")
        Traceback (most recent call last):
        rtl_plugin.errors.InvalidArgument: there is no experiment 'never-begun' in NNI's list...
    """
    folder = resuming.listed_folder(experiment_id)
    number = stop_all(folder)
    resuming.set_stopped(experiment_id)
    return number


def _prepared(config: Any | None, experiment_id: str | None, resume: str | None) -> Running:
    if resume is not None:
        _check_resume(resume, experiment_id)
    given = None if config is None else experiment_config.checked(experiment_config.loaded(config))
    if resume is not None:
        return _to_resume(given, resume)
    if given is None:
        raise InvalidArgument(
            "config is missing: an ExperimentConfig or the path of an NNI YAML file (None means "
            "the stored one, with resume=)"
        )
    chosen = experiment_id
    if chosen is None:
        chosen = imported("nni.experiment.management").generate_experiment_id()
    folder = experiment_config.folder_of(given, str(chosen))
    resuming.check_new(chosen, folder)
    return Running(imported("nni.experiment").Experiment(given, chosen), given, folder)


def _check_resume(resume: Any, experiment_id: str | None) -> None:
    if not isinstance(resume, str):
        raise InvalidArgument(f"resume must be the id of an experiment, got {resume!r}")
    if experiment_id is not None:
        raise InvalidArgument(
            f"experiment_id={experiment_id!r} names a new experiment and resume={resume!r} one to "
            "go on with: give one of the two"
        )


def _to_resume(given: Any | None, experiment_id: str) -> Running:
    folder = resuming.check_resumable(experiment_id)
    if given is not None and Path(given.experiment_working_directory) != folder.parent:
        raise InvalidArgument(
            f"experiment {experiment_id!r} lies in {folder.parent}, but config says "
            f"experiment_working_directory={given.experiment_working_directory}"
        )
    updates = resuming.updates(given, folder)
    experiment = imported("nni.experiment").Experiment(None, experiment_id)
    return Running(experiment, resuming.stored_config(folder), folder, resume=True, updates=updates)


def _result(running: Running, status: str, seconds: float) -> ExperimentResult:
    with asking(running):
        trials = trials_of(running.experiment, running.folder)
    result = ExperimentResult(
        running.folder.name, running.folder, status, running.url, seconds, trials
    )
    if result.came_to_nothing:
        first = result.failed[0]
        raise ExperimentFailed(
            f"none of the {len(result.trials)} trials gave a result. The first, {first.id}, "
            f"{first.status} with: {_errors_of(first.folder, first.error)}\nIts folder: "
            f"{first.folder}; the experiment's: {running.folder}"
        )
    return result


def _errors_of(folder: Path | None, last: str | None) -> str:
    lines = [] if folder is None else last_lines(folder / "trial.stderr", 5)
    return "\n".join(["", *lines]) if lines else str(last)


def _ignore(status: ExperimentStatus) -> None:
    """The caller does not want to hear of it."""
