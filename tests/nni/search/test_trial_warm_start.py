"""Trials that take rounds from others: the same bits, and what that saved."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtl_nni
from rtl_nni.search.parameters import TrialParameters, shared_by_rounds
from rtl_nni.search.trial_folder import TrialFolder
from rtl_plugin.discovery.rehearsal import STEPS
from rtl_plugin.errors import RunFolderMismatch
from rtl_plugin.fingerprint import bit_equal
from tests.nni.search.trial_setups import designed, groups, same_tickets, trial
from tests.nni.search.warm_trials import (
    PATH,
    ROUND,
    but,
    counted,
    planned,
    reused,
    rows,
    run_files,
    warm,
)

SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "late rewinding": {"rewind_to": 3},
    "gradients": {"importance": "weight_gradient", "floor": 0.05},
    "linear": {"schedule": "linear", "sparsity": 0.8, "pruned_per_round": None},
}


@pytest.mark.parametrize("lengths", [(4, 2), (2, 4)], ids=["a longer donor", "a shorter donor"])
@pytest.mark.parametrize("name", SETTINGS)
def test_files_and_results_are_bit_identical(
    name: str, lengths: tuple[int, int], tmp_path: Path
) -> None:
    """A linear schedule's prefix differs with its length; then nothing is shared, nor changed."""
    params = PATH | SETTINGS[name]
    first, second = (params | {"rounds": rounds} for rounds in lengths)
    second |= {"epochs": 2, "private_parameters": ["1.*"]}  # of no round's concern
    cold = trial(second, folder=tmp_path / "cold", warm_start=tmp_path / "nobody")
    warm(tmp_path / "search" / "donor", first)
    result = warm(tmp_path / "search" / "taker", second)
    shared = 0 if name == "linear" else 2
    assert reused(tmp_path / "search" / "taker") == (
        [["a", "b", "c"]] * shared + [[]] * (lengths[1] - shared)
    )
    assert run_files(tmp_path / "search" / "taker") == run_files(tmp_path / "cold")
    costs = ("steps_done", "seconds", "seconds_saved")
    assert but(result.to_json(), *costs) == but(cold.to_json(), *costs)
    assert same_tickets(result.tickets, cold.tickets)
    assert result.model is not None
    assert cold.model is not None
    for key, value in cold.model.state_dict().items():
        assert bit_equal(result.model.state_dict()[key], value), key
    of_costs = ("steps", "steps_reused", "reused", "seconds", "seconds_saved")
    theirs = [but(row, *of_costs) for row in rows(tmp_path / "cold")]
    assert [but(row, *of_costs) for row in rows(tmp_path / "search" / "taker")] == theirs


@pytest.mark.parametrize("rewind_to", [0, 5])
def test_steps_done_are_those_that_were_made(rewind_to: int, tmp_path: Path) -> None:
    params = PATH | {"rewind_to": rewind_to}
    with counted() as made:
        cold = trial(params)
    tried = len(made) - cold.steps_done  # before retraining the optimizer's rule is tried out
    for name, rounds, taken in (("a", 2, 0), ("b", 4, 2), ("c", 3, 3), ("d", 3, 3)):
        ours = params | {"rounds": rounds}
        with counted(rehearsed=STEPS) as made:
            result = warm(tmp_path / name, ours)
        saved = taken * ROUND + (rewind_to if taken else 0)
        assert result.steps_planned == planned(ours)
        assert result.steps_done == planned(ours) - saved == len(made) - tried
        told = rows(tmp_path / name)
        assert sum(row["steps_reused"] for row in told) == saved
        assert [row["steps"] + row["steps_reused"] for row in told] == [
            ROUND + rewind_to, *[ROUND] * (rounds - 1)
        ]  # fmt: skip


