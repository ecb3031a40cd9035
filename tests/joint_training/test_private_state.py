"""What belongs to one ticket alone: statistics by default, parameters where the user says so."""

from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import Ticket, TicketSet
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.fingerprint import bit_equal
from tests.discovery.setups import (
    CONV,
    MLP,
    NETWORKS,
    built,
    copied,
    cross_entropy,
    named_groups,
    random_tickets,
    same_bits,
    tensors_of,
)
from tests.joint_training.setups import OPTIMIZERS, trained

NORM_STATE = [f"{k}.{n}" for k in (1, 4) for n in ("running_mean", "running_var")]


def test_every_ticket_keeps_the_statistics_of_its_own_batches() -> None:
    model = built(CONV)
    tickets = random_tickets(model)
    buffers = copied(dict(model.named_buffers()))
    trained(model, tickets, named_groups(CONV))
    for ticket in tickets.values():
        assert ticket.state.keys() == buffers.keys()
        assert int(ticket.state["1.num_batches_tracked"]) == 4
    for name in NORM_STATE:
        assert not torch.allclose(tickets["a"].state[name], tickets["b"].state[name]), name
    assert same_bits(dict(model.named_buffers()), buffers), "the model's own stay as they were"


def test_statistics_are_those_of_a_plain_forward_pass_under_the_mask() -> None:
    model = built(CONV)
    tickets = random_tickets(model, "a")
    trained(model, tickets, named_groups(CONV, a=1), epochs=1)
    plain = built(CONV)
    with torch.no_grad():
        for name, mask in tickets["a"].masks.items():
            plain.get_parameter(name).mul_(mask)
    plain.train()(next(iter(named_groups(CONV, a=1)["a"].train))[0])
    assert same_bits(tickets["a"].state, dict(plain.named_buffers()))


def test_statistics_can_be_shared_for_an_ablation() -> None:
    model = built(CONV)
    tickets = random_tickets(model)
    trained(model, tickets, named_groups(CONV), own_statistics=False)
    assert same_bits(tickets["a"].state, tickets["b"].state)
    assert int(tickets["a"].state["1.num_batches_tracked"]) == 8
    assert tickets["a"].state["1.running_mean"] is not tickets["b"].state["1.running_mean"]


def test_a_ticket_without_an_entry_uses_the_models_own() -> None:
    model = built(CONV)
    with torch.no_grad():
        model[1].running_mean.fill_(50.0)
    bare = TicketSet([Ticket("a", random_tickets(model)["a"].masks)])
    trained(model, bare, named_groups(CONV, a=1), epochs=1)
    assert bare["a"].state["1.running_mean"].min() > 40


def test_a_tickets_entry_is_where_it_starts() -> None:
    model = built(CONV)
    tickets = random_tickets(model)
    tickets["b"].state["1.running_mean"].fill_(50.0)
    trained(model, tickets, named_groups(CONV, a=1, b=1), epochs=1)
    assert tickets["b"].state["1.running_mean"].min() > 40
    assert tickets["a"].state["1.running_mean"].max() < 40


def test_buffers_outside_the_state_dict_are_apart_too_but_are_not_state() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls = self.calls + 1
            return self.head(torch.relu(self.inner(x)))

    model, seen = Counting(), []

    def loss(view: Any, batch: Any) -> torch.Tensor:
        value = cross_entropy(view, batch)
        seen.append((batch[2], float(view.calls)))
        return value

    tickets = TicketSet([Ticket(n, {"inner.weight": torch.ones(8, 5).bool()}) for n in "ab"])
    trained(model, tickets, named_groups(MLP), loss, epochs=1)
    assert seen == [("a", 1.0), ("b", 1.0), ("a", 2.0), ("b", 2.0)]
    assert float(model.calls) == 0
    assert tickets["a"].state == {}


