"""A ticket whose alarm rings keeps its last good masks and leaves; the others go on."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rtl_plugin import CollapseRule, DataGroups, GeometricSchedule, Importance, TicketSet
from rtl_plugin.diagnostics.curves import ticket_curves
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.run_folder import RunFolder
from tests.discovery.setups import MLP, built, found, named_groups

ROUNDS = 8
# Sensitive enough that the ordinary wobble of small tickets rings.
NERVOUS = CollapseRule(fall=0.3, rise=0.2, noise=0, warm_up=2)


def groups(names: str = "abcde") -> DataGroups:
    return named_groups(MLP, **dict.fromkeys(names, 1))


def pruned(of: DataGroups | None = None, **others: Any) -> TicketSet:
    settings = {"schedule": GeometricSchedule(0.9, rounds=ROUNDS), "importance": "random"} | others
    return found(built(MLP), of or groups(), **settings)


@pytest.mark.parametrize("window", [0.2, 0.8])
def test_who_rings_leaves_with_the_masks_of_the_last_good_round(
    window: float, tmp_path: Path
) -> None:
    rule = dataclasses.replace(NERVOUS, window=window, fall=0.3 if window < 0.5 else 0.1)
    tickets = pruned(stop_before_collapse=rule, run_folder=tmp_path)
    curves = ticket_curves(tickets.history)
    left = [curve for curve in curves.values() if curve.left]
    assert left, "nobody left: the test shows nothing"
    folder = RunFolder(tmp_path, "discover")
    for place, (name, curve) in enumerate(curves.items()):
        kept = TicketSet.load(folder.round_ticket(curve.kept_round, place))[name]
        for parameter, mask in kept.masks.items():
            assert torch.equal(tickets[name].masks[parameter], mask)
        assert tickets[name].density == pytest.approx(1 - curve.kept.sparsity)
        if curve.left and curve.alarm:
            assert curve.kept_round == curve.alarm["last_good_round"] < curve.points[-1].round
            assert curve.points[-1].round == curve.alarm["round"]
    assert len({ticket.kept for ticket in tickets.values()}) > 1, "tickets of their own sparsity"
    gone_back = {c.points[-1].round - c.kept_round for c in left if c.alarm}
    assert gone_back == {1 if window < 0.5 else 3}, "to where the window starts"


def test_the_others_are_those_of_a_run_without_stopping() -> None:
    stopped, plain = pruned(stop_before_collapse=NERVOUS), pruned()
    by_round = {(row["round"], row["group"]): row for row in plain.history}
    assert len(stopped.history) < len(plain.history)
    for row in stopped.history:
        twin = by_round[row["round"], row["group"]]
        assert (row["kept"], row["loss"]) == (twin["kept"], twin["loss"])


class FallingApart(Importance):
    """All groups agree about what to keep for some rounds, and then about nothing."""

    needs_gradients = False

    def __init__(self, agreed_calls: int) -> None:
        self.calls, self.agreed_calls = 0, agreed_calls

    def scores(self, weights: Any, gradients: Any) -> Any:
        self.calls += 1
        if self.calls <= self.agreed_calls:
            return {n: torch.arange(w.numel()).reshape(w.shape).float() for n, w in weights.items()}
        return {name: torch.rand(weight.shape) for name, weight in weights.items()}


def test_without_stopping_alarms_are_told_all_the_same() -> None:
    importance = FallingApart(agreed_calls=5 * 3)
    tickets = pruned(importance=importance)
    assert {row["round"] for row in tickets.history} == set(range(1, ROUNDS + 1))
    assert all(row["left"] is False for row in tickets.history)
    rung = [row for row in tickets.history if row["alarm"]]
    assert [row["group"] for row in rung] == list("abcde")
    assert {(row["round"], row["alarm"]["direction"]) for row in rung} == {(4, "fall")}


def test_the_default_rule_stops_what_falls_apart() -> None:
    tickets = pruned(importance=FallingApart(agreed_calls=5 * 3), stop_before_collapse=True)
    assert {curve.kept_round for curve in ticket_curves(tickets.history).values()} == {3}
    assert tickets.similarity().min() == 1.0, "the masks from before they fell apart"


def test_two_tickets_leave_together() -> None:
    tickets = pruned(groups("ab"), stop_before_collapse=NERVOUS)
    last = {name: curve.points[-1].round for name, curve in ticket_curves(tickets.history).items()}
    assert last["a"] == last["b"] < ROUNDS
    assert all(row["left"] for row in tickets.history if row["round"] == last["a"])


def test_the_last_one_keeps_the_masks_it_has() -> None:
    tickets = pruned(stop_before_collapse=NERVOUS)
    curves = ticket_curves(tickets.history)
    (quiet,) = [c for c in curves.values() if c.left and c.alarm is None]
    assert quiet.kept_round == quiet.points[-1].round < ROUNDS


def test_resumed_bit_identical_at_every_point(tmp_path: Path) -> None:
    whole = pruned(stop_before_collapse=NERVOUS, run_folder=tmp_path / "whole")
    files = sorted((tmp_path / "whole" / "discover").glob("round-*"))
    result = (tmp_path / "whole" / "discover" / "tickets.safetensors").read_bytes()
    for kept in (0, 1, len(files) // 2, len(files) - 1, len(files)):
        folder = tmp_path / f"resumed-{kept}"
        (folder / "discover").mkdir(parents=True)
        arguments = tmp_path / "whole" / "discover" / "arguments.json"
        (folder / "discover" / "arguments.json").write_bytes(arguments.read_bytes())
        for file in files[:kept]:
            (folder / "discover" / file.name).write_bytes(file.read_bytes())
        again = pruned(stop_before_collapse=NERVOUS, run_folder=folder)
        assert again.history == whole.history
        assert (folder / "discover" / "tickets.safetensors").read_bytes() == result


def test_the_log_dates_every_alarm(tmp_path: Path) -> None:
    tickets = pruned(stop_before_collapse=NERVOUS, run_folder=tmp_path)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    told = {e["group"]: e for e in events if e["event"] == "compared" and e["alarm"]}
    rung = {row["group"]: row for row in tickets.history if row["alarm"]}
    assert told.keys() == rung.keys() != set()
    for group, event in told.items():
        assert event["time"] > 0
        assert event["alarm"] == rung[group]["alarm"]
        assert event["left"] is True


def test_the_rule_is_part_of_the_run(tmp_path: Path) -> None:
    from rtl_plugin.errors import RunFolderMismatch

    pruned(stop_before_collapse=NERVOUS, run_folder=tmp_path)
    with pytest.raises(RunFolderMismatch, match=r"stop_before_collapse\.fall=0.3, this call has"):
        pruned(stop_before_collapse=True, run_folder=tmp_path)


def test_refused_before_any_training() -> None:
    def never(model: Any, batch: Any) -> torch.Tensor:
        raise AssertionError("trained")

    with pytest.raises(InvalidArgument, match="at least two"):
        pruned(groups("a"), loss=never, stop_before_collapse=True)
    with pytest.raises(InvalidArgument, match="2 rounds give fewer than 3 steps"):
        pruned(loss=never, schedule=GeometricSchedule(0.9, rounds=2), stop_before_collapse=True)
    with pytest.raises(InvalidArgument, match="True, False or a CollapseRule"):
        pruned(loss=never, stop_before_collapse=0.2)


def test_a_closing_round_measures_only_who_stayed() -> None:
    loaders = {name: group.train for name, group in groups().items()}
    with_held_out = DataGroups.from_loaders(loaders, validation=loaders)
    tickets = pruned(
        with_held_out, stop_before_collapse=NERVOUS, evaluate=lambda model, batches: 1.0
    )
    curves = ticket_curves(tickets.history)
    for curve in curves.values():
        assert curve.kept.metric == 1.0, "the masks that a ticket ended with are measured"
    closing = {row["group"] for row in tickets.history if row.get("closing")}
    assert closing == {name for name, curve in curves.items() if curve.alarm is None}
