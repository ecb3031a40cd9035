"""The assessor as NNI drives it: its dispatcher, its factory, its files."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nni.assessor import AssessResult
from nni.common.serializer import dump
from nni.runtime import msg_dispatcher
from nni.runtime.msg_dispatcher import MsgDispatcher
from nni.runtime.tuner_command_channel import CommandType
from nni.tools.package_utils.tuner_factory import create_customized_class_instance

from rtl_nni import CollapseAssessor, CollapseStop
from rtl_nni.search.trial_folder import TrialFolder
from rtl_plugin import CollapseRule
from rtl_plugin.errors import DamagedFile, InvalidArgument, MissingFile, RtlError
from tests.nni.search.trial_setups import ROOT, designed, python

GOOD, BAD = AssessResult.Good, AssessResult.Bad
COLLAPSING = dict.fromkeys("abcd", "core")  # two alarms after round 4, four after round 5
FINE = dict.fromkeys("abcd", "own")


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of finished trials, by id, as ``run_trial`` leaves them."""
    folder = tmp_path_factory.mktemp("trials")
    designed(COLLAPSING, folder=folder / "bad")
    designed(FINE, folder=folder / "fine")
    designed({"a": "core"}, folder=folder / "alone")
    designed(FINE, folder=folder / "short", rounds=2)
    return folder


def answers(assessor: CollapseAssessor, trial: str, rounds: int = 9) -> list[Any]:
    return [assessor.assess_trial(trial, [0.5] * length) for length in range(1, rounds + 1)]


@pytest.mark.parametrize(("share", "bad_from"), [(0.5, 4), (0.75, 5), (1.0, 5)])
def test_a_collapsing_trial_is_bad_from_the_round_of_its_alarms(
    share: float, bad_from: int, trials: Path
) -> None:
    assessor = CollapseAssessor(share=share, trials=trials)
    assert answers(assessor, "bad") == [GOOD] * (bad_from - 1) + [BAD] * (10 - bad_from)
    assert answers(assessor, "fine") == [GOOD] * 9


def test_the_rules_arguments_are_passed_on(trials: Path) -> None:
    late = CollapseAssessor(trials=trials, warm_up=6)
    assert late.stop == CollapseStop(0.5, CollapseRule(warm_up=6))
    assert answers(late, "bad")[:6] == [GOOD] * 6
    rule = {"fall": 0.4, "rise": 0.3, "noise": 2, "window": 0.25, "warm_up": 3}
    assert CollapseAssessor(trials=trials, **rule).stop.rule == CollapseRule(**rule)


@pytest.mark.parametrize(
    "values", [0.5, float("nan"), {"default": 0.5}, {"default": 1, "round": 3}]
)
def test_metrics_are_not_looked_at(values: Any, trials: Path) -> None:
    assessor = CollapseAssessor(trials=trials)
    assert assessor.assess_trial("bad", [values] * 3) is GOOD
    assert assessor.assess_trial("bad", [values] * 4) is BAD


def test_a_log_line_and_a_file_say_why(trials: Path, caplog: Any) -> None:
    files = TrialFolder(trials / "bad")
    files.stopped.unlink(missing_ok=True)
    assessor = CollapseAssessor(trials=trials)
    with caplog.at_level(logging.INFO, "rtl_nni.CollapseAssessor"):
        assert answers(assessor, "bad")[3:] == [BAD] * 6
    (line,) = caplog.messages
    verdict = CollapseStop().verdict(files.read_rounds())
    assert verdict is not None
    assert line == f"stopped trial bad: {verdict.reason}"
    stopped = json.loads(files.stopped.read_text())
    assert stopped == verdict.to_json() | {"by": "CollapseAssessor"}


def test_a_trial_that_cannot_be_watched_is_told_of_once(trials: Path, caplog: Any) -> None:
    assessor = CollapseAssessor(trials=trials)
    with caplog.at_level(logging.INFO, "rtl_nni.CollapseAssessor"):
        assert answers(assessor, "alone") == [GOOD] * 9
        answers(assessor, "alone")
        assert answers(assessor, "short", 2) == [GOOD] * 2
        answers(assessor, "fine")
    assert caplog.messages == [
        "trial alone could not be watched: it has one ticket",
        "trial short could not be watched: its rounds are too few for the rule",
    ]


