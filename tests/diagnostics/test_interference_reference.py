"""Gradient conflict against autograd on multiplied copies, and of channel tickets."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rtl_plugin import DataGroups, Ticket, TicketSet
from rtl_plugin.channel_plan import ChannelPlan
from rtl_plugin.diagnostics.interference import interference
from rtl_plugin.errors import (
    InvalidLoss,
)
from rtl_plugin.index_map import IndexMap
from tests.diagnostics.interference_cases import (
    Batches,
    assert_same,
    everything,
)
from tests.models import ZOO, Network


def random_ticket(model: nn.Module, name: str) -> Ticket:
    """Masks of everything with two dimensions, and normalisation statistics of its own."""
    masks = {n: torch.rand(p.shape) < 0.6 for n, p in model.named_parameters() if p.dim() > 1}
    buffers = {n: b for n, b in model.named_buffers() if b.is_floating_point()}
    return Ticket(name, masks, {n: b + torch.rand_like(b) for n, b in buffers.items()})


def cross_entropy(model: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def zoo_case(network: Network) -> tuple[nn.Module, TicketSet, Batches]:
    torch.manual_seed(5)
    model = network.build().double()
    tickets = TicketSet([random_ticket(model, name) for name in "abc"])
    batches = {
        name: [(network.inputs().double(), torch.randint(3, (4,))) for _ in range(2)]
        for name in tickets
    }
    return model, tickets, batches


def slow_gradients(model: nn.Module, ticket: Ticket, batches: list[Any]) -> dict[str, torch.Tensor]:
    """Autograd on a copy whose weights were multiplied by hand; then the mask on the gradient."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for batch in batches:
        copied = copy.deepcopy(model).train()
        with torch.no_grad():
            for name, parameter in copied.named_parameters():
                if name in ticket.masks:
                    parameter.mul_(ticket.masks[name])
        cross_entropy(copied, batch).backward()
        for name, parameter in copied.named_parameters():
            assert parameter.grad is not None
            total[name] += parameter.grad * ticket.masks.get(name, torch.tensor(True))
    return {name: value / len(batches) for name, value in total.items()}


def slow_pair(
    first: torch.Tensor, other: torch.Tensor, both: torch.Tensor
) -> tuple[float, float, float, int]:
    """Cosine, conflict, effect of the first's step, overlap."""
    a, b = first[both], other[both]
    cosine = float(torch.dot(a, b) / (a.norm() * b.norm()))
    conflict = float(((a * b) < 0).double().mean())
    return cosine, conflict, float(-torch.dot(a, b) / first.norm()), int(both.sum())


@pytest.mark.parametrize("network", ZOO, ids=str)
def test_against_autograd_on_multiplied_copies(network: Network) -> None:
    model, tickets, batches = zoo_case(network)
    model.eval()  # retraining trains whatever the mode before, and so does this
    found = interference(model, tickets, DataGroups.from_loaders(batches), cross_entropy)
    slow = [slow_gradients(model, tickets[name], batches[name]) for name in tickets]
    dense = [name for name, _ in model.named_parameters() if name not in tickets.shapes]
    always = torch.tensor(True)
    parts = {"masked": list(tickets.shapes), "dense": dense, "together": list(slow[0])}
    parts |= {name: [name] for name in tickets.shapes}
    for part, names in parts.items():
        figures = getattr(found, part) if part in ("masked", "dense", "together") else None
        figures = found.layers[part] if figures is None else figures
        flat = [torch.cat([g[n].reshape(-1) for n in names]) for g in slow]
        kept = [
            torch.cat([t.masks.get(n, always).expand(g[n].shape).reshape(-1) for n in names])
            for t, g in zip(tickets.values(), slow, strict=True)
        ]
        for j in range(3):
            assert figures.norm[j] == pytest.approx(float(flat[j].norm()), rel=1e-10)
            for k in range(3):
                expected = slow_pair(flat[j], flat[k], kept[j] & kept[k])
                came = (figures.cosine, figures.conflict, figures.effect, figures.overlap)
                assert [float(matrix[j, k]) for matrix in came] == pytest.approx(
                    expected, rel=1e-9, abs=1e-10
                ), (part, j, k)


def channel_case() -> tuple[nn.Module, TicketSet, TicketSet]:
    """Two channel tickets, and the same masks without plans."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    planned = []
    for name, channels in (("a", [0, 2, 3]), ("b", [0, 1, 2])):
        kept = torch.tensor(channels)
        maps = {
            "0.weight": IndexMap((4, 3), (kept, None)),
            "0.bias": IndexMap((4,), (kept,)),
            "2.weight": IndexMap((2, 4), (None, kept)),
        }
        plan = ChannelPlan(maps, {"0": {"out_features": 3}, "2": {"in_features": 3}})
        planned.append(Ticket(name, {n: m.mask() for n, m in maps.items()}, channels=plan))
    bare = [Ticket(ticket.name, ticket.masks) for ticket in planned]
    return model, TicketSet(planned), TicketSet(bare)


def test_channel_tickets_run_as_small_networks_with_the_same_figures() -> None:
    model, planned, bare = channel_case()
    widths = []

    def loss(model: Any, batch: torch.Tensor) -> torch.Tensor:
        widths.append(model[0].weight.shape[0])
        assert model.training
        return model(batch).square().sum()

    batches: Batches = {name: [torch.randn(5, 3).double() for _ in range(2)] for name in planned}
    groups = DataGroups.from_loaders(batches)
    before = everything(model)
    small = interference(model, planned, groups, loss).to_json()
    assert widths == [3] * 4
    assert_same(before, everything(model))
    masked = interference(model, bare, groups, loss).to_json()
    assert widths[4:] == [4] * 4
    assert small["masked"]["overlap"] == [[18, 12], [12, 18]]
    for part in ("masked", "dense", "together"):
        for figure in ("cosine", "conflict", "effect"):
            np.testing.assert_allclose(small[part][figure], masked[part][figure], atol=1e-12)


def test_a_loss_that_uses_no_cut_parameter_is_refused() -> None:
    model, planned, _ = channel_case()
    groups = DataGroups.from_loaders({name: [torch.ones(1, 3).double()] for name in planned})
    with pytest.raises(InvalidLoss, match=r"must depend on 0\.weight, 0\.bias, 2\.weight"):
        interference(model, planned, groups, lambda model, batch: model[2].bias.sum())
