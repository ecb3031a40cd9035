"""A forward pass that reads a masked weight around its mask is found out, not trained."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rtl_plugin import DataGroups, Ticket, TicketSet
from rtl_plugin.errors import InvalidLoss, MaskBypassed, TrainingDiverged
from tests.discovery.setups import (
    MLP,
    built,
    cross_entropy,
    found,
    named_groups,
    random_tickets,
    same_bits,
    tensors_of,
)
from tests.joint_training.setups import trained


class Cached(nn.Module):
    """Keeps its weight a second time, in a list that no module knows of."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.cache = [self.inner.weight]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(F.linear(x, self.cache[0], self.inner.bias)))


class Partial(Cached):
    """Reads the weight properly and, in a penalty, around the mask."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.inner(x))) * (1 + self.cache[0].square().sum())


def tickets_for(model: nn.Module) -> TicketSet:
    mask = torch.arange(40).reshape(8, 5) % 2 == 0
    return TicketSet([Ticket("a", {"inner.weight": mask}), Ticket("b", {"inner.weight": ~mask})])


@pytest.mark.parametrize("kind", [Cached, Partial])
def test_a_cached_weight_in_retraining(kind: type[nn.Module]) -> None:
    model = kind()
    before = tensors_of(model)
    message = r"retrain, group 'a', epoch 1: the forward pass read 'inner\.weight' around its mask"
    with pytest.raises(MaskBypassed, match=message):
        trained(model, tickets_for(model), named_groups(MLP))
    assert same_bits(tensors_of(model), before)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", [Cached, Partial])
def test_a_cached_weight_in_discovery(kind: type[nn.Module]) -> None:
    message = r"discover, group 'a', round 1: the loss used the model's own 'inner\.weight'"
    with pytest.raises(MaskBypassed, match=message):
        found(kind(), named_groups(MLP))


def test_a_cached_weight_that_is_not_masked_is_fine_in_retraining() -> None:
    model = Cached()
    masks = {"inner.bias": torch.arange(8) % 2 == 0}
    trained(model, TicketSet([Ticket("a", masks)]), named_groups(MLP, a=2))


def test_a_loss_that_holds_the_weight() -> None:
    model = built(MLP)

    def loss(view: Any, batch: Any) -> torch.Tensor:
        return cross_entropy(view, batch) + model[0].weight.square().sum()

    with pytest.raises(MaskBypassed, match=r"the forward pass read '0\.weight' around its mask"):
        trained(model, random_tickets(model), named_groups(MLP), loss)


def test_a_loss_on_the_original_model() -> None:
    model = built(MLP)
    with pytest.raises(MaskBypassed, match="around its mask"):
        trained(model, random_tickets(model), named_groups(MLP),
                lambda _, batch: cross_entropy(model, batch))  # fmt: skip


def test_a_loss_without_the_masked_weights() -> None:
    model = built(MLP)
    other = built(MLP)
    for loss in (
        lambda _, batch: cross_entropy(other, batch),
        lambda view, batch: dict(view.named_parameters())["4.bias"].square().sum(),
    ):
        with pytest.raises(
            InvalidLoss, match=r"group 'a', epoch 1: no prunable parameter received"
        ):
            trained(model, random_tickets(model), named_groups(MLP), loss)


def test_a_gradient_that_is_not_finite_is_not_blamed_on_the_mask() -> None:
    model = built(MLP)

    def loss(view: Any, batch: Any) -> torch.Tensor:
        return cross_entropy(view, batch) + (view(batch[0]) * 0).sum().sqrt()

    with pytest.raises(
        TrainingDiverged, match=r"epoch 1: the loss is finite, but its gradient for"
    ):
        trained(model, random_tickets(model), named_groups(MLP), loss)


def test_tied_weights_have_one_mask_at_every_use() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.second.weight = self.first.weight
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.second(torch.relu(self.first(x)))))

    torch.manual_seed(0)
    model = Tied()
    mask = torch.rand(8, 8) < 0.5
    before = model.first.weight.detach().clone()
    batch = (torch.randn(4, 8), torch.tensor([0, 1, 2, 0]), "a")
    tickets = TicketSet([Ticket("a", {"first.weight": mask})])
    trained(model, tickets, DataGroups.from_loaders({"a": [batch]}))
    assert model.second.weight is model.first.weight
    assert torch.equal(model.first.weight[~mask], before[~mask])
    assert not torch.equal(model.first.weight[mask], before[mask])


def test_a_recurrent_network_is_trained_under_its_mask() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(5, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x.unsqueeze(1))[0][:, -1])

    torch.manual_seed(0)
    model = Recurrent()
    mask = torch.rand(24, 5) < 0.5
    before = model.rnn.weight_ih_l0.detach().clone()
    trained(model, TicketSet([Ticket("a", {"rnn.weight_ih_l0": mask})]), named_groups(MLP, a=2))
    assert torch.equal(model.rnn.weight_ih_l0[~mask], before[~mask])
    assert not torch.equal(model.rnn.weight_ih_l0[mask], before[mask])
