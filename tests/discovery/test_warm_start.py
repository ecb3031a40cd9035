"""Rounds taken over from other runs: the same bytes as if they had been trained again."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import (
    CollapseRule,
    CubicSchedule,
    DataGroups,
    FixedCountSchedule,
    GeometricSchedule,
    LinearSchedule,
    OneShotSchedule,
)
from rtl_plugin.discovery import WarmStart
from rtl_plugin.errors import InvalidArgument
from tests.discovery import search_runs
from tests.discovery.search_runs import Search, geometric, mean_output, measured_groups
from tests.discovery.setups import (
    CONV,
    MLP,
    adam,
    built,
    files_of,
    found,
    named_groups,
    shuffled_groups,
)
from tests.models import ZOO, Network

GROUPS, LOOKED = 2, search_runs.LOOKS + search_runs.REHEARSED
NERVOUS = CollapseRule(fall=0.3, rise=0.2, noise=0, warm_up=2)


def dropout_net() -> Network:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.4), nn.ReLU(), nn.Linear(8, 3))

    return Network("dropout", build, MLP.inputs, False)


def scheduled(params: Any) -> Any:
    optimizer = torch.optim.SGD(params, 0.1)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)


def shuffled_validation() -> DataGroups:
    train = {name: group.train for name, group in shuffled_groups(CONV).items()}
    held_out = {name: group.train for name, group in shuffled_groups(CONV, size=12).items()}
    return DataGroups.from_loaders(train, validation=held_out)


SETTINGS: dict[str, dict[str, Any]] = {
    "magnitude": {},
    "weight_gradient": {"importance": "weight_gradient"},
    "random": {"importance": "random"},
    "adam": {"optimizer": adam},
    "scheduler": {"optimizer": scheduled},
    "evaluate": {"evaluate": mean_output, "groups": measured_groups},
    "shuffled validation": {"evaluate": mean_output, "groups": shuffled_validation},
    "no closing round": {
        "evaluate": mean_output, "groups": measured_groups, "closing_round": False,
    },
    "rewinding": {"rewind_to": 3},
    "stop": {"stop_before_collapse": CollapseRule(warm_up=1, window=0.1)},
    "own generators": {"groups": lambda: shuffled_groups(CONV, own_generators=True)},
    "one batch": {"groups": lambda: named_groups(CONV, a=1, b=1)},
    "epochs": {"epochs": 1},
    "dropout": {"network": dropout_net()},
}  # fmt: skip


@pytest.mark.parametrize("rounds", [(4, 3), (3, 4)], ids=["longer donor", "shorter donor"])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_bytes_as_cold(name: str, rounds: tuple[int, int], tmp_path: Path) -> None:
    search = Search(tmp_path, **SETTINGS[name])
    search.run("donor", schedule=geometric(rounds[0]))
    warm = search.run("warm", ["donor"], schedule=geometric(rounds[1]))
    cold = search.run("cold", schedule=geometric(rounds[1]))
    search.check_same_bytes("warm", "cold")
    assert warm.history == cold.history
    taken = search.taken("warm")
    expected = {(r, g) for r in range(1, 4) for g in "ab"}
    expected |= {(0, None)} if "rewind_to" in SETTINGS[name] else set()
    closing = SETTINGS[name].get("evaluate") and SETTINGS[name].get("closing_round", True)
    if closing and rounds == (4, 3):  # the donor's fourth round trained under our final masks
        expected |= {(4, "a"), (4, "b")}
    assert taken.keys() == expected
    assert search.taken("cold") == {}
    if rounds == (4, 3):  # nothing but a look at the first batches
        assert search.calls["warm"] == LOOKED
    else:
        assert LOOKED < search.calls["warm"] < search.calls["cold"]


@pytest.mark.parametrize("network", ZOO, ids=str)
def test_every_kind_of_network(network: Network, tmp_path: Path) -> None:
    search = Search(tmp_path, network=network)
    search.run("donor", schedule=geometric(2))
    search.run("warm", ["donor"])
    search.run("cold")
    search.check_same_bytes("warm", "cold")
    assert len(search.taken("warm")) == 2 * GROUPS


SAME_FIRST_COUNT = [
    (OneShotSchedule(0.4), LinearSchedule(0.8, rounds=2)),
    (OneShotSchedule(0.4), OneShotSchedule(0.4001)),
    (GeometricSchedule(0.75, rounds=2), LinearSchedule(0.5, rounds=1)),
    (CubicSchedule(0.8, rounds=2), FixedCountSchedule(73, sparsity=0.9)),
    (FixedCountSchedule(31, sparsity=0.8), GeometricSchedule(0.3, rounds=1)),
]


@pytest.mark.parametrize("pair", SAME_FIRST_COUNT, ids=str)
def test_counts_decide_and_not_the_name_of_the_schedule(pair: Any, tmp_path: Path) -> None:
    """Also where two schedules ask for the same count in other digits."""
    search = Search(tmp_path, network=MLP)
    first, second = pair
    donor = search.run("donor", schedule=first)
    warm = search.run("warm", ["donor"], schedule=second)
    search.run("cold", schedule=second)
    search.check_same_bytes("warm", "cold")
    assert donor.history[0]["kept"] == warm.history[0]["kept"], "the test shows nothing"
    assert search.taken("warm").keys() == {(1, "a"), (1, "b")}


def test_another_count_ends_what_is_shared(tmp_path: Path) -> None:
    search = Search(tmp_path, network=MLP)
    search.run("donor", schedule=GeometricSchedule(0.75, rounds=2))
    for number, schedule in enumerate([OneShotSchedule(0.52), LinearSchedule(0.7, rounds=2)]):
        search.run(f"warm-{number}", ["donor"], schedule=schedule)
        assert search.taken(f"warm-{number}") == {}
        assert search.reasons(f"warm-{number}") == "", "it is a donor, of other rounds"
    # The second round has the same count, after another first one.
    search.run("other way", ["donor"], schedule=LinearSchedule(0.75, rounds=2))
    assert search.taken("other way") == {}


def test_a_run_without_warm_start_gives_the_same_result(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run("donor", schedule=geometric(2))
    search.run("warm", ["donor"])
    search.run("plain", warm_start=None)
    warm, plain = files_of(tmp_path / "warm"), files_of(tmp_path / "plain")
    assert warm.keys() - plain.keys() == {"discover/identity.json"}
    assert all(warm[name] == content for name, content in plain.items())


def test_tickets_that_leave_before_a_collapse(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "network": MLP, "importance": "random", "stop_before_collapse": NERVOUS,
        "groups": lambda: named_groups(MLP, **dict.fromkeys("abcde", 1)),
    }  # fmt: skip
    p = 1 - 0.1 ** (1 / 8)
    search = Search(tmp_path, **settings)
    schedules = {
        rounds: GeometricSchedule(1 - (1 - p) ** rounds, rounds=rounds) for rounds in (6, 8)
    }
    donor = search.run("donor", schedule=schedules[8])
    assert any(row["left"] for row in donor.history if row["round"] <= 5), "nobody left"
    for name, others in (("warm", ["donor"]), ("cold", [])):
        search.run(name, others, schedule=schedules[6])
    search.check_same_bytes("warm", "cold")
    rows = [row for row in donor.history if row["round"] <= 6]
    assert search.taken("warm").keys() == {(row["round"], row["group"]) for row in rows}


def test_a_closing_round_is_no_ordinary_round(tmp_path: Path) -> None:
    """It trained under the masks of our fourth round's start, and ranked nothing."""
    search = Search(tmp_path, evaluate=mean_output, groups=measured_groups)
    search.run("donor", schedule=geometric(3))
    assert (tmp_path / "donor" / "discover" / "round-0004-group-0000.safetensors").exists()
    search.run("warm", ["donor"], schedule=geometric(4))
    search.run("cold", schedule=geometric(4))
    search.check_same_bytes("warm", "cold")
    assert {round for round, _ in search.taken("warm")} == {1, 2, 3}


