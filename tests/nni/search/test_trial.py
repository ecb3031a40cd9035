"""One trial of a search: equal to its parts by hand, bit-identical, plain floats, its files."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nni.algorithms.hpo.curvefitting_assessor import CurvefittingAssessor
from nni.algorithms.hpo.medianstop_assessor import MedianstopAssessor
from nni.assessor import AssessResult

import rtl_plugin as rtl
from rtl_nni.search.parameters import TrialParameters
from rtl_nni.search.trial_folder import TrialFolder
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.fingerprint import bit_equal
from tests.nni.search.trial_setups import (
    PARAMS,
    adam,
    groups,
    metric,
    network,
    same_tickets,
    squared,
    trial,
)

GIVEN = {
    "default": {},
    "quickstart's": {"sparsity": 0.9, "rounds": 4, "seed": 0},
    "late rewinding": {"rewind_to": 3, "schedule": "cubic"},
    "gradients": {"importance": "weight_gradient", "private_parameters": ["1.*"], "floor": 0.05},
    "linear": {"schedule": "linear", "importance": "random", "seed": 11},
    "a rate": {"sparsity": None, "pruned_per_round": 0.3},
}
SCHEDULES = {
    "geometric": rtl.GeometricSchedule,
    "linear": rtl.LinearSchedule,
    "cubic": rtl.CubicSchedule,
}


def by_hand(params: Mapping[str, Any]) -> tuple[list[float], dict[str, float], rtl.TicketSet, Any]:
    """The same from the core's functions alone."""
    p = {"schedule": "geometric", "importance": "magnitude", "floor": 0.01} | dict(params)
    rounds, data, rate = p["rounds"], groups(), p.get("pruned_per_round")
    sparsity = p["sparsity"] if rate is None else 1 - (1 - rate) ** rounds
    with torch.random.fork_rng():
        torch.manual_seed(p["seed"])
        model = network(p["seed"])
    tickets = rtl.discover(
        model, data, squared, schedule=SCHEDULES[p["schedule"]](sparsity, rounds=rounds),
        steps=p["steps"], optimizer=adam, importance=p["importance"], floor=p["floor"],
        rewind_to=p.get("rewind_to", 0), seed=p["seed"], evaluate=metric, progress=False,
    )  # fmt: skip
    told = [row for row in tickets.history if not row.get("closing")]
    intermediate = [
        sum(row["metric"] for row in told if row["round"] == r) / 3 for r in range(1, rounds + 1)
    ]
    rtl.retrain(
        model, tickets, data, squared, epochs=p["epochs"], optimizer=adam, seed=p["seed"],
        private_parameters=p.get("private_parameters", ()), progress=False,
    )  # fmt: skip
    mixture = rtl.MixtureOfMasks(model, tickets)
    with torch.no_grad():
        final = {name: metric(mixture.export(name), data[name].validation) for name in data}
    return intermediate, final, tickets, model


@pytest.mark.parametrize("changes", GIVEN.values(), ids=GIVEN)
def test_a_trial_is_discovery_retraining_and_measuring(changes: Mapping[str, Any]) -> None:
    params = PARAMS | changes
    result = trial(params)
    intermediate, final, tickets, model = by_hand(params)
    assert result.intermediate == pytest.approx(intermediate, rel=1e-12)
    assert result.metrics == final
    assert result.metric == pytest.approx(sum(final.values()) / 3, rel=1e-12)
    assert result.tickets is not None
    assert result.model is not None
    assert same_tickets(result.tickets, tickets)
    for name, value in model.state_dict().items():
        assert bit_equal(result.model.state_dict()[name], value), name
    assert result.sparsity == pytest.approx(
        np.mean([1 - tickets.density(name) for name in tickets])
    )
    assert result.parameters == tickets.active_parameters()


def test_the_defaults_are_those_of_the_core() -> None:
    import inspect

    core = inspect.signature(rtl.discover).parameters
    ours = TrialParameters(rounds=1, steps=1, epochs=1, sparsity=0.5)
    for name in ("importance", "rewind_to", "floor", "stop_before_collapse", "seed"):
        assert getattr(ours, name) == core[name].default, name


def test_twice_is_bit_identical_and_the_callers_streams_are_left_alone() -> None:
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = random.random(), np.random.random(), torch.rand(1)
    results = []
    for _ in range(2):
        random.seed(5), np.random.seed(5), torch.manual_seed(5)
        results.append(trial())
        assert (random.random(), np.random.random(), torch.rand(1)) == expected
        assert torch.initial_seed() == 5
        torch.rand(7)
    first, second = (result.to_json() for result in results)
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert same_tickets(results[0].tickets, results[1].tickets)


def test_steps_are_counted() -> None:
    result = trial(PARAMS | {"rewind_to": 5})
    # 3 rounds of 4 steps and 2 epochs of the longest group's 3 batches, for 3 groups
    assert result.steps_planned == result.steps_done == 5 + 3 * 4 * 3 + 2 * 3 * 3


