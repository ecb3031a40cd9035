"""Tickets retrained in turns on shared weights, through the users' evaluators."""

import copy
import itertools
from pathlib import Path
from typing import Any

import nni
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rtl_nni
import rtl_plugin as rtl
from rtl_plugin import Ticket, TicketSet
from rtl_plugin.errors import (
    InvalidArgument,
    PruningFailed,
    StructureMismatch,
    TrainingDiverged,
    UnknownTicket,
)
from rtl_plugin.fingerprint import bit_equal
from rtl_plugin.randomness import forked
from tests.nni.networks import (
    CNN,
    L1,
    LEVEL,
    MLP,
    Network,
    batches,
    cross_entropy,
    evaluators_of,
    pruner_of,
    same_masks,
)
from tests.nni.traits import Before, used

OPTIMIZERS = {
    "adam": lambda ps: nni.trace(torch.optim.Adam)(ps, lr=0.02),
    "adamw": lambda ps: nni.trace(torch.optim.AdamW)(ps, lr=0.02, weight_decay=0.5),
    "sgd": lambda ps: nni.trace(torch.optim.SGD)(ps, lr=0.1, momentum=0.9, weight_decay=0.1),
}
PRUNED = {"small_cnn": ("0", "3"), "mlp": ("0", "2")}


def random_tickets(network: Network, model: nn.Module, names: str = "ab") -> TicketSet:
    masks = {}
    for name in names:
        with forked(ord(name)):
            masks[name] = {
                layer: {
                    "weight": (
                        torch.rand_like(model.get_parameter(f"{layer}.weight")) < 0.5
                    ).float()
                }
                for layer in PRUNED[network.name]
            }
    return TicketSet.from_nni(masks, model)


def disjoint_tickets(model: nn.Module) -> TicketSet:
    """Two tickets over every parameter that share no weight."""
    with forked(0):
        first = {n: torch.rand(p.shape) < 0.5 for n, p in model.named_parameters()}
    return TicketSet([Ticket("a", first), Ticket("b", {n: ~m for n, m in first.items()})])


class Turns:
    """A training step that notes the weights at the start of every turn."""

    def __init__(self, steps: int) -> None:
        self.steps, self.calls = steps, 0
        self.starts: list[dict[str, torch.Tensor]] = []

    def __call__(self, batch: Any, model: nn.Module) -> torch.Tensor:
        if self.calls % self.steps == 0:
            tensors = [*model.named_parameters(), *model.named_buffers()]
            self.starts.append(
                {n.replace("_nni_wrapper.", ""): v.detach().clone() for n, v in tensors}
            )
        self.calls += 1
        return cross_entropy(batch, model)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", [CNN, MLP], ids=lambda n: n.name)
def test_a_turn_moves_the_tickets_own_weights_only(network: Network, optimizer: str) -> None:
    model = network.build()
    tickets, noted = random_tickets(network, model), Turns(steps=3)
    evaluators = evaluators_of(
        network, model, "ab", training_step=noted, optimizer=OPTIMIZERS[optimizer]
    )
    rtl_nni.retrain(model, tickets, evaluators, turns=3, steps=3)
    states = [*noted.starts, {n: p.detach() for n, p in model.named_parameters()}]
    assert len(noted.starts) == 6
    for turn, (before, after) in enumerate(itertools.pairwise(states)):
        for name, mask in tickets["ab"[turn % 2]].masks.items():
            assert bit_equal(after[name][~mask], before[name][~mask]), (turn, name)
            assert not bit_equal(after[name][mask], before[name][mask]), (turn, name)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_disjoint_tickets_train_as_if_alone(optimizer: str) -> None:
    together = MLP.build()
    tickets = disjoint_tickets(together)
    settings = {"optimizer": OPTIMIZERS[optimizer]}
    rtl_nni.retrain(
        together, tickets, evaluators_of(MLP, together, "ab", **settings), turns=2, steps=4
    )
    for name in "ab":
        alone = MLP.build()
        own = TicketSet([Ticket(name, tickets[name].masks)])
        rtl_nni.retrain(alone, own, evaluators_of(MLP, alone, name, **settings), turns=2, steps=4)
        for parameter, mask in tickets[name].masks.items():
            values = together.get_parameter(parameter)[mask]
            assert bit_equal(values, alone.get_parameter(parameter)[mask]), parameter


def test_own_statistics_are_renewed_and_the_models_stay() -> None:
    model = used(CNN)
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    tickets = random_tickets(CNN, model)
    rtl_nni.retrain(model, tickets, evaluators_of(CNN, model, "ab"), turns=2, steps=3)
    assert all(bit_equal(b, buffers[name]) for name, b in model.named_buffers())
    first = int(buffers["1.num_batches_tracked"])
    for ticket in tickets.values():
        assert int(ticket.state["1.num_batches_tracked"]) == first + 6
        assert not torch.equal(ticket.state["1.running_mean"], buffers["1.running_mean"])
    assert not torch.equal(
        tickets["a"].state["1.running_mean"], tickets["b"].state["1.running_mean"]
    )