@pytest.mark.parametrize("asked", [None, False])
def test_a_run_with_a_closing_round_and_one_without(asked: bool | None, tmp_path: Path) -> None:
    search = Search(tmp_path, evaluate=mean_output, groups=measured_groups)
    search.run("donor", closing_round=False if asked is None else None)
    search.run("warm", ["donor"], closing_round=asked)
    search.run("cold", closing_round=asked)
    search.check_same_bytes("warm", "cold")
    assert {round for round, _ in search.taken("warm")} == {1, 2, 3}


def test_a_closing_round_after_other_rounds_is_another(tmp_path: Path) -> None:
    """The same number of rounds, and of weights at the end."""
    search = Search(tmp_path, evaluate=mean_output, groups=measured_groups)
    donor = search.run("donor", schedule=LinearSchedule(0.75, rounds=2))
    warm = search.run("warm", ["donor"], schedule=GeometricSchedule(0.75, rounds=2))
    search.run("cold", schedule=GeometricSchedule(0.75, rounds=2))
    assert donor.history[-1]["trained_at"] == warm.history[-1]["trained_at"]
    search.check_same_bytes("warm", "cold")
    assert search.taken("warm") == {}


def test_a_closing_round_is_shared_by_runs_that_end_alike(tmp_path: Path) -> None:
    groups = {"network": MLP, "groups": lambda: measured_groups(MLP)}
    search = Search(tmp_path, evaluate=mean_output, **groups)
    search.run("donor", schedule=OneShotSchedule(0.4))
    search.run("warm", ["donor"], schedule=OneShotSchedule(0.4001))
    search.run("cold", schedule=OneShotSchedule(0.4001))
    search.check_same_bytes("warm", "cold")
    assert search.taken("warm").keys() == {(r, g) for r in (1, 2) for g in "ab"}


