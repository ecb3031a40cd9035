"""What retrain refuses, what it reports, and that it leaves no trace in the caller's process."""

from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import DataGroups, TicketSet
from rtl_plugin.errors import (
    InvalidArgument,
    InvalidGroups,
    StructureMismatch,
)
from tests.discovery.setups import (
    CONV,
    MLP,
    Interrupting,
    built,
    cross_entropy,
    draw_from_all,
    found,
    named_groups,
    random_states,
    random_tickets,
    same_bits,
    shuffled_groups,
    tensors_of,
)
from tests.joint_training.setups import OPTIMIZERS, trained


def refused(error: type[Exception], message: str, **arguments: Any) -> None:
    """The call is refused without a step and without a change."""
    model, loss = built(MLP), Interrupting()
    call = {"model": model, "tickets": random_tickets(model), "groups": named_groups(MLP),
            "loss": loss, **arguments}  # fmt: skip
    before = tensors_of(call["model"])
    with pytest.raises(error, match=message):
        trained(**call)
    assert loss.calls == 0
    assert same_bits(tensors_of(call["model"]), before)


def test_tickets_and_groups_in_this_order() -> None:
    model = built(MLP)
    message = "retrain takes a TicketSet and DataGroups, in this order"
    refused(InvalidArgument, message, tickets=named_groups(MLP), groups=random_tickets(model))
    refused(InvalidArgument, message, groups={"a": [1]})
    refused(InvalidArgument, message, tickets=list(random_tickets(model).values()))


def test_loss_must_be_callable() -> None:
    refused(InvalidArgument, r"loss must be callable as loss\(model, batch\), got None", loss=None)


@pytest.mark.parametrize("names", ["a", "abc", "ba", "ac"])
def test_every_ticket_needs_its_group_in_order(names: str) -> None:
    groups = named_groups(MLP, **dict.fromkeys(names, 2))
    shown = ", ".join(names)
    refused(
        InvalidGroups, f"the group of its name, in order: tickets a, b; groups {shown}$",
        groups=groups,
    )  # fmt: skip


@pytest.mark.parametrize("number", [0, -1, 1.0, True, None])
def test_epochs_are_a_whole_number(number: Any) -> None:
    refused(InvalidArgument, "epochs must be a whole number of at least 1, got", epochs=number)


@pytest.mark.parametrize("number", [0, 2.0, True])
def test_batches_per_epoch_are_a_whole_number(number: Any) -> None:
    refused(InvalidArgument, "batches_per_epoch must be a whole number", batches_per_epoch=number)


def test_seed_is_a_whole_number() -> None:
    refused(InvalidArgument, "seed must be a whole number of at least 0, got -1", seed=-1)


def test_tickets_of_another_network() -> None:
    refused(StructureMismatch, r"masked parameter '0\.weight' has shape \(4, 1, 3, 3\)",
            tickets=random_tickets(built(CONV)))  # fmt: skip
    wide = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 3))
    refused(StructureMismatch, r"'2\.weight' has shape \(9, 8\), in the model it is \(8, 8\)",
            tickets=random_tickets(wide))  # fmt: skip
    more = nn.Sequential(*built(MLP), nn.Linear(3, 3, bias=False))
    tickets = TicketSet(list(random_tickets(built(MLP)).values()),
                        structure=random_tickets(more).structure)  # fmt: skip
    refused(StructureMismatch, "found on a network of another structure", tickets=tickets)


def test_other_initial_weights_are_refused_unless_wanted() -> None:
    model = built(MLP, seed=1)
    refused(
        StructureMismatch, r"\(theta_0 differs\): .*allow_other_weights=True", model=model,
        tickets=random_tickets(built(MLP)),
    )  # fmt: skip
    trained(model, random_tickets(built(MLP)), named_groups(MLP), allow_other_weights=True)
    hand_made = random_tickets(built(MLP), known_weights=False)
    trained(model, hand_made, named_groups(MLP))


def test_the_meta_device() -> None:
    tickets = random_tickets(built(MLP))
    with torch.device("meta"):
        model = MLP.build()
    with pytest.raises(InvalidArgument, match="the model is on the meta device"):
        trained(model, tickets, named_groups(MLP))


def test_one_ticket_is_the_single_model_baseline() -> None:
    model = built(MLP)
    report = trained(model, random_tickets(model, "a"), named_groups(MLP, a=3))
    assert [(row["epoch"], row["group"]) for row in report.rows] == [(1, "a"), (2, "a")]
    assert report.batches_per_epoch == 3


def test_the_report() -> None:
    model = built(MLP)
    report = trained(model, random_tickets(model), named_groups(MLP, a=2, b=3))
    assert report.batches_per_epoch == 3
    assert [list(row) for row in report.rows] == [["epoch", "group", "loss"]] * 4
    assert str(report).splitlines()[0].split() == ["epoch", "group", "loss"]
    assert f"{report.rows[0]['loss']:.4f}" in str(report)
    assert report.rows[2]["loss"] < report.rows[0]["loss"]


@pytest.mark.parametrize("at", [1, 3, 6])
@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_an_interruption_leaves_no_trace(at: int, error: type[BaseException]) -> None:
    model, groups = built(CONV), shuffled_groups(CONV, own_generators=True)
    model[0].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    interrupting = Interrupting(at, error)

    def loss(view: Any, batch: Any) -> torch.Tensor:
        draw_from_all()
        assert view.training
        return interrupting(view, batch)

    flags, states = [module.training for module in model.modules()], random_states()
    own = [group.train.generator.get_state() for group in groups.values()]  # type: ignore[attr-defined]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with pytest.raises(error, match="interrupted by the test"):
        trained(model, random_tickets(model), groups, loss)
    assert [module.training for module in model.modules()] == flags
    assert random_states() == states
    for group, state in zip(groups.values(), own, strict=True):
        assert torch.equal(group.train.generator.get_state(), state)  # type: ignore[attr-defined]
    assert same_bits(dict(model.named_buffers()), buffers)
    assert bool((model[0].weight.grad == 1).all())
    assert model[3].weight.grad is None


def test_a_good_run_leaves_random_states_flags_and_gradients_too() -> None:
    model, states = built(CONV).eval(), random_states()

    def loss(view: Any, batch: Any) -> torch.Tensor:
        draw_from_all()
        return cross_entropy(view, batch)

    trained(model, random_tickets(model), shuffled_groups(CONV, own_generators=True), loss)
    assert random_states() == states
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_parameters_that_the_optimizer_leaves_out_keep_no_gradient() -> None:
    model = built(MLP)
    trained(model, random_tickets(model), named_groups(MLP),
            optimizer=lambda params: OPTIMIZERS["Adam"](params[:-1]))  # fmt: skip
    assert torch.equal(model[4].bias, built(MLP)[4].bias)
    assert model[4].bias.grad is None


def test_discovered_tickets_are_retrained_on_the_same_model() -> None:
    model, groups = built(CONV), named_groups(CONV)
    tickets = found(model, groups)
    report = trained(model, tickets, groups)
    assert len(report.rows) == 4
    with pytest.raises(StructureMismatch, match="theta_0 differs"):
        trained(model, tickets, groups)


def test_a_group_that_gives_nothing_in_a_second_pass() -> None:
    class Drying:
        passes = 0

        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Any:
            self.passes += 1
            return iter(list(named_groups(MLP)["a"].train) if self.passes == 1 else [])

    model = built(MLP)
    with pytest.raises(InvalidGroups, match="pass 1 over a loader gave no batch: is it one-shot"):
        trained(model, random_tickets(model, "a"), DataGroups.from_loaders({"a": Drying()}))
