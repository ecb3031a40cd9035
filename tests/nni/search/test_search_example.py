"""The example of a search: its configuration twice, its trial, Optuna, and what is told."""

import importlib
import json
import random
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rtl_nni
from rtl_nni.search.experiment_config import checked, loaded
from rtl_nni.search.parameters import checked_parameters
from rtl_plugin.cli import quickstart as quickstart_command
from rtl_plugin.tasks import digits
from tests.nni.search import trial_setups
from tests.nni.search.told_rounds import CORE, OWN
from tests.nni.search.trial_files import result, round_row, settings, write_trial

EXAMPLE = trial_setups.ROOT / "examples" / "nni_search"
SCRIPTS = ("task", "outcome", "search", "trial", "optuna_search")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports one of the folder's scripts; they are no package."""
    monkeypatch.syspath_prepend(EXAMPLE)
    before = {name: sys.modules.pop(name, None) for name in SCRIPTS}
    yield importlib.import_module
    for name, module in before.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


def configured(example: Any, monkeypatch: Any, *arguments: str) -> Any:
    """NNI's configuration as search.py makes it from the command line, checked."""
    search = example("search")
    monkeypatch.setattr(sys, "argv", ["search.py", *arguments])
    return checked(search.configuration(search.arguments_given()))


def test_both_configurations_say_the_same(example: Any, monkeypatch: Any) -> None:
    ours = configured(example, monkeypatch).json()
    theirs = checked(loaded(EXAMPLE / "config.yml")).json()
    assert Path(theirs.pop("searchSpaceFile")) == EXAMPLE / "search_space.json"
    # In YAML a path counts from the file, in Python from where one stands.
    folders = [Path(each.pop("experimentWorkingDirectory")) for each in (ours, theirs)]
    assert [folder.parts[-2:] for folder in folders] == [("search-output", "nni")] * 2
    commands = [each["trainingService"].pop("trialCommand") for each in (ours, theirs)]
    assert [each.pop("trialCommand") for each in (ours, theirs)] == commands
    assert ours == theirs
    trials = [asked(example, monkeypatch, command) for command in commands]
    assert trials[0] == trials[1] == ({"seed": 0, "rounds": 4}, {"warm_start": True})


