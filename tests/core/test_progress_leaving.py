"""The live table's rows of tickets that left the rounds, and of a closing round."""

from typing import Any

import pytest

from rtl_plugin.progress.live_rows import LiveRows
from tests.core.test_progress_rows import Clock, alarm, doings, one_group, row


@pytest.fixture
def clock() -> Clock:
    return Clock()


def rounds_with(rows: LiveRows, similarities: list[float], **last: Any) -> None:
    """Rounds of all tickets; metric and floors differ from round to round."""
    for number, similarity in enumerate(similarities, start=1):
        values = [
            row(
                number, name, similarity=similarity, metric=number / 10,
                at_floor=["w"] * (number > 2), **(last if number == len(similarities) else {}),
            )
            for name in rows.rows
        ]  # fmt: skip
        for each in values:
            rows.finish(each)
        rows.close_round(values)


@pytest.mark.parametrize(
    ("good", "kept", "losses", "metric"),
    [
        (3, (0.875, 0.7, True), [1, 1 / 2, 1 / 3, 1 / 4], 0.4),
        (2, (0.75, 0.8, False), [1, 1 / 2, 1 / 3], 0.3),
        (0, (0.0, 1.0, False), [1], 0.1),
    ],
)
def test_who_leaves_has_all_values_of_the_masks_it_keeps(
    good: int, kept: tuple[float, float, bool], losses: list[float], metric: float, clock: Clock
) -> None:
    rows = LiveRows(["a"], 9, clock=clock)
    rang = {**alarm(4, "fall"), "last_good_round": good}
    rounds_with(rows, [0.9, 0.8, 0.7, 0.1], alarm=rang, left=True)
    a = rows.rows["a"]
    assert (a.sparsity, a.similarity, a.at_floor) == kept
    assert a.change is None, "the change was to the masks that it does not keep"
    assert a.losses == losses
    assert a.metric == metric, "measured by the round that trained under these masks"


def test_who_leaves_without_an_alarm_keeps_what_it_has(clock: Clock) -> None:
    rows = LiveRows(["a"], 9, clock=clock)
    rounds_with(rows, [0.9, 0.75], left=True)
    a = rows.rows["a"]
    assert (a.sparsity, a.similarity, a.metric, a.losses) == (0.75, 0.75, 0.2, [1, 1 / 2])
    assert a.change == pytest.approx(-0.15)


def test_a_good_round_that_was_not_shown_changes_no_value(clock: Clock) -> None:
    rows = LiveRows(["a"], 9, clock=clock)
    rows.close_round([row(6, "a", similarity=0.3, alarm=alarm(6), left=True)])
    a = rows.rows["a"]
    assert (a.sparsity, a.similarity, a.state) == (1 - 0.5**6, 0.3, "left")


def test_an_alarm_alone_changes_no_value(clock: Clock) -> None:
    rows = LiveRows(["a"], 9, clock=clock)
    rounds_with(rows, [0.9, 0.75], alarm=alarm(2), left=False)
    a = rows.rows["a"]
    assert (a.sparsity, a.similarity, a.state) == (0.75, 0.75, "done")
    assert a.change == pytest.approx(-0.15)


def test_no_change_is_shown_across_a_departure(clock: Clock) -> None:
    rows = LiveRows(["a", "b", "c"], 9, clock=clock)
    changes = []
    for number, similarity in enumerate([0.9, 0.8, 0.5, 0.375], start=1):
        names = "abc" if number <= 2 else "ab"
        leaving = {"alarm": alarm(2), "left": True} if number == 2 else {}
        rows.close_round(
            [
                row(number, name, similarity=similarity, **(leaving if name == "c" else {}))
                for name in names
            ]
        )
        assert rows.rows["a"].similarity == similarity
        changes.append(rows.rows["a"].change)
    assert changes == [None, pytest.approx(-0.1), None, -0.125]


def closing_row(round: int, group: str) -> dict[str, Any]:
    """As `discover` writes it: without similarity, alarm and left."""
    return {
        "round": round, "group": group, "closing": True, "achieved": 0.5, "loss": 0.1,
        "metric": 0.7, "kept": 5, "trained_at": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("asked", [[0.5, 0.75], []])
def test_a_closing_round_is_called_so(asked: list[float], clock: Clock) -> None:
    rows = LiveRows(["a", "b"], 3, asked, clock)
    for number in (1, 2):
        for name in ("a", "b"):
            one_group(rows, number, name)
        rows.close_round([row(number, "a"), row(number, "b")])
        assert rows.header()[0] == f"round {number}/{2 if asked else 3}"
    rows.start("a", 3, 10)
    if asked:  # otherwise nobody knows it yet
        assert rows.header() == ["closing round", "0:00 elapsed"]
    rows.finish(closing_row(3, "a"))
    assert rows.header() == ["closing round", "0:00 elapsed"]
    assert doings(rows) == ["done", "waiting"]
    rows.end(well=True)
    assert rows.header() == ["closing round", "took 0:00"]


def test_a_closing_round_leaves_the_floors_as_they_are(clock: Clock) -> None:
    rows = LiveRows(["a", "b"], 2, [0.5], clock)
    for values in (row(1, "a", at_floor=["w"]), row(1, "b", at_floor=[])):
        rows.finish(values)
    for name in ("a", "b"):
        rows.finish(closing_row(2, name))
    assert [each.at_floor for each in rows.rows.values()] == [True, False]


def test_who_left_has_still_left_when_it_is_measured(clock: Clock) -> None:
    rows = LiveRows(["a", "b", "c"], 9, [0.5] * 8, clock)
    for name in ("a", "b", "c"):
        one_group(rows, 1, name)
    lefts = {"a": {"alarm": alarm(1), "left": True}, "b": {"left": True}, "c": {"left": True}}
    rows.close_round([row(1, name, **values) for name, values in lefts.items()])
    clock.now += 30
    rows.start("b", 9, 10).step = 5
    assert doings(rows) == ["left the rounds", "step 5/10", "left the rounds"]
    assert rows.header()[-1] == "about 0:04 left", "half a training of three and a half"
    rows.finish(closing_row(9, "b"))
    rows.close_round([closing_row(9, "b"), closing_row(9, "c")])  # c's lay in the run folder
    assert doings(rows) == ["left the rounds"] * 3
    assert [each.metric for each in rows.rows.values()] == [None, 0.7, 0.7]
    assert rows.visible(1)[1] == "and 2 more: 2 left the rounds"
