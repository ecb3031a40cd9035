"""When a trial is stopped: the core's rule, the share, and what does not count."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch

from rtl_nni import CollapseStop
from rtl_nni.search import collapse_stop
from rtl_plugin import CollapseMonitor, CollapseRule
from rtl_plugin.diagnostics.mask_counts import count_masks
from rtl_plugin.errors import InvalidArgument
from tests.nni.search.trial_setups import designed_masks

Masks = Mapping[str, Mapping[str, torch.Tensor]]
ALL = dict.fromkeys("abcd", "core")
# What these masks ring: a and c after round 4, b and d after round 5.
RANG_AT_4, RANG_AT_5 = ("a", "c"), ("a", "c", "b", "d")


def told(masks: Sequence[Masks], left: Mapping[int, Sequence[str]] | None = None) -> list[Any]:
    """The rows that a trial with these masks tells; who left a round is gone in the next."""
    rows, gone = [], set[str]()
    for number, round in enumerate(masks, start=1):
        names = [name for name in round if name not in gone]
        if not names:
            break
        counts = count_masks([round[name] for name in names])
        prunable = sum(layer.size for layer in counts)
        shared = sum(layer.shared for layer in counts)
        kept = [int(shared[k][k]) for k in range(len(names))]
        rows.append(
            {
                "round": number, "of": len(masks), "names": names, "prunable": prunable,
                "sparsity": 1 - sum(kept) / len(kept) / prunable, "shared": shared.tolist(),
                "left": list((left or {}).get(number, ())),
            }
        )  # fmt: skip
        gone |= set(rows[-1]["left"])
    return rows


def first_verdict(stop: CollapseStop, rows: Sequence[Any]) -> tuple[int, Any] | None:
    """Asked after every round, as an assessor is."""
    for length in range(1, len(rows) + 1):
        if (verdict := stop.verdict(rows[:length])) is not None:
            return length, verdict
    return None


def falling(rounds: int = 7) -> list[Masks]:
    """Tickets that agree about most, then lose all that they share at once."""
    found = []
    for number in range(1, rounds + 1):
        kept = int(0.7**number * 1024 + 0.5)
        shared = int(kept * (0.9 if number < rounds - 1 else 0.2))
        masks = {}
        for place, name in enumerate("abc"):
            mask = torch.zeros(1024 * 4, dtype=torch.bool)
            mask[:shared] = True
            mask[1024 * (place + 1) : 1024 * (place + 1) + kept - shared] = True
            masks[name] = {"w": mask}
        found.append(masks)
    return found


CURVES: dict[str, list[Masks]] = {
    "rise": designed_masks(ALL, 9),
    "one-sided": designed_masks({"a": "core", "b": "core", "c": "own", "d": "own"}, 9),
    "none": designed_masks(dict.fromkeys("abcd", "own"), 9),
    "fall": falling(),
    "two": designed_masks(dict.fromkeys("ab", "core"), 9),
}


@pytest.mark.parametrize("rule", [CollapseRule(), CollapseRule(warm_up=1, noise=0, rise=0.1)])
@pytest.mark.parametrize("curve", CURVES)
def test_the_alarms_are_those_of_the_monitor_on_the_masks(curve: str, rule: CollapseRule) -> None:
    monitor = CollapseMonitor(rule)
    for number, masks in enumerate(CURVES[curve], start=1):
        monitor.observe(number, masks)
    alarms = CollapseStop(rule=rule).alarms(json.loads(json.dumps(told(CURVES[curve]))))
    assert alarms == list(monitor.alarms.values())


def test_the_curves_are_what_they_are_called() -> None:
    directions = {
        name: [alarm.direction for alarm in CollapseStop().alarms(told(masks))]
        for name, masks in CURVES.items()
    }
    assert directions["none"] == []
    assert directions["rise"] == ["rise"] * 4
    assert directions["fall"] == ["fall"] * 3
    assert len(directions["one-sided"]) == len(directions["two"]) == 2


@pytest.mark.parametrize(
    ("share", "round", "rang"),
    [
        (1e-9, 4, RANG_AT_4), (0.25, 4, RANG_AT_4), (0.5, 4, RANG_AT_4),
        (0.5000001, 5, RANG_AT_5), (0.75, 5, RANG_AT_5), (1, 5, RANG_AT_5),
    ],
)  # fmt: skip
def test_a_trial_is_stopped_when_the_share_of_its_tickets_rang(
    share: float, round: int, rang: tuple[str, ...]
) -> None:
    rows = told(CURVES["rise"])
    length, verdict = first_verdict(CollapseStop(share), rows) or (0, None)
    assert length == verdict.round == round
    assert (verdict.rounds, verdict.rang) == (9, rang)
    assert verdict.sparsity == rows[round - 1]["sparsity"]


def test_the_reason_says_what_happened() -> None:
    verdict = CollapseStop(0.75).verdict(told(CURVES["rise"]))
    assert verdict is not None
    for part in (
        "4 of 4 tickets", "round 5 of 9", "83.20% sparsity", "a share of 0.75", "(rise, similarity",
        "a in round 4", "c in round 4", "b in round 5", "...", "last good round 3",
    ):  # fmt: skip
        assert part in verdict.reason
    two = CollapseStop(0.5).verdict(told(CURVES["rise"]))
    assert two is not None
    assert "..." not in two.reason
    assert json.loads(json.dumps(two.to_json())) == {
        "round": 4, "rounds": 9, "sparsity": two.sparsity, "rang": ["a", "c"], "reason": two.reason,
    }  # fmt: skip


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("curve", CURVES)
def test_it_does_not_matter_when_it_is_asked(curve: str, share: float) -> None:
    stop = CollapseStop(share)
    for left in ({}, {5: ["a"]}, {5: ["b"], 6: ["c"]}, {6: ["a", "b"]}):
        rows = told(CURVES[curve], left)
        each_round = first_verdict(stop, rows)
        at_the_end = stop.verdict(rows)
        assert at_the_end == (None if each_round is None else each_round[1])


def test_a_share_is_met_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """``0.55 * 20`` is more than 11, and 11 of 20 are 0.55."""

    class Rung:
        alarms: ClassVar[dict[str, Any]] = {}

        def __init__(self, rule: CollapseRule) -> None:
            pass

        def observe_counts(self, *_: object) -> None:
            pass

    alarm = CollapseStop().alarms(told(CURVES["rise"]))[0]
    monkeypatch.setattr(collapse_stop, "CollapseMonitor", Rung)
    for rang, tickets in itertools.combinations(range(1, 31), 2):
        names = [str(k) for k in range(tickets)]
        Rung.alarms = {name: dataclasses.replace(alarm, ticket=name) for name in names[:rang]}
        row = {"round": 1, "of": 1, "sparsity": 0.5, "names": names, "prunable": 9}
        row["shared"] = [[0] * tickets] * tickets
        assert CollapseStop(rang / tickets).verdict([row]) is not None
        assert CollapseStop((rang + 0.5) / tickets).verdict([row]) is None


def test_tickets_that_left_do_not_count() -> None:
    rows = told(CURVES["rise"], {4: ["a"]})
    verdict = CollapseStop(0.5).verdict(rows)
    assert verdict is not None
    assert (verdict.round, verdict.rang) == (5, ("c", "b", "d"))
    assert CollapseStop(0.8).verdict(rows) is None, "three of the four that there were"
    assert CollapseStop(0.25).verdict(told(CURVES["rise"], {4: ["a", "c"], 5: ["b", "d"]})) is None


def test_one_ticket_is_never_stopped() -> None:
    rows = told([{"a": masks["a"]} for masks in CURVES["rise"]])
    assert CollapseStop(1e-9).verdict(rows) is None
    assert not CollapseStop().can_ring(rows)


def test_the_last_of_the_tickets_is_not_watched() -> None:
    rows = told(CURVES["two"], {3: ["a"]})
    assert [len(row["names"]) for row in rows] == [2, 2, 2, 1, 1, 1, 1, 1, 1]
    assert CollapseStop(1e-9).verdict(rows) is None


def test_no_rounds_are_no_reason() -> None:
    assert CollapseStop().verdict([]) is None
    assert CollapseStop().alarms([]) == []
    assert not CollapseStop().can_ring([])


@pytest.mark.parametrize("warm_up", [1, 2, 4])
def test_it_can_ring_after_the_warm_up(warm_up: int) -> None:
    rows = told(CURVES["rise"])
    stop = CollapseStop(rule=CollapseRule(warm_up=warm_up))
    able = [stop.can_ring(rows[:length]) for length in range(1, 10)]
    assert able == [length > warm_up for length in range(1, 10)]


@pytest.mark.parametrize("share", [0, -0.5, 1.01, float("nan"), True, "0.5", None])
def test_a_share_out_of_range_is_refused(share: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"share must be a number in \(0, 1\].*got"):
        CollapseStop(share)


def test_another_rule_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="rule must be a CollapseRule"):
        CollapseStop(rule={"rise": 0.2})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1].pop("shared"), "a round of a trial lacks shared"),
        (lambda rows: rows[0].pop("names"), "lacks names"),
        (lambda rows: rows[1].update(shared=[[1, 2]]), r"round 2: shared must.*\(1, 2\)"),
        (lambda rows: rows[1].update(shared=[[1, 2], [1]]), "round 2: shared is no table"),
        (lambda rows: rows[1].update(round=1), "expected a whole number above 1"),
        (lambda rows: rows[1].update(prunable=7), "masks of other parameters or sizes"),
        (lambda rows: rows.reverse(), "expected a whole number above"),
        (lambda rows: rows[1].update(names=list("abcx")), "'x' was not among the tickets"),
    ],
)  # fmt: skip
def test_rounds_that_contradict_each_other_are_refused(change: Any, message: str) -> None:
    rows = told(CURVES["rise"])
    change(rows)
    with pytest.raises(InvalidArgument, match=message):
        CollapseStop(1).verdict(rows)
