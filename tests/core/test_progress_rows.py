"""What the live table knows after every event of a discovery."""

from typing import Any

import pytest

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.progress.live_rows import LiveRows, clock_time


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def row(round: int, group: str, **others: Any) -> dict[str, Any]:
    sparsity = 1 - 0.5**round
    return {
        "round": round, "group": group, "asked": sparsity, "achieved": sparsity, "loss": 1 / round,
        "similarity": None, "excess": None, "alarm": None, "left": False, **others,
    }  # fmt: skip


def alarm(round: int, direction: str = "rise") -> dict[str, Any]:
    return {"round": round, "direction": direction, "last_good_round": round - 1}


def one_group(rows: LiveRows, round: int, group: str) -> None:
    rows.start(group, round, 10).step = 10
    rows.finish(row(round, group))


def doings(rows: LiveRows) -> list[str]:
    return [each.doing for each in rows.rows.values()]


def test_states_follow_the_training(clock: Clock) -> None:
    rows = LiveRows(["a", "b", "c"], 2, clock=clock)
    assert doings(rows) == ["waiting"] * 3
    rows.start("a", 1, 10).step = 3
    assert doings(rows) == ["step 3/10", "waiting", "waiting"]
    rows.finish(row(1, "a"))
    rows.start("b", 1, None).step = 7
    assert doings(rows) == ["done", "step 7", "waiting"]
    rows.finish(row(1, "b"))
    one_group(rows, 1, "c")
    rows.close_round([row(1, "a"), row(1, "b", alarm=alarm(1), left=True), row(1, "c")])
    assert doings(rows) == ["done", "left the rounds", "done"]
    rows.start("a", 2, 10)
    assert doings(rows) == ["step 0/10", "left the rounds", "waiting"]
    rows.end(well=False)
    assert doings(rows) == ["stopped at 0/10", "left the rounds", "waiting"]


def test_values_of_a_ticket(clock: Clock) -> None:
    rows = LiveRows(["a", "b"], 3, clock=clock)
    one_group(rows, 1, "a")
    rows.close_round([row(1, "a", similarity=0.3)])
    a = rows.rows["a"]
    assert (a.sparsity, a.losses, a.similarity, a.change, a.alarm) == (0.5, [1.0], 0.3, None, None)
    one_group(rows, 2, "a")
    rows.close_round([row(2, "a", similarity=0.7, metric=0.9, alarm=alarm(2, "fall"))])
    assert (a.sparsity, a.losses, a.similarity) == (0.75, [1.0, 0.5], 0.7)
    assert a.change == pytest.approx(0.4)
    assert a.alarm == "round 2: fall"
    assert a.metric is None, "finish() saw no metric in that row"
    rows.finish(row(3, "a", metric=0.8, at_floor=["w"]))
    assert (a.metric, a.at_floor, a.alarm) == (0.8, True, "round 2: fall")
    rows.finish(row(4, "a", at_floor=[]))
    assert (a.metric, a.at_floor) == (0.8, False)


@pytest.mark.parametrize(("round", "kept"), [(1, 0.0), (2, 0.5), (3, 0.75)])
def test_who_leaves_has_the_sparsity_of_its_last_good_round(
    round: int, kept: float, clock: Clock
) -> None:
    rows = LiveRows(["a"], 3, clock=clock)
    for number in range(1, round + 1):
        one_group(rows, number, "a")
        last = number == round
        values = {"alarm": alarm(number), "left": True} if last else {}
        rows.close_round([row(number, "a", **values)])
    assert rows.rows["a"].sparsity == kept


def test_a_closing_row_lacks_much(clock: Clock) -> None:
    rows = LiveRows(["a"], 2, clock=clock)
    one_group(rows, 1, "a")
    rows.close_round([row(1, "a", similarity=0.3)])
    closing = {"round": 2, "group": "a", "closing": True, "achieved": 0.5, "loss": 0.1, "kept": 5}
    rows.start("a", 2, 10)
    rows.finish({**closing, "metric": 0.7})
    rows.close_round([closing])
    a = rows.rows["a"]
    assert (a.sparsity, a.metric, a.similarity, a.round) == (0.5, 0.7, 0.3, 2)
    assert a.state == "done"


