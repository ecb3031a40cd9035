"""Known architectures under every strategy, in three dtypes, with several routings."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, resnet18

from rtl_plugin import MixtureOfMasks
from tests.mixture.plain_loop import random_tickets, sample_by_sample


class UNet(nn.Module):
    """Two levels with a skip connection; the way up is a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.inner = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.down(x)
        return self.out(torch.cat([skip, self.up(torch.relu(self.inner(skip)))], dim=1))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(6 * 16, 3))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )


class Case(NamedTuple):
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


CASES = {
    "mlp": Case(mlp, (12,)),
    "resnet18": Case(lambda: resnet18(num_classes=4), (3, 32, 32)),
    "mobilenet_v2": Case(lambda: mobilenet_v2(num_classes=4), (3, 32, 32)),
    "transformer": Case(encoder, (6, 16)),
    "unet": Case(UNet, (3, 8, 8)),
}
# Deep networks with random statistics round more than the few layers that design.md speaks of.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-3, torch.bfloat16: 6e-2}
ROUTINGS = {"mixed": "dbcacb", "skewed": "aaaaab", "one": "cccccc"}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_every_routing_equals_the_plain_loop(case: Case, strategy: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = case.build().to(dtype).eval()
    tickets = random_tickets(model, keep=0.7)
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    x = torch.randn(6, *case.shape, dtype=dtype)
    with torch.no_grad():
        for routing in ROUTINGS.values():
            outputs = mixture(x, tickets=list(routing))
            expected = sample_by_sample(model, tickets, x, routing)
            scale = float(expected.abs().max())
            tolerance = TOLERANCES[dtype]
            torch.testing.assert_close(outputs, expected, atol=tolerance * scale, rtol=tolerance)


@pytest.mark.parametrize("strategy", ["slices", "grouped", "scratch"])
def test_they_pass_once(case: Case, strategy: str) -> None:
    torch.manual_seed(0)
    model = case.build().double().eval()
    mixture = MixtureOfMasks(model, random_tickets(model, keep=0.7), strategy=strategy)
    with torch.no_grad():
        text = mixture.explain(torch.randn(6, *case.shape, dtype=torch.float64))
    assert "one pass: " in text
    assert "different outputs" not in text
