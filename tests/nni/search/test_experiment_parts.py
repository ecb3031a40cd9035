"""What run_experiment refuses before anything starts, and its parts without a manager."""

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml

pytest.importorskip("nni", reason="NNI cannot be imported here")

from rtl_nni.search import experiment as module
from rtl_nni.search import experiment_config, processes, watching
from rtl_nni.search.experiment import run_experiment
from rtl_nni.search.experiment_result import ExperimentStatus
from rtl_nni.search.failures import ExperimentFailed
from rtl_nni.search.registration import register_collapse_assessor
from rtl_nni.search.tpe_tuner import TpeTuner
from rtl_plugin.errors import InvalidArgument, MissingFile
from tests.nni.search.experiment_support import alive, config_of, nni_at, settings


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with nni_at(tmp_path) as home:
        yield home


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        yield server.getsockname()[1]


OURS = {"class_name": "rtl_nni.CollapseAssessor", "code_directory": "."}
TUNER = {"class_name": "rtl_nni.TpeTuner", "code_directory": "."}
CONFIGURATIONS = {
    "no tuner": ({"tuner": None}, "no tuner: set config.tuner.name"),
    "no command": ({"trial_command": None}, "no trial command: set config.trial_command"),
    "no end": ({"max_trial_number": None}, "would never end: set config.max_trial_number"),
    "no service": ({"training_service": {"platform": "moon"}}, "NNI does not know"),
    "unknown tuner": ({"tuner": {"name": "TPEE"}}, "no tuner 'TPEE': known are .*TPE"),
    "unknown assessor": ({"assessor": {"name": "Collapse"}}, "register_collapse_assessor"),
    "assessor's argument": (
        {"assessor": OURS | {"class_args": {"share": 2}}},
        r"assessor rtl_nni\.CollapseAssessor cannot be built: share must",
    ),
    "assessor's class": ({"assessor": OURS | {"class_name": "rtl_nni.No"}}, "no attribute 'No'"),
    "our tuner's mode": (
        {"tuner": TUNER},
        r"tuner rtl_nni\.TpeTuner cannot be built: .* needs optimize_mode=.*, got None",
    ),
    "our tuner's argument": (
        {"tuner": TUNER | {"class_args": {"optimise_mode": "maximize"}}},
        "no class argument 'optimise_mode'",
    ),
    "our tuner by its module": (
        {"tuner": TUNER | {"class_name": "rtl_nni.search.tpe_tuner.TpeTuner"}},
        "needs optimize_mode",
    ),
    "our tuner's module": (
        {"tuner": TUNER | {"class_name": "rtl_nni.no.TpeTuner"}},
        "No module named",
    ),
    "concurrency": ({"trial_concurrency": 0}, "assert self.trial_concurrency > 0"),
    "code folder": ({"trial_code_directory": "/no/such"}, "is not a directory"),
    "duration": ({"max_experiment_duration": "3 weeks"}, "NNI does not accept .*3 week"),
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_a_configuration_that_cannot_work_is_refused(case: str, home: Path) -> None:
    changes, message = CONFIGURATIONS[case]
    with pytest.raises(InvalidArgument, match=message):
        run_experiment(config_of(home, ["reports"], **changes))
    assert not (home / "work").exists()


def test_our_assessor_is_checked_by_its_name_too(home: Path) -> None:
    register_collapse_assessor()
    wrong = {"name": "collapse", "class_args": {"no": 1}}
    with pytest.raises(InvalidArgument, match="CollapseAssessor has no class argument 'no'"):
        run_experiment(config_of(home, ["reports"], assessor=wrong))
    right = {"name": "Collapse", "class_args": {"share": 0.4}}
    checked = experiment_config.checked(config_of(home, ["reports"], assessor=right))
    assert checked.assessor.class_args == {"share": 0.4}


def test_our_tuner_is_checked_quietly(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The seed that NNI logs is of a tuner that proposes nothing."""
    caplog.set_level(logging.INFO)
    tuner = TUNER | {"class_args": {"optimize_mode": "maximize"}}
    level = logging.getLogger("nni").level
    experiment_config.checked(config_of(home, ["reports"], tuner=tuner))
    assert "seed" not in caplog.text
    assert logging.getLogger("nni").level == level
    TpeTuner("maximize")
    assert "seed" in caplog.text


def test_arguments_are_checked(home: Path, taken: int) -> None:
    config = config_of(home, ["reports"])
    for arguments, message in [
        ({"config": 3}, "config must be an nni.experiment.ExperimentConfig or the path"),
        ({}, "config is missing"),
        ({"resume": True}, "resume must be the id of an experiment, got True"),
        ({"resume": "nobody"}, "there is no experiment 'nobody'"),
        ({"resume": "a", "experiment_id": "b"}, "give one of the two"),
        ({"config": config, "experiment_id": 5}, "1 to 32 letters"),
        ({"config": config, "experiment_id": "no spaces"}, "1 to 32 letters"),
        ({"config": config, "poll_seconds": 0}, "poll_seconds must be above 0"),
        ({"config": config, "port": 0}, "port must be a whole number of at least 1"),
        ({"config": config, "port": taken}, f"port {taken} is in use"),
    ]:
        with pytest.raises(InvalidArgument, match=message):
            run_experiment(**arguments)
    assert not (home / "work").exists()


def test_a_file_is_read_as_nni_reads_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingFile, match=r"no configuration file .*missing\.yml"):
        run_experiment(home / "missing.yml")
    path = home / "e.yml"
    for text, message in [
        ("trialComand: x", "does not have field"),
        ("[1, 2]", "not a dict"),
        ("a: [", "while parsing"),
    ]:
        path.write_text(text)
        with pytest.raises(InvalidArgument, match=message):
            run_experiment(path)
    # NNI remembers a refused file's folder as the base of the next one's paths.
    keys = {**settings(home, []), "trial_code_directory": "code", "max_trial_number": None}
    path.write_text(yaml.safe_dump(keys))
    monkeypatch.chdir("/")
    with pytest.raises(InvalidArgument, match="would never end"):
        run_experiment(path)


class _Manager(BaseHTTPRequestHandler):
    """Answers as the manager of another experiment would."""

    def _answer(self) -> None:
        self.server.asked.append(self.command)  # type: ignore[attr-defined]
        self.send_response(self.server.code)  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(json.dumps({"id": "another", "status": "RUNNING"}).encode())

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize("code", [200, 404])
def test_a_port_taken_while_it_starts_leaves_nothing(
    code: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both NNI's check and ours came too early; another server answers on the port."""
    server = HTTPServer(("", 0), _Manager)
    server.asked, server.code = [], code  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setattr(module, "checked_port", lambda port, number: server.server_port)
        monkeypatch.setattr("nni.experiment.launcher._ensure_port_idle", lambda *_: None)
        with pytest.raises(InvalidArgument, match="was taken by another program"):
            run_experiment(config_of(home, ["reports"]), experiment_id="late")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert alive(home / "work" / "late") == []
    assert "DELETE" not in server.asked  # type: ignore[attr-defined]


def test_ctrl_c_stops_the_experiment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def interrupted(self: Any, port: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rtl_nni.search.running.Running.start", interrupted)
    monkeypatch.setattr("rtl_nni.search.running.Running.stop", lambda self: done.append("stop"))
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config_of(home, ["reports"]))
    assert done == ["stop"]


def test_what_ignores_sigterm_is_killed() -> None:
    stubborn = "import signal,time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)"
    child = subprocess.Popen(
        [sys.executable, "-c", stubborn + "; time.sleep(60)"], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    with child.stdout:
        assert processes.end([psutil.Process(child.pid)], grace=0.5) == []
    assert child.wait() == -signal.SIGKILL


class _Scripted:
    """Stands in for a Running whose manager answers as told, then dies or hangs."""

    def __init__(self, answers: list[Any], alive: bool = True, updates: Any = None) -> None:
        self.answers = iter(answers)
        self.folder = Path("x1")
        self.url = "http://localhost:1"
        self.updates = updates or {}
        self.config = SimpleNamespace(
            training_service=SimpleNamespace(platform="local", reuse_mode=False)
        )
        self.experiment = self
        self.manager_is_alive = lambda: alive

    def look(self) -> None:
        """Nothing to see."""

    def seconds_without_dispatcher(self) -> float:
        return 0.0

    def get_status(self) -> str:
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    def get_job_statistics(self) -> list[dict[str, Any]]:
        return [{"trialJobStatus": "SUCCEEDED", "trialJobNumber": 2}]


def watched(running: _Scripted) -> tuple[str, list[ExperimentStatus]]:
    seen: list[ExperimentStatus] = []
    return watching.watch(running, 0.001, seen.append), seen  # type: ignore[arg-type]


def test_a_manager_that_is_slow_to_answer_is_asked_again() -> None:
    slow = [OSError()] * 4  # five in a row would be too many
    status, seen = watched(_Scripted(["RUNNING", *slow, "RUNNING", *slow, "DONE"]))
    assert (status, [each.status for each in seen]) == ("DONE", ["RUNNING", "DONE"])


def test_a_manager_that_does_not_answer_ends_it() -> None:
    with pytest.raises(ExperimentFailed, match=r"did not answer 5 times in a row \(gone\)"):
        watched(_Scripted([OSError("gone")] * 9))
    with pytest.raises(ExperimentFailed, match=r"manager of experiment 'x1' died"):
        watched(_Scripted([OSError()], alive=False))


def test_stopped_from_the_web_page_is_no_result() -> None:
    with pytest.raises(ExperimentFailed, match="stopped from outside with 2 SUCCEEDED"):
        watched(_Scripted(["RUNNING", "STOPPING"]))


def test_done_of_before_an_update_does_not_count() -> None:
    running = _Scripted(["DONE", "DONE", "RUNNING", "DONE"], updates={"update_x": 3})
    status, seen = watched(running)
    assert (status, [each.status for each in seen]) == ("DONE", ["DONE", "RUNNING", "DONE"])
