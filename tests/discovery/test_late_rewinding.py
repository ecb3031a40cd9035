"""rewind_to=t: one common rewind point after t dense steps, kept with the tickets."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import TicketSet, retrain
from rtl_plugin.errors import InvalidArgument, InvalidLoss, MaskBypassed, TrainingDiverged
from rtl_plugin.fingerprint import bit_equal, model_values
from tests.discovery.setups import (
    CONV,
    MLP,
    Interrupting,
    NotFinite,
    adam,
    built,
    copied,
    cross_entropy,
    files_of,
    found,
    named_groups,
    same_bits,
    sgd,
    shuffled_groups,
    tensors_of,
)
from tests.models import ZOO, Network


class Recording:
    """Notes what the loss sees at every call."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []

    def __call__(self, model: Any, batch: Any) -> torch.Tensor:
        parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        self.seen.append((batch[2], copied(parameters), copied(buffers)))
        return cross_entropy(model, batch)


@pytest.mark.parametrize("network", ZOO, ids=str)
def test_every_round_and_group_starts_from_one_common_state(network: Network) -> None:
    model, recording = built(network), Recording()
    before = tensors_of(model)
    tickets = found(model, named_groups(network), recording, rewind_to=3)
    assert same_bits(tensors_of(model), before)
    assert [group for group, _, _ in recording.seen] == ["a", "b", "a", *"aabbaabb"]
    assert tickets.rewind_state is not None
    assert tickets.rewind_state.keys() == model.state_dict().keys()
    for name in tickets.shapes:
        assert not bit_equal(tickets.rewind_state[name], before[name]), "three steps have moved it"
    for start in recording.seen[3::2]:  # two steps a (round, group)
        group, parameters, buffers = start
        for name, value in {**parameters, **buffers}.items():
            kept = tickets[group].masks.get(name, ...)
            assert bit_equal(value[kept], tickets.rewind_state[name][kept]), name
    for ticket in tickets.values():
        for name, value in ticket.state.items():
            assert bit_equal(value, tickets.rewind_state[name]), "state is that of the rewind point"
    assert tickets.theta_0 == model_values(model), "the fingerprint stays that of step 0"


def test_the_dense_steps_are_ordinary_training_on_the_groups_in_turn() -> None:
    tickets = found(built(CONV), named_groups(CONV), optimizer=adam, rewind_to=3)
    model, groups = built(CONV), named_groups(CONV)
    optimizer = adam(list(model.parameters()))
    batches = {name: iter(group.train) for name, group in groups.items()}
    for name in "aba":
        cross_entropy(model, next(batches[name])).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert tickets.rewind_state is not None
    assert same_bits(tickets.rewind_state, model.state_dict())


def test_retrain_starts_from_the_rewind_state() -> None:
    model, recording = built(CONV), Recording()
    tickets = found(model, named_groups(CONV), rewind_to=2)
    retrain(model, tickets, named_groups(CONV), recording, epochs=1, optimizer=sgd, progress=False)
    _, parameters, buffers = recording.seen[0]
    assert tickets.rewind_state is not None
    for name, value in {**parameters, **buffers}.items():
        kept = tickets["a"].masks.get(name, ...)
        assert bit_equal(value[kept], tickets.rewind_state[name][kept]), name


def test_a_failed_retraining_can_be_called_again() -> None:
    """The check against theta_0 must not trip over weights that the failed call installed."""
    model, groups = built(MLP), named_groups(MLP)
    tickets, before = found(model, groups, rewind_to=2), tensors_of(model)
    settings: dict[str, Any] = {"epochs": 1, "optimizer": sgd, "progress": False}
    with pytest.raises(TrainingDiverged):
        retrain(model, tickets, groups, NotFinite(float("nan"), "b", 1), **settings)
    assert same_bits(tensors_of(model), before)
    retrain(model, tickets, groups, cross_entropy, **settings)
    other = built(MLP)
    retrain(other, found(other, groups, rewind_to=2), groups, cross_entropy, **settings)
    assert same_bits(tensors_of(model), tensors_of(other))


