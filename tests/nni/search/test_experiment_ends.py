"""The ends of an experiment's manager and of its caller, by stand-ins without NNI's manager."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

pytest.importorskip("nni", reason="NNI cannot be imported here")

import requests

from rtl_nni.search import experiment as module
from rtl_nni.search import processes, running, watching
from rtl_nni.search.failures import ExperimentFailed
from rtl_nni.search.running import Running, stop_all
from tests.nni.search.experiment_support import config_of, nni_at

GONE = requests.ConnectionError("refused")


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_stop_is_not_interrupted(
    number: int, kind: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def stop(self: Running) -> None:
        os.kill(os.getpid(), number)
        done.append("stopped")

    monkeypatch.setattr(Running, "start", lambda self, port: None)
    monkeypatch.setattr(Running, "stop", stop)
    monkeypatch.setattr(module, "watch", lambda *_: "DONE")
    monkeypatch.setattr(module, "_result", lambda *_: "the result")
    before = signal.signal(signal.SIGTERM, lambda *_: done.append("the caller's"))
    try:
        with nni_at(tmp_path) as home, pytest.raises(kind):
            module.run_experiment(config_of(home, ["reports"]))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == ["stopped", *(["the caller's"] if kind is SystemExit else [])]


class _Experiment:
    """Stands in for NNI's Experiment whose manager is a process of this test."""

    def __init__(self, process: Any = None, **answers: Any) -> None:
        self._proc, self.port, self.url_prefix = process, 1, None
        self.started: list[int] = []
        for method, answer in answers.items():
            setattr(self, method, lambda *_, answer=answer: _answered(answer))

    def start(self, port: int) -> None:
        self.started.append(port)

    def stop(self) -> None:
        assert self._proc is None, "NNI would ask the manager itself"


def _answered(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.fixture
def manager() -> Iterator[Callable[[str], "subprocess.Popen[bytes]"]]:
    """Starts a process that stands in for the manager, and does as told once it has begun."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(does: str) -> "subprocess.Popen[bytes]":
        code = f"import signal, sys, time; {does}; print(1, flush=True); time.sleep(60)"
        begun.append(subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE))
        assert begun[-1].stdout is not None
        begun[-1].stdout.readline()
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


ENDS_SLOWLY = "signal.signal(15, lambda *_: (time.sleep(0.3), sys.exit(7)))"


@pytest.mark.parametrize("error", [GONE, requests.ReadTimeout("20 s"), requests.HTTPError("500")])
def test_a_manager_that_closed_its_port_is_waited_for(
    error: Exception,
    manager: Callable[[str], "subprocess.Popen[bytes]"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is asked by a signal, with its caller: NNI would tell of that in 80 lines, and kill."""
    process = manager(ENDS_SLOWLY)
    monkeypatch.setattr("nni.experiment.rest.delete", lambda *_: _answered(error))
    stops(tmp_path, monkeypatch, process)
    assert process.returncode == 7
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_manager_that_takes_too_long_is_ended(
    manager: Callable[[str], "subprocess.Popen[bytes]"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    process = manager("signal.signal(15, signal.SIG_IGN)")
    asked: list[Any] = []
    monkeypatch.setattr("nni.experiment.rest.delete", lambda *args: asked.append(args))
    monkeypatch.setattr(running, "_MANAGER_SECONDS", 0.1)
    monkeypatch.setattr(processes, "processes_of", lambda folder: [psutil.Process(process.pid)])
    monkeypatch.setattr(processes.end, "__defaults__", (0.2,))
    stops(tmp_path, monkeypatch, process)
    assert process.returncode == -signal.SIGKILL
    assert asked == [(1, "/experiment", None)]
    assert "is killed" in caplog.text


def stops(folder: Path, monkeypatch: pytest.MonkeyPatch, process: Any) -> None:
    monkeypatch.setattr("rtl_nni.search.resuming.set_stopped", lambda name: None)
    Running(_Experiment(process), None, folder).stop()


def test_without_a_port_of_its_own_nobody_is_asked(
    manager: Callable[[str], "subprocess.Popen[bytes]"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another program answers on the port, which must not be stopped."""
    process = manager("signal.alarm(1)")
    monkeypatch.setattr("nni.experiment.rest.delete", lambda *_: pytest.fail("asked"))
    monkeypatch.setattr("rtl_nni.search.resuming.set_stopped", lambda name: None)
    experiment = _Experiment(process)
    experiment.port = None
    Running(experiment, None, tmp_path).stop()
    assert process.returncode == -signal.SIGALRM


@pytest.mark.parametrize(
    "answers",
    [
        {"get_experiment_profile": GONE},
        {"get_experiment_profile": {"id": "x"}, "update_max_trial_number": GONE},
    ],
)
@pytest.mark.parametrize("alive", [True, False])
def test_a_manager_that_dies_as_it_starts(
    answers: dict[str, Any], alive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "x"
    (folder / "log").mkdir(parents=True)
    (folder / "log" / "nnimanager.log").write_text("the last it wrote\n")
    monkeypatch.setattr(processes, "manager_of", lambda folder: psutil.Process())
    monkeypatch.setattr(processes, "is_alive", lambda process: alive)
    started = Running(_Experiment(**answers), None, folder)
    started.updates = {"update_max_trial_number": 3}
    says = "gave no answer (refused)" if alive else "the manager of experiment 'x' died"
    with pytest.raises(ExperimentFailed) as error:
        started.start(5)
    assert says in str(error.value)
    assert "run_experiment(resume='x')" in str(error.value)
    assert "the last it wrote" in str(error.value)


class _Dying:
    """Stands in for a Running whose manager answers no more."""

    def __init__(self, folder: Path, status: str) -> None:
        self.folder, self.url, self.updates, self.port = folder, "http://localhost:1", {}, 1
        self.experiment, self.url_prefix, self.dispatcher = self, None, None
        self.status = status

    def look(self) -> None:
        """Nothing to see."""

    def manager_is_alive(self) -> bool:
        return False

    def get_status(self) -> str:
        return self.status

    def get_job_statistics(self) -> list[dict[str, Any]]:
        return []

    def get_job_metrics(self) -> None:
        raise GONE


def test_a_manager_that_dies_before_it_tells_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nni.experiment.rest.get", lambda *_: _answered(GONE))
    dying: Any = _Dying(tmp_path, "ERROR")
    with pytest.raises(ExperimentFailed, match=r"the manager of experiment .* died"):
        watching.watch(dying, 0.001, lambda now: None)


def test_a_manager_that_dies_before_it_tells_its_trials(tmp_path: Path) -> None:
    dying: Any = _Dying(tmp_path, "DONE")
    with pytest.raises(ExperimentFailed, match=r"the manager of experiment .* died"):
        module._result(dying, "DONE", 1.0)


@pytest.mark.parametrize("kind", [psutil.NoSuchProcess, psutil.AccessDenied])
def test_a_manager_that_cannot_be_asked_to_stop(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise kind(7)

    alive = kind is psutil.AccessDenied
    other = SimpleNamespace(
        pid=7,
        terminate=refused,
        kill=refused,
        is_running=lambda: alive,
        status=lambda: psutil.STATUS_RUNNING,
    )
    monkeypatch.setattr(processes, "manager_of", lambda folder: other)
    monkeypatch.setattr(processes, "processes_of", lambda folder: [other])
    begun = time.monotonic()
    if alive:
        with pytest.raises(ExperimentFailed, match="could not be ended: 7"):
            stop_all(tmp_path)
    else:
        assert stop_all(tmp_path) == 1
    assert time.monotonic() - begun < 20  # nobody is waited for who was not asked
