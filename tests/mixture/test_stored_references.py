"""A forward that keeps a weight elsewhere would be served without its mask: refused."""

import pytest
import torch
from torch import nn

import rtl_plugin as rtl


class Caching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2, bias=False)
        self.cache = {"weights": [self.layer.weight]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.cache["weights"][0].T


class ByName(nn.Linear):
    def forward(self, *, x: torch.Tensor, scale: float) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x) * scale


def half_ticket(name: str, weight: torch.Tensor) -> rtl.TicketSet:
    mask = torch.zeros_like(weight, dtype=torch.bool)
    mask[0] = True
    return rtl.TicketSet([rtl.Ticket("a", {name: mask})])


def test_a_cached_weight_is_refused_by_name() -> None:
    model = Caching()
    with pytest.raises(rtl.errors.MaskBypassed, match=r"'cache' keeps 'layer.weight' a second"):
        rtl.MixtureOfMasks(model, half_ticket("layer.weight", model.layer.weight))


@pytest.mark.parametrize("layer", [nn.LSTM(3, 2), nn.Linear(3, 2)])
def test_layers_of_torch_are_not_refused(layer: nn.Module) -> None:
    name, weight = next(iter(layer.named_parameters()))
    mixture = rtl.MixtureOfMasks(layer, half_ticket(name, weight))
    assert mixture.tickets.names == ("a",)


def test_inputs_may_all_be_given_by_name() -> None:
    model = ByName(3, 2)
    whole = rtl.Ticket("whole", {"weight": torch.ones(2, 3, dtype=torch.bool)})
    part = rtl.Ticket("part", {"weight": torch.eye(2, 3, dtype=torch.bool)})
    mixture = rtl.MixtureOfMasks(model, rtl.TicketSet([whole, part]))
    x = torch.randn(2, 3)
    mixed = mixture(x=x, scale=2.0, tickets=["part", "whole"])
    torch.testing.assert_close(mixed[:1], mixture(x=x[:1], scale=2.0, tickets="part"))
    torch.testing.assert_close(mixed[1:], mixture(x=x[1:], scale=2.0, tickets="whole"))
