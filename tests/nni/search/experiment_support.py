"""Tiny trials and callers for tests with NNI's real manager."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from nni.experiment import ExperimentConfig
from nni.tools.nnictl.config_utils import Experiments

from rtl_nni.search import processes

ROOT = Path(__file__).parents[3]

TRIAL = """
import json, os, signal, sys, time
import nni

if "own" in sys.argv:
    from rtl_nni.search.next_parameters import next_parameters as ask
else:
    ask = nni.get_next_parameter
others = os.path.join(os.environ["NNI_OUTPUT_DIR"], "..")
second = os.path.join(others, "second_has_asked")
if "own" in sys.argv and os.environ["NNI_TRIAL_SEQ_ID"] == "0":
    while not os.path.exists(second):  # so the first trial asks after the second
        time.sleep(0.05)
parameters = ask()
open(second, "w").close()
with open(os.path.join(os.environ["NNI_OUTPUT_DIR"], "parameters.json"), "w") as file:
    json.dump(parameters, file)
kind = parameters["kind"]
nni.report_intermediate_result(1.0)
if kind == "dies":
    raise RuntimeError("this trial dies")
if kind == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if kind == "stopped":
    nni.report_intermediate_result(-1.0)
    time.sleep(60)
if kind == "waits":
    time.sleep(600)
if kind == "sleeps":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
if kind == "once":
    # The first in its experiment waits; run again after a resume it does not.
    mark = os.path.join(others, "was_here")
    if not os.path.exists(mark):
        open(mark, "w").close()
        time.sleep(600)
nni.report_intermediate_result(2.0)
nni.report_intermediate_result(float("nan") if kind == "nan" else 3.0)
nni.report_final_result(float("nan") if kind == "nan" else 3.0)
"""

ASSESSOR = """
from nni.assessor import Assessor, AssessResult

class Negative(Assessor):
    def assess_trial(self, trial_job_id, trial_history):
        return AssessResult.Bad if trial_history[-1] < 0 else AssessResult.Good
"""

TUNER = """
from nni.tuner import Tuner

class Broken(Tuner):
    def update_search_space(self, search_space):
        pass

    def generate_parameters(self, *args, **kwargs):
        raise RuntimeError("nothing to propose")
"""

CALLER = """
from nni.experiment import ExperimentConfig
from rtl_nni.search.experiment import run_experiment

config = ExperimentConfig(**{config!r})
try:
    run_experiment(config, experiment_id={id!r}, poll_seconds=0.2,
                   on_status=lambda now: print(dict(now.trials), flush=True))
except Exception as error:
    print("ERROR", type(error).__name__, error, flush=True)
"""


@contextmanager
def nni_at(home: Path) -> Iterator[Path]:
    """NNI's list of experiments and its settings below a folder, here and in every child."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("NNI_CONFIG_DIR", str(home / "config"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "integrations")]))
        # NNI reads the home folder once, when it is imported.
        patch.setattr(Experiments.__init__, "__defaults__", (str(home / "nni-experiments"),))
        (home / "code").mkdir()
        (home / "code" / "trial.py").write_text(TRIAL)
        (home / "code" / "negative.py").write_text(ASSESSOR)
        (home / "code" / "broken.py").write_text(TUNER)
        yield home


def settings(home: Path, kinds: list[str], **changes: Any) -> dict[str, Any]:
    """What an ExperimentConfig takes: one trial of every kind, one at a time."""
    return {
        "trial_command": f"{sys.executable} trial.py",
        "trial_code_directory": str(home / "code"),
        "experiment_working_directory": str(home / "work"),
        "search_space": {"kind": {"_type": "choice", "_value": kinds}},
        "tuner": {"name": "GridSearch"},
        "trial_concurrency": 1,
        "max_trial_number": len(kinds),
        "max_trial_duration": "60s",  # no test waits for ever
        "training_service": {"platform": "local"},
        **changes,
    }


def config_of(home: Path, kinds: list[str], **changes: Any) -> ExperimentConfig:
    return ExperimentConfig(**settings(home, kinds, **changes))


def caller(home: Path, name: str, kinds: list[str], **changes: Any) -> "subprocess.Popen[str]":
    """A process of its own that runs an experiment and prints a line at every change."""
    script = home / f"{name}.py"
    arguments = settings(home, kinds, **changes)
    script.write_text(CALLER.format(config=arguments, id=name))
    with (home / f"{name}.out").open("w") as output:
        return subprocess.Popen(
            [sys.executable, str(script)],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )


def alive(folder: Path) -> list[str]:
    """What still runs of an experiment, in words."""
    return [" ".join(process.cmdline()[:4]) for process in processes.processes_of(folder)]
