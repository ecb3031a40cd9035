"""The comparison of assessors: recorded trials, replays and verdicts with known outcomes."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from nni.algorithms.hpo.curvefitting_assessor import CurvefittingAssessor
from nni.algorithms.hpo.curvefitting_assessor.model_factory import CurveModel

from benchmarks import search_assessors as compared
from benchmarks import search_recording as recording
from benchmarks.search_replay import Outcome, Stopper, fixed_limit, replayed, stoppers
from tests.nni.search.told_rounds import CORE, OWN, rows

STEPS, RETRAINING = 10, 7  # optimizer steps of a round of a hand-made trial, and after its rounds


def made(
    kinds: Mapping[str, str] = OWN,
    rounds: int = 3,
    metrics: Sequence[float] | None = None,
    **figures: Any,
) -> dict[str, Any]:
    """A recorded trial with known masks, or with known metrics."""
    told = rows(kinds, rounds if metrics is None else len(metrics), steps=STEPS)
    for row, metric in zip(told, metrics or [0.5] * rounds, strict=True):
        row["metric"] = metric
    steps = STEPS * len(told) + RETRAINING
    return {"rounds": told, "steps": steps, "metric": told[-1]["metric"]} | figures


MAGNITUDE, GRADIENT = {"importance": "magnitude"}, {"importance": "weight_gradient"}
# What becomes of them by CollapseAssessor: two collapse, then one is stopped for them.
SEARCH = [
    made(CORE, 9, metric=0.5, parameters=100, params=MAGNITUDE),
    made(OWN, 3, metric=0.9, parameters=900, params=MAGNITUDE),
    made(CORE, 9, metric=0.895, parameters=500, params=GRADIENT),
    made(OWN, 9, metric=0.6, parameters=950, params=GRADIENT),
    made(OWN, 3, metric=0.9, parameters=900, params=GRADIENT),
]
FOUND = [Outcome(4, 40), Outcome(None, 37), Outcome(4, 40), Outcome(1, 10), Outcome(None, 37)]


def named(name: str) -> Stopper:
    naive = [fixed_limit("sparsity", 0.75), fixed_limit("target", 0.75)]
    (found,) = [stopper for stopper in (*stoppers(), *naive) if stopper.name == name]
    return found


def stops(stopper: Stopper, search: Sequence[Mapping[str, Any]]) -> list[int | None]:
    return [outcome.stopped_after for outcome in replayed(stopper, search)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CollapseAssessor", [4, None, 4, 1, None]),
        ("CollapseAssessor, remember=1", [4, None, 1, 1, None]),
        ("CollapseAssessor, remember=0", [4, None, 4, None, None]),
        ("CollapseAssessor, any ticket, remember=0", [4, None, 4, None, None]),
        ("CollapseAssessor, all tickets, remember=0", [5, None, 5, None, None]),
        ("sparsity above 75%", [4, None, 4, 4, None]),  # after round 4 they are 76.0 % sparse
        ("target above 75%", [1, None, 1, 1, None]),
    ],
)
def test_stops_without_labels(name: str, expected: list[int | None]) -> None:
    assert stops(named(name), SEARCH) == expected


def test_outcomes_count_the_steps_that_were_taken() -> None:
    assert replayed(named("CollapseAssessor"), SEARCH) == FOUND


def test_every_search_gets_a_fresh_assessor() -> None:
    stopper = named("CollapseAssessor")
    assert replayed(stopper, SEARCH) == replayed(stopper, SEARCH) == FOUND


def test_who_claims_to_need_no_labels_hears_none() -> None:
    methods = [*stoppers(), fixed_limit("sparsity", 0.97), fixed_limit("target", 0.97)]
    for stopper in methods:
        deaf = [
            trial | {"rounds": [row | {"metric": float("nan")} for row in trial["rounds"]]}
            for trial in SEARCH
        ]
        heard = stopper.entry(SEARCH[0]["rounds"][0])
        if stopper.labels:
            assert heard == 0.5
        else:
            assert stops(stopper, deaf) == stops(stopper, SEARCH)
    assert [stopper.name.split(",")[0] for stopper in stoppers() if stopper.labels] == (
        ["Medianstop"] * 2 + ["Curvefitting"] * 2
    )
    names = [stopper.name for stopper in methods]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Medianstop", [None, 1, 2]), ("Medianstop, start_step=3", [None, 3, None])],
)
def test_nnis_medianstop(name: str, expected: list[int | None]) -> None:
    """Running means of the first trial: .5, .55, .6; the best so far must reach the median."""
    search = [
        made(metrics=[0.5, 0.6, 0.7]),
        made(metrics=[0.4, 0.4, 0.55]),
        made(metrics=[0.5, 0.5, 0.65]),
    ]
    assert stops(named(name), search) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Curvefitting", [None, 6, None]), ("Curvefitting, start_step=3", [None, 5, 4])],
)
def test_nnis_curvefitting(name: str, expected: list[int | None], monkeypatch: Any) -> None:
    """Its fit, replaced by the last value, must reach 95 % of the best trial's last: .855."""
    monkeypatch.setattr(CurveModel, "predict", lambda self, history: history[-1])
    search = [
        made(metrics=[0.95] * 8 + [0.9]),
        made(metrics=[0.1, 0.2, 0.9, 0.9, 0.8, 0.7, 0.9, 0.9, 0.9]),
        made(metrics=[0.1, 0.1, 0.86, 0.85, 0.9, 0.9, 0.9, 0.9, 0.9]),
    ]
    assert stops(named(name), search) == expected


