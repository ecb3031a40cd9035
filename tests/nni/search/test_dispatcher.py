"""A dispatcher that ended is noticed, and a start that NNI gave up on is tried again."""

import os
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
from rtl_nni.search import watching
from rtl_nni.search.dispatcher import Dispatcher
from rtl_nni.search.experiment import run_experiment
from rtl_nni.search.failures import ExperimentFailed, NotStartedInTime
from rtl_nni.search.running import Running
from tests.nni.search.experiment_support import config_of, nni_at

TRACEBACK = """Traceback (most recent call last):
  File "msg_dispatcher_base.py", line 108, in command_queue_worker
    self.process_command(command, data)
{error}
"""
WORKER = "[2026-11-23 08:54:02] ERROR (nni.runtime.msg_dispatcher_base/Thread-1 (worker)) 1\n"
MAIN = "[2026-11-23 08:54:02] ERROR (nni.main/MainThread) 1\n"
OWN = "[2026-11-23 08:54:02] ERROR (nni.runtime.msg_dispatcher/Thread-1 (worker)) Assessor error\n"


@pytest.fixture
def started() -> Iterator[Callable[[str], "subprocess.Popen[bytes]"]]:
    """Starts a child of this process, which stands in for the manager."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(kind: str) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "SDK_PROCESS": kind}
        begun.append(
            subprocess.Popen(
                [sys.executable, "-S", "-c", "import time; time.sleep(60)"], env=environment
            )
        )
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


def test_a_process_that_went_is_noticed(
    started: Callable[[str], "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    manager = psutil.Process()
    started("trial")
    never = Dispatcher.of(tmp_path)
    assert [never.seconds_dead(manager, now) for now in (10.0, 12.5)] == [0.0, 2.5]
    process = started("dispatcher")
    assert never.seconds_dead(manager, 13.0) == 0.0  # it was only late
    process.kill()  # and not collected: a zombie does not work
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert [never.seconds_dead(manager, now) for now in (14.0, 15.0, 20.0)] == [0.0, 1.0, 6.0]
    assert never.why() == "it wrote no exception into its log"


@pytest.mark.parametrize("line", [WORKER, MAIN])
def test_an_exception_is_noticed_while_the_process_lives(
    line: str, started: Callable[[str], "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    started("dispatcher")
    log = tmp_path / "log" / "dispatcher.log"
    log.parent.mkdir()
    log.write_text(line + TRACEBACK.format(error="KeyError: 'of an earlier call'"))
    dispatcher, manager = Dispatcher.of(tmp_path), psutil.Process()
    assert dispatcher.why() == "it wrote no exception into its log"
    for text, works in [
        (OWN + TRACEBACK.format(error="ValueError: not ours to judge"), True),
        (line[:40], True),  # still being written
        (line[40:] + TRACEBACK.format(error="mine.Error: all is lost"), False),
        ("[2026-11-23 08:54:07] INFO (nni.main/MainThread) Dispatcher exiting...\n", False),
    ]:
        with log.open("a") as file:
            file.write(text)
        dispatcher.seconds_dead(manager, 7.0)
        assert (dispatcher.seconds_dead(manager, 9.0) == 0.0) == works
    assert dispatcher.why() == "mine.Error: all is lost"


class _Scripted:
    """Stands in for a Running whose manager says one thing after the other."""

    def __init__(self, folder: Path, answers: list[tuple[str, float]]) -> None:
        self.folder, self.url, self.updates = folder, "http://localhost:1", {}
        self.answers = iter(answers)
        self.experiment = self
        self.port, self.url_prefix = 1, None
        self.config = SimpleNamespace(
            training_service=SimpleNamespace(platform="local", reuse_mode=False)
        )
        self.dispatcher = SimpleNamespace(why=lambda: "KeyError: 1")

    def look(self) -> None:
        """Nothing to see."""

    def get_status(self) -> str:
        status, self.dead = next(self.answers)
        return status

    def get_job_statistics(self) -> list[dict[str, Any]]:
        return [{"trialJobStatus": "SUCCEEDED", "trialJobNumber": 2}]

    def seconds_without_dispatcher(self) -> float:
        return self.dead


def watched(folder: Path, answers: list[tuple[str, float]]) -> str:
    running: Any = _Scripted(folder, answers)
    return watching.watch(running, 0.001, lambda now: None)


@pytest.mark.parametrize("status", ["RUNNING", "NO_MORE_TRIAL", "TUNER_NO_MORE_TRIAL"])
def test_an_experiment_without_its_tuner_ends(status: str, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "dispatcher.log").write_text("Dispatcher exiting...\n")
    with pytest.raises(ExperimentFailed) as error:
        watched(tmp_path, [(status, 0.0), (status, 2.5), (status, 3.5)])
    message = str(error.value)
    assert "tuner and assessor" in message
    assert "with 2 SUCCEEDED: KeyError: 1" in message
    assert f"run_experiment(resume={tmp_path.name!r})" in message
    assert str(tmp_path / "log") in message
    assert "Dispatcher exiting..." in message


def test_an_experiment_that_is_done_needs_no_tuner(tmp_path: Path) -> None:
    assert watched(tmp_path, [("RUNNING", 2.9), ("DONE", 9.0)]) == "DONE"
    assert watched(tmp_path, [("INITIALIZED", 9.0), ("RUNNING", 0.0), ("DONE", 0.0)]) == "DONE"


@pytest.mark.parametrize(
    ("reason", "dead", "kind"),
    [
        ("Tuner did not connect in 10 seconds.", 0.0, NotStartedInTime),
        ("Tuner did not connect in 10 seconds.", 0.1, ExperimentFailed),
        ("Job management error", 0.0, ExperimentFailed),
    ],
)
def test_only_a_tuner_that_is_still_starting_is_given_another_try(
    reason: str, dead: float, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nni.experiment.rest.get", lambda *_: {"errors": [reason]})
    with pytest.raises(ExperimentFailed, match=reason) as error:
        watched(tmp_path, [("RUNNING", 0.0), ("ERROR", dead)])
    assert type(error.value) is kind
    assert ("KeyError: 1" in str(error.value)) == (kind is ExperimentFailed)


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """run_experiment whose manager comes up as often as told; what it did each time."""
    noted = SimpleNamespace(fails=2, ports=[], fresh=[], stops=0)

    def start(self: Running, port: int) -> None:
        database = self.folder / "db"
        noted.ports.append(port)
        noted.fresh.append(not database.exists() and self.manager is None and not self.seen)
        database.mkdir(parents=True, exist_ok=True)
        self.manager, self.seen = object(), [object()]
        if len(noted.ports) <= noted.fails:
            raise NotStartedInTime("slow")

    def stop(self: Running) -> None:
        noted.stops += 1

    monkeypatch.setattr(Running, "start", start)
    monkeypatch.setattr(Running, "stop", stop)
    monkeypatch.setattr(module, "watch", lambda *_: "DONE")
    monkeypatch.setattr(module, "_result", lambda *_: "the result")
    with nni_at(tmp_path) as home:
        noted.config = config_of(home, ["reports"])
        yield noted


def test_a_start_is_tried_three_times(starts: SimpleNamespace) -> None:
    assert run_experiment(starts.config, experiment_id="busy") == "the result"
    assert (len(starts.ports), starts.stops) == (3, 3)
    assert starts.fresh == [True, True, True]


def test_after_three_starts_it_is_an_error(starts: SimpleNamespace) -> None:
    starts.fails = 3
    with pytest.raises(ExperimentFailed, match="3 starts failed; the last because slow"):
        run_experiment(starts.config, port=module.checked_port(None))
    assert (len(starts.ports), starts.stops) == (3, 3)
    assert len(set(starts.ports)) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (requests.ConnectionError("refused"), NotStartedInTime),
        (requests.Timeout("20 s"), NotStartedInTime),
        (FileNotFoundError("no node"), ExperimentFailed),
    ],
)
def test_a_manager_that_does_not_answer_was_slow(
    error: Exception, kind: type, tmp_path: Path
) -> None:
    def start(port: int) -> None:
        raise error

    log = tmp_path / "slow" / "log" / "dispatcher.log"
    log.parent.mkdir(parents=True)
    log.write_text("of an earlier call\n")
    running = Running(SimpleNamespace(start=start, port=None), None, tmp_path / "slow")
    with pytest.raises(ExperimentFailed, match="manager did not start") as raised:
        running.start(module.checked_port(None))
    assert type(raised.value) is kind
    assert running.dispatcher == Dispatcher(log, begin=19)


def test_without_its_manager_it_is_not_the_dispatcher_that_died(tmp_path: Path) -> None:
    running = Running(None, None, tmp_path, dispatcher=Dispatcher.of(tmp_path))
    running.dispatcher.since = 0.0
    assert running.seconds_without_dispatcher() == 0.0
    running.manager = psutil.Process()
    assert running.seconds_without_dispatcher() > 0.0


def test_a_resumed_experiment_keeps_its_database(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    Running(None, None, tmp_path, resume=True).forget_start()
    assert (tmp_path / "db").is_dir()
    Running(None, None, tmp_path).forget_start()
    assert not (tmp_path / "db").exists()
