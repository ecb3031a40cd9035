"""What CollapseAssessor learns from the trials before: who is stopped at its first report."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nni.assessor import AssessResult

from rtl_nni import CollapseAssessor
from rtl_nni.search.trial_folder import TrialFolder
from rtl_plugin.errors import InvalidArgument
from tests.nni.search.told_rounds import AT, CORE, OWN, RANG, rows
from tests.nni.search.trial_setups import PARAMS, WEIGHTS, designed, groups, trial

GOOD, BAD = AssessResult.Good, AssessResult.Bad


def told(assessor: CollapseAssessor, name: str, rows: list[dict[str, Any]]) -> list[Any]:
    """Its answers to a trial until it is stopped or through its rounds; no folder, no metric."""
    answers = []
    history: list[Any] = []
    for row in rows:
        history.append({"default": 0.0, "round": row})
        answers.append(assessor.assess_trial(name, list(history)))
        if answers[-1] is BAD:
            break
    assessor.trial_end(name, answers[-1] is GOOD)
    return answers


OWN_COLLAPSE = [GOOD] * (RANG - 1) + [BAD]


def after(*searches: list[dict[str, Any]], **options: Any) -> CollapseAssessor:
    """An assessor that has judged these trials."""
    assessor = CollapseAssessor(**options)
    for number, judged in enumerate(searches):
        told(assessor, str(number), judged)
    return assessor


@pytest.mark.parametrize(
    ("options", "collapses"),
    [({"remember": 1}, 1), ({"remember": 2}, 2), ({}, 2), ({"remember": 3}, 3)],
)
def test_once_enough_trials_collapsed_one_that_goes_as_far_is_stopped_at_once(
    options: dict[str, Any], collapses: int
) -> None:
    assessor = CollapseAssessor(**options)
    for number in range(collapses):
        assert told(assessor, str(number), rows(CORE)) == OWN_COLLAPSE
    assert told(assessor, "like them", rows(CORE)) == [BAD]
    assert told(assessor, "sound, but as far", rows(OWN)) == [BAD]
    assert told(assessor, "less far", rows(OWN, rounds=3)) == [GOOD] * 3


def test_remember_0_judges_every_trial_by_itself() -> None:
    assessor = CollapseAssessor(remember=0)
    for number in range(5):
        assert told(assessor, str(number), rows(CORE)) == OWN_COLLAPSE
    assert told(assessor, "sound", rows(OWN)) == [GOOD] * 9


def test_whoever_survived_shows_the_way() -> None:
    assessor = after(rows(OWN), rows(CORE), rows(CORE))
    assert told(assessor, "as far", rows(OWN)) == [GOOD] * 9
    assert told(assessor, "as far, collapsing", rows(CORE)) == OWN_COLLAPSE
    assert told(assessor, "further", rows(OWN, rounds=10)) == [BAD]


@pytest.mark.parametrize("up", [True, False])
def test_a_target_is_as_far_as_a_survivor_of_the_same_target(up: bool) -> None:
    """Also where the tickets of that one came a little short of it."""
    survivor = rows(OWN, rounds=6)
    off = (2 if up else -2) / WEIGHTS
    short = [row | {"sparsity": row["sparsity"] + off} for row in survivor]
    assessor = after(short, rows(CORE), rows(CORE))
    assert told(assessor, "the same", survivor) == [GOOD] * 6
    deeper = rows(OWN, rounds=6, target=survivor[0]["target"] + 2 / WEIGHTS)
    assert told(assessor, "two weights deeper", deeper) == [BAD]


@pytest.mark.parametrize("rounding", [-0.5, 0.0, 0.5])
def test_a_target_where_others_collapsed_is_as_far_as_they_came(rounding: float) -> None:
    """The alarms rang at a whole number of weights, the target is a fraction of them."""
    assessor = after(rows(CORE), rows(CORE))
    target = AT + rounding / WEIGHTS
    assert told(assessor, "there", rows(OWN, rounds=4, target=target)) == [BAD]
    short = AT - 1.5 / WEIGHTS
    assert told(assessor, "short of it", rows(OWN, rounds=4, target=short)) == [GOOD] * 4


def test_the_sparsest_collapse_counts() -> None:
    assessor = CollapseAssessor(remember=2)
    assert told(assessor, "0", rows(CORE)) == OWN_COLLAPSE
    # The same alarms, said to have rung at a higher sparsity.
    late = [row | {"sparsity": min(row["sparsity"] + 0.1, 0.95)} for row in rows(CORE)]
    assert told(assessor, "1", late) == OWN_COLLAPSE
    between = rows(OWN, rounds=4, target=AT + 0.05)
    assert told(assessor, "between the two", between) == [GOOD] * 4
    assert told(assessor, "beyond both", rows(OWN, rounds=4, target=AT + 0.11)) == [BAD]


def test_a_trial_that_was_stopped_for_others_is_no_collapse(caplog: Any) -> None:
    assessor = after(rows(CORE), rows(CORE), remember=2)
    with caplog.at_level(logging.INFO, "rtl_nni.CollapseAssessor"):
        for number in range(3):
            assert told(assessor, f"doomed {number}", rows(OWN)) == [BAD]
    known = f"2 such trials before it collapsed, at up to {AT:.2%} sparsity"
    assert [known in line for line in caplog.messages] == [True] * 3


def test_trials_of_another_kind_say_nothing() -> None:
    """Neither their collapses nor their survivors."""
    kinds = {"importance": "magnitude", "lr": 0.1}, {"importance": "magnitude", "lr": 0.2}
    assessor = after(*[rows(CORE, alike=kinds[0])] * 2, rows(OWN, alike=kinds[1]))
    again = dict(reversed(kinds[0].items()))
    assert told(assessor, "the same kind", rows(OWN, alike=again)) == [BAD]
    assert told(assessor, "another kind", rows(OWN, alike=kinds[1])) == [GOOD] * 9
    assert told(assessor, "unknown kind", rows(OWN)) == [GOOD] * 9
    for number in range(2):
        assert told(assessor, f"another {number}", rows(CORE, alike=kinds[1])) == OWN_COLLAPSE
    assert told(assessor, "as far as its survivor", rows(OWN, alike=kinds[1])) == [GOOD] * 9
    assert told(assessor, "further", rows(OWN, rounds=10, alike=kinds[1])) == [BAD]


def test_reports_after_the_stop_count_once() -> None:
    assessor = CollapseAssessor(remember=2)
    history = [{"default": 0.0, "round": row} for row in rows(CORE)]
    answers = [assessor.assess_trial("one", history[:length]) for length in range(1, 10)]
    assert answers == [GOOD] * 3 + [BAD] * 6
    assert told(assessor, "sound", rows(OWN)) == [GOOD] * 9


def test_a_trial_in_its_last_round_has_nothing_left_to_save() -> None:
    assessor = after(rows(CORE), rows(CORE))
    assert told(assessor, "one round", rows(OWN, rounds=1, target=0.99)) == [GOOD]


def test_only_a_first_report_is_judged_by_others() -> None:
    """Whoever is further has shown by itself that it holds."""
    assessor = CollapseAssessor(remember=1)
    history = [{"default": 0.0, "round": row} for row in rows(OWN)]
    assert assessor.assess_trial("running", history[:3]) is GOOD
    told(assessor, "0", rows(CORE))
    assert [assessor.assess_trial("running", history[:n]) for n in range(4, 10)] == [GOOD] * 6
    assert told(assessor, "as far as that one", rows(OWN)) == [GOOD] * 9
    assert told(assessor, "further", rows(OWN, rounds=10)) == [BAD]


def test_a_trial_that_is_run_again_reports_for_the_first_time_again() -> None:
    assessor = CollapseAssessor(remember=1)
    history = [{"default": 0.0, "round": row} for row in rows(OWN)]
    assert assessor.assess_trial("one", history[:2]) is GOOD
    assessor.trial_end("one", False)
    told(assessor, "0", rows(CORE))
    assert assessor.assess_trial("one", history[:1]) is BAD


def test_tickets_that_stop_by_themselves_are_neither_doomed_nor_survivors() -> None:
    alone = rows(OWN, target=None)
    assessor = after(alone, rows(CORE), rows(CORE))
    assert told(assessor, "by itself", alone) == [GOOD] * 9
    assert told(assessor, "to the end", rows(OWN)) == [BAD]


def test_rounds_of_older_trials_without_a_target_are_neither() -> None:
    old = [{k: v for k, v in row.items() if k != "target"} for row in rows(OWN)]
    assessor = after(old, rows(CORE), rows(CORE))
    assert told(assessor, "old", old) == [GOOD] * 9
    assert told(assessor, "new", rows(OWN)) == [BAD]


def test_one_ticket_alone_cannot_collapse_and_shows_nothing() -> None:
    alone = rows({"a": "own"})
    assessor = after(alone, rows(CORE), rows(CORE))
    assert told(assessor, "alone", alone) == [GOOD] * 9
    assert told(assessor, "four", rows(OWN)) == [BAD]


def test_a_trial_too_short_to_be_watched_shows_nothing() -> None:
    short = rows(OWN, rounds=2, target=0.97)
    assessor = after(short, rows(CORE), rows(CORE))
    assert told(assessor, "longer", rows(OWN)) == [BAD]


def test_a_trial_killed_on_the_way_survived_nothing() -> None:
    assessor = CollapseAssessor()
    history = [{"default": 0.0, "round": row} for row in rows(OWN)]
    for length in range(1, 9):
        assessor.assess_trial("killed", history[:length])
    assessor.trial_end("killed", False)
    for number in range(2):
        told(assessor, str(number), rows(CORE))
    assert told(assessor, "as far", rows(OWN)) == [BAD]


def test_trials_say_their_target_and_its_end_is_written_and_logged(
    tmp_path: Path, caplog: Any
) -> None:
    """Real trials, as the manager's dispatcher sees them."""
    for name, kinds, rounds in (("a", CORE, 5), ("b", CORE, 5), ("c", OWN, 6), ("d", OWN, 3)):
        designed(kinds, rounds=rounds, folder=tmp_path / name)
    (row, *_) = TrialFolder(tmp_path / "c").read_rounds()
    assert row["target"] == pytest.approx(1 - 0.7**6, rel=1e-12)
    assert row["alike"] == {
        "importance": "magnitude", "floor": 0.0, "rewind_to": 0, "stop_before_collapse": False,
        "seed": 0,
    }  # fmt: skip
    assessor = CollapseAssessor(trials=tmp_path)
    with caplog.at_level(logging.INFO, "rtl_nni.CollapseAssessor"):
        for name, rounds in (("a", 4), ("b", 4)):
            for length in range(1, rounds + 1):
                assessor.assess_trial(name, [0.5] * length)
        assert assessor.assess_trial("c", [0.5]) is BAD
        assert assessor.assess_trial("c", [0.5] * 2) is BAD
        assert [assessor.assess_trial("d", [0.5] * n) for n in (1, 2, 3)] == [GOOD] * 3
    reason = (
        "it is to be pruned to 88.24% sparsity: 2 such trials before it collapsed, at up to "
        f"{AT:.2%} sparsity, and none survived as far"
    )
    assert caplog.messages[2:] == [f"stopped trial c: {reason}"]
    stopped = json.loads(TrialFolder(tmp_path / "c").stopped.read_text())
    assert stopped == {
        "round": 1, "rounds": 6, "sparsity": row["sparsity"], "rang": [], "reason": reason,
        "by": "CollapseAssessor",
    }  # fmt: skip