def test_everything_else_about_the_model_stays() -> None:
    model = used(CNN)
    before = Before(model)
    rtl_nni.retrain(
        model, random_tickets(CNN, model), evaluators_of(CNN, model, "ab"), turns=1, steps=2
    )
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad or bit_equal(parameter, before.values[name])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(before.values[name])
    before.check()


def test_masks_stay() -> None:
    model = MLP.build()
    tickets = random_tickets(MLP, model)
    before = {name: tickets.to_nni(name) for name in tickets}
    rtl_nni.retrain(model, tickets, evaluators_of(MLP, model, "ab"), turns=1, epochs=2)
    assert all(same_masks(before[name], tickets.to_nni(name)) for name in tickets)


def test_retraining_learns() -> None:
    model = MLP.build()
    tickets = random_tickets(MLP, model)

    def loss(name: str) -> float:
        masked = copy.deepcopy(model)
        with torch.no_grad():
            for parameter, mask in tickets[name].masks.items():
                masked.get_parameter(parameter).mul_(mask)
        return sum(cross_entropy(batch, masked).item() for batch in batches(MLP, name))

    before = {name: loss(name) for name in "ab"}
    rtl_nni.retrain(model, tickets, evaluators_of(MLP, model, "ab"), turns=10, steps=3)
    assert all(loss(name) < before[name] for name in "ab")


class Stumbling:
    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def __call__(self, batch: Any, model: nn.Module) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return cross_entropy(batch, model)


@pytest.mark.parametrize("at", [1, 2, 4, 8])
def test_a_crash_leaves_model_and_tickets_as_before(at: int) -> None:
    model = used(CNN)
    tickets = random_tickets(CNN, model)
    states = {n: {k: v.clone() for k, v in t.state.items()} for n, t in tickets.items()}
    before = Before(model)
    evaluators = evaluators_of(CNN, model, "ab", training_step=Stumbling(at))
    with pytest.raises(KeyboardInterrupt):
        rtl_nni.retrain(model, tickets, evaluators, turns=2, steps=2)
    before.check()
    for name, state in states.items():
        assert set(tickets[name].state) == set(state)
        assert all(bit_equal(tickets[name].state[k], v) for k, v in state.items())
    assert all(evaluator.model is None for evaluator in evaluators.values())
    rtl_nni.retrain(model, tickets, evaluators, turns=1, steps=2)


def test_weights_that_became_nan() -> None:
    def exploding(batch: Any, model: nn.Module) -> torch.Tensor:
        return cross_entropy(batch, model) * float("inf")

    model = used(MLP)
    before = Before(model)
    evaluators = evaluators_of(MLP, model, "ab", training_step=exploding)
    with pytest.raises(TrainingDiverged, match="retrain, group 'a', turn 1"):
        rtl_nni.retrain(model, random_tickets(MLP, model), evaluators, turns=1, steps=1)
    before.check()


def test_weights_that_did_not_move() -> None:
    model = MLP.build()
    evaluators = evaluators_of(MLP, model, "ab", training_func=lambda *_, **__: None)
    with pytest.raises(PruningFailed, match="retrain, group 'a', turn 1: 3 weights did not move"):
        rtl_nni.retrain(model, random_tickets(MLP, model), evaluators, turns=1, steps=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"turns": 0, "steps": 1}, "turns"),
        ({"turns": 1}, "steps= of at least 1, or epochs="),
        ({"turns": 1, "steps": 0}, "steps= of at least 1, or epochs="),
        ({"turns": 1, "steps": 1, "epochs": 1}, "not both"),
        ({"turns": 1, "epochs": 0}, "epochs"),
        ({"turns": 1, "steps": 1, "seed": -1}, "seed"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    model = MLP.build()
    with pytest.raises(InvalidArgument, match=message):
        rtl_nni.retrain(
            model, random_tickets(MLP, model), evaluators_of(MLP, model, "ab"), **arguments
        )


@pytest.mark.parametrize("names", ["a", "abc", "xy"])
def test_evaluators_of_other_groups(names: str) -> None:
    model = MLP.build()
    with pytest.raises(UnknownTicket, match="give one evaluator a ticket"):
        rtl_nni.retrain(
            model, random_tickets(MLP, model), evaluators_of(MLP, model, names), turns=1, steps=1
        )


def test_an_evaluator_made_for_a_copy() -> None:
    model, other = MLP.build(), MLP.build()
    evaluators = evaluators_of(MLP, model, "ab")
    from nni.compression.utils.evaluator import TorchEvaluator

    from tests.nni.networks import sgd

    evaluators["b"] = TorchEvaluator(lambda *_: None, sgd(other.parameters()), cross_entropy)
    with pytest.raises(InvalidArgument, match="evaluator of 'b': 6 of the 6 parameters"):
        rtl_nni.retrain(model, random_tickets(MLP, model), evaluators, turns=1, steps=1)


def test_tickets_of_another_network() -> None:
    model = CNN.build()
    with pytest.raises(StructureMismatch):
        rtl_nni.retrain(
            model, random_tickets(MLP, MLP.build()), evaluators_of(CNN, model, "ab"),
            turns=1, steps=1,
        )  # fmt: skip


def test_a_model_that_is_wrapped() -> None:
    model = MLP.build()
    tickets = random_tickets(MLP, model)
    evaluators = evaluators_of(MLP, model, "ab")
    LEVEL.source(model, MLP.config())
    with pytest.raises(InvalidArgument, match="still wrapped"):
        rtl_nni.retrain(model, tickets, evaluators, turns=1, steps=1)


def test_masks_that_nni_cannot_apply() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 4))
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters()}
    masks["1.weight"][0] = False
    tickets = TicketSet([Ticket("a", masks)])
    with pytest.raises(InvalidArgument, match=r"cannot mask .* ticket 'a'.*rtl_plugin\.retrain"):
        rtl_nni.retrain(model, tickets, evaluators_of(MLP, model, "a"), turns=1, steps=1)


