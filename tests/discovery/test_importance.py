"""The importance contract: three built-in ways against hand computation, and bad objects."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from rtl_plugin import Importance, OneShotSchedule
from rtl_plugin.discovery.importance import (
    Magnitude,
    Random,
    WeightGradient,
    checked_scores,
    importance_from,
)
from rtl_plugin.discovery.keep_top import keep_top
from rtl_plugin.errors import InvalidArgument, TrainingDiverged
from rtl_plugin.randomness import forked
from tests.discovery.setups import (
    CONV,
    MLP,
    NotFinite,
    built,
    copied,
    cross_entropy,
    found,
    named_groups,
    same_bits,
    sgd,
    shuffled_groups,
)

ONCE: dict[str, Any] = {"schedule": OneShotSchedule(0.5), "steps": 3}


class Recording:
    """An importance that notes what it is given."""

    def __init__(self, needs_gradients: bool) -> None:
        self.needs_gradients = needs_gradients
        self.given: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []

    def scores(self, values: Any, gradients: Any) -> Any:
        self.given.append((copied(values), copied(gradients)))
        return {name: value.abs() for name, value in values.items()}


def trained_by_hand(network: Any, group: str, steps: int) -> Any:
    """The network after ordinary training on a group's batches, and those batches."""
    model = built(network)
    batches = list(named_groups(network)[group].train)
    optimizer = sgd(list(model.parameters()))
    for step in range(steps):
        optimizer.zero_grad()
        cross_entropy(model, batches[step % len(batches)]).backward()
        optimizer.step()
    return model, batches


@pytest.mark.parametrize("network", [MLP, CONV], ids=str)
def test_magnitude_ranks_the_trained_weights(network: Any) -> None:
    recording = Recording(needs_gradients=False)
    tickets = found(built(network), named_groups(network), importance=recording, **ONCE)
    model, _ = trained_by_hand(network, "b", 3)
    trained = {name: model.get_parameter(name).detach() for name in tickets.shapes}
    values, gradients = recording.given[1]
    assert same_bits(values, trained)
    assert gradients == {}
    alive = {name: torch.ones_like(value, dtype=torch.bool) for name, value in trained.items()}
    scores = {name: value.abs() for name, value in trained.items()}
    expected = keep_top(scores, alive, tickets["b"].kept, dict.fromkeys(alive, 1)).masks
    assert same_bits(tickets["b"].masks, expected)
    named = found(built(network), named_groups(network), importance="magnitude", **ONCE)
    assert same_bits(named["b"].masks, expected)


def test_gradients_are_the_mean_over_one_pass_at_the_trained_weights() -> None:
    recording = Recording(needs_gradients=True)
    groups = named_groups(MLP, a=2, b=2)
    tickets = found(built(MLP), groups, importance=recording, **ONCE)
    model, batches = trained_by_hand(MLP, "b", 3)
    for parameter in model.parameters():
        parameter.grad = None
    for batch in batches:
        cross_entropy(model, batch).backward()
    values, gradients = recording.given[1]
    for name in tickets.shapes:
        parameter = model.get_parameter(name)
        assert torch.equal(values[name], parameter)
        assert torch.equal(gradients[name], parameter.grad / len(batches)), name
    by_name = found(built(MLP), groups, importance="weight_gradient", **ONCE)
    scores = {n: (values[n] * gradients[n]).abs() for n in tickets.shapes}
    alive = {name: torch.ones_like(value, dtype=torch.bool) for name, value in scores.items()}
    expected = keep_top(scores, alive, by_name["b"].kept, dict.fromkeys(alive, 1)).masks
    assert same_bits(by_name["b"].masks, expected)
    assert not same_bits(by_name["b"].masks, tickets["b"].masks)


def test_the_pass_for_gradients_sees_every_sample_once_wherever_training_stopped() -> None:
    seen: list[torch.Tensor] = []

    def loss(model: Any, batch: Any) -> torch.Tensor:
        seen.append(batch[0])
        return cross_entropy(model, batch)

    groups = shuffled_groups(MLP, size=12)
    found(built(MLP), groups, loss, importance="weight_gradient", **{**ONCE, "steps": 4})
    passed = torch.cat(seen[4:7])  # group a: four steps, then one pass of three batches
    everything = groups["a"].train.dataset.inputs  # type: ignore[attr-defined]
    assert passed.shape == everything.shape
    assert sorted(passed.tolist()) == sorted(everything.tolist())