@pytest.mark.filterwarnings("ignore")  # of the fit
def test_nnis_curvefitting_with_its_own_fit() -> None:
    """It extrapolates curves that rise and level off, at two heights far apart."""
    high = [0.9 - 0.5 * 0.5**n for n in range(1, 10)]
    search = [made(metrics=high), made(metrics=[m / 3 for m in high]), made(metrics=high)]
    outcomes = replayed(named("Curvefitting"), search)
    assert [outcome.broke for outcome in outcomes] == [False] * 3
    first, second, third = (outcome.stopped_after for outcome in outcomes)
    assert (first, third) == (None, None)
    assert second in (6, 7, 8, 9)


def test_curvefitting_extrapolates_to_the_longest_trial_of_the_space() -> None:
    low, beyond = recording.task_of_example().space()["rounds"]["_value"]
    for stopper in stoppers():
        assessor = stopper.make()
        if isinstance(assessor, CurvefittingAssessor):
            assert assessor.target_pos == beyond - 1
            assert assessor.start_step <= low + 2


def test_an_assessor_that_answers_nothing_is_counted_and_stops_nobody(monkeypatch: Any) -> None:
    def fails(self: Any, history: Any) -> float:
        raise ValueError("no fit")

    monkeypatch.setattr(CurveModel, "predict", fails)
    search = [made(metrics=[0.9] * 9), made(metrics=[0.1] * 9), made(metrics=[0.1] * 5)]
    outcomes = replayed(named("Curvefitting"), search)
    assert [(o.stopped_after, o.broke) for o in outcomes] == [
        (None, False), (None, True), (None, False)
    ]  # fmt: skip
    assert [outcome.steps_done for outcome in outcomes] == [97, 97, 57]
    search = [trial | {"parameters": 1, "params": MAGNITUDE} for trial in search]
    assert compared.judged(search, outcomes)["broke"] == 1


def test_what_an_assessor_did_is_judged_by_hand() -> None:
    judged = compared.judged(SEARCH, FOUND)
    assert judged.pop("saved") == pytest.approx(1 - (40 + 37 + 40 + 10 + 37) / (3 * 97 + 2 * 37))
    assert judged == {
        "trials": 5, "stopped": 3, "best_kept": True, "regret": 0.0,
        "good": 3, "good_lost": 1,  # .895 is within .01 of .9
        "front": 4, "front_lost": 2,  # all but .6 with 950 parameters; equals stay
        "broke": 0,
        "saved_by_importance": {
            "magnitude": pytest.approx(1 - (40 + 37) / (97 + 37)),
            "weight_gradient": pytest.approx(1 - (40 + 10 + 37) / (2 * 97 + 37)),
        },
    }  # fmt: skip


def test_a_best_trial_that_is_lost_costs_what_the_next_best_lacks() -> None:
    best = Outcome(1, 10)
    judged = compared.judged(SEARCH, [FOUND[0], best, Outcome(None, 97), FOUND[3], best])
    assert (judged["best_kept"], judged["good_lost"]) == (False, 2)
    assert judged["regret"] == pytest.approx(0.005)
    nobody = compared.judged(SEARCH, [best] * 5)
    assert (nobody["best_kept"], nobody["regret"], nobody["good_lost"]) == (False, None, 3)
    everybody = compared.judged(SEARCH, [Outcome(None, trial["steps"]) for trial in SEARCH])
    assert (everybody["saved"], everybody["stopped"], everybody["regret"]) == (0.0, 0, 0.0)


