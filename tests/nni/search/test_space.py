"""The ready search space: NNI's tuners take it, and trials take all that they propose."""

import json
import logging
from typing import Any

import numpy as np
import pytest
from nni.algorithms.hpo.evolution_tuner import EvolutionTuner
from nni.algorithms.hpo.gridsearch_tuner import GridSearchTuner
from nni.algorithms.hpo.random_tuner import RandomTuner
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from nni.common.hpo_utils import deformat_parameters, format_parameters, format_search_space

from rtl_nni import search_space
from rtl_nni.search.parameters import GROUPING, TrialParameters, checked_parameters
from rtl_plugin.errors import InvalidArgument

OWN = {"lr": {"_type": "loguniform", "_value": [1e-4, 1e-2]}}
PATTERNS = [[], ["1.*", "4.*"], ["7.*"]]
FIXED = {"rounds": 3, "steps": 10, "epochs": 1}
WIDE = search_space(
    sparsity=(0.5, 0.95), rounds=(4, 6), schedule=["geometric", "linear", "cubic"],
    steps={"_type": "quniform", "_value": [10, 55, 10]}, epochs=[1, 3],
    importance=["magnitude", "weight_gradient", "random"], private_parameters=PATTERNS,
    rewind_to={"_type": "qloguniform", "_value": [1, 50, 5]}, floor=(0.001, 0.04),
    stop_before_collapse=[False, True], grouping=["kmeans", "hdbscan"], n_clusters=(2, 8), seed=5,
    own=OWN,
)  # fmt: skip
RATES = search_space(
    pruned_per_round={"_type": "quniform", "_value": [0.1, 0.5, 0.1]},
    rounds=[3, 4, 6],
    own=OWN,
)
SPACES = {"wide": WIDE, "rates": RATES, "default": search_space()}
TUNERS = {
    "random": lambda: RandomTuner(seed=0),
    "TPE": lambda: TpeTuner(seed=0),
    "evolution": lambda: EvolutionTuner(population_size=60),
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("tuner", TUNERS)
def test_trials_take_what_tuners_propose(tuner: str, space: str) -> None:
    made = TUNERS[tuner]()
    made.update_search_space(json.loads(json.dumps(SPACES[space])))
    proposed = []
    for number in range(50):
        params = made.generate_parameters(number)
        asked = checked_parameters(FIXED | params, own=OWN)
        json.dumps(asked.to_json())
        made.receive_trial_result(number, params, asked.target)
        proposed.append(params)
    assert set(proposed[0]) == set(SPACES[space])
    for name, entry in SPACES[space].items():
        seen = [params[name] for params in proposed]
        assert len({str(value) for value in seen}) > 1 or len(entry["_value"]) == 1, name


def test_trials_take_a_grid() -> None:
    space = search_space(
        sparsity=[0.5, 0.9], rounds=(2, 4), schedule=["geometric", "cubic"],
        private_parameters=[[], ["1.*"]],
    )  # fmt: skip
    tuner = GridSearchTuner()
    tuner.update_search_space(space)
    points = [tuner.generate_parameters(number) for number in range(24)]
    assert len({json.dumps(point, sort_keys=True) for point in points}) == 24
    assert {point["rounds"] for point in points} == {2, 3, 4}
    for point in points:
        checked_parameters(FIXED | point)


def test_a_range_of_whole_numbers_has_both_ends() -> None:
    tuner = RandomTuner(seed=0)
    tuner.update_search_space(search_space(rounds=(3, 5), n_clusters=(2, 3)))
    seen = [tuner.generate_parameters(number) for number in range(60)]
    assert {params["rounds"] for params in seen} == {3, 4, 5}
    assert {params["n_clusters"] for params in seen} == {2, 3}


def test_lists_survive_nnis_formatting() -> None:
    formatted = format_search_space(WIDE)
    tuner = RandomTuner(seed=0)
    tuner.update_search_space(WIDE)
    for number in range(20):
        params = tuner.generate_parameters(number)
        again = deformat_parameters(format_parameters(params, formatted), formatted)
        assert again["private_parameters"] == params["private_parameters"]
        assert again["private_parameters"] in PATTERNS
        assert again["grouping"] == params["grouping"]


def test_a_space_is_json() -> None:
    given = search_space(
        sparsity=[np.float64(0.5), np.float32(0.75)], rounds=[np.int64(3)], steps=(3.0, 5.0),
        private_parameters=[("1.*",), []], own={"lr": {"_type": "choice", "_value": (1, 2)}},
    )  # fmt: skip
    assert json.loads(json.dumps(given)) == given
    assert given["steps"] == {"_type": "randint", "_value": [3, 6]}
    assert [type(value) for value in given["rounds"]["_value"]] == [int]
    whole = search_space(own={"k": kind("randint", 2.0, np.float64(6))})["k"]["_value"]
    assert json.dumps(whole) == "[2, 6]", "NNI takes no others"


def test_every_parameter_of_a_trial_can_be_searched() -> None:
    assert set(WIDE) | set(RATES) == set(TrialParameters.__dataclass_fields__) | {*GROUPING, *OWN}


def test_what_is_none_stays_out() -> None:
    assert set(search_space()) == {"sparsity", "rounds"}
    assert set(search_space(rounds=None)) == {"sparsity"}
    assert set(search_space(pruned_per_round=0.3)) == {"pruned_per_round", "rounds"}


def test_one_value_and_an_entry_of_nnis_are_taken_as_they_are() -> None:
    entry = {"_type": "loguniform", "_value": [0.5, 0.9]}
    space = search_space(sparsity=entry, epochs=2, importance="random")
    assert space["sparsity"] == entry
    assert space["epochs"] == {"_type": "choice", "_value": [2]}
    assert space["importance"] == {"_type": "choice", "_value": ["random"]}


def test_nested_choices_of_the_users_are_left_whole() -> None:
    nested = {
        "_type": "choice",
        "_value": [{"_name": "sgd", "m": {"_type": "uniform", "_value": [0, 1]}}],
    }
    assert search_space(own={"optimizer": nested})["optimizer"] == nested


def kind(of: str, *values: Any) -> dict[str, Any]:
    return {"_type": of, "_value": list(values)}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "both targets": ({"sparsity": 0.5, "pruned_per_round": 0.5}, "either sparsity or pruned_per"),
    "rate and schedule": ({"pruned_per_round": 0.5, "schedule": "cubic"}, "leave schedule= out"),
    "sparsity end": ({"sparsity": (0.5, 1.0)}, r"sparsity must be a number in \(0, 1\), got 1.0"),
    "sparsity start": ({"sparsity": (0, 0.5)}, "sparsity must be a number.*got 0"),
    "sparsity of a choice": ({"sparsity": [0.5, 1.5]}, "sparsity must be a number.*got 1.5"),
    "sparsity null": ({"sparsity": [0.5, None]}, "either sparsity or pruned_per_round"),
    "sparsity step": (
        {"sparsity": kind("quniform", 0.1, 1.0, 0.1)}, "sparsity must be a number.*got 1.0"
    ),
    "rate": ({"pruned_per_round": [0.5, 1]}, "pruned_per_round must be a number.*got 1"),
    "rate text": ({"pruned_per_round": "0.5"}, "pruned_per_round must be a number.*got '0.5'"),
    "rate leaves nothing": (
        {"pruned_per_round": [0.2, 0.9], "rounds": (2, 20)}, "leaves no weight"
    ),
    "rounds 0": ({"rounds": (0, 3)}, "rounds must be a whole number of at least 1, got 0"),
    "rounds fraction": ({"rounds": (1, 2.5)}, "rounds must be a whole number.*got 2.5"),
    "rounds of a choice": ({"rounds": [1, 2.5]}, "rounds must be a whole number.*got 2.5"),
    "rounds uniform": ({"rounds": kind("uniform", 2, 6)}, "rounds counts something: uniform"),
    "rounds loguniform": ({"rounds": kind("loguniform", 2, 6)}, "rounds counts something"),
    "rounds half steps": ({"rounds": kind("quniform", 2, 6, 0.5)}, "rounds counts something"),
    "rounds half ends": ({"rounds": kind("quniform", 2, 6.5, 2)}, "rounds counts something"),
    "clusters uniform": ({"n_clusters": kind("uniform", 2, 6)}, "n_clusters counts something"),
    "randint start": ({"rounds": kind("randint", 0, 6)}, "rounds must be a whole.*got 0"),
    "randint fraction": ({"rounds": kind("randint", 1.5, 6)}, "rounds: randint takes whole"),
    "normal": ({"sparsity": kind("normal", 0.5, 0.1)}, "sparsity: normal has no ends"),
    "qlognormal": ({"steps": kind("qlognormal", 3, 1, 1)}, "steps: qlognormal has no ends"),
    "a range of names": ({"schedule": ("linear", "cubic")}, "schedule=.*a tuple is a range"),
    "three ends": ({"sparsity": (0.1, 0.2, 0.3)}, "sparsity=.*a tuple is a range"),
    "backwards": ({"sparsity": (0.9, 0.5)}, "sparsity=.*a tuple is a range"),
    "bools as ends": ({"stop_before_collapse": (False, True)}, "a tuple is a range"),
    "schedule": ({"schedule": ["linear", "agp"]}, "schedule must be one of.*got 'agp'"),
    "schedule numbers": ({"schedule": kind("uniform", 0, 1)}, "schedule must be one of"),
    "importance": ({"importance": ["l1"]}, "unknown importance 'l1'"),
    "steps": ({"steps": [0]}, "steps must be a whole number of at least 1"),
    "epochs": ({"epochs": (0, 2)}, "epochs must be a whole number of at least 1"),
    "rewind_to": ({"rewind_to": -1}, "rewind_to must be a whole number of at least 0"),
    "seed": ({"seed": [0, 0.5]}, "seed must be a whole number"),
    "floor": ({"floor": (0, 1)}, "floor must be a number"),
    "stop": ({"stop_before_collapse": [0, 1]}, "stop_before_collapse must be True or False"),
    "clusters": ({"n_clusters": [0, 2]}, "n_clusters must be a whole number of at least 1, got 0"),
    "clusters text": ({"n_clusters": ["2"]}, "n_clusters must be a whole number"),
    "patterns not nested": ({"private_parameters": ["1.*", "4.*"]}, "a choice of lists.*'1.*'"),
    "patterns of numbers": ({"private_parameters": [[1]]}, "private_parameters must be a list"),
    "nothing to choose": ({"rounds": []}, "rounds is an empty choice"),
    "floor over sparsity": (
        {"floor": [0.01, 0.1], "sparsity": [0.5, 0.95]}, "floor=0.1 keeps more.*0.9500 sparsity"
    ),
    "floor over rate": (
        {"floor": 0.2, "pruned_per_round": 0.3, "rounds": (2, 6)}, "floor=0.2 keeps more"
    ),
    "too few rounds to stop": (
        {"stop_before_collapse": [False, True], "rounds": (2, 8)}, "stop_before_collapse needs"
    ),
    "too little a round to stop": (
        {"stop_before_collapse": True, "pruned_per_round": [0.05, 0.5], "rounds": [4]},
        "stop_before_collapse needs.*0.05",
    ),
    "own taken": ({"own": {"rounds": kind("choice", 1)}}, "own names 'rounds'"),
    "own taken though unused": ({"own": {"seed": kind("choice", 1)}}, "own names 'seed'"),
    "own without type": ({"own": {"lr": [1, 2]}}, "lr must be an entry of NNI's"),
    "own type": ({"own": {"lr": kind("log", 1, 2)}}, "lr must be an entry of NNI's"),
    "own value": ({"own": {"lr": {"_type": "uniform"}}}, "lr must be an entry of NNI's"),
    "own empty": ({"own": {"lr": kind("choice")}}, "lr is an empty choice"),
    "own figures": ({"own": {"lr": kind("uniform", 1)}}, "lr: uniform takes 2 finite numbers"),
    "own text": ({"own": {"lr": kind("uniform", "1", 2)}}, "lr: uniform takes 2 finite numbers"),
    "own endless": ({"own": {"lr": kind("uniform", 0, float("inf"))}}, "lr: uniform takes 2 fin"),
    "own order": ({"own": {"lr": kind("uniform", 2, 1)}}, "lr: uniform goes from a low to a high"),
    "own log of zero": ({"own": {"lr": kind("loguniform", 0, 1)}}, "lr: loguniform starts above 0"),
    "own step": ({"own": {"lr": kind("quniform", 0, 1, 0)}}, "lr: the step of quniform must be"),
    "own deviation": ({"own": {"lr": kind("normal", 0, 0)}}, "lr: normal needs a deviation above"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_a_trial_would_refuse_is_refused_here(case: str) -> None:
    options, message = WRONG[case]
    with pytest.raises(InvalidArgument, match=message):
        search_space(**options)


def test_own_entries_may_have_any_distribution() -> None:
    for entry in (kind("normal", -3, 1), kind("qlognormal", 3, 1, 0.5), kind("uniform", -1, 0.5)):
        space = search_space(own={"x": entry})
        tuner = RandomTuner(seed=0)
        tuner.update_search_space(space)
        assert isinstance(tuner.generate_parameters(0)["x"], float)


def test_a_floor_may_take_all_that_the_last_round_leaves() -> None:
    search_space(sparsity=[0.5, 0.9], floor=0.1)
    search_space(pruned_per_round=0.3, rounds=(2, 6), floor=0.1)
    with pytest.raises(InvalidArgument, match=r"floor=0\.1 keeps more"):
        search_space(pruned_per_round=0.3, rounds=(2, 7), floor=0.1)


def test_enough_rounds_may_stop_before_collapse() -> None:
    space = search_space(stop_before_collapse=[False, True], rounds=(3, 8))
    assert space["stop_before_collapse"]["_value"] == [False, True]
    with pytest.raises(InvalidArgument, match="linear"):
        search_space(stop_before_collapse=True, rounds=(3, 8), schedule=["geometric", "linear"])


def test_nni_finds_no_fault_with_it(caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        TpeTuner(seed=0).update_search_space(search_space(rounds=(2, 4), schedule=["linear"]))
    assert caplog.text == ""
