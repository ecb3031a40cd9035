"""Strategies that run on the project's kernels, in Triton's interpreter (TRITON_INTERPRET=1)."""

import os
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from rtl_plugin import MixtureOfMasks, TicketSet
from rtl_plugin.mixture.dispatch import Dispatch
from tests.mixture.plain_loop import NAMES, random_tickets, sample_by_sample

# test_kernel_ways.py runs this file where the variable is set.
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="these tests run in Triton's interpreter"
)


class EveryLayer(nn.Module):
    """One layer for every kernel, and tokens whose rows are merged into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(3, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.tokens = nn.Linear(12, 8)
        self.aligned = nn.Linear(8, 8, bias=False)
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.depthwise(torch.relu(self.pointwise(x)))))
        tokens = self.conv(x).flatten(2).transpose(1, 2)  # [B, 9, 12]
        merged = torch.relu(self.tokens(tokens)).flatten(0, 1)
        return self.out(self.aligned(merged).unflatten(0, tokens.shape[:2]).mean(dim=1))


WAYS = {
    "grouped": {
        "pointwise": "triton",
        "depthwise": "depthwise",
        "norm": "table",
        "conv": "convolution",
        "tokens": "grouped_mm",
        "aligned": "grouped_mm",
    },
    "bitmask": {
        "pointwise": "bitmask",
        "depthwise": "depthwise",
        "norm": "table",
        "conv": "slices",
        "tokens": "bitmask",
        "aligned": "bitmask",
    },
}
WAYS["cached"] = WAYS["grouped"]
ARRANGEMENTS = ["bacabdcab", "dddddddad", "ab"]


def network() -> tuple[EveryLayer, TicketSet]:
    torch.manual_seed(0)
    model = EveryLayer()
    private = ("tokens.bias", "pointwise.bias", "norm.weight")
    return model, random_tickets(model, private=private)


def ways(mixture: MixtureOfMasks) -> dict[str, str]:
    layers = mixture._strategy.choice.layers  # type: ignore[attr-defined]
    return {path: choice.way for path, choice in layers.items() if path in WAYS["grouped"]}


def check(mixture: MixtureOfMasks, names: Sequence[str]) -> None:
    x = torch.randn(len(names), 3, 6, 6)
    with torch.no_grad():
        actual = mixture(x, tickets=torch.tensor([NAMES.index(name) for name in names]))
        expected = sample_by_sample(mixture.model, mixture.tickets, x, names)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("names", ARRANGEMENTS)
@pytest.mark.parametrize(
    ("strategy", "budget"), [("grouped", None), ("grouped", 0), ("bitmask", 0), ("cached", None)]
)
def test_every_kernel_gives_what_the_plain_loop_gives(
    strategy: str, budget: int | None, names: str
) -> None:
    mixture = MixtureOfMasks(*network(), strategy=strategy, budget=budget)
    check(mixture, names)
    assert ways(mixture) == WAYS[strategy]


@pytest.mark.parametrize(("strategy", "budget"), [("grouped", None), ("grouped", 0)])
def test_routing_that_only_the_device_knows_is_never_waited_for(
    strategy: str, budget: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture = MixtureOfMasks(*network(), strategy=strategy, budget=budget)
    check(mixture, "abcdabcda")  # what the first batch of a kind finds out

    def wait(self: Dispatch) -> None:
        raise AssertionError("looking at the spans waits for the device")

    monkeypatch.setattr(Dispatch, "on_host", False)
    monkeypatch.setattr(Dispatch, "spans", property(wait))
    for names in ARRANGEMENTS:
        check(mixture, names)


def test_three_hundred_tickets_of_which_a_few_are_in_the_batch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2))
    tickets = random_tickets(model, [f"t{k}" for k in range(300)])
    x, names = torch.randn(5, 5), ["t299", "t0", "t150", "t0", "t7"]
    for strategy in ("grouped", "bitmask"):
        mixture = MixtureOfMasks(model, tickets, strategy=strategy, budget=0)
        with torch.no_grad():
            actual = mixture(x, tickets=names)
        torch.testing.assert_close(actual, sample_by_sample(model, tickets, x, names))


def test_float64_goes_around_the_kernels() -> None:
    model, tickets = network()
    mixture = MixtureOfMasks(model.double(), tickets, strategy="grouped")
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        actual = mixture(x, tickets=list("dbca"))
        expected = sample_by_sample(model, tickets, x, "dbca")
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)
    assert set(ways(mixture).values()) == {"slices", "table"}


def test_gradients_to_the_inputs_go_around_the_kernels() -> None:
    model, tickets = network()
    mixture = MixtureOfMasks(model, tickets, strategy="grouped")
    x = torch.randn(4, 3, 6, 6, requires_grad=True)
    mixture(x, tickets=list("dbca")).square().sum().backward()
    assert x.grad is not None
    wanted = x.grad.clone()
    x.grad = None
    sample_by_sample(model, tickets, x, "dbca").square().sum().backward()
    torch.testing.assert_close(wanted, x.grad, atol=1e-5, rtol=1e-4)
