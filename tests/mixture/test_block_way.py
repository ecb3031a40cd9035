"""Masks expanded in several blocks of output rows give what whole masked weights give.

A mixture that finds its one pass to be wrong falls back to a pass a ticket, so every test looks
whether the batch did pass once: else a broken way would pass for a right one.
"""

import pytest
import torch
from torch import nn

from rtl_plugin import MixtureOfMasks
from rtl_plugin.mixture import block_way
from tests.mixture.plain_loop import close, plain_copy, random_tickets, sample_by_sample

CHOICE = "dbacabdc"
LAYERS = {
    "linear": (lambda: nn.Linear(5, 21), (5,)),
    "linear without bias, of a sequence": (lambda: nn.Linear(5, 21, bias=False), (3, 5)),
    "conv 1d": (lambda: nn.Conv1d(3, 21, 2), (3, 6)),
    "conv 2d, circular": (
        lambda: nn.Conv2d(3, 21, 3, padding=1, padding_mode="circular"),
        (3, 4, 4),
    ),
    "conv 2d, strided and dilated": (lambda: nn.Conv2d(3, 21, 2, stride=2, dilation=2), (3, 6, 6)),
    "conv 3d": (lambda: nn.Conv3d(1, 21, 2), (1, 3, 3, 3)),
    "grouped": (lambda: nn.Conv2d(4, 24, 3, groups=2), (4, 4, 4)),
    "depthwise": (lambda: nn.Conv2d(24, 24, 3, groups=24), (24, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(20, 3, 2), (20, 3, 3)),
}


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def blocks_of_eight_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_way, "BLOCK_BYTES", 1)


def built(layer: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    build, shape = LAYERS[layer]
    return nn.Sequential(build()).double(), torch.randn(len(CHOICE), *shape).double()


def passed_once(mixture: MixtureOfMasks) -> bool:
    told = mixture.explain()
    return ", one pass: " in told and "different outputs" not in told


@pytest.mark.parametrize("strategy", ["scratch", "auto"])
def test_several_blocks_equal_the_plain_loop(layer: str, strategy: str) -> None:
    model, x = built(layer)
    tickets = random_tickets(model, prunable=["*.weight"])
    mixture = MixtureOfMasks(model, tickets, strategy=strategy, budget=0)
    with torch.no_grad():
        for _ in range(2):  # the first is timed
            outputs = mixture(x, tickets=list(CHOICE))
            close(outputs, sample_by_sample(model, tickets, x, CHOICE))
            close(mixture(x, tickets="c"), plain_copy(model, tickets["c"])(x))
    assert mixture.memory().parts["masked copies"] == 0
    assert strategy == "auto" or passed_once(mixture), mixture.explain()
    assert "different outputs" not in mixture.explain()


def test_blocks_are_what_was_run(layer: str) -> None:
    model, x = built(layer)
    mixture = MixtureOfMasks(
        model, random_tickets(model, prunable=["*.weight"]), strategy="scratch"
    )
    with torch.no_grad():
        mixture(x, tickets=list(CHOICE))
    assert passed_once(mixture), mixture.explain()
    plain = layer not in ("grouped", "depthwise", "transposed")
    row = next(line for line in mixture.explain().splitlines() if line.split()[:1] == ["0"])
    assert (row.split()[1] == "blocks") is plain, row


def test_a_private_weight_is_the_tickets_own() -> None:
    model, x = built("linear")
    tickets = random_tickets(model, prunable=["*.weight"], private=["0.weight"])
    mixture = MixtureOfMasks(model, tickets, strategy="scratch")
    with torch.no_grad():
        outputs = mixture(x, tickets=list(CHOICE))
    assert passed_once(mixture), mixture.explain()
    close(outputs, sample_by_sample(model, tickets, x, CHOICE))


def test_gradients_to_the_input() -> None:
    model, x = built("conv 2d, circular")
    tickets = random_tickets(model, prunable=["*.weight"])
    mixture = MixtureOfMasks(model, tickets, strategy="scratch")
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: mixture(v, tickets=list(CHOICE)), x, fast_mode=True)
    assert passed_once(mixture), mixture.explain()


def test_autocast_computes_in_its_dtype() -> None:
    model, x = built("linear")
    model, x = model.float(), x.float()
    tickets = random_tickets(model, prunable=["*.weight"])
    mixture = MixtureOfMasks(model, tickets, strategy="scratch")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = mixture(x, tickets=list(CHOICE))
        expected = sample_by_sample(model, tickets, x, CHOICE)
    assert passed_once(mixture), mixture.explain()
    assert outputs.dtype == torch.bfloat16
    close(outputs, expected)
