"""What is not in a tensor: plain attributes, version counters, buffers that a forward writes to."""

from typing import Any

import pytest
import torch
from torch import nn

import rtl_plugin as rtl
from rtl_plugin.errors import InvalidArgument, StructureMismatch
from rtl_torch_pruning import RTLPruner
from tests.torch_pruning.setups import batches, cross_entropy, magnitude, pruner_of
from tests.torch_pruning.zoo import CONV_BN, MULTIHEAD


class Remembering(nn.Module):
    """Keeps what it saw, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 4)
        self.scale = [8.0]
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = tuple(x.shape[2:])
        self.calls += 1
        return self.head(self.conv(x).relu().mean((2, 3))) + self.calls


def remembering(**others: Any) -> Any:
    torch.manual_seed(0)
    model = Remembering()
    keywords = {"ignored_layers": [model.head], "example_inputs": torch.rand(2, 3, 6, 6)}
    groups = rtl.DataGroups.from_loaders({"a": [torch.rand(2, 3, 6, 6)]})
    return pruner_of(CONV_BN, model, **{**keywords, "groups": groups, **others})


@pytest.mark.parametrize("called_before", [False, True])
def test_a_forward_that_keeps_what_it_saw(called_before: bool, tmp_path: Any) -> None:
    pruner = remembering()
    if called_before:
        with torch.no_grad():
            pruner.model(torch.rand(2, 3, 9, 9))
    pruner.step()
    pruner.tickets.save(tmp_path / "t")
    fresh = Remembering()
    rtl.compact(fresh, rtl.TicketSet.load(tmp_path / "t")["a"])


def test_every_call_of_a_served_network_starts_alike() -> None:
    pruner = remembering()
    pruner.step()
    mixture = rtl.MixtureOfMasks(pruner.model, pruner.tickets)
    x = torch.rand(2, 3, 6, 6)
    first = mixture(x, tickets="a")
    assert all(torch.equal(mixture(x, tickets="a"), first) for _ in range(3))


@pytest.mark.parametrize(
    ("fix", "message"),
    [
        (lambda n: setattr(n, "scale", [4.0]), r"set 'scale' of '' to \[4.0\]: it may change"),
        (lambda n: setattr(n, "new", 4), "set 'new' of '' to 4: it may change attributes that"),
        (lambda n: n.missing, "fix_attributes failed on the cut network .AttributeError"),
    ],
)
def test_attributes_that_a_ticket_cannot_hold(fix: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        remembering(fix_attributes=fix).step()


def test_a_model_of_other_attributes_is_refused() -> None:
    pruner = pruner_of(MULTIHEAD, MULTIHEAD.build())
    pruner.step()
    other = MULTIHEAD.build()
    attention = next(m for m in other.modules() if isinstance(m, nn.MultiheadAttention))
    attention.num_heads *= 2
    attention.head_dim //= 2
    with pytest.raises(StructureMismatch, match=r"'head_dim' of '.*' was \d+ in the network that"):
        rtl.compact(other, pruner.tickets["a"])


def test_another_tickets_network_of_equal_widths_is_refused() -> None:
    scores = {"a": 0, "b": 1}

    def importance(group: Any) -> torch.Tensor:
        return torch.arange(len(group[0].idxs), dtype=torch.float) * (-1) ** scores["now"]

    pruner = pruner_of(CONV_BN, CONV_BN.build(), importance)
    for group in _switching(pruner, scores):
        group.prune()
    assert pruner.channels("a") != pruner.channels("b")
    before = {name: p.detach().clone() for name, p in pruner.model.named_parameters()}
    with pytest.raises(StructureMismatch, match="it was cut by another ticket"):
        pruner.scatter_back(pruner.compact("a"), "b")
    after = dict(pruner.model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())


def _switching(pruner: Any, scores: dict[str, int]) -> Any:
    """The groups of a round, with scores that depend on the data group."""
    rank = pruner._cutter.rank
    names = iter(pruner.groups)

    def switched(*args: Any) -> Any:
        scores["now"] = scores[next(names)]
        return rank(*args)

    pruner._cutter.rank = switched
    return pruner.step(interactive=True)


class SilentSGD(torch.optim.SGD):
    """Writes through .data, as old optimizers do."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.data.add_(parameter.grad, alpha=-group["lr"])


@pytest.mark.parametrize("kind", ["fused", "silent"])
def test_a_mixture_sees_what_retrain_did(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    data = {n: [(b[0], b[1] % 4) for b in batches(CONV_BN, n)] for n in "ab"}
    groups = rtl.DataGroups.from_loaders(data)
    x = data["a"][0][0]
    pruner = RTLPruner(
        model, x, magnitude(), groups=groups, steps=0, ignored_layers=[model[-1]], progress=False
    )
    pruner.step()
    mixture = rtl.MixtureOfMasks(model, pruner.tickets)
    before = mixture(x, tickets="a")

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        if kind == "fused":
            return torch.optim.Adam(parameters, 0.1, fused=True)
        return SilentSGD(parameters, 0.1)

    rtl.retrain(
        model, pruner.tickets, groups, cross_entropy, epochs=1, optimizer=optimizer, progress=False
    )
    after = mixture(x, tickets="a")
    assert not torch.equal(before, after)
    assert torch.equal(after, pruner.compact("a")(x))
