"""run_experiment with NNI's real manager, dispatcher and trials.

A real experiment costs seconds, and workers share no fixtures: one test for each of them.
"""

import json
import math
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("nni", reason="NNI cannot be imported here")

from rtl_nni.search import processes, resuming
from rtl_nni.search.experiment import run_experiment, stop_experiment
from rtl_nni.search.failures import ExperimentFailed
from rtl_plugin.errors import InvalidArgument
from tests.nni.search.experiment_support import alive, caller, config_of, nni_at, settings

KINDS = ["reports", "dies", "nan", "killed", "stopped"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with nni_at(tmp_path) as home:
        yield home


def test_trials_of_all_kinds(home: Path) -> None:
    """From YAML, with a tuner that runs out of points before the number of trials."""
    keys = {
        "trialCommand": settings(home, [])["trial_command"],
        "trialCodeDirectory": "code",  # from the file's folder
        "experimentWorkingDirectory": "work",
        "searchSpace": {"kind": {"_type": "choice", "_value": KINDS}},
        "tuner": {"name": "GridSearch"},
        "assessor": {"className": "negative.Negative", "codeDirectory": "code"},
        "trialConcurrency": 2,
        "maxTrialNumber": len(KINDS) + 2,
        "trainingService": {"platform": "local"},
    }
    (home / "experiment.yml").write_text(yaml.safe_dump(keys))
    seen: list[Any] = []
    page: list[str] = []
    result = run_experiment(
        home / "experiment.yml",
        poll_seconds=0.2,
        on_status=seen.append,
        before_stop=lambda result: page.append(read(result.url)),
    )
    assert "<html" in page[0].lower()
    with pytest.raises(OSError, match="refused"):
        read(result.url)
    nothing_is_left(result)
    assert result.folder.parent == (home / "work").resolve()
    assert result.status == "TUNER_NO_MORE_TRIAL"
    assert sum(seen[-1].trials.values()) == len(KINDS)
    assert all(before != after for before, after in pairwise(seen))
    assert [trial.sequence for trial in result.trials] == [0, 1, 2, 3, 4]
    trials = {trial.parameters["kind"]: trial for trial in result.trials}
    ended_as_they_should(trials)
    told_what_they_reported(trials)
    assert {trial.parameters["kind"] for trial in result.failed} == {"dies", "killed"}


def ended_as_they_should(trials: dict[str, Any]) -> None:
    assert {kind: trial.status for kind, trial in trials.items()} == {
        "reports": "SUCCEEDED",
        "dies": "FAILED",
        "nan": "SUCCEEDED",
        "killed": "USER_CANCELED",
        "stopped": "EARLY_STOPPED",
    }
    assert trials["dies"].error == "RuntimeError: this trial dies"
    assert "wrote no standard error" in trials["killed"].error
    assert trials["reports"].error is None
    for kind, trial in trials.items():
        # Its own, also where NNI recorded another one's.
        assert json.loads((trial.folder / "parameters.json").read_text()) == {"kind": kind}
    assert 0 < trials["reports"].seconds < 60


def told_what_they_reported(trials: dict[str, Any]) -> None:
    assert (trials["reports"].intermediate, trials["reports"].metric) == ((1.0, 2.0, 3.0), 3.0)
    assert trials["nan"].intermediate[:2] == (1.0, 2.0)
    assert math.isnan(trials["nan"].intermediate[2])
    assert math.isnan(trials["nan"].metric)
    assert trials["stopped"].intermediate == (1.0, -1.0)
    assert trials["stopped"].metric is None


def test_a_killed_manager_and_going_on(home: Path) -> None:
    """It is killed while the second of two trials runs. Both take parameters by their record."""
    command = settings(home, [])["trial_command"] + " own"
    config = config_of(
        home,
        ["reports", "once", "nan"],
        max_trial_number=2,
        trial_concurrency=2,
        trial_command=command,
    )
    folder = home / "work" / "killed"

    def kill(now: Any) -> None:
        if now.trials.get("SUCCEEDED") and now.trials.get("RUNNING"):
            wait_for((folder / "environments" / "local-env" / "trials" / "was_here").exists)
            recorded_as_run(now.url, 2)
            os.kill(processes.manager_of(folder).pid, signal.SIGKILL)

    with pytest.raises(ExperimentFailed) as error:
        run_experiment(config, experiment_id="killed", poll_seconds=0.2, on_status=kill)
    assert "the manager of experiment 'killed' died" in str(error.value)
    assert "run_experiment(resume='killed')" in str(error.value)
    assert "nnimanager.log" in str(error.value)
    assert alive(folder) == []

    config.max_trial_number = 3
    resumed = run_experiment(
        config,
        resume="killed",
        poll_seconds=0.2,
        before_stop=lambda result: recorded_as_run(result.url, 3),
    )
    first, again, more = resumed.trials
    assert (first.parameters, first.metric) == ({"kind": "reports"}, 3.0)
    assert first.ended < again.ended
    # Cut short after one report, then run from the start under the same id.
    assert (again.parameters, again.status) == ({"kind": "once"}, "SUCCEEDED")
    assert again.intermediate == (1.0, 2.0, 3.0)
    assert more.status == "SUCCEEDED"
    assert resumed.status == "DONE"
    nothing_is_left(resumed)


def recorded_as_run(url: str, number: int) -> None:
    """NNI's records, uncorrected, say what each trial got."""
    records = json.loads(read(f"{url}/api/v1/nni/trial-jobs"))
    assert len(records) == number
    for job in records:
        own = json.loads((Path(job["logPath"]) / "parameters.json").read_text())
        assert json.loads(job["hyperParameters"][0])["parameters"] == own


def test_callers_that_end_and_a_tuner_that_raises(home: Path) -> None:
    """Callers of their own: one gets SIGTERM, one is killed. Meanwhile a tuner raises here."""
    shell = f"{settings(home, [])['trial_command']} && echo end"  # keeps a shell above the trial
    begun = {
        "termed": caller(home, "termed", ["sleeps"], trial_command=shell),
        "orphan": caller(home, "orphan", ["waits"]),
    }
    try:
        raises_as_the_tuner_does(home)
        for name in begun:
            wait_for(lambda name=name: "RUNNING" in (home / f"{name}.out").read_text(), 120)
        assert any("trial.py" in line for line in alive(home / "work" / "termed"))
        begun["termed"].send_signal(signal.SIGTERM)
        begun["orphan"].kill()
        assert begun["orphan"].wait(timeout=60) == -signal.SIGKILL
        is_found_and_stopped(home / "work" / "orphan")
        assert begun["termed"].wait(timeout=60) == -signal.SIGTERM
        assert alive(home / "work" / "termed") == []
        assert resuming.listed("termed")["status"] == "STOPPED"
    finally:
        for name, process in begun.items():
            process.kill()
            process.wait()
            processes.end(processes.processes_of(home / "work" / name))


def raises_as_the_tuner_does(home: Path) -> None:
    """NNI would say RUNNING for ever: the dispatcher lives and nobody in it works."""
    tuner = {"class_name": "broken.Broken", "code_directory": str(home / "code")}
    with pytest.raises(ExperimentFailed) as error:
        run_experiment(
            config_of(home, ["reports"], tuner=tuner), experiment_id="broken", poll_seconds=0.2
        )
    assert "tuner and assessor of experiment 'broken' are gone" in str(error.value)
    assert "with no trials: RuntimeError: nothing to propose" in str(error.value)
    assert str(home / "work" / "broken" / "log") in str(error.value)
    assert alive(home / "work" / "broken") == []


def is_found_and_stopped(folder: Path) -> None:
    assert any("main.js" in line for line in alive(folder))
    with pytest.raises(InvalidArgument, match=r"still runs: .* rtl_nni\.stop_experiment\('orphan'"):
        run_experiment(resume="orphan")
    # Without its manager, dispatcher and trial are orphans of nobody.
    manager = processes.manager_of(folder)
    manager.kill()
    wait_for(lambda: not processes.is_alive(manager))
    assert len(alive(folder)) >= 2
    assert stop_experiment("orphan") >= 2
    assert alive(folder) == []
    assert stop_experiment("orphan") == 0


def nothing_is_left(result: Any) -> None:
    assert alive(result.folder) == []
    assert resuming.listed(result.id)["status"] == "STOPPED"


def read(url: str) -> str:
    return urllib.request.urlopen(url, timeout=20).read().decode()


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