def test_a_trial_that_ended_is_forgotten(trials: Path, caplog: Any) -> None:
    assessor = CollapseAssessor(trials=trials)
    with caplog.at_level(logging.INFO, "rtl_nni.CollapseAssessor"):
        for success in (False, True):
            answers(assessor, "bad")
            assessor.trial_end("bad", success)
            assessor.trial_end("unknown", success)
    assert len(caplog.messages) == 2, "an id that is run again is told of again"


def test_counts_that_were_sent_need_no_folder(monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.delenv("NNI_LOG_DIRECTORY", raising=False)
    told: list[Any] = []
    designed(COLLAPSING, send_counts=True, report=lambda round, value: told.append(value))
    told = json.loads(json.dumps(told))  # as they travel
    assessor = CollapseAssessor()
    found = [assessor.assess_trial("far", told[:length]) for length in range(1, 10)]
    assert found == [GOOD] * 3 + [BAD] * 6


def test_a_trial_that_tells_nothing_is_an_error(trials: Path, monkeypatch: Any) -> None:
    with pytest.raises(MissingFile, match=r"bad reported 10 rounds and .*rounds\.jsonl tells of 9"):
        CollapseAssessor(trials=trials).assess_trial("bad", [0.5] * 10)
    with pytest.raises(MissingFile, match=r"other reported 1 rounds.*tells of 0.*run_trial"):
        CollapseAssessor(trials=trials).assess_trial("other", [0.5])
    monkeypatch.delenv("NNI_LOG_DIRECTORY", raising=False)
    with pytest.raises(MissingFile, match=r"no folder of its own tells of 0.*trials=.*send_counts"):
        CollapseAssessor().assess_trial("bad", [0.5])


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    files = TrialFolder(tmp_path / "one")
    files.append_round({"round": 1})
    with pytest.raises(InvalidArgument, match="lacks of, sparsity, names"):
        CollapseAssessor(trials=tmp_path).assess_trial("one", [0.5])
    files.rounds.write_text("{\n")
    with pytest.raises(DamagedFile):
        CollapseAssessor(trials=tmp_path).assess_trial("one", [0.5])


def test_the_local_services_folders_are_found(
    tmp_path: Path, trials: Path, monkeypatch: Any
) -> None:
    experiment = tmp_path / "x7Yz"
    (experiment / "log").mkdir(parents=True)
    home = experiment / "environments" / "local-env" / "trials"
    home.mkdir(parents=True)
    (home / "bad").symlink_to(trials / "bad")
    monkeypatch.setenv("NNI_LOG_DIRECTORY", str(experiment / "log"))
    assert answers(CollapseAssessor(), "bad") == [GOOD] * 3 + [BAD] * 6
    with pytest.raises(MissingFile, match="fine reported 1 rounds and no folder"):
        CollapseAssessor().assess_trial("fine", [0.5])


DISPATCHER = """
from nni.tools.package_utils.tuner_factory import create_customized_class_instance
made = create_customized_class_instance(
    {"codeDirectory": "integrations", "className": "rtl_nni.CollapseAssessor", "classArgs": None}
)
print(*[made.assess_trial("bad", [0.5] * rounds).name for rounds in (3, 4)])
"""


def test_the_reason_lands_in_nnis_log(tmp_path: Path, trials: Path) -> None:
    home = tmp_path / "x7Yz" / "environments" / "local-env" / "trials"
    home.mkdir(parents=True)
    (home / "bad").symlink_to(trials / "bad")
    logs = tmp_path / "x7Yz" / "log"
    out = python(DISPATCHER, SDK_PROCESS="dispatcher", NNI_LOG_DIRECTORY=str(logs))
    assert out.split() == ["Good", "Bad"]
    reason = "stopped trial bad: the masks of 2 of 4 tickets changed abruptly by round 4 of 9"
    assert reason in (logs / "dispatcher.log").read_text()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "share text": ({"share": "0.5"}, r"share must be a number in \(0, 1\].*'0.5'"),
    "share percent": ({"share": 50}, "share must be a number.*50"),
    "share 0": ({"share": 0}, "share must be a number.*got 0"),
    "share true": ({"share": True}, "share must be a number.*True"),
    "share null": ({"share": None}, "share must be a number.*None"),
    "fall": ({"fall": 1.5}, "fall must lie between 0 and 1"),
    "rise": ({"rise": "0.2"}, "rise must be a number, got '0.2'"),
    "noise": ({"noise": -1}, "noise must be at least 0"),
    "window": ({"window": 0}, "window must lie between 0"),
    "warm_up": ({"warm_up": 2.5}, "warm_up must be a whole number"),
    "null": ({"rise": None}, "rise must be a number, got None"),
    "unknown": (
        {"optimize_mode": "maximize"},
        "no class argument 'optimize_mode': it takes share, trials, remember and fall, rise, noise",
    ),
    "trials": ({"trials": 3}, "trials must be the path of a folder, got 3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_nnis_factory_meets_wrong_class_arguments_at_once(case: str) -> None:
    arguments, message = WRONG[case]
    with pytest.raises(InvalidArgument, match=message) as caught:
        from_nni(arguments)
    assert isinstance(caught.value, RtlError)


def from_nni(arguments: Any) -> Any:
    """As NNI's dispatcher makes it from class_name, code_directory and class_args."""
    return create_customized_class_instance(
        {
            "codeDirectory": str(ROOT / "integrations"),
            "className": "rtl_nni.CollapseAssessor",
            "classArgs": arguments,
        }
    )


@pytest.mark.parametrize("arguments", [None, {}, {"share": 1, "warm_up": 3, "trials": "/trials"}])
def test_nnis_factory_makes_it(arguments: Any) -> None:
    made = from_nni(arguments)
    assert isinstance(made, CollapseAssessor)
    assert made.stop.share == (arguments or {}).get("share", 0.5)
    assert made.stop.rule.warm_up == (arguments or {}).get("warm_up", 2)


class Driven:
    """NNI's own dispatcher, with a list in place of its channel to the manager."""

    def __init__(self, assessor: CollapseAssessor) -> None:
        self.sent: list[Any] = []
        self.dispatcher = MsgDispatcher("ws://_unittest_placeholder_", self, assessor)
        self.dispatcher.send = lambda command, data: self.sent.append((command, data))

    def metric(self, trial: str, sequence: int, value: Any = 0.5) -> None:
        self.dispatcher.process_command(
            CommandType.ReportMetricData,
            {
                "parameter_id": 0, "trial_job_id": trial, "type": "PERIODICAL",
                "sequence": sequence, "value": dump(value),
            },
        )  # fmt: skip

    def end(self, trial: str, event: str) -> None:
        params = dump({"parameter_id": 0})
        self.dispatcher.process_command(
            CommandType.TrialEnd, {"trial_job_id": trial, "event": event, "hyper_params": params}
        )

    def trial_end(self, parameter_id: int, success: bool) -> None:
        """As a tuner is told."""


@pytest.fixture
def driven(trials: Path, monkeypatch: Any) -> Driven:
    monkeypatch.setattr(msg_dispatcher, "_trial_history", msg_dispatcher.defaultdict(dict))
    monkeypatch.setattr(msg_dispatcher, "_ended_trials", set())
    return Driven(CollapseAssessor(trials=trials))


def kills(driven: Driven) -> list[str]:
    return [
        json.loads(data) for command, data in driven.sent if command is CommandType.KillTrialJob
    ]


def test_nnis_dispatcher_kills_a_collapsing_trial(driven: Driven) -> None:
    for sequence in range(4):
        driven.metric("fine", sequence, np.float64(0.5))
        driven.metric("bad", sequence)
        assert kills(driven) == (["bad"] if sequence == 3 else [])
    driven.end("bad", "EARLY_STOPPED")
    driven.metric("bad", 4)
    driven.end("fine", "SUCCEEDED")
    assert kills(driven) == ["bad"]


def test_nnis_dispatcher_may_hear_late_and_out_of_order(driven: Driven) -> None:
    for sequence in (0, 2, 3, 4, 5):
        driven.metric("bad", sequence)
        assert kills(driven) == []
    driven.metric("bad", 1)  # six rounds at once
    assert kills(driven) == ["bad"]


def test_an_error_in_it_is_the_dispatchers(driven: Driven) -> None:
    with pytest.raises(MissingFile):
        driven.metric("nowhere", 0)