def test_a_trial_with_tickets_that_leave_says_no_target(tmp_path: Path) -> None:
    designed(CORE, folder=tmp_path, stop_before_collapse=True)
    assert {row["target"] for row in TrialFolder(tmp_path).read_rounds()} == {None}


@pytest.mark.parametrize("wrong", [-1, 0.5, "2", None])
def test_a_wrong_number_to_remember_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match="remember must be"):
        CollapseAssessor(remember=wrong)


def test_what_makes_trials_alike_is_all_but_how_far_and_how_long(tmp_path: Path) -> None:
    base = PARAMS | {"lr": np.float64(0.5), "n_clusters": 3}
    longer = {"rounds": 2, "steps": 5, "epochs": 1, "sparsity": 0.5, "schedule": "linear"}
    private = {"private_parameters": ["1.*"]}
    others = {"seed": 4}, {"importance": "random"}, {"lr": 0.25}, {"n_clusters": 4}, {"floor": 0.05}
    found = []
    for number, changes in enumerate(({}, longer, private, *others)):
        folder = tmp_path / str(number)
        trial(base | changes, groups=lambda params: groups(), own_parameters=["lr"], folder=folder)
        found.append([row["alike"] for row in TrialFolder(folder).read_rounds()])
        assert all(alike == found[-1][0] for alike in found[-1])
    first = [alike[0] for alike in found]
    assert [alike == first[0] for alike in first] == [True] * 3 + [False] * 5
    assert (first[0]["lr"], first[0]["n_clusters"], first[0]["seed"]) == (0.5, 3, 3)
