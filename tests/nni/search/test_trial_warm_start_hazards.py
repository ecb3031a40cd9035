"""Trials that share rounds while others are killed, or run at the same time."""

from pathlib import Path

import pytest

from rtl_plugin.discovery.rehearsal import STEPS
from tests.nni.search.trial_setups import same_tickets, trial
from tests.nni.search.warm_trials import (
    PATH,
    ROUND,
    but,
    counted,
    planned,
    reused,
    rows,
    run_files,
    warm,
)


# Killed in the rewind point; after it; after a group; a round; and in later rounds.
@pytest.mark.parametrize(
    ("died_at", "lent"),
    [
        (2, None),
        (5, []),
        (9, ["a"]),
        (5 + ROUND, ["abc"]),
        (21, ["abc", "a"]),
        (33, ["abc", "abc", "a"]),
    ],
)  # fmt: skip
def test_a_donor_that_was_killed_lends_what_it_finished(
    died_at: int, lent: list[str] | None, tmp_path: Path
) -> None:
    params = PATH | {"rewind_to": 3}
    cold = trial(params, folder=tmp_path / "cold", warm_start=tmp_path / "nobody")
    search = tmp_path / "search"
    with pytest.raises(KeyboardInterrupt), counted(died_at, STEPS):
        warm(search / "donor", params)
    with counted(rehearsed=STEPS) as made:
        result = warm(search / "taker", params)
    taken = [list(names) for names in lent or []]
    assert reused(search / "taker") == taken + [[]] * (4 - len(taken))
    saved = 4 * sum(map(len, taken)) + (0 if lent is None else 3)
    assert result.steps_done == planned(params) - saved
    assert len(made) - result.steps_done == tried_out()
    assert run_files(search / "taker") == run_files(tmp_path / "cold")
    assert same_tickets(result.tickets, cold.tickets)
    # It goes on itself, with what the other has trained meanwhile.
    again = warm(search / "donor", params)
    assert again.metrics == cold.metrics
    assert run_files(search / "donor") == run_files(tmp_path / "cold")


def tried_out() -> int:
    """Optimizer steps that try out the optimizer's rule and train nothing."""
    with counted() as made:
        result = trial(PATH)
    return len(made) - result.steps_done


@pytest.mark.parametrize("died_at", [4, 14, 25])
def test_a_taker_that_was_killed_tells_the_same_when_it_goes_on(
    died_at: int, tmp_path: Path
) -> None:
    params = PATH | {"rewind_to": 3, "epochs": 2}
    warm(tmp_path / "donor", params | {"rounds": 2})
    whole = warm(tmp_path / "whole", params, warm_start=True)
    # Takes two rounds as well, but from the donor alone.
    (tmp_path / "apart" / "donor").parent.mkdir()
    (tmp_path / "apart" / "donor").symlink_to(tmp_path / "donor")
    with pytest.raises(KeyboardInterrupt), counted(died_at, STEPS):
        warm(tmp_path / "apart" / "taker", params)
    again = warm(tmp_path / "apart" / "taker", params)
    costs = ("seconds", "seconds_saved")
    assert but(again.to_json(), *costs) == but(whole.to_json(), *costs)
    assert again.seconds_saved == pytest.approx(whole.seconds_saved, rel=1e-9)
    assert [but(row, *costs) for row in rows(tmp_path / "apart" / "taker")] == [
        but(row, *costs) for row in rows(tmp_path / "whole")
    ]


def test_two_at_once_lend_to_each_other(tmp_path: Path) -> None:
    """The second runs whole between two rounds of the first, which then is behind it."""
    cold = trial(PATH, folder=tmp_path / "cold", warm_start=tmp_path / "nobody")
    search, second = tmp_path / "search", []
    (search / "b").mkdir(parents=True)  # so that a knows of b from its start

    def report(round: int, value: float) -> None:
        if round == 2:
            second.append(warm(search / "b"))

    first = warm(search / "a", report=report)
    assert reused(search / "b") == [["a", "b", "c"]] * 2 + [[]] * 2
    assert reused(search / "a") == [[]] * 2 + [["a", "b", "c"]] * 2
    costs = ("seconds", "seconds_saved")
    for result in (first, *second):
        assert result.steps_done == planned(PATH) - 2 * ROUND
        assert but(result.to_json(), "steps_done", *costs) == but(
            cold.to_json(), "steps_done", *costs
        )
    for name in "ab":
        assert run_files(search / name) == run_files(tmp_path / "cold"), name
