"""What a trial is asked to do is checked before it trains."""

import json
from typing import Any

import numpy as np
import pytest

from rtl_nni.search.parameters import TrialParameters, checked_parameters, shared_by_rounds
from rtl_plugin import CubicSchedule, GeometricSchedule, LinearSchedule
from rtl_plugin.errors import InvalidArgument, RtlError

LEAST = {"sparsity": 0.9, "rounds": 4, "steps": 25, "epochs": 1}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in LEAST.items() if key != name}


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("rounds", 4.0, 4),
        ("rounds", np.int64(4), 4),
        ("steps", np.float64(25.0), 25),
        ("epochs", np.float32(2), 2),
        ("rewind_to", np.int32(3), 3),
        ("seed", 7.0, 7),
        ("sparsity", np.float64(0.5), 0.5),
        ("sparsity", np.float32(0.5), 0.5),
        ("floor", 0, 0),
        ("floor", np.int64(0), 0),
        ("stop_before_collapse", np.bool_(True), True),
        ("importance", "weight_gradient", "weight_gradient"),
        ("importance", np.str_("random"), "random"),
        ("private_parameters", [], ()),
        ("private_parameters", ["1.*", "4.*"], ("1.*", "4.*")),
        ("private_parameters", "1.*", ("1.*",)),
    ],
)
def test_what_tuners_give_becomes_plain(name: str, given: Any, expected: Any) -> None:
    asked = checked_parameters(LEAST | {name: given})
    assert getattr(asked, name) == expected
    assert type(getattr(asked, name)) in (type(expected), np.str_)
    assert json.loads(json.dumps(asked.to_json()))[name] in (expected, list(np.atleast_1d(given)))


WRONG: dict[str, tuple[Any, str]] = {
    "no mapping": ([1], r"params must map names.*got \[1\]"),
    "none at all": (None, "params must map names.*got None"),
    "slip": (LEAST | {"sparcity": 0.5}, "parameter 'sparcity': did you mean 'sparsity'"),
    "foreign": (LEAST | {"lr": 0.5}, "parameter 'lr': Parameters of your own.*own_parameters="),
    "not a string": (LEAST | {3: 0.5}, "parameter 3"),
    "no rounds": (without("rounds"), r"params lack \['rounds'\].*params=\{'rounds': "),
    "no steps": (without("steps"), r"params lack \['steps'\]"),
    "no epochs": (without("epochs"), r"params lack \['epochs'\]"),
    "no sparsity": (without("sparsity"), "either sparsity or pruned_per_round, got sparsity=None"),
    "two targets": (LEAST | {"pruned_per_round": 0.2}, "either sparsity or pruned_per_round"),
    "rounds 0": (LEAST | {"rounds": 0}, "rounds must be a whole number of at least 1, got 0"),
    "rounds 2.5": (LEAST | {"rounds": 2.5}, "rounds must be a whole number.*2.5"),
    "rounds true": (LEAST | {"rounds": True}, "rounds must be a whole number.*True"),
    "rounds nan": (LEAST | {"rounds": float("nan")}, "rounds must be a whole number.*nan"),
    "rounds text": (LEAST | {"rounds": "4"}, "rounds must be a whole number.*'4'"),
    "steps": (LEAST | {"steps": -1}, "steps must be a whole number of at least 1"),
    "epochs": (LEAST | {"epochs": 0}, "epochs must be a whole number of at least 1"),
    "rewind_to": (LEAST | {"rewind_to": -1}, "rewind_to must be a whole number of at least 0"),
    "seed": (LEAST | {"seed": 0.5}, "seed must be a whole number of at least 0"),
    "sparsity 0": (LEAST | {"sparsity": 0}, r"sparsity must be a number in \(0, 1\), got 0"),
    "sparsity 1": (LEAST | {"sparsity": 1.0}, r"sparsity must be a number in \(0, 1\), got 1.0"),
    "sparsity text": (LEAST | {"sparsity": "0.9"}, "sparsity must be a number"),
    "sparsity nan": (LEAST | {"sparsity": float("nan")}, "sparsity must be a number"),
    "rate": (without("sparsity") | {"pruned_per_round": 1}, "pruned_per_round must be a number in"),
    "nothing left": (
        without("sparsity") | {"pruned_per_round": 0.9, "rounds": 20},
        "pruned_per_round=0.9 over rounds=20 leaves no weight",
    ),
    "schedule": (LEAST | {"schedule": "agp"}, r"schedule must be one of \['geometric', 'linear'"),
    "schedule unhashable": (LEAST | {"schedule": ["linear"]}, "schedule must be one of"),
    "rate and schedule": (
        without("sparsity") | {"pruned_per_round": 0.2, "schedule": "linear"},
        "the geometric schedule: leave schedule='linear' out",
    ),
    "importance": (LEAST | {"importance": "l1"}, "unknown importance 'l1'"),
    "importance object": (LEAST | {"importance": object()}, "importance must be a name"),
    "floor": (LEAST | {"floor": 1}, r"floor must be a number in \[0, 1\), got 1"),
    "floor below": (LEAST | {"floor": -0.1}, "floor must be a number"),
    "floor bool": (LEAST | {"floor": False}, "floor must be a number"),
    "stop": (LEAST | {"stop_before_collapse": 1}, "stop_before_collapse must be True or False"),
    "private": (LEAST | {"private_parameters": [3]}, "list of name patterns, got .3"),
    "private number": (LEAST | {"private_parameters": 3}, "list of name patterns, got 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_parameters_are_refused_by_name(case: str) -> None:
    params, message = WRONG[case]
    with pytest.raises(InvalidArgument, match=message) as caught:
        checked_parameters(params)
    assert isinstance(caught.value, RtlError)


def test_own_parameters_are_left_alone() -> None:
    params = LEAST | {"lr": object(), "grouping": 3, "n_clusters": "many"}
    assert checked_parameters(params, own=["lr"]) == checked_parameters(LEAST)
    assert checked_parameters(params, own="lr") == checked_parameters(LEAST)


@pytest.mark.parametrize("name", ["rounds", "grouping", "seed"])
def test_own_parameters_cannot_be_ours(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"own_parameters names '{name}'.*rename"):
        checked_parameters(LEAST, own=[name])


def test_the_schedules_are_the_cores() -> None:
    for name, core in (
        ("geometric", GeometricSchedule), ("linear", LinearSchedule), ("cubic", CubicSchedule),
    ):  # fmt: skip
        theirs = core(0.9, rounds=4)
        asked = checked_parameters(LEAST | {"schedule": name})
        assert asked.sparsities() == [theirs.sparsity(round) for round in range(1, 5)]
        assert asked.target == 0.9


def test_trials_that_differ_in_rounds_alone_share_their_path() -> None:
    short, long = (
        TrialParameters(rounds=rounds, steps=1, epochs=1, pruned_per_round=0.3).sparsities()
        for rounds in (4, 9)
    )
    assert short == pytest.approx(long[:4], rel=1e-12)
    assert short == pytest.approx([0.3, 0.51, 0.657, 0.7599])


def test_what_discover_cannot_see_must_agree_before_rounds_are_shared() -> None:
    own = {"lr": np.float64(0.1), "augment": np.bool_(True), "depth": np.int64(3), "grouping": "x"}
    every = checked_parameters(LEAST).to_json() | own
    shared = shared_by_rounds(every)
    assert json.dumps(shared) == '{"augment": true, "depth": 3, "grouping": "x", "lr": 0.1}'
