"""Where a trial's figures go: NNI's channel, a function, nobody."""

import json
import re
from pathlib import Path
from typing import Any

# Before any test says that a manager runs: NNI would take standard output for its log then.
import nni
import pytest

from rtl_nni.search.reporting import ToFunction, ToNni, reporter_from, under_nni
from rtl_plugin.errors import InvalidArgument
from tests.nni.search.trial_setups import PARAMS, python, trial

TRIAL = """
import json, sys, nni
from tests.nni.search.trial_setups import PARAMS, trial
from rtl_plugin.errors import InvalidArgument
try:
    trial()
    sys.exit("took results nobody asked for")
except InvalidArgument as error:
    assert "rtl_nni.next_parameters()" in str(error), error
result = trial(nni.get_next_parameter())
with open(sys.argv[1], "w") as file:  # NNI takes what is printed
    json.dump(result.to_json(), file)
"""
PLAIN = """
import sys
from tests.nni.search.trial_setups import trial
trial()
print([name for name in sys.modules if name.partition(".")[0] == "nni"])
"""


def under_the_local_service(folder: Path) -> tuple[Any, list[Any]]:
    """What the trial returned, and what NNI's own channel wrote for the manager."""
    folder.mkdir()
    (folder / "parameter.cfg").write_text(json.dumps({"parameter_id": 7, "parameters": PARAMS}))
    returned = folder / "returned.json"
    python(
        TRIAL, str(returned), NNI_PLATFORM="local", NNI_SYS_DIR=str(folder),
        NNI_OUTPUT_DIR=str(folder), NNI_TRIAL_JOB_ID="qRmXw", NNI_TRIAL_SEQ_ID="4", NNI_EXP_ID="x",
        MULTI_PHASE="false",
    )  # fmt: skip
    raw = (folder / ".nni" / "metrics").read_bytes().decode()
    sent = [json.loads(line) for line in re.split(r"ME\d{6}", raw) if line]
    return json.loads(returned.read_text()), sent


def test_nni_hears_plain_floats(tmp_path: Path) -> None:
    result, sent = under_the_local_service(tmp_path / "trial")
    assert [metric["type"] for metric in sent] == ["PERIODICAL"] * 3 + ["FINAL"]
    assert [metric["sequence"] for metric in sent] == [0, 1, 2, 0]
    assert {metric["parameter_id"] for metric in sent} == {7}
    assert {metric["trial_job_id"] for metric in sent} == {"qRmXw"}
    values = [json.loads(metric["value"]) for metric in sent]
    assert {type(value) for value in values} == {float}
    assert values == [*result["intermediate"], result["metric"]]
    assert values[-1] == trial().metric, "as without NNI"
    files = tmp_path / "trial" / "rtl"
    assert json.loads((files / "trial.json").read_text())["sequence"] == 4
    assert json.loads((files / "result.json").read_text()) == result


def test_without_a_manager_nni_is_not_even_imported() -> None:
    assert python(PLAIN).splitlines()[-1] == "[]"


def test_auto_tells_nobody_where_there_is_no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNI_PLATFORM", raising=False)
    assert not under_nni()
    silent = reporter_from("auto")
    assert isinstance(silent, ToFunction)
    silent.round(1, 0.5)
    silent.final(0.5)
    monkeypatch.setenv("NNI_PLATFORM", "local")
    assert under_nni()
    with pytest.raises(InvalidArgument, match=r"rtl_nni\.next_parameters\(\) before run_trial"):
        reporter_from("auto")
    assert isinstance(reporter_from(None), ToFunction), "asked not to tell"


def test_the_manager_is_told_once_parameters_were_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    told: list[Any] = []
    monkeypatch.setattr(nni, "get_current_parameter", dict)
    monkeypatch.setattr(nni, "report_intermediate_result", told.append)
    monkeypatch.setattr(nni, "report_final_result", lambda value: told.append([value]))
    reporter = ToNni()
    reporter.round(1, 0.25)
    reporter.final(0.5)
    assert told == [0.25, [0.5]]


@pytest.mark.parametrize("report", ["nni", 3, True])
def test_another_report_is_refused(report: Any) -> None:
    with pytest.raises(InvalidArgument, match='report must be "auto", None or callable'):
        reporter_from(report)
