"""The monitor on masks: counts become curves, curves alarms."""

import math
from collections.abc import Mapping

import pytest
import torch

from rtl_plugin.diagnostics.collapse import CollapseMonitor
from rtl_plugin.diagnostics.collapse_rule import CollapseRule
from rtl_plugin.diagnostics.mask_counts import count_masks
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.packed_masks import PackedMasks

Masks = dict[str, torch.Tensor]


def masks(kept: range | list[int], size: int = 64) -> Masks:
    """Two tensors whose joint flat entries are kept as listed."""
    flat = torch.zeros(size, dtype=torch.bool)
    flat[list(kept)] = True
    return {"first": flat[:10], "second": flat[10:].reshape(2, -1)}


def shifted(counts: list[tuple[int, int]], size: int = 64) -> list[dict[str, Masks]]:
    """Rounds of tickets a and b that keep n weights each, of which so many are shared."""
    return [
        {"a": masks(range(n), size), "b": masks(range(n - shared, 2 * n - shared), size)}
        for n, shared in counts
    ]


def watched(rounds: list[dict[str, Masks]], **settings: float) -> CollapseMonitor:
    monitor = CollapseMonitor(CollapseRule(noise=0, **settings))  # type: ignore[arg-type]
    for number, tickets in enumerate(rounds, start=1):
        monitor.observe(number, tickets)
    return monitor


def test_the_curve_by_hand() -> None:
    monitor = watched(shifted([(32, 16), (16, 4)]))
    first, second = monitor.curves["a"]
    assert first.density == 0.5
    assert first.step == pytest.approx(math.log(0.5))
    assert first.agreement == pytest.approx(math.log(0.5))  # of a's 32 weights b keeps 16
    assert first.similarity == pytest.approx(16 / 48)
    assert second.agreement == pytest.approx(math.log(0.25 / 0.5))
    assert second.variance == pytest.approx(2 * (1 - 0.25) * 0.5 / (0.25 * 16))
    assert monitor.alarms == {}


def test_a_rise_rings_for_both_and_once() -> None:
    rounds = shifted([(32, 24), (16, 10), (8, 7), (4, 4), (2, 2)])
    # overlaps .75, .625, .875: agreement grows by a factor 1.4 while the weights halve.
    monitor = watched(rounds[:2])
    rung = monitor.observe(3, rounds[2])
    assert [alarm.ticket for alarm in rung] == ["a", "b"]
    alarm = rung[0]
    assert (alarm.round, alarm.direction, alarm.last_good_round) == (3, "rise", 2)
    assert alarm.sparsity == 1 - 8 / 64
    assert alarm.similarity == pytest.approx(7 / 9)
    assert alarm.change == pytest.approx(math.log(1.4) / math.log(0.5))
    assert "a, round 3 at 87.50% sparsity" in alarm.explanation
    assert "last good round 2" in alarm.explanation
    assert monitor.observe(4, rounds[3]) == []
    assert monitor.alarms["a"] == alarm


def test_rounds_that_were_not_looked_at() -> None:
    monitor = CollapseMonitor(CollapseRule(noise=0))
    rounds = shifted([(32, 24), (16, 10), (8, 7)])
    for number, tickets in zip((2, 5, 9), rounds, strict=True):
        monitor.observe(number, tickets)
    assert monitor.alarms["a"].round == 9
    assert monitor.alarms["a"].last_good_round == 5, "the one before that was looked at"
    assert monitor.window_start("a") == 5


def test_a_fall_rings() -> None:
    monitor = watched(shifted([(32, 30), (16, 14), (8, 5)]))
    assert {a.direction for a in monitor.alarms.values()} == {"fall"}
    assert {a.round for a in monitor.alarms.values()} == {3}


def test_an_overlap_that_vanishes_is_a_fall() -> None:
    rounds = shifted([(4000, 3600), (2000, 1600), (1000, 0)], size=8000)
    monitor = CollapseMonitor()
    for number, tickets in enumerate(rounds, start=1):
        monitor.observe(number, tickets)
    assert {alarm.direction for alarm in monitor.alarms.values()} == {"fall"}
    # Half a weight stands for none.
    assert monitor.curves["a"][-1].agreement == pytest.approx(math.log(0.0005 / 0.8))


