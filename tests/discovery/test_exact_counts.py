"""Every ticket keeps exactly its count in every round, and the floors say when they bind."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import (
    CubicSchedule,
    FixedCountSchedule,
    GeometricSchedule,
    LinearSchedule,
    OneShotSchedule,
    SparsitySchedule,
    TicketSet,
)
from rtl_plugin.discovery.sparsity_schedules import survivors
from rtl_plugin.errors import InvalidArgument
from tests.discovery.setups import MLP, Interrupting, built, files_of, found, named_groups
from tests.models import ZOO, Network

SCHEDULES = [
    GeometricSchedule(0.7, rounds=3),
    LinearSchedule(0.61, rounds=2),
    CubicSchedule(0.55, rounds=3),
    FixedCountSchedule(31, sparsity=0.47),
    OneShotSchedule(0.9),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("network", ZOO, ids=str)
def test_every_round_keeps_exactly_its_count(
    network: Network, schedule: SparsitySchedule, tmp_path: Path
) -> None:
    model = built(network)
    tickets = found(model, named_groups(network), schedule=schedule, steps=1, run_folder=tmp_path)
    total = sum(mask.numel() for mask in tickets["a"].masks.values())
    rounds = schedule.rounds_for(total)
    expected = [survivors(schedule.sparsity(r, total), total) for r in range(1, rounds + 1)]
    for k, name in enumerate("ab"):
        assert tickets[name].kept == expected[-1]
        masks = []
        for r in range(1, rounds + 1):
            path = tmp_path / "discover" / f"round-{r:04d}-group-{k:04d}.safetensors"
            masks.append(TicketSet.load(path)[name].masks)
            assert sum(int(mask.sum()) for mask in masks[-1].values()) == expected[r - 1]
        for earlier, later in itertools.pairwise(masks):
            for n in earlier:
                assert not bool((later[n] & ~earlier[n]).any()), "a pruned weight stays pruned"
    assert [(row["round"], row["group"], row["kept"]) for row in tickets.history] == [
        (r, name, expected[r - 1]) for r in range(1, rounds + 1) for name in "ab"
    ]


def test_the_report_says_what_was_asked_and_what_came() -> None:
    tickets = found(built(MLP), named_groups(MLP), schedule=GeometricSchedule(0.75, rounds=2))
    for row in tickets.history:
        asked = {1: 0.5, 2: 0.75}[row["round"]]
        assert row["asked"] == pytest.approx(asked)
        assert row["achieved"] == 1 - row["kept"] / 104
        assert abs(row["achieved"] - asked) <= 0.5 / 104
        assert row["loss"] > 0
        assert row["at_floor"] == []
        assert "seconds" not in row, "times live in the log alone"
    assert tickets.schedule == {
        "kind": "GeometricSchedule", "sparsity": 0.75, "rounds": 2, "rewind_to": 0,
    }  # fmt: skip


def lopsided() -> nn.Module:
    """Tiny weights in one tensor: a global ranking would empty it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight.mul_(1e-4)
    return model


def slow(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 1e-6)


def test_a_floor_that_binds_is_reported_and_does_not_change_the_total() -> None:
    settings: dict[str, Any] = {"schedule": OneShotSchedule(0.75), "optimizer": slow, "steps": 1}
    tickets = found(lopsided(), named_groups(MLP), floor=0.1, **settings)
    for row, ticket in zip(tickets.history, tickets.values(), strict=True):
        assert ticket.kept == 26
        assert int(ticket.masks["0.weight"].sum()) == 4  # a tenth of 40
        assert row["at_floor"] == ["0.weight"]
    open_floor = found(lopsided(), named_groups(MLP), floor=0, **settings)
    for row, ticket in zip(open_floor.history, open_floor.values(), strict=True):
        assert ticket.kept == 26
        assert ticket.empty_masks == ("0.weight",)
        assert row["at_floor"] == []
    # The floor's weights are the best of their tensor, paid for by the worst of the others.
    with_floor, without = tickets["a"].masks["2.weight"], open_floor["a"].masks["2.weight"]
    assert not bool((with_floor & ~without).any())


def test_by_default_no_layer_is_emptied() -> None:
    tickets = found(
        lopsided(), named_groups(MLP), schedule=OneShotSchedule(0.9), optimizer=slow, steps=1
    )
    assert tickets["a"].empty_masks == ()
    assert int(tickets["a"].masks["0.weight"].sum()) == 1


def test_floors_above_the_target_are_an_error_before_any_training(tmp_path: Path) -> None:
    loss = Interrupting()
    with pytest.raises(
        InvalidArgument,
        match=r"OneShotSchedule\(sparsity=0.9\) leaves 10 of 104 weights, but the floors of the "
        r"tensors add up to 21: lower the sparsity or floor=",
    ):
        found(
            built(MLP), named_groups(MLP), loss, schedule=OneShotSchedule(0.9), floor=0.2,
            run_folder=tmp_path,
        )  # fmt: skip
    assert loss.calls == 0
    assert files_of(tmp_path) == {}


def test_a_ticket_that_would_keep_nothing_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match="leaves 0 of 104 weights"):
        found(built(MLP), named_groups(MLP), schedule=OneShotSchedule(0.999), floor=0)


@pytest.mark.parametrize(
    ("schedule", "round"),
    [
        (GeometricSchedule(0.02, rounds=9), 1),
        (CubicSchedule(0.5, rounds=30), 19),
        (OneShotSchedule(0.001), 1),
    ],
    ids=repr,
)
def test_a_round_that_would_prune_nothing_is_an_error(
    schedule: SparsitySchedule, round: int
) -> None:
    loss = Interrupting()
    message = rf"prunes nothing in round {round} of \d+: \d+ of 104 weights before and after"
    with pytest.raises(InvalidArgument, match=message):
        found(built(MLP), named_groups(MLP), loss, schedule=schedule)
    assert loss.calls == 0


def test_equal_weights_are_pruned_by_index() -> None:
    model = built(MLP)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.25)

    def still(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, 0.0)

    tickets = found(model, named_groups(MLP), optimizer=still, schedule=OneShotSchedule(0.5))
    for ticket in tickets.values():
        kept = torch.cat([mask.flatten() for mask in ticket.masks.values()]).tolist()
        # 52 of 104, the first ones; the floor's one weight of the last tensor is there by then.
        assert kept == [True] * 52 + [False] * 52


def test_two_networks_of_other_sizes_have_other_counts() -> None:
    kept = {str(network): found(built(network), named_groups(network))["a"].kept for network in ZOO}
    assert kept == {"conv_net": 101, "mlp": 42, "resnet": 488, "transformer": 102}