@pytest.mark.parametrize(
    ("network", "patterns", "names"),
    [
        ("conv_net", ["[14].weight", "[14].bias"], ["1.weight", "1.bias", "4.weight", "4.bias"]),
        ("mlp", ["4.*"], ["4.weight", "4.bias"]),
        ("resnet", ["*bn*.weight", "fc.*"], ["bn.weight", "fc.weight", "fc.bias"]),
        ("transformer", ["encoder.norm*"], ["encoder.norm1.weight", "encoder.norm2.bias"]),
    ],
)
def test_private_parameters_part_ways(network: str, patterns: list[str], names: list[str]) -> None:
    zoo = NETWORKS[network]
    model = built(zoo)
    tickets, before = random_tickets(model), copied(dict(model.named_parameters()))
    trained(model, tickets, named_groups(zoo), private_parameters=patterns)
    for name in names:
        own = [tickets[ticket].state[name] for ticket in "ab"]
        assert bit_equal(model.get_parameter(name), before[name]), "the model's own is not trained"
        assert not any(torch.equal(value, before[name]) for value in own), name
        assert not torch.equal(*own), name
        assert not any(value.requires_grad for value in own)
    shared = next(iter(tickets.shapes))
    assert not bit_equal(model.get_parameter(shared), before[shared])


def test_private_parameters_have_optimizer_state_of_their_own() -> None:
    model, built_optimizers = built(MLP), []

    def factory(parameters: Any) -> Any:
        built_optimizers.append(OPTIMIZERS["Adam"](parameters))
        return built_optimizers[-1]

    tickets = random_tickets(model)
    trained(
        model,
        tickets,
        named_groups(MLP),
        epochs=3,
        optimizer=factory,
        private_parameters=["4.bias"],
    )
    state = built_optimizers[0].state
    shared = {id(p) for p in model.parameters()}
    steps = [int(entries["step"]) for p, entries in state.items() if id(p) not in shared]
    assert steps == [6, 6], "each counts its own steps"
    assert int(state[model[4].weight]["step"]) == 12, "a dense shared one counts all steps"


def test_a_private_parameter_trains_as_it_would_alone() -> None:
    """The head of ticket a does not depend on b when nothing else is shared between them."""

    def run(names: str) -> TicketSet:
        model = built(MLP)
        halves = torch.rand(8, 5, generator=torch.Generator().manual_seed(0)) < 0.5
        masks = {"a": halves, "b": ~halves}
        tickets = TicketSet([Ticket(n, {"0.weight": masks[n]}) for n in names])
        private = ["0.bias", "2.*", "4.*"]
        groups = named_groups(MLP, **dict.fromkeys(names, 2))
        trained(model, tickets, groups, private_parameters=private)
        return tickets

    assert same_bits(run("ab")["a"].state, run("a")["a"].state)


def test_what_is_private_stays_private_in_a_later_retraining() -> None:
    model, groups = built(MLP), named_groups(MLP)
    tickets = random_tickets(model, known_weights=False)
    trained(model, tickets, groups, private_parameters=["4.bias"])
    first = copied(tickets["a"].state)
    trained(model, tickets, groups, epochs=1)
    assert list(tickets["a"].state) == ["4.bias"]
    assert not bit_equal(first["4.bias"], tickets["a"].state["4.bias"])


def test_a_failed_retraining_makes_nothing_private() -> None:
    model = built(MLP)
    tickets, before = random_tickets(model), tensors_of(model)

    def loss(view: Any, batch: Any) -> torch.Tensor:
        return cross_entropy(view, batch) * float("nan")

    with pytest.raises(FloatingPointError):
        trained(model, tickets, named_groups(MLP), loss, private_parameters=["4.*"])
    assert tickets["a"].state == {}
    assert same_bits(tensors_of(model), before)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            ["9.*"],
            r"private_parameters='9\.\*' matches no parameter; the model has 0\.weight, 0\.b",
        ),
        (["4.bias", "nope"], "private_parameters='nope' matches no parameter"),
        (["2.*"], r"'2\.weight' is masked and cannot be private too.*narrow private_parameters="),
        ("4.*", r"private_parameters takes a list of patterns, got '4\.\*'"),
        (["1.running_mean"], "matches no parameter"),
    ],
)
def test_patterns_that_cannot_be(patterns: Any, message: str) -> None:
    model = built(MLP)
    with pytest.raises(InvalidArgument, match=message):
        trained(model, random_tickets(model), named_groups(MLP), private_parameters=patterns)


def test_a_frozen_parameter_cannot_be_private() -> None:
    model = built(MLP)
    tickets = random_tickets(model)
    model[4].bias.requires_grad_(False)
    with pytest.raises(InvalidArgument, match=r"private parameter '4\.bias' is frozen"):
        trained(model, tickets, named_groups(MLP), private_parameters=["4.*"])