@pytest.fixture(scope="module")
def found() -> tuple[nn.Module, Any]:
    model = CNN.build()
    pruner = pruner_of(CNN, model, L1, 12, names="ab")
    pruner.compress()
    return model, pruner


def test_other_weights_than_those_the_tickets_were_found_on(found: Any) -> None:
    _, pruner = found
    other = CNN.build(9)
    evaluators = evaluators_of(CNN, other, "ab")
    with pytest.raises(StructureMismatch, match="allow_other_weights=True"):
        rtl_nni.retrain(other, pruner.tickets, evaluators, turns=1, steps=1)
    with forked(0):
        rtl_nni.retrain(
            other, copy.deepcopy(pruner.tickets), evaluators, turns=1, steps=1,
            allow_other_weights=True,
        )  # fmt: skip


def core_loss(model: Any, batch: Any) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def test_the_cores_retraining_takes_tickets_of_nni(found: Any, tmp_path: Path) -> None:
    """Found with NNI, saved, loaded, retrained and served by the core."""
    model, pruner = copy.deepcopy(found[0]), found[1]
    pruner.tickets.save(tmp_path / "tickets.rtl")
    tickets = TicketSet.load(tmp_path / "tickets.rtl")
    assert tickets.theta_0 == pruner.tickets.theta_0
    groups = rtl.DataGroups.from_loaders({name: batches(CNN, name) for name in "ab"})
    rtl.retrain(
        model, tickets, groups, core_loss, epochs=2, optimizer=lambda ps: torch.optim.SGD(ps, 0.1)
    )
    mixture = rtl.MixtureOfMasks(model, tickets).eval()
    inputs = CNN.inputs(4)
    served = mixture(inputs, tickets=["a", "b", "a", "b"])
    for name in "ab":
        by_hand = copy.deepcopy(model).eval()
        by_hand.load_state_dict({**by_hand.state_dict(), **tickets[name].state})
        with torch.no_grad():
            for parameter, mask in tickets[name].masks.items():
                by_hand.get_parameter(parameter).mul_(mask)
        rows = [row for row, ticket in enumerate("abab") if ticket == name]
        assert torch.allclose(served[rows], by_hand(inputs[rows]), atol=1e-5)


def test_a_late_rewind_point_is_where_retraining_starts() -> None:
    model = CNN.build()
    pruner = pruner_of(CNN, model, L1, 12, names="ab", rewind_to=4)
    pruner.compress()
    noted = Turns(steps=1)
    evaluators = evaluators_of(CNN, model, "ab", training_step=noted)
    rtl_nni.retrain(model, pruner.tickets, evaluators, turns=1, steps=1)
    state = pruner.tickets.rewind_state
    assert state is not None
    for name, _ in model.named_parameters():
        assert bit_equal(noted.starts[0][name], state[name])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_seed_makes_it_repeatable(optimizer: str) -> None:
    from torch.utils.data import DataLoader, TensorDataset

    results = []
    for outside in (1, 2):
        model = MLP.build()
        with forked(3):
            data = TensorDataset(MLP.inputs(20), torch.randint(4, (20,)))
        loaders = {name: DataLoader(data, batch_size=4, shuffle=True) for name in "ab"}
        evaluators = evaluators_of(MLP, model, loaders=loaders, optimizer=OPTIMIZERS[optimizer])
        with forked(outside):
            rtl_nni.retrain(model, random_tickets(MLP, model), evaluators, turns=2, steps=3, seed=5)
        results.append(dict(model.named_parameters()))
    assert all(bit_equal(p, results[1][name]) for name, p in results[0].items())
