"""recalibrate: plain averages over one pass of a ticket's data, and nothing else changes."""

from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import Ticket, recalibrate
from rtl_plugin.errors import (
    InvalidArgument,
    InvalidGroups,
    InvalidTicket,
    StructureMismatch,
    TrainingDiverged,
)
from tests.discovery.setups import (
    CONV,
    MLP,
    NETWORKS,
    built,
    copied,
    named_groups,
    random_states,
    random_tickets,
    same_bits,
    tensors_of,
)


def batches(network: Any, count: int = 3) -> list[torch.Tensor]:
    torch.manual_seed(5)
    return [network.inputs(4) * (k + 1) for k in range(count)]


def by_hand(model: nn.Module, ticket: Ticket, data: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every norm's input statistics, averaged over the batches, all norms in train mode."""
    masked = {n: p * ticket.masks[n] if n in ticket.masks else p
              for n, p in model.named_parameters()}  # fmt: skip
    masked |= {n: v for n, v in ticket.state.items() if n in masked}
    sums: dict[str, torch.Tensor] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):

            def look(_: Any, inputs: Any, name: str = name) -> None:
                x = inputs[0]
                mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=True)
                sums[f"{name}.running_mean"] = sums.get(f"{name}.running_mean", 0) + mean
                sums[f"{name}.running_var"] = sums.get(f"{name}.running_var", 0) + variance

            hooks.append(module.register_forward_pre_hook(look))
    buffers = copied(dict(model.named_buffers()))
    with torch.no_grad():
        for x in data:
            model.train()
            torch.func.functional_call(model, {**masked, **copied(buffers)}, (x,))
    for hook in hooks:
        hook.remove()
    return {name: total / len(data) for name, total in sums.items()}


@pytest.mark.parametrize("name", ["conv_net", "resnet"])
def test_plain_averages_over_the_batches(name: str) -> None:
    network = NETWORKS[name]
    model = built(network)
    ticket = random_tickets(model)["a"]
    expected = by_hand(model, ticket, batches(network))
    recalibrate(model, ticket, batches(network))
    for key, value in expected.items():
        torch.testing.assert_close(ticket.state[key], value, atol=1e-6, rtol=1e-5)
    counts = [v for k, v in ticket.state.items() if k.endswith("num_batches_tracked")]
    assert [int(count) for count in counts] == [3] * len(counts)


def test_what_the_statistics_were_before_does_not_matter() -> None:
    model = built(CONV)
    tickets = random_tickets(model)
    other = Ticket("a", tickets["a"].masks)
    tickets["a"].state["1.running_mean"].fill_(9.0)
    tickets["a"].state["1.num_batches_tracked"].fill_(100)
    for ticket in (tickets["a"], other):
        recalibrate(model, ticket, batches(CONV))
    assert same_bits(tickets["a"].state, other.state)


def test_nothing_else_changes() -> None:
    model, data = built(CONV), batches(CONV)
    model[0].eval()
    model[1].momentum = 0.3
    ticket = random_tickets(model)["a"]
    masks, before = copied(ticket.masks), tensors_of(model)
    flags, states = [module.training for module in model.modules()], random_states()
    recalibrate(model, ticket, data)
    assert same_bits(tensors_of(model), before)
    assert same_bits(ticket.masks, masks)
    assert random_states() == states
    assert [module.training for module in model.modules()] == flags
    assert (model[1].momentum, model[4].momentum) == (0.3, 0.1)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_other_state_of_the_ticket_stays_and_is_used() -> None:
    model = built(CONV)
    ticket = random_tickets(model)["a"]
    ticket.state["1.weight"] = torch.full((4,), 3.0)
    expected = by_hand(model, ticket, batches(CONV))
    recalibrate(model, ticket, batches(CONV))
    assert torch.equal(ticket.state["1.weight"], torch.full((4,), 3.0))
    torch.testing.assert_close(ticket.state["4.running_var"], expected["4.running_var"])