def test_other_weights_on_purpose_are_not_rewound() -> None:
    model, recording = built(MLP, seed=1), Recording()
    tickets = found(built(MLP), named_groups(MLP), rewind_to=2)
    start = copied(dict(model.named_parameters()))
    retrain(
        model, tickets, named_groups(MLP), recording, epochs=1, optimizer=sgd, progress=False,
        allow_other_weights=True,
    )  # fmt: skip
    for name, value in recording.seen[0][1].items():
        kept = tickets["a"].masks.get(name, ...)
        assert bit_equal(value[kept], start[name][kept]), name


def test_the_rewind_state_is_saved_and_read_back(tmp_path: Path) -> None:
    tickets = found(built(CONV), named_groups(CONV), rewind_to=2, run_folder=tmp_path)
    tickets.save(tmp_path / "mine.safetensors")
    for path in (tmp_path / "mine.safetensors", tmp_path / "discover" / "tickets.safetensors"):
        loaded = TicketSet.load(path)
        assert loaded.rewind_state is not None
        assert tickets.rewind_state is not None
        assert same_bits(loaded.rewind_state, tickets.rewind_state)
        assert loaded.schedule is not None
        assert loaded.schedule["rewind_to"] == 2


def test_without_late_rewinding_nothing_is_kept() -> None:
    assert found(built(MLP), named_groups(MLP)).rewind_state is None


class Counting(nn.Module):
    """Adds a buffer that is not in the state_dict and moves in every forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.register_buffer("offset", torch.zeros(8), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.offset += 0.5  # type: ignore[operator]
        return self.head(torch.relu(self.inner(x) + self.offset))


@pytest.mark.parametrize("model_kind", ["conv_net", "counting"])
def test_killed_while_rewinding_or_after_it_ends_bit_identical(
    model_kind: str, tmp_path: Path
) -> None:
    def fresh() -> nn.Module:
        torch.manual_seed(0)
        return built(CONV) if model_kind == "conv_net" else Counting()

    network = CONV if model_kind == "conv_net" else MLP

    def run(folder: str, loss: Any) -> None:
        found(fresh(), shuffled_groups(network), loss, rewind_to=3, run_folder=tmp_path / folder)

    run("whole", Interrupting())
    whole = files_of(tmp_path / "whole")
    assert "discover/rewind.safetensors" in whole
    for at, left in ((2, 11), (4, 8), (8, 4)):
        with pytest.raises(KeyboardInterrupt):
            run(f"cut-{at}", Interrupting(at))
        resumed = Interrupting()
        run(f"cut-{at}", resumed)
        assert resumed.calls == left, "the rewind point and finished rounds are not trained again"
        assert files_of(tmp_path / f"cut-{at}") == whole


def test_a_loss_that_is_not_finite_is_named_and_leaves_no_rewind_point(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingDiverged, match=r"late rewinding, group 'b', round 0, step 2: the loss is nan"
    ):
        found(
            built(MLP), named_groups(MLP), NotFinite(float("nan"), "b", 2), rewind_to=5,
            run_folder=tmp_path,
        )  # fmt: skip
    assert list(files_of(tmp_path)) == ["discover/arguments.json"]


def test_a_useless_loss_leaves_no_rewind_point(tmp_path: Path) -> None:
    other, model = built(MLP), built(MLP)
    for used, error, message in (
        (other, InvalidLoss, "late rewinding, group 'a', round 0: no prunable parameter"),
        (model, MaskBypassed, "late rewinding, group 'a', round 0: the loss used the model's own"),
    ):
        with pytest.raises(error, match=re.escape(message)):
            found(
                model, named_groups(MLP), lambda _, batch, used=used: cross_entropy(used, batch),
                rewind_to=1, run_folder=tmp_path / error.__name__,
            )  # fmt: skip
        assert list(files_of(tmp_path / error.__name__)) == ["discover/arguments.json"]


@pytest.mark.parametrize("rewind_to", [-1, 1.0, True, None])
def test_rewind_to_must_be_a_whole_number(rewind_to: Any) -> None:
    with pytest.raises(InvalidArgument, match="rewind_to must be a whole number of at least 0"):
        found(built(MLP), named_groups(MLP), rewind_to=rewind_to)
