"""One experiment with its manager process: started, asked, and cleared away."""

import logging
import shutil
import subprocess
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtl_nni.host import imported
from rtl_nni.search import processes, resuming
from rtl_nni.search.dispatcher import Dispatcher
from rtl_nni.search.experiment_result import last_lines
from rtl_nni.search.failures import ExperimentFailed, NotStartedInTime
from rtl_nni.search.lost_manager import asking
from rtl_nni.search.ports import is_free
from rtl_plugin.integration_api import InvalidArgument

_MANAGER_SECONDS = 65.0  # the manager gives its own parts a minute to shut down


_logger = logging.getLogger("rtl_nni.run_experiment")


@dataclass
class Running:
    """An experiment of NNI and the processes that it was seen to have.

    Args:
        experiment: an nni.experiment.Experiment.
        config: its checked configuration.
        folder: its folder, whose name is its id.
        resume: whether to go on with one that was begun before.
        updates: what to change in a resumed one: method of the experiment -> argument.
    """

    experiment: Any
    config: Any
    folder: Path
    resume: bool = False
    updates: dict[str, Any] = field(default_factory=dict)
    seen: list[Any] = field(default_factory=list)
    manager: Any | None = None
    dispatcher: Dispatcher | None = None

    @property
    def url(self) -> str:
        """The web page, or an empty text while nothing runs."""
        port = self.experiment.port
        return f"http://localhost:{port}" if port else ""

    def start(self, port: int) -> None:
        """Start the manager and the experiment in it.

        Args:
            port: a free port.

        Raises:
            InvalidArgument: another program took the port meanwhile.
            NotStartedInTime: the manager did not answer in the seconds that NNI gives it.
            ExperimentFailed: the manager did not start, or died at once.
        """
        self.dispatcher = Dispatcher.of(self.folder)
        try:
            # NNI leaves sockets and files to the collector.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                if self.resume:
                    self.experiment.resume(port, wait_completion=False)
                else:
                    self.experiment.start(port)
        except (OSError, RuntimeError, ValueError) as error:
            raise self._not_started(port, error) from error
        if self.experiment.port is None:
            # NNI's resume() stops at Ctrl-C and says nothing.
            raise KeyboardInterrupt
        self.manager = processes.manager_of(self.folder)
        with asking(self):
            self._check_own(port)
            for method, value in self.updates.items():
                getattr(self.experiment, method)(value)

    def look(self) -> None:
        """Remember the processes that the manager has now, against the day it is gone."""
        if self.manager is not None:
            known = set(self.seen)
            below = processes.descendants(self.manager)
            self.seen += [process for process in below if process not in known]

    def manager_is_alive(self) -> bool:
        """Whether the manager's process still runs."""
        return self.manager is not None and processes.is_alive(self.manager)

    def seconds_without_dispatcher(self) -> float:
        """How long tuner and assessor have been gone while the manager runs; 0 if they work."""
        if self.dispatcher is None or not self.manager_is_alive():
            return 0.0
        return self.dispatcher.seconds_dead(self.manager, time.monotonic())

    def forget_start(self) -> None:
        """Take back a stopped start after which nothing ran, so that the next is like the first."""
        if not self.resume:
            # NNI numbers the trials of a resumed experiment from 1, so it is begun anew.
            shutil.rmtree(self.folder / "db", ignore_errors=True)
        self.seen.clear()
        self.manager = None

    def stop(self) -> None:
        """Stop the experiment and end every process of it that is left.

        Raises:
            ExperimentFailed: a process could not be ended.
        """
        log_files = self._log_files()
        self.look()
        process = self.experiment._proc
        try:
            self._stop_manager()
            # Also where nothing started: it takes back what NNI registered for the exit.
            self.experiment.stop()
        finally:
            for handler in log_files:
                handler.close()
            clear_away(self.folder, self.seen)
            if process is not None:
                process.wait()  # collected; nothing of it is left to wait for
            resuming.set_stopped(self.folder.name)

    def _stop_manager(self) -> None:
        """Ask the manager to stop and wait until it has, also where it was about to by itself."""
        process, port = self.experiment._proc, self.experiment.port
        # NNI asks a dead manager too, and reports in 80 lines that nobody answers.
        self.experiment._proc = None
        if process is None or process.poll() is not None or port is None:
            return
        try:
            imported("nni.experiment.rest").delete(port, "/experiment", self.experiment.url_prefix)
        except imported("requests").RequestException as error:
            # One that a signal asked closes its port first and then cancels the trials; asked
            # once more, it goes on with that.
            _logger.info("the manager of %s is ended by a signal: %s", self.folder.name, error)
            process.terminate()
        try:
            process.wait(_MANAGER_SECONDS)
        except subprocess.TimeoutExpired as error:
            _logger.warning("the manager of %s is killed: %s", self.folder.name, error)

    def _log_files(self) -> list[logging.Handler]:
        """NNI's own handlers for this experiment, which it takes off without closing them."""
        path = str(self.folder / "log" / "experiment.log")
        handlers = [*logging.getLogger("nni").handlers, *logging.getLogger().handlers]
        return [each for each in handlers if getattr(each, "baseFilename", None) == path]

    def _check_own(self, port: int) -> None:
        """A server that took the port in the last moment answers as if it were ours."""
        profile = self.experiment.get_experiment_profile()
        answered = profile.get("id") if isinstance(profile, dict) else None
        if self.manager is None or answered != self.folder.name:
            self.experiment.port = None  # stopping it must not stop the other one
            raise InvalidArgument(
                f"port {port} was taken by another program while the experiment started "
                f"(it answers for {answered!r}): name another port, or pass port=None"
            )

    def _not_started(self, port: int, error: Exception) -> Exception:
        clear_away(self.folder, self.seen)
        if not is_free(port):
            return InvalidArgument(
                f"port {port} was taken by another program while the experiment started: name "
                "another port, or pass port=None for a free one. Nothing is left running"
            )
        log = self.folder / "log" / "nnimanager.log"
        lines = "\n".join(last_lines(log, 8)) or "(it wrote no log)"
        requests = imported("requests")
        unanswered = isinstance(error, requests.ConnectionError | requests.Timeout)
        kind = NotStartedInTime if unanswered else ExperimentFailed
        return kind(f"NNI's manager did not start: {error}\n{log}:\n{lines}")


def clear_away(folder: Path, seen: list[Any]) -> None:
    """End what is left of an experiment.

    Args:
        folder: the experiment's folder.
        seen: processes that belonged to it, psutil.Process.

    Raises:
        ExperimentFailed: something stays.
    """
    found = processes.processes_of(folder)
    left = processes.end([*found, *(process for process in seen if process not in found)])
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise ExperimentFailed(
            f"processes of experiment {folder.name!r} could not be ended: {pids}; end them by hand"
        )


def stop_all(folder: Path) -> int:
    """Stop the manager of an experiment in its own way, then end what is left.

    Args:
        folder: the experiment's folder.

    Returns:
        How many processes there were.

    Raises:
        ExperimentFailed: something stays.
    """
    found = processes.processes_of(folder)
    manager = processes.manager_of(folder)
    if manager is not None:
        # Asked by SIGTERM, the manager cancels the trials and writes its database.
        processes.ended_after("terminate", [manager], _MANAGER_SECONDS)
    clear_away(folder, found)
    return len(found)