def test_seconds_saved_are_those_that_training_took(tmp_path: Path) -> None:
    params = PATH | {"rewind_to": 2}
    warm(tmp_path / "a", params | {"rounds": 2})
    log = (TrialFolder(tmp_path / "a").run / "log.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in log]
    spent = {
        number: sum(
            event["seconds"]
            for event in events
            if event["event"] in ("round", "rewind_point")
            and max(event.get("round", 0), 1) == number
        )
        for number in (1, 2)
    }
    assert min(spent.values()) > 0
    for name in ("b", "c"):  # c may take from b what b had from a
        result = warm(tmp_path / name, params)
        told = [row["seconds_saved"] for row in rows(tmp_path / name)]
        known = 2 if name == "b" else 4
        assert told[:2] == pytest.approx(list(spent.values()), rel=1e-9)
        assert (min(told[:known]) > 0, told[known:]) == (True, [0.0] * (4 - known))
        assert result.seconds_saved == pytest.approx(sum(told), rel=1e-9)
    assert warm(tmp_path / "d", params | {"seed": 4}).seconds_saved == 0.0


def test_the_budget_of_the_search_adds_up(tmp_path: Path) -> None:
    params = [PATH | {"rounds": rounds, "rewind_to": 5} for rounds in (2, 4, 3)]
    for name, ours in zip("abc", params, strict=True):
        warm(tmp_path / name, ours)
    records = rtl_nni.read_trials(tmp_path)
    assert [record.steps_reused for record in records] == [0, 5 + 2 * ROUND, 5 + 3 * ROUND]
    spent = rtl_nni.budget(records)
    assert spent.planned == sum(map(planned, params))
    assert (spent.reused, spent.left, spent.stopped, spent.cut) == (10 + 5 * ROUND, 0, 0, 0)
    assert spent.done == spent.planned - spent.reused
    assert spent.seconds_saved == pytest.approx(sum(r.seconds_saved for r in records))


OTHERS: dict[str, dict[str, Any]] = {
    "seed": {"seed": 4},
    "steps": {"steps": 5},
    "importance": {"importance": "random"},
    "floor": {"floor": 0.05},
    "rewind point": {"rewind_to": 2},
    "rate": {"pruned_per_round": 0.3},
    "own parameter": {"lr": 0.5},
    "own list": {"widths": [1, 3]},
    "grouping": {"grouping": "names"},
    "clusters": {"n_clusters": 4},
}
SAME: dict[str, dict[str, Any]] = {
    "rounds": {"rounds": 3},
    "epochs": {"epochs": 2},
    "private parameters": {"private_parameters": ["*.bias"]},
    "the rate by its target": {"pruned_per_round": None, "sparsity": 1 - 0.6**4},
    "numpy's numbers": {"lr": np.float64(0.25), "steps": np.int64(4), "n_clusters": np.float64(3)},
    "a tuple for a list": {"widths": (1, 2)},
    "another order": {},
}


@pytest.mark.parametrize("name", [*OTHERS, *SAME])
def test_only_what_decides_a_round_must_agree(name: str, tmp_path: Path) -> None:
    """The groups are the same whatever the builder is told: only the key can tell them apart."""
    base = PATH | {"lr": 0.25, "widths": [1, 2], "grouping": "kmeans", "n_clusters": 3}
    options: dict[str, Any] = {
        "own_parameters": ("lr", "widths"), "groups": lambda params: groups(),
    }  # fmt: skip
    warm(tmp_path / "donor", base, **options)
    changed = base | (OTHERS | SAME)[name]
    if name == "another order":
        changed = dict(reversed(changed.items()))
    warm(tmp_path / "taker", changed, **options)
    taken = reused(tmp_path / "taker")
    assert taken == [[] if name in OTHERS else ["a", "b", "c"]] * changed["rounds"]


def test_a_trial_with_other_data_trains(tmp_path: Path) -> None:
    warm(tmp_path / "donor")
    warm(tmp_path / "taker", groups=groups(a=2, b=2, c=2))
    assert reused(tmp_path / "taker") == [[]] * 4


def test_without_warm_start_nothing_is_taken_nor_lent(tmp_path: Path) -> None:
    warm(tmp_path / "a", warm_start=False)
    warm(tmp_path / "b")
    warm(tmp_path / "c", warm_start=False)
    for name in "abc":
        assert reused(tmp_path / name) == [[]] * 4, name
    warm(tmp_path / "d")
    assert reused(tmp_path / "d") == [["a", "b", "c"]] * 4


def test_another_folder_of_trials_may_lend(tmp_path: Path) -> None:
    warm(tmp_path / "one" / "donor")
    warm(tmp_path / "other" / "taker", warm_start=str(tmp_path / "one"))
    assert reused(tmp_path / "other" / "taker") == [["a", "b", "c"]] * 4


@pytest.mark.parametrize("key", [{"lr": 0.1}, {"lr": 0.2}])
def test_a_trial_that_goes_on_with_another_key_is_refused(
    key: dict[str, Any], tmp_path: Path
) -> None:
    warm(tmp_path / "a", PATH | {"lr": 0.1}, own_parameters="lr")
    if key == {"lr": 0.1}:
        assert warm(tmp_path / "a", PATH | key, own_parameters="lr").metric is not None
        return
    with pytest.raises(RunFolderMismatch, match="lr"):
        warm(tmp_path / "a", PATH | key, own_parameters="lr")


def test_a_search_of_tickets_that_leave_shares_too(tmp_path: Path) -> None:
    """Who left is found out again from the masks."""
    kinds = {"a": "core", "b": "core", "c": "core", "d": "own"}
    options: dict[str, Any] = {"stop_before_collapse": True, "warm_start": True}
    cold = designed(kinds, stop_before_collapse=True)
    designed(kinds, folder=tmp_path / "donor", **options)
    result = designed(kinds, folder=tmp_path / "taker", **options)
    told = rows(tmp_path / "taker")
    assert any(row["left"] for row in told)
    assert all(row["reused"] == row["names"] for row in told)
    assert result.metrics == cold.metrics
    assert result.intermediate == cold.intermediate
    assert result.sparsity == cold.sparsity
    assert same_tickets(result.tickets, cold.tickets)


def test_what_must_agree_is_what_is_not_the_trials_own() -> None:
    ours = dict.fromkeys(TrialParameters.__dataclass_fields__, 1)
    assert shared_by_rounds(ours) == {}
    own = {
        "width": np.int64(3), "lr": np.float32(0.5), "n_clusters": 4.0, "grouping": "names",
        "flag": np.bool_(True), "layers": [1, 2],
    }  # fmt: skip
    found = shared_by_rounds({**own, **ours})
    assert found == {
        "flag": True, "grouping": "names", "layers": [1, 2], "lr": 0.5, "n_clusters": 4, "width": 3
    }  # fmt: skip
    assert list(found) == sorted(own)
    kinds = {name: type(value) for name, value in found.items()}
    assert kinds == {
        "flag": bool, "grouping": str, "layers": list, "lr": float, "n_clusters": int, "width": int
    }  # fmt: skip