def test_gradients_outside_the_mask_are_zero_and_unused_weights_have_none() -> None:
    recording = Recording(needs_gradients=True)
    tickets = found(built(MLP), named_groups(MLP), importance=recording)
    _, gradients = recording.given[2]  # group a in round 2
    zeros = sum(int((gradient == 0).sum()) for gradient in gradients.values())
    assert zeros >= 104 - tickets.history[0]["kept"] > 0


def test_a_loss_that_turns_bad_in_the_pass_for_gradients_is_named() -> None:
    with pytest.raises(TrainingDiverged, match=r"discover, group 'b', round 1, step 2: .* inf"):
        found(
            built(MLP), named_groups(MLP), NotFinite(float("inf"), "b", 5),
            importance="weight_gradient", **ONCE,
        )  # fmt: skip


def test_random_scores_depend_on_the_seed_the_round_and_the_group_alone() -> None:
    def masks(seed: int, callers: int) -> Any:
        torch.manual_seed(callers)
        return found(built(MLP), named_groups(MLP), importance="random", seed=seed)

    first, again, other = masks(0, 1), masks(0, 2), masks(1, 1)
    for name in "ab":
        assert same_bits(first[name].masks, again[name].masks)
        assert not same_bits(first[name].masks, other[name].masks)
    assert not same_bits(first["a"].masks, first["b"].masks)


def test_the_built_in_scores() -> None:
    values = {"w": torch.tensor([-2.0, 0.5]), "v": torch.tensor([[3.0]])}
    gradients = {"w": torch.tensor([0.1, -4.0]), "v": torch.tensor([[0.0]])}
    assert Magnitude().scores(values, {})["w"].tolist() == [2.0, 0.5]
    assert WeightGradient().scores(values, gradients)["w"].tolist() == pytest.approx([0.2, 2.0])
    assert WeightGradient().scores(values, gradients)["v"].tolist() == [[0.0]]
    with forked(0):
        scores = Random().scores(values, {})
    assert {name: score.shape for name, score in scores.items()} == {"w": (2,), "v": (1, 1)}
    assert all(isinstance(kind(), Importance) for kind in (Magnitude, WeightGradient, Random))


class Giving:
    needs_gradients = False

    def __init__(self, change: Any) -> None:
        self._change = change

    def scores(self, values: Any, gradients: Any) -> Any:
        return self._change({name: value.abs() for name, value in values.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {n: s[n] for n in list(s)[1:]},
            r"'0\.weight' a tensor of shape \(8, 5\), got No",
        ),
        (lambda s: {**s, "2.weight": torch.ones(8)}, r"'2\.weight' .* \(8, 8\), got \(8,\)"),
        (lambda s: {**s, "2.weight": 3.0}, r"'2\.weight' .* \(8, 8\), got 3\.0"),
        (lambda s: {**s, "2.weight": s["2.weight"] * float("nan")}, r"NaN scores for '2\.weight'"),
        (lambda s: list(s.values()), r"Giving\.scores must return name -> tensor"),
        (lambda s: None, r"Giving\.scores must return name -> tensor, got None"),
    ],
)
def test_scores_that_cannot_rank_are_refused(change: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        found(built(MLP), named_groups(MLP), importance=Giving(change))


def test_scores_of_other_names_and_infinite_scores_are_fine() -> None:
    def change(scores: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**scores, "0.weight": torch.full((8, 5), float("inf")), "more": torch.ones(1)}

    tickets = found(built(MLP), named_groups(MLP), importance=Giving(change))
    assert bool(tickets["a"].masks["0.weight"].all())


def test_scores_do_not_keep_the_graph() -> None:
    weight = torch.ones(2, requires_grad=True)
    given = checked_scores(Giving(lambda s: {"w": weight * 2}), {"w": torch.ones(2)}, {})
    assert not given["w"].requires_grad


class NoScores:
    needs_gradients = False


class NoFlag:
    def scores(self, values: Any, gradients: Any) -> Mapping[str, torch.Tensor]:
        return {}


@pytest.mark.parametrize("importance", [NoScores(), NoFlag(), Magnitude, 3, None, lambda v: v])
def test_an_object_that_does_not_fill_the_contract(importance: Any) -> None:
    with pytest.raises(InvalidArgument, match="importance= takes a name or an object with"):
        found(built(MLP), named_groups(MLP), importance=importance)


def test_an_unknown_name() -> None:
    with pytest.raises(
        InvalidArgument,
        match="unknown importance 'size': one of magnitude, weight_gradient, random",
    ):
        importance_from("size")
