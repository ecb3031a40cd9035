"""What to say where an experiment's manager no longer answers, and how to go on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rtl_nni.host import imported
from rtl_nni.search.experiment_result import last_lines
from rtl_nni.search.failures import ExperimentFailed

_LOG_LINES = 12


class Asked(Protocol):
    """An experiment with its manager process, which answers or does not."""

    folder: Path

    @property
    def url(self) -> str:
        """Where the manager serves."""

    def manager_is_alive(self) -> bool:
        """Whether its process still runs."""


@contextmanager
def asking(running: Asked) -> Iterator[None]:
    """Say what became of the manager where a question to it fails in this block.

    Args:
        running: a started experiment.

    Raises:
        ExperimentFailed: the manager died, did not answer, or answered with an error.
    """
    try:
        yield
    except imported("requests").RequestException as error:
        if not running.manager_is_alive():
            raise died(running) from error
        raise ExperimentFailed(
            f"the manager at {running.url} gave no answer ({error}); "
            f"{how_to_resume(running.folder.name)}{logs(running.folder)}"
        ) from error


def died(running: Asked) -> ExperimentFailed:
    """The error of a manager that is gone.

    Args:
        running: its experiment.

    Returns:
        What to raise; it tells where the files are and how to go on.
    """
    return ExperimentFailed(
        f"the manager of experiment {running.folder.name!r} died; what it knew is in "
        f"{running.folder}, and {how_to_resume(running.folder.name)}{logs(running.folder)}"
    )


def how_to_resume(experiment_id: str) -> str:
    """The call that goes on with an experiment, in words.

    Example:
        >>> how_to_resume("q3w4")
        "the experiment goes on with run_experiment(resume='q3w4')"
    """
    return f"the experiment goes on with run_experiment(resume={experiment_id!r})"


def logs(folder: Path) -> str:
    """The last lines of what manager and dispatcher wrote, and where the rest lies.

    Args:
        folder: the experiment's folder.

    Returns:
        Lines, with a line break before the first.
    """
    parts = [f"\nLogs: {folder / 'log'}"]
    for name in ("nnimanager.log", "dispatcher.log"):
        lines = last_lines(folder / "log" / name, _LOG_LINES)
        parts += [f"The last lines of {name}:", *(f"  {line}" for line in lines)] if lines else []
    return "\n".join(parts)