def test_a_resumed_round_is_known_but_took_no_time(clock: Clock) -> None:
    rows = LiveRows(["a", "b"], 4, clock=clock)
    rows.close_round([row(1, "a"), row(1, "b")])
    assert [each.losses for each in rows.rows.values()] == [[1.0], [1.0]]
    assert [each.round for each in rows.rows.values()] == [1, 1]
    clock.now += 10
    assert rows.header() == ["round 1/4", "asked so far 50.00%", "0:10 elapsed"]
    clock.now += 10
    one_group(rows, 2, "a")  # one of six that are left, in 20 seconds
    assert rows.header()[-1] == "about 1:40 left"


def test_the_time_that_is_left(clock: Clock) -> None:
    rows = LiveRows(["a", "b"], 2, clock=clock)
    assert rows.header() == ["round 0/2", "0:00 elapsed"]
    a = rows.start("a", 1, 10)
    clock.now += 5
    a.step = 5  # half of one of four
    assert rows.header() == ["round 1/2", "0:05 elapsed", "about 0:35 left"]
    rows.finish(row(1, "a"))
    clock.now += 5
    assert rows.header()[-1] == "about 0:30 left"
    one_group(rows, 1, "b")
    rows.close_round([row(1, "a"), row(1, "b", alarm=alarm(1), left=True)])
    assert rows.header()[-1] == "about 0:05 left", "b takes no more rounds"
    clock.now += 3600
    rows.end(well=True)
    assert rows.header() == ["round 1/2", "asked so far 50.00%", "took 1:00:10"]


def test_more_rounds_than_were_said_are_not_less_than_nothing(clock: Clock) -> None:
    rows = LiveRows(["a"], 1, clock=clock)
    one_group(rows, 1, "a")
    rows.start("a", 2, 10).step = 5
    clock.now += 5
    assert rows.header()[-1] == "about 0:00 left"


def test_the_sparsity_that_is_asked(clock: Clock) -> None:
    rows = LiveRows(["a"], 3, asked=[0.2, 0.4], clock=clock)
    assert rows.header()[0] == "round 0/2", "the third is the closing round"
    rows.start("a", 1, 10)
    assert rows.header()[:2] == ["round 1/2", "asked 20.00%"]
    rows.start("a", 2, 10)
    assert rows.header()[:2] == ["round 2/2", "asked 40.00%"]
    rows.finish(row(2, "a"))
    rows.start("a", 3, 10)
    assert rows.header() == ["closing round", "0:00 elapsed"], "it asks nothing"
    rows.end(well=False)
    assert rows.header()[-1] == "stopped after 0:00"


def test_of_many_tickets_those_that_matter(clock: Clock) -> None:
    names = [f"t{k}" for k in range(300)]
    rows = LiveRows(names, 2, clock=clock)
    for name in names:
        one_group(rows, 1, name)
    alarms = {"t7": {"alarm": alarm(1), "left": True}, "t250": {"alarm": alarm(1)}}
    rows.close_round([row(1, name, **alarms.get(name, {})) for name in names])
    for name in names[:5]:
        one_group(rows, 2, name)
    rows.start("t5", 2, 10)
    shown, rest = rows.visible(6)
    assert [each.name for each in shown] == ["t2", "t3", "t4", "t5", "t7", "t250"]
    assert rest == "and 294 more: 292 waiting, 2 done"
    shown, rest = rows.visible(2)
    assert [each.name for each in shown] == ["t5", "t250"]
    assert rest == "and 298 more: 292 waiting, 5 done, 1 left the rounds, 1 with an alarm"
    assert rows.visible(300) == (list(rows.rows.values()), None)
    rows.end(well=False)
    assert [each.name for each in rows.visible(1)[0]] == ["t5"], "where it was broken off"


def test_the_latest_alarm_comes_first(clock: Clock) -> None:
    rows = LiveRows(["a", "b", "c"], 3, clock=clock)
    for round, rung in ((1, "c"), (2, "a")):
        for name in ("a", "b", "c"):
            one_group(rows, round, name)
        rows.close_round([row(round, rung, alarm=alarm(round))])
    assert [each.name for each in rows.visible(1)[0]] == ["a"]


def test_an_unknown_group_is_refused(clock: Clock) -> None:
    rows = LiveRows(["a", "b"], 2, clock=clock)
    with pytest.raises(InvalidArgument, match=r"'a', 'b', got the group 'c'"):
        rows.start("c", 1, 10)
    with pytest.raises(InvalidArgument, match=r"got the group 'c'"):
        rows.finish(row(1, "c"))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (60, "1:00"), (7322, "2:02:02")]
)
def test_clock_time(seconds: float, text: str) -> None:
    assert clock_time(seconds) == text