def asked(example: Any, monkeypatch: Any, command: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a trial of this command asks for."""
    python, script, *arguments = shlex.split(command)
    assert (python, script) == ("python", "trial.py")
    trial, calls = example("trial"), []
    monkeypatch.setattr(trial.rtl_nni, "next_parameters", lambda: {"rounds": 4})
    run: Any = lambda params, **options: calls.append((params, options))  # noqa: E731
    monkeypatch.setattr(trial.task, "run", run)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    trial.main()
    (call,) = calls
    return call


def test_the_space_in_the_file_is_the_tasks(example: Any) -> None:
    written = json.loads((EXAMPLE / "search_space.json").read_text())
    assert written == example("task").space()


def test_what_the_command_line_changes(example: Any, monkeypatch: Any, tmp_path: Path) -> None:
    given = ("--trials", "3", "--concurrency", "1", "--seed", "7", "--share", "0.25",
             "--no-warm-start", "-o", str(tmp_path))  # fmt: skip
    changed = configured(example, monkeypatch, *given)
    assert (changed.max_trial_number, changed.trial_concurrency) == (3, 1)
    assert (changed.tuner.class_args["seed"], changed.assessor.class_args) == (7, {"share": 0.25})
    assert Path(changed.experiment_working_directory) == tmp_path / "nni"
    asks = asked(example, monkeypatch, changed.trial_command)
    assert asks == ({"seed": 7, "rounds": 4}, {"warm_start": False})
    assert configured(example, monkeypatch, "--no-assessor").assessor is None


def test_a_tuners_seed_beats_the_command_lines(example: Any, monkeypatch: Any) -> None:
    """A space of the user's may search the seed as well."""
    trial = example("trial")
    monkeypatch.setattr(sys, "argv", ["trial.py", "--seed", "7"])
    monkeypatch.setattr(trial.rtl_nni, "next_parameters", lambda: {"seed": 2})
    asks: list[Any] = []
    monkeypatch.setattr(trial.task, "run", lambda params, **options: asks.append(params))
    trial.main()
    assert asks == [{"seed": 2}]


def test_the_quickstarts_configuration_is_the_quickstarts(example: Any) -> None:
    command, task = quickstart_command, example("task")
    theirs = checked_parameters(task.QUICKSTART)
    assert (theirs.sparsity, theirs.rounds) == (command._SPARSITY, command._ROUNDS)
    assert (theirs.steps, theirs.epochs) == (command._STEPS, command._EPOCHS)
    ours = checked_parameters({"sparsity": 0.9, "rounds": 4, "steps": 25, "epochs": 1})
    assert theirs == ours, "and the rest as run_trial and discover have it by default"


def test_the_patterns_are_the_affine_weights_of_the_norms(example: Any) -> None:
    names = dict(digits.small_conv_net(0).named_modules())
    found = {pattern.removesuffix(".*") for pattern in example("task").NORM_AFFINE}
    norms = {name for name, module in names.items() if "BatchNorm" in type(module).__name__}
    assert found == norms


def test_a_trial_on_real_digits(example: Any) -> None:
    params = {"pruned_per_round": 0.5, "rounds": 2, "steps": 1, "epochs": 1}
    found = example("task").run(params, report=None)
    assert sorted(found.metrics) == sorted(digits.ENVIRONMENTS)
    assert found.metric == pytest.approx(sum(found.metrics.values()) / 5)
    assert 0.1 < found.metric < 1
    assert found.sparsity == pytest.approx(0.75, abs=1e-4)


class Digits:
    """Stands for the example's task; its first trial collapses, the others do not."""

    def __init__(self, task: Any, monkeypatch: Any) -> None:
        self.params: list[Mapping[str, Any]] = []
        space = rtl_nni.search_space(rounds=[9], pruned_per_round=[0.3], epochs=[1, 2])
        monkeypatch.setattr(task, "space", lambda: space)
        monkeypatch.setattr(task, "run", self.run)

    def run(self, params: Mapping[str, Any], **options: Any) -> rtl_nni.TrialResult:
        self.params.append(params)
        kinds = OWN if len(self.params) > 1 else CORE
        known = {name: params[name] for name in ("epochs", "seed")}
        return trial_setups.designed(kinds, **known, **options)


def test_optuna_runs_the_same_trials(
    example: Any, monkeypatch: Any, tmp_path: Path, capsys: Any
) -> None:
    pytest.importorskip("optuna", reason="the example without NNI needs the package optuna")
    script = example("optuna_search")
    ours = Digits(script.task, monkeypatch)
    given = ["optuna_search.py", "-o", str(tmp_path), "--trials", "2", "--seed", "5"]
    monkeypatch.setattr(sys, "argv", given)
    script.main()
    stopped, finished = rtl_nni.read_trials(tmp_path / "trials")
    assert (stopped.name, stopped.status, stopped.rounds) == ("000", "stopped", 4)
    assert (finished.name, finished.status, finished.rounds) == ("001", "finished", 9)
    first, second, default = ours.params
    assert {**first, **second} == {"rounds": 9, "pruned_per_round": 0.3, "seed": 5} | {
        "epochs": second["epochs"]
    }
    assert default["seed"] == 5
    assert default["sparsity"] == 0.9
    told = json.loads((tmp_path / "search.json").read_text())
    assert (told["best"]["trial"], told["best"]["metric"]) == ("001", finished.metric)
    printed = capsys.readouterr().out
    assert "Best: trial 001" in printed
    assert "stopped: the masks of 2 of 4 tickets" in printed


def test_optuna_proposes_all_of_the_space_and_nothing_else(example: Any) -> None:
    optuna = pytest.importorskip("optuna", reason="the example without NNI needs optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    script = example("optuna_search")
    space = script.task.space() | {
        "lr": {"_type": "loguniform", "_value": [1e-4, 1e-2]},
        "drop": {"_type": "uniform", "_value": [0.1, 0.2]},
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    asked = [script.suggested(study.ask(), space) for _ in range(80)]
    for params in asked:
        assert set(params) == set(space)
        checked_parameters(params, ["lr", "drop"])
    for name, entry in space.items():
        seen = [params[name] for params in asked]
        low, *_, high = entry["_value"]
        if entry["_type"] == "choice":
            assert all(value in seen for value in entry["_value"])
            assert all(value in entry["_value"] for value in seen)
        elif entry["_type"] == "randint":
            assert sorted(set(seen)) == list(range(low, high)), "both ends, as NNI has it"
        else:
            assert low <= min(seen) < max(seen) <= high
    small = sum(params["lr"] < 1e-3 for params in asked)
    assert 25 < small < 55, "a log-uniform range has half of its values below the middle power"
    with pytest.raises(ValueError, match="width: no counterpart of NNI's quniform"):
        script.suggested(study.ask(), {"width": {"_type": "quniform", "_value": [1, 9, 2]}})


SPARSE = "accuracy 0.8700 with 400 parameters at 90.0% sparsity"


def hand_made(folder: Path, finished: bool = True) -> None:
    """Four trials: one sparse, one dense, one stopped, one dead."""
    rows = [round_row(1), round_row(2), round_row(3)]
    made = {"metric": 0.87, "parameters": 400}, {"metric": 0.92, "parameters": 3000}
    for number, figures in enumerate(made):
        if finished:
            asked = settings(number, params={"rounds": number + 2, "seed": 4})
            write_trial(folder / f"t{number}", asked, rows, result(**figures))
    stopped = {"reason": "the masks of 3 of 5 tickets changed abruptly", "by": "run_trial"}
    write_trial(folder / "t2", settings(2, params={"rounds": 4}), rows[:1], stopped=stopped)
    write_trial(folder / "t3", settings(3, params={"rounds": 5}))


def told_with(outcome: Any, monkeypatch: Any, folder: Path, parameters: int) -> Any:
    default = SimpleNamespace(metric=0.8, parameters=parameters, sparsity=0.9)
    monkeypatch.setattr(outcome, "quickstart", {4: default}.get)
    return outcome.tell(folder / "trials", folder / "out")


def test_the_outcome_is_told(example: Any, monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    hand_made(tmp_path / "trials")
    found = told_with(example("outcome"), monkeypatch, tmp_path, 400)
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    for line in (
        "Best: trial 1, accuracy 0.9200 with 3,000 parameters at 90.0% sparsity (validation split)",
        "The quickstart's configuration: accuracy 0.8000 with 400 parameters at 90.0% sparsity",
        f"Best of those with no more parameters: trial 0, {SPARSE}",
        f"Wrote pareto.png and search.json to {tmp_path / 'out'}.",
    ):
        assert line in lines
    records = rtl_nni.read_trials(tmp_path / "trials")
    assert rtl_nni.trial_table(records) in printed
    assert str(rtl_nni.budget(records)) in printed
    assert rtl_nni.pareto_table(records) in printed
    assert (tmp_path / "out" / "pareto.png").read_bytes()[:4] == b"\x89PNG"
    written = json.loads((tmp_path / "out" / "search.json").read_text())
    assert written == json.loads(json.dumps(found))
    assert (written["experiment"], written["seed"]) == ("trials", 4)
    assert written["budget"]["planned"] == 400
    assert written["quickstart"] == {"metric": 0.8, "parameters": 400}
    assert written["best"] == {"trial": "1", "metric": 0.92, "parameters": 3000}
    statuses = [trial["status"] for trial in written["trials"]]
    assert statuses == ["finished", "finished", "stopped", "unfinished"]


def test_a_search_without_a_trial_as_small_as_the_quickstart(
    example: Any, monkeypatch: Any, tmp_path: Path, capsys: Any
) -> None:
    hand_made(tmp_path / "trials")
    told_with(example("outcome"), monkeypatch, tmp_path, 399)
    assert "No finished trial has as few parameters as that." in capsys.readouterr().out


def test_the_quickstart_is_run_as_it_is(example: Any, monkeypatch: Any) -> None:
    outcome, calls = example("outcome"), []
    run: Any = lambda params, **options: calls.append((params, options)) or 7  # noqa: E731
    monkeypatch.setattr(outcome.task, "run", run)
    assert outcome.quickstart(3) == 7
    assert calls == [({**outcome.task.QUICKSTART, "seed": 3}, {"report": None})]


def test_every_proposal_of_a_random_tuner_can_be_run(example: Any) -> None:
    from nni.algorithms.hpo.random_tuner import RandomTuner

    task = example("task")
    tuner = RandomTuner(seed=random.Random(0).randrange(99))
    tuner.update_search_space(task.space())
    targets = [checked_parameters(tuner.generate_parameters(n)).target for n in range(60)]
    assert 0.86 < min(targets)
    assert max(targets) < 0.999, "from 87 to 99.8 % sparsity"
    # The floor keeps no more of a tensor than the sparsest trial leaves.
    assert task.FIXED["floor"] <= 1 - max(targets)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume", "x", "--trials", "4"], "--trials would do nothing beside --resume"),
        (["--config", "c.yml", "--no-assessor"], "--no-assessor would do nothing beside --config"),
        (["--resume", "x", "--config", "c.yml"], "--config would do nothing beside --resume"),
    ],
)
def test_options_that_would_do_nothing_are_errors(
    arguments: list[str], said: str, example: Any, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["search.py", *arguments])
    with pytest.raises(SystemExit):
        example("search").arguments_given()
    assert said in capsys.readouterr().err


def test_a_resumed_experiment_may_name_its_port(example: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["search.py", "--resume", "x", "--port", "8080", "-o", "y"])
    given = example("search").arguments_given()
    assert (given.resume, given.port, given.config) == ("x", 8080, None)
