"""next_parameters: every trial gets the parameters that NNI has recorded for it."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("nni", reason="NNI cannot be imported here")

import nni
import nni.runtime.trial_command_channel as channels
import nni.trial

from rtl_nni.search.failures import ExperimentFailed
from rtl_nni.search.next_parameters import next_parameters
from rtl_nni.search.ports import free_port
from rtl_plugin.errors import InvalidArgument


class _Records(BaseHTTPRequestHandler):
    """NNI's manager, as far as a trial sees it: records by trial, and a channel for metrics."""

    server: Any

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answers = self.server.answers.get(self.path, [(404, "no such page")])
        code, text = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.sent.append((self.path, json.loads(self.rfile.read(length))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # What NNI keeps in its modules is put back after every test.
    monkeypatch.setattr(channels, "_channel", None)
    monkeypatch.setattr(nni.trial, "_params", None)
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Records)
    server.answers, server.asked, server.sent = {}, [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def record(number: int, **parameters: Any) -> str:
    packed = {"parameter_id": number, "parameters": parameters, "parameter_index": 0}
    return json.dumps({"status": "RUNNING", "hyperParameters": [json.dumps(packed)]})


def be(trial: str, server: Any, monkeypatch: pytest.MonkeyPatch, prefix: str = "") -> str:
    """Let this process be a trial of the local service; returns the channel's path."""
    path = f"{prefix}/env/local-env/{trial}"
    monkeypatch.setenv("NNI_PLATFORM", "local")
    url = f"http://127.0.0.1:{server.server_port}{path}"
    monkeypatch.setenv("NNI_TRIAL_COMMAND_CHANNEL", url)
    return path


def test_who_asks_first_still_gets_its_own(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # "dead" was submitted first and never asked; in a resumed experiment numbers repeat.
    for number, trial in enumerate(["dead", "a", "b"]):
        manager.answers[f"/api/v1/nni/trial-jobs/{trial}"] = [(200, record(number, x=trial))]
    for trial, number in [("b", 2), ("a", 1), ("b", 2)]:
        path = be(trial, manager, monkeypatch)
        assert next_parameters() == {"x": trial}
        nni.report_final_result(0.5)
        sent_to, command = manager.sent.pop()
        assert sent_to == path
        assert json.loads(command["metric"])["parameter_id"] == number
    assert manager.sent == []  # nobody asked for the next ones, which others would get


def test_the_record_is_waited_for(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manager starts a trial before it records it; a prefix and a proxy change nothing."""
    waiting = json.dumps({"status": "WAITING", "hyperParameters": []})
    answers = [(200, ""), (500, "busy"), (200, "not JSON"), (200, waiting), (200, record(0, x=1))]
    manager.answers["/mine/api/v1/nni/trial-jobs/a"] = answers
    be("a", manager, monkeypatch, prefix="/mine")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert next_parameters(10) == {"x": 1}
    assert len(manager.asked) == 5


def test_a_record_that_does_not_come_is_an_error(
    manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    be("a", manager, monkeypatch)
    with pytest.raises(ExperimentFailed, match=r"within 0\.3 seconds: http.*/a answers .*404"):
        next_parameters(0.3)
    assert len(manager.asked) > 1
    monkeypatch.setenv("NNI_TRIAL_COMMAND_CHANNEL", f"http://127.0.0.1:{free_port()}/env/e/a")
    with pytest.raises(ExperimentFailed, match="refused"):
        next_parameters(0.1)


@pytest.mark.parametrize("platform", ["remote", "openpai", None])
def test_other_services_give_theirs(
    platform: str | None, manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    be("a", manager, monkeypatch)
    if platform is None:
        monkeypatch.delenv("NNI_PLATFORM")
    else:
        monkeypatch.setenv("NNI_PLATFORM", platform)
    monkeypatch.setattr(nni, "get_next_parameter", lambda: {"x": 3})
    assert next_parameters() == {"x": 3}
    assert manager.asked == []
    monkeypatch.setattr(nni, "get_next_parameter", lambda: None)
    with pytest.raises(InvalidArgument, match="no parameters for this trial"):
        next_parameters()


@pytest.mark.parametrize("patience", [0, -1.0, "1", float("nan")])
def test_patience_is_checked(patience: Any) -> None:
    with pytest.raises(InvalidArgument, match="patience must be a number of seconds above 0"):
        next_parameters(patience)