def test_seconds_saved_are_those_that_the_donors_logged(tmp_path: Path) -> None:
    search = Search(tmp_path, rewind_to=2)
    search.run("donor", schedule=geometric(2))
    search.run("warm", ["donor"])
    spent = search.events("donor", "round") + search.events("donor", "rewind_point")
    assert len(spent) == 2 * GROUPS + 1
    assert all(event["seconds"] > 0 for event in spent)
    saved = [finished.seconds_saved for finished in search.rounds["warm"]]
    assert sum(saved) == pytest.approx(sum(event["seconds"] for event in spent))
    second = [event["seconds"] for event in spent if event.get("round") == 2]
    assert saved[1:] == [pytest.approx(sum(second)), 0.0]
    logged = search.events("warm", "reused")
    assert sum(saved) == pytest.approx(sum(event["seconds"] for event in logged))
    assert [finished.reused for finished in search.rounds["warm"]] == [("a", "b"), ("a", "b"), ()]
    assert {name for finished in search.rounds["donor"] for name in finished.reused} == set()


def test_a_chain_of_donors_tells_what_the_first_one_spent(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run("first", schedule=geometric(1))
    search.run("second", ["first"], schedule=geometric(2))
    search.run("third", ["second"], schedule=geometric(3))
    search.run("cold", schedule=geometric(3))
    search.check_same_bytes("third", "cold")
    assert set(search.taken("third").values()) == {"second"}
    saved = [finished.seconds_saved for finished in search.rounds["third"]]
    for number, donor in ((1, "first"), (2, "second")):
        spent = sum(e["seconds"] for e in search.events(donor, "round") if e["round"] == number)
        assert saved[number - 1] == pytest.approx(spent)


def test_donors_complete_each_other(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run("whole", schedule=geometric(3))
    for name, files in (("one", ["0001-group-0001", "0003-group-0000"]), ("two", ["0002-group"])):
        for path, content in files_of(tmp_path / "whole").items():
            if "round-" not in path or any(part in path for part in files):
                there = tmp_path / name / path
                there.parent.mkdir(parents=True, exist_ok=True)
                there.write_bytes(content)
    search.run("warm", ["missing", "one", "two"], schedule=geometric(3))
    search.check_same_bytes("warm", "whole")
    assert search.taken("warm") == {
        (1, "b"): "one", (3, "a"): "one", (2, "a"): "two", (2, "b"): "two",
    }  # fmt: skip
    assert {f.seconds_saved for f in search.rounds["warm"]} == {0.0}, "nobody logged them"
    assert [f.reused for f in search.rounds["warm"]] == [("b",), ("a", "b"), ("a",)]


def test_files_hold_no_time_and_no_place(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run("donor")
    search.run("warm", ["donor"])
    for name, content in files_of(tmp_path / "warm").items():
        assert b"donor" not in content, name
        assert b"seconds" not in content, name
        assert str(tmp_path).encode() not in content, name


def test_it_needs_a_run_folder_and_is_checked() -> None:
    def never(model: Any, batch: Any) -> torch.Tensor:
        raise AssertionError("trained")

    with pytest.raises(InvalidArgument, match=r"warm_start .* give run_folder="):
        found(built(MLP), named_groups(MLP), never, warm_start=WarmStart([]))
    with pytest.raises(InvalidArgument, match=r"warm_start must be rtl_plugin\.WarmStart"):
        found(built(MLP), named_groups(MLP), never, warm_start=["there"], run_folder="there")
    with pytest.raises(InvalidArgument, match=r"one path 'there': write WarmStart\(\[folder\]\)"):
        WarmStart("there")
    with pytest.raises(InvalidArgument, match="sequence of run folders, got 3"):
        WarmStart(3)  # type: ignore[arg-type]
    for key in (float("nan"), {1, 2}, object()):
        with pytest.raises(InvalidArgument, match="JSON-able key"):
            WarmStart([], key=key)


def test_what_it_holds() -> None:
    warm = WarmStart(iter(["a", Path("b")]), key=(1, {2: "x"}))
    assert (warm.folders, warm.key) == ((Path("a"), Path("b")), [1, {"2": "x"}])
    assert dataclasses.replace(warm, key=2) == WarmStart(["a", "b"], key=2)