def test_dropout_is_off_and_the_masks_are_on() -> None:
    model = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Dropout(0.9), nn.BatchNorm1d(4))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    mask = torch.zeros(4, 5).bool()
    mask[0, 0] = True
    ticket = Ticket("a", {"0.weight": mask})
    recalibrate(model, ticket, [torch.full((8, 5), 2.0)])
    assert ticket.state["2.running_mean"].tolist() == [2.0, 0.0, 0.0, 0.0]
    assert ticket.state["2.running_var"].tolist() == [0.0] * 4


def test_a_norms_own_further_buffers_are_not_statistics() -> None:
    class Scaled(nn.BatchNorm1d):
        def __init__(self, features: int) -> None:
            super().__init__(features)
            self.register_buffer("scale", torch.full((features,), 2.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x * self.scale)

    model = nn.Sequential(nn.Linear(5, 4), Scaled(4))
    ticket = Ticket("a", {"0.weight": torch.ones(4, 5).bool()})
    x = torch.randn(8, 5)
    recalibrate(model, ticket, [x])
    torch.testing.assert_close(ticket.state["1.running_mean"], 2 * model[0](x).mean(dim=0))
    assert "1.scale" not in ticket.state


def test_how_a_batch_is_run() -> None:
    model = built(CONV)
    x = batches(CONV, 1)[0]
    results = []
    for data, forward in (
        ([x], None),
        ([(x, "label")], None),
        ([[x, "label"]], None),
        ([{"image": x}], lambda model, batch: model(batch["image"])),
    ):
        ticket = random_tickets(model)["a"]
        recalibrate(model, ticket, data, **({"forward": forward} if forward else {}))
        results.append(ticket.state)
    assert all(same_bits(results[0], other) for other in results[1:])
    recalibrate(model, random_tickets(model)["a"], named_groups(CONV)["a"].train)


def test_a_network_without_batch_norm() -> None:
    model = built(MLP)
    ticket = random_tickets(model)["a"]
    with pytest.raises(InvalidArgument, match="Sequential has no batch normalisation with running"):
        recalibrate(model, ticket, batches(MLP))
    untracked = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False))
    with pytest.raises(InvalidArgument, match="there is nothing to recalibrate"):
        recalibrate(untracked, random_tickets(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 1)))["a"],
                    batches(MLP))  # fmt: skip


def test_an_empty_loader_and_statistics_that_are_not_finite_keep_the_old() -> None:
    model = built(CONV)
    ticket = random_tickets(model)["a"]
    before, flags = copied(ticket.state), [m.training for m in model.modules()]
    with pytest.raises(InvalidGroups, match="the loader given for ticket 'a' is empty"):
        recalibrate(model, ticket, [])
    bad = [*batches(CONV), torch.full((4, 1, 6, 6), float("nan"))]
    with pytest.raises(TrainingDiverged, match="recalibrating ticket 'a' gave statistics that are"):
        recalibrate(model, ticket, bad)

    def fail(model: Any, batch: Any) -> None:
        model(batch)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recalibrate(model, ticket, batches(CONV), forward=fail)
    assert same_bits(ticket.state, before)
    assert [m.training for m in model.modules()] == flags
    assert (model[1].momentum, model[4].momentum) == (0.1, 0.1)
    assert same_bits(tensors_of(model), tensors_of(built(CONV)))


def test_a_ticket_that_does_not_fit() -> None:
    with pytest.raises(
        StructureMismatch, match=r"masked parameter '2\.weight' is not in the model"
    ):
        recalibrate(built(CONV), Ticket("a", {"2.weight": torch.ones(8, 8).bool()}), batches(CONV))
    with pytest.raises(InvalidTicket, match="sequence of at least one Ticket"):
        recalibrate(built(CONV), "a", batches(CONV))  # type: ignore[arg-type]
