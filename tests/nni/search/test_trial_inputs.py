"""What a trial is made of: checked in order, drawn from its own streams, kept when refused."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rtl_nni
import rtl_plugin as rtl
from rtl_nni.search import trial_inputs as inputs
from rtl_nni.search.trial_folder import TrialFolder
from rtl_plugin.errors import InvalidArgument, NothingPrunable, RunFolderMismatch
from rtl_plugin.fingerprint import bit_equal
from tests.nni.search.trial_setups import PARAMS, groups, network, trial

FILES = ["result.json", "rounds.jsonl", "run", "trial.json"]


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in (folder / "rtl").iterdir() if path.is_file()]
    return {path.name: path.read_bytes() for path in files}


def test_files_go_where_nni_says_or_the_caller(tmp_path: Path, monkeypatch: Any) -> None:
    assert inputs.trial_folder(None) is None
    monkeypatch.setenv("NNI_PLATFORM", "local")
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path / "nni"))
    found, given = inputs.trial_folder(None), inputs.trial_folder(tmp_path / "mine")
    assert found is not None
    assert given is not None
    assert (found.path, given.path) == (tmp_path / "nni", tmp_path / "mine")


def lenders(warm_start: Any, own: TrialFolder | None) -> list[Path] | None:
    found = inputs.warm_start_from(warm_start, own, {"lr": 0.5})
    if found is None:
        return None
    assert found.key == {"lr": 0.5}
    return [Path(folder) for folder in found.folders]


def test_other_trials_are_the_folders_beside(tmp_path: Path) -> None:
    for name in ("b", "own", "a", "elsewhere/c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "own")
    own = TrialFolder(tmp_path / "own")
    runs = [TrialFolder(tmp_path / name).run for name in ("a", "b", "elsewhere")]
    assert lenders(True, own) == runs
    assert lenders(False, own) is None
    assert lenders(False, None) is None
    assert lenders(tmp_path / "elsewhere", own) == [TrialFolder(tmp_path / "elsewhere" / "c").run]
    assert lenders(str(tmp_path / "not yet"), own) == []


def test_a_warm_start_of_the_users_keeps_its_folders_and_its_key(tmp_path: Path) -> None:
    given = rtl.WarmStart([tmp_path / "run"], key="augmented")
    found = inputs.warm_start_from(given, TrialFolder(tmp_path / "own"), {"lr": 0.5})
    assert found == rtl.WarmStart([tmp_path / "run"], {"given": "augmented", "own": {"lr": 0.5}})


@pytest.mark.parametrize("wrong", [1, None, ["a", "b"]])
def test_what_is_no_folder_of_trials_is_refused(wrong: Any, tmp_path: Path) -> None:
    own = TrialFolder(tmp_path / "own")
    with pytest.raises(InvalidArgument, match="warm_start must be True, False, a folder or a Warm"):
        lenders(wrong, own)
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="file is a file"):
        lenders(tmp_path / "file", own)
    for without_files in (True, tmp_path, rtl.WarmStart([tmp_path])):
        with pytest.raises(InvalidArgument, match="folder="):
            lenders(without_files, None)


@pytest.mark.parametrize("wrong", [Path("x"), object(), {1, 2}, {(1, 2): 3}])
def test_a_parameter_that_trials_cannot_be_compared_by_is_refused(
    wrong: Any, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument, match="the parameter 'data' must be JSON-able"):
        trial(PARAMS | {"data": wrong}, own_parameters="data", folder=tmp_path)


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


@pytest.mark.parametrize("what", ["groups", "model", "measure"])
def test_functions_of_the_user_draw_from_the_trials_seed_alone(what: str) -> None:
    drawn_at: list[Any] = []

    def call(seed: int) -> None:
        if what == "groups":
            inputs.built_groups(lambda params: drawn_at.append(drawn()) or groups(), {}, seed)
        elif what == "model":
            inputs.built_model(lambda seed: drawn_at.append(drawn()) or nn.Linear(1, 1), seed)
        else:
            figure: Any = lambda mixture: drawn_at.append(drawn()) or 1  # noqa: E731
            inputs.measured_figures({"figure": figure}, None, seed)  # type: ignore[arg-type]

    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    expected = drawn()
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    call(3)
    assert drawn() == expected, "the caller's streams went on as if nothing had been drawn"
    call(3)
    call(4)
    first, second, other = drawn_at
    assert first == second
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_groups_and_model_have_streams_of_their_own() -> None:
    drawn_at: list[float] = []
    inputs.built_groups(lambda params: drawn_at.append(drawn()[2]) or groups(), {}, 3)
    inputs.built_model(lambda seed: drawn_at.append(drawn()[2]) or nn.Linear(1, 1), 3)
    assert len(set(drawn_at)) == 2


def test_the_network_is_that_of_its_seed() -> None:
    torch.manual_seed(3)
    expected = network(3).state_dict()
    made = inputs.built_model(network, 3).state_dict()
    assert all(bit_equal(made[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (nn.Linear(1, 1), "build_model must return an nn.Module"),
        (None, r"build_model must be callable as build_model\(seed\)"),
        (lambda seed: [seed], r"build_model must return an nn.Module, got \[3\]"),
    ],
)
def test_what_makes_no_network_is_refused(wrong: Any, message: str) -> None:
    if isinstance(wrong, nn.Module):  # callable, but with a batch
        wrong = lambda seed, made=wrong: made.weight  # noqa: E731
    with pytest.raises(InvalidArgument, match=message):
        inputs.built_model(wrong, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([len], "measure must map names to functions"),
        (len, "measure must map names to functions"),
        ({"latency": 3}, "measure must map names to functions"),
        ({3: len}, "measure must map names to functions"),
        *(({name: len}, f"measure names '{name}', which every trial has") for name in
          ("metric", "parameters", "density")),
    ],
)  # fmt: skip
def test_what_measures_nothing_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        inputs.checked_measure(wrong)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None, "7", True, torch.ones(2)])
def test_a_figure_that_is_no_finite_number_fails_the_trial(bad: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"measure\['odd'\] must return a finite number"):
        trial(folder=tmp_path, measure={"fine": lambda mixture: 1, "odd": lambda mixture: bad})
    assert not TrialFolder(tmp_path).result.exists()


def test_costs_of_the_front_that_every_trial_has_are_not_measured() -> None:
    """What the front takes from the record itself is exactly what measure may not name."""
    trials = [rtl_nni.TrialRecord("a", "finished", metric=0.5, sparsity=0.5, parameters=5)]
    for cost in ("parameters", "density"):
        assert len(rtl_nni.pareto_front(trials, cost)) == 1
        with pytest.raises(InvalidArgument, match=cost):
            inputs.checked_measure({cost: len})


def never(*_: Any) -> Any:
    raise AssertionError("called before the arguments were checked")


@pytest.mark.parametrize(
    "wrong",
    [
        {"params": PARAMS | {"sparsity": 2}},
        {"params": PARAMS | {"learning_rate": 2}},
        {"aggregate": "median"},
        {"measure": {"metric": len}},
        {"stop": 0.5},
        {"report": 3},
        {"warm_start": 3},
        {"warm_start": True, "folder": None},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_cheap_arguments_are_checked_before_data_and_network_are_made(
    wrong: dict[str, Any], tmp_path: Path
) -> None:
    options = {"folder": tmp_path / "new", "groups": never, "build_model": never} | wrong
    with pytest.raises(InvalidArgument):
        trial(**options)
    assert not (tmp_path / "new").exists()


def test_what_was_asked_is_written_as_json_would_give_it_back(
    tmp_path: Path, monkeypatch: Any
) -> None:
    own = {
        "lr": np.float64(0.25), "width": np.int64(7), "table": np.eye(2), "shift": torch.ones(2),
        "pair": (1, 2), "nested": {"_name": "conv", "k": np.float32(0.5)},
    }  # fmt: skip
    params = PARAMS | own | {"sparsity": np.float64(0.75), "rounds": np.float64(3)}
    monkeypatch.setenv("NNI_TRIAL_SEQ_ID", "11")
    result = trial(params, folder=tmp_path, own_parameters=own)
    settings = json.loads(TrialFolder(tmp_path).settings.read_text())
    assert settings["sequence"] == 11
    assert settings["params"] == PARAMS | {
        "lr": 0.25, "width": 7, "table": [[1.0, 0.0], [0.0, 1.0]], "shift": [1.0, 1.0],
        "pair": [1, 2], "nested": {"_name": "conv", "k": 0.5}, "rounds": 3.0,
    }  # fmt: skip
    assert settings["asked"]["rounds"] == 3
    # The same again, in Python's own numbers, is the same trial.
    again = trial(settings["params"], folder=tmp_path, own_parameters=own)
    assert again.metrics == result.metrics


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("params", {"params": PARAMS | {"epochs": 3}}),
        ("params", {"params": PARAMS | {"lr": 0.5}, "own_parameters": ["lr"]}),
        # what is left out is asked by its default, but was not given
        ("params", {"params": PARAMS | {"rewind_to": 0}}),
        ("groups", {"groups": groups(a=2, b=3)}),
    ],
)
def test_a_folder_with_another_trial_is_refused_and_left_alone(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    trial(folder=tmp_path)
    before = content(tmp_path)
    with pytest.raises(RunFolderMismatch, match=f"holds a trial with {name}=.*another folder"):
        trial(folder=tmp_path, **options)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"evaluate": 3}, InvalidArgument),
        ({"prunable": ["nothing"]}, NothingPrunable),
        ({"optimizer": lambda params: torch.optim.SGD(params, 0.1)}, RunFolderMismatch),
        ({"groups": None}, InvalidArgument),
    ],
    ids=["evaluate", "prunable", "optimizer", "groups"],
)
def test_a_call_that_is_refused_forgets_nothing_of_a_finished_trial(
    options: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    trial(folder=tmp_path)
    before = content(tmp_path)
    with pytest.raises(error):
        trial(folder=tmp_path, **options)
    after = content(tmp_path)
    assert sorted(path.name for path in (tmp_path / "rtl").iterdir()) == FILES
    for name in ("result.json", "rounds.jsonl"):
        assert after[name] == before[name]


def test_the_first_round_forgets_how_an_earlier_attempt_ended(tmp_path: Path) -> None:
    files = TrialFolder(tmp_path)
    trial(folder=tmp_path)
    files.write(files.stopped, {"reason": "by hand", "by": "me"})
    seen: list[tuple[bool, bool, int]] = []

    def look(round: int, value: float) -> None:
        seen.append((files.result.exists(), files.stopped.exists(), len(files.read_rounds())))

    trial(folder=tmp_path, report=look)
    assert seen == [(False, False, 1), (False, False, 2), (False, False, 3)]
    assert files.result.exists()