@pytest.mark.parametrize(("aggregate", "expected"), [("mean", None), ("min", min), ("max", max)])
def test_every_round_is_reported_as_a_plain_float(aggregate: str, expected: Any) -> None:
    told: list[tuple[int, Any]] = []
    result = trial(aggregate=aggregate, report=lambda round, value: told.append((round, value)))
    assert [round for round, _ in told] == [1, 2, 3]
    assert [value for _, value in told] == list(result.intermediate)
    assert {type(value) for _, value in told} == {float}
    assert type(result.metric) is float
    if expected is not None:
        assert result.metric == expected(result.metrics.values())
    assert len(set(result.metrics.values())) == 3, "groups that differ, or the test shows nothing"


@pytest.mark.parametrize(
    "kind", [np.float32, np.float64, torch.tensor, int], ids=["f32", "f64", "tensor", "int"]
)
def test_metrics_of_any_number_become_plain_floats(kind: Any) -> None:
    told: list[Any] = []
    result = trial(
        evaluate=lambda model, held_out: kind(metric(model, held_out)),
        aggregate=lambda metrics: kind(metrics["b"]),
        report=lambda round, value: told.append(value),
    )
    assert {type(value) for value in (*told, result.metric, *result.metrics.values())} == {float}
    assert result.metric == result.metrics["b"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of curve fitting itself
def test_nnis_own_assessors_take_what_is_reported() -> None:
    histories: list[list[float]] = [[], [], []]
    for seed, history in enumerate(histories):
        params = PARAMS | {"rounds": 6, "seed": seed}
        trial(params, report=lambda round, value, to=history: to.append(value))
    for assessor in (MedianstopAssessor(), CurvefittingAssessor(epoch_num=6, start_step=4)):
        answers = set()
        for name, history in enumerate(histories):
            for length in range(1, 7):
                answers.add(assessor.assess_trial(str(name), history[:length]))
            assessor.trial_end(str(name), True)
        assert answers <= {AssessResult.Good, AssessResult.Bad}
    assert MedianstopAssessor().assess_trial("x", [-9.0]) is AssessResult.Good


def test_a_builder_of_groups_gets_the_parameters() -> None:
    seen: list[Any] = []

    def build(params: Mapping[str, Any]) -> rtl.DataGroups:
        seen.append(params)
        return groups(**{f"g{k}": 2 for k in range(params["n_clusters"])})

    own = {"grouping": "kmeans", "n_clusters": 2, "lr": 0.1}
    result = trial(PARAMS | own, groups=build, own_parameters=["lr"])
    assert seen == [PARAMS | own]
    assert set(result.metrics) == {"g0", "g1"}


@pytest.mark.parametrize("name", ["grouping", "n_clusters"])
def test_a_grouping_that_nothing_reads_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{name}.*nothing reads"):
        trial(PARAMS | {name: 2})


def test_the_files_tell_what_happened(tmp_path: Path) -> None:
    params = PARAMS | {"rewind_to": 2, "lr": 0.25, "rounds": 3.0}
    measure = {"weights": lambda mixture: 7, "ms": lambda mixture: np.float32(0.5)}
    result = trial(params, folder=tmp_path, own_parameters="lr", measure=measure)
    files = TrialFolder(tmp_path)
    settings = json.loads(files.settings.read_text())
    assert settings["params"] == params
    assert settings["asked"]["rounds"] == 3
    assert settings["asked"]["private_parameters"] == []
    assert settings["groups"] == ["a", "b", "c"]
    assert settings["steps_planned"] == result.steps_planned
    assert settings["sequence"] is None
    assert torch.__version__.startswith(settings["versions"]["torch"])
    assert json.loads(files.result.read_text()) == result.to_json()
    assert result.measured == {"weights": 7.0, "ms": 0.5}
    assert not files.stopped.exists()


def test_a_line_a_round_holds_the_counts(tmp_path: Path) -> None:
    told: list[Any] = []
    result = trial(
        folder=tmp_path, send_counts=True, report=lambda round, value: told.append(value)
    )
    rows = TrialFolder(tmp_path).read_rounds()
    assert [value["round"] for value in told] == rows
    assert [value["default"] for value in told] == list(result.intermediate)
    *_, tickets, _ = by_hand(PARAMS)
    history = {(row["round"], row["group"]): row for row in tickets.history}
    for number, row in enumerate(rows, start=1):
        ours = [history[number, name] for name in "abc"]
        assert (row["round"], row["of"], row["names"]) == (number, 3, ["a", "b", "c"])
        assert row["metrics"] == {r["group"]: r["metric"] for r in ours}
        assert row["loss"] == pytest.approx(np.mean([r["loss"] for r in ours]))
        assert row["prunable"] == 6 * 16
        assert row["sparsity"] == pytest.approx(np.mean([r["achieved"] for r in ours]))
        assert [row["shared"][k][k] for k in range(3)] == [r["kept"] for r in ours]
        assert (row["steps"], row["reused"], row["left"]) == (12, [], [])
    masks = [tickets[name].masks["0.weight"] for name in "abc"]
    assert rows[-1]["shared"] == [[int((a & b).sum()) for b in masks] for a in masks]


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    trial()
    assert list(tmp_path.iterdir()) == []