def judged_rows() -> list[dict[str, Any]]:
    common = {"good": 4, "front": 5, "broke": 0, "labels": False}
    ours = [
        {"saved": 0.2, "best_kept": True, "regret": 0.0, "good_lost": 1, "front_lost": 2},
        {"saved": 0.4, "best_kept": False, "regret": 0.1, "good_lost": 2, "front_lost": 0},
        {"saved": 0.6, "best_kept": True, "regret": None, "good_lost": 0, "front_lost": 1},
    ]
    rival = {"saved": 0.9, "best_kept": True, "regret": 0.0, "good_lost": 0, "front_lost": 0}
    return [{"method": compared.OURS, **row, **common} for row in ours] + [
        {"method": "rival", **rival, **common, "broke": 3}
    ]


def test_the_summary_is_over_searches() -> None:
    ours, rival = compared.summary(judged_rows())
    half = 4.302652729911275 * 0.2 / 3**0.5  # Student's t at 2 degrees of freedom
    assert (ours["low"], ours["high"]) == (pytest.approx(0.4 - half), pytest.approx(0.4 + half))
    assert (ours["saved"], ours["regret"]) == (pytest.approx(0.4), None), "one search lost all"
    counts = ("best_kept", "searches", "good_lost", "good", "front_lost", "front", "broke")
    assert [ours[name] for name in counts] == [2, 3, 3, 12, 3, 15, 0]
    assert [rival[name] for name in counts] == [1, 1, 0, 4, 0, 5, 3]
    known = [row for row in judged_rows() if row["regret"] is not None]
    assert compared.summary(known)[0]["regret"] == pytest.approx(0.05)
    assert (rival["low"], rival["high"], rival["saved"]) == (None, None, 0.9)


def test_the_goals_are_our_assessors() -> None:
    saved, kept = compared.goals(judged_rows())
    assert (saved["value"], saved["met"]) == (pytest.approx(0.4), True)
    assert (kept["value"], kept["met"]) == (pytest.approx(2 / 3), False)
    poor = [row | {"saved": 0.29, "best_kept": True} for row in judged_rows()[:3]]
    assert [goal["met"] for goal in compared.goals(poor)] == [False, True]


def test_failed_trials_are_raw_and_not_judged() -> None:
    failed = {"params": {}, "error": "InvalidArgument: no room"}
    results = compared.results_of({100: SEARCH}, {0: [failed, *SEARCH]}, 8)
    ours = results["rows"][0]
    assert (ours["method"], ours["trials"], ours["stopped"]) == (compared.OURS, 5, 3)
    assert results["raw"][0] == failed


def test_the_naive_rule_looks_at_sparsity_alone() -> None:
    rule = fixed_limit("sparsity", 0.9).make()
    assert rule.assess_trial("a", [SimpleNamespace(), {"sparsity": 0.9, "target": 0.99}])
    assert not rule.assess_trial("a", [{"sparsity": 0.1}, {"sparsity": 0.901}])
    planned = fixed_limit("target", 0.9).make()
    assert not planned.assess_trial("a", [{"sparsity": 0.1, "target": 0.99}])


def trial_at(round_sparsities: Sequence[float], metric: float) -> dict[str, Any]:
    """A recorded trial of which only sparsities matter, ten steps a round and ten after."""
    told = [
        {"round": n, "sparsity": sparsity, "target": round_sparsities[-1], "steps": 10}
        for n, sparsity in enumerate(round_sparsities, start=1)
    ]
    steps = 10 * len(told) + 10
    return {"rounds": told, "steps": steps, "metric": metric, "parameters": 1, "params": MAGNITUDE}


def test_the_naive_limit_is_the_one_that_saves_most_and_keeps_the_pilots_best() -> None:
    sparse = trial_at([0.5, 0.9, 0.95, 0.96, 0.985], 0.1)
    pilots = [
        [trial_at([0.5, 0.92], 0.9), sparse], [trial_at([0.5, 0.9, 0.94], 0.8), sparse]
    ]  # fmt: skip
    # .9 and .93 would stop a pilot's best; .97 stops `sparse` later than .95 does.
    assert compared.chosen_limit("sparsity", pilots).name == "sparsity above 95%"
    # By its target, every limit up to .98 stops it at once; the first of equals is taken.
    assert compared.chosen_limit("target", pilots).name == "target above 95%"
    assert compared.chosen_limit("sparsity", pilots[:1]).name == "sparsity above 93%"
    hopeless = [[trial_at([0.5, 0.999], 0.9), trial_at([0.5], 0.1)]]
    assert compared.chosen_limit("sparsity", hopeless).name == "sparsity above 99%"