def test_identical_tickets_never_ring() -> None:
    rounds = [{name: masks(range(n)) for name in "abc"} for n in (32, 16, 8, 4, 2, 1)]
    monitor = watched(rounds)
    assert monitor.alarms == {}
    assert monitor.curves["a"][-1].similarity == 1.0


def test_disjoint_tickets_never_ring() -> None:
    rounds = [{"a": masks(range(n)), "b": masks(range(63, 63 - n, -1))} for n in (16, 8, 4, 2, 1)]
    monitor = CollapseMonitor()
    for number, tickets in enumerate(rounds, start=1):
        monitor.observe(number, tickets)
    assert monitor.alarms == {}


def test_one_ticket_has_nobody_to_be_compared_with() -> None:
    monitor = watched([{"a": masks(range(n))} for n in (32, 16, 8)])
    assert (monitor.alarms, monitor.curves) == ({}, {})


def test_random_tickets_seldom_ring() -> None:
    """Independent pruning is elasticity 1 throughout; what differs from it is noise."""
    generator = torch.Generator().manual_seed(0)
    orders = {str(k): torch.randperm(4096, generator=generator) for k in range(10)}
    monitor = CollapseMonitor()
    for round in range(1, 12):
        keep = int(4096 * 0.7**round)
        monitor.observe(round, {n: masks(o[:keep].tolist(), 4096) for n, o in orders.items()})
    assert len(monitor.alarms) <= 1


def test_a_ticket_that_leaves_is_no_peer_any_longer() -> None:
    rounds = [
        {"a": masks(range(n)), "b": masks(range(n)), "c": masks(range(32, 32 + n))}
        for n in (32, 16, 8)
    ]
    monitor = CollapseMonitor()
    monitor.observe(1, rounds[0])
    monitor.observe(2, {name: rounds[1][name] for name in "ab"})
    # With c as a peer a's overlap would have gone from 1/2 to 1, and agreement with it.
    assert monitor.curves["a"][-1].agreement == 0.0
    assert len(monitor.curves["c"]) == 1


def test_packed_masks_and_counts_say_the_same() -> None:
    rounds = shifted([(32, 24), (16, 10), (8, 7)])
    plain = watched(rounds)
    packed = watched([{n: PackedMasks(m) for n, m in r.items()} for r in rounds])  # type: ignore[misc]
    counted = CollapseMonitor(CollapseRule(noise=0))
    for number, tickets in enumerate(rounds, start=1):
        counted.observe_counts(number, list(tickets), count_masks(list(tickets.values())))
    assert plain.alarms == packed.alarms == counted.alarms != {}


def test_three_hundred_tickets() -> None:
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(300, 512, generator=generator)
    monitor = CollapseMonitor()
    for round, keep in enumerate((384, 256, 128, 64), start=1):
        chosen = order.argsort(dim=1) < keep
        monitor.observe(round, {str(k): {"w": row} for k, row in enumerate(chosen)})
    assert len(monitor.curves) == 300


def test_refused() -> None:
    first, second = shifted([(32, 24), (16, 10)])
    monitor = CollapseMonitor()
    monitor.observe(2, first)
    for round in (2, 1, 2.5, True):
        with pytest.raises(InvalidArgument, match="observed in order"):
            monitor.observe(round, second)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="'z' was not among the tickets"):
        monitor.observe(3, {**second, "z": second["a"]})
    grown: Mapping[str, Masks] = {"a": masks(range(40)), "b": first["b"]}
    with pytest.raises(InvalidArgument, match="only shrink"):
        monitor.observe(3, grown)
    other = {"a": masks(range(8), 32), "b": masks(range(8), 32)}
    with pytest.raises(InvalidArgument, match="other parameters or sizes"):
        monitor.observe(3, other)
    nothing = {"a": masks([]), "b": masks([])}
    with pytest.raises(InvalidArgument, match="'a' keeps no weight"):
        monitor.observe(3, nothing)
    assert monitor.observe(3, second) == [], "what was refused changed nothing"
    with pytest.raises(InvalidArgument, match="CollapseRule"):
        CollapseMonitor(0.5)  # type: ignore[arg-type]
