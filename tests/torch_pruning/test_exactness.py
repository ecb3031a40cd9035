"""Whether masking computes what the small network computes is found, by kind and by numbers."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import rtl_plugin as rtl
from rtl_plugin.errors import CompactOnly
from tests.models import CLASSES
from tests.torch_pruning.setups import batches, cross_entropy, example, pruner_of, trained_pruner
from tests.torch_pruning.zoo import (
    CONV_BN,
    FUSED,
    GROUP_NORM,
    LAYER_NORM,
    MULTIHEAD,
    SEPARATE,
    ZOO,
    Net,
    head_only,
    images,
    rows,
)

EXACT = [net for net in ZOO if net.exact]


def doubled(net: Net) -> Any:
    """A network in float64 with norms and statistics that are not all alike."""
    model = net.build().double()
    generator = torch.Generator().manual_seed(3)
    tensors = [p for p in model.parameters() if p.dim() == 1]
    tensors += [b for n, b in model.named_buffers() if n.endswith(("running_mean", "running_var"))]
    with torch.no_grad():
        for tensor in tensors:
            tensor.copy_(torch.rand(tensor.shape, generator=generator).double() + 0.5)
    return model


@pytest.mark.parametrize("net", EXACT, ids=str)
def test_masked_and_small_networks_are_one(net: Net) -> None:
    """Outputs and gradients in eval mode, in float64."""
    model = doubled(net)
    inputs = example(net)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    pruner = pruner_of(net, model, example_inputs=inputs)
    pruner.step()
    tickets = pruner.tickets
    assert tickets.compact_only == ()
    small = pruner.compact("a")
    reference = rtl.MixtureOfMasks(model, tickets, strategy="reference").export("a").eval()
    masked_out, small_out = reference(inputs), small(inputs)
    torch.testing.assert_close(masked_out, small_out, rtol=1e-10, atol=1e-10)
    masked_out.square().sum().backward()
    small_out.square().sum().backward()
    whole = dict(reference.named_parameters())
    assert tickets["a"].channels is not None
    for name, parameter in small.named_parameters():
        index_map = tickets["a"].channels.maps.get(name)
        gradient = whole[name].grad
        if parameter.grad is None or gradient is None:
            assert parameter.grad is gradient
            continue
        kept = gradient if index_map is None else index_map.gather(gradient)
        torch.testing.assert_close(kept, parameter.grad, rtol=1e-10, atol=1e-10)


NAMED = [
    (LAYER_NORM, "parts.1 (LayerNorm normalises over the channels that are left)"),
    (GROUP_NORM, "parts.4 (GroupNorm normalises over the channels that are left)"),
    (MULTIHEAD, "attention (MultiheadAttention scales by the size of its heads)"),
    (FUSED, "FusedAttention (outputs differ by "),
    (SEPARATE, "SeparateAttention (outputs differ by "),
]


@pytest.mark.parametrize(("net", "reason"), NAMED, ids=[str(net) for net, _ in NAMED])
def test_networks_that_are_not(net: Net, reason: str) -> None:
    model = net.build()
    pruner = pruner_of(net, model)
    pruner.step()
    tickets = pruner.tickets
    assert any(found.startswith(reason) for found in tickets.compact_only), tickets.compact_only
    assert any(reason in line for line in tickets.summary().splitlines())
    with pytest.raises(CompactOnly) as caught:
        rtl.MixtureOfMasks(model, tickets, strategy="reference")
    assert reason in str(caught.value)
    with pytest.raises(CompactOnly):
        tickets.to_torch_prune("a", net.build())
    assert type(rtl.MixtureOfMasks(model, tickets, strategy="compact").export("a")) is type(model)


class Mixing(nn.Module):
    """Something is done across the channels between two layers, by a function."""

    def __init__(self, across: Any, zero_head: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 12), nn.Linear(12, 10)
        self.head = nn.Linear(10, CLASSES)
        self.across = [across]
        if zero_head:
            nn.init.zeros_(self.head.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(self.across[0](self.first(x)))))


ACROSS = {
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "softmax": lambda x: x.softmax(dim=-1),
    "normalize": lambda x: x - x.mean(dim=-1, keepdim=True),
    "logarithms": lambda x: x.square().log() + x.square().log().sum(dim=-1, keepdim=True),
    "sigmoid": torch.sigmoid,  # not across channels, and yet: a masked channel is a half
}


@pytest.mark.parametrize("zero_head", [False, True], ids=["random head", "head of zeros"])
@pytest.mark.parametrize("across", ACROSS)
def test_functions_across_channels_are_found_by_numbers(across: str, zero_head: bool) -> None:
    net = Net("mixing", lambda: Mixing(ACROSS[across], zero_head), rows)
    model = net.build()
    pruner = pruner_of(net, model)
    pruner.step()
    if across == "sigmoid":  # the next layer's weights for the channel are masked too
        assert pruner.tickets.compact_only == ()
    else:
        assert pruner.tickets.compact_only[0].startswith("Mixing (outputs differ by ")


class Stubborn(nn.Module):
    """Its forward insists on float32."""

    def __init__(self, softmax: bool) -> None:
        super().__init__()
        self.conv, self.after = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, CLASSES)
        self.softmax = softmax

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x.float())
        x = x.softmax(dim=1) if self.softmax else torch.relu(x)
        return self.head(self.after(x).mean(dim=(2, 3)))


@pytest.mark.parametrize("softmax", [False, True])
def test_networks_that_run_in_their_own_dtype_only(softmax: bool) -> None:
    net = Net("stubborn", lambda: Stubborn(softmax), images)
    pruner = pruner_of(net, net.build())
    pruner.step()
    assert bool(pruner.tickets.compact_only) == softmax


class WholeNumbers(Stubborn):
    """A parameter that is no floating tensor."""

    def __init__(self) -> None:
        super().__init__(softmax=False)
        self.numbers = nn.Parameter(torch.arange(CLASSES), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.numbers


def test_networks_with_whole_numbers() -> None:
    net = Net("whole numbers", WholeNumbers, images)
    pruner = pruner_of(net, net.build())
    pruner.step()
    assert pruner.tickets.compact_only == ()


def test_zero_statistics_hide_nothing() -> None:
    """A norm without weights centres what masking made zero, as soon as its mean is not zero."""

    def plain_norm() -> nn.Module:
        model = CONV_BN.build()
        model.parts[1] = nn.BatchNorm2d(8, affine=False)
        return model

    net = Net("plain norm", plain_norm, images, head_only)
    pruner = pruner_of(net, net.build())
    pruner.step()
    # The next layer's inputs are masked as well, so nothing passes on.
    assert pruner.tickets.compact_only == ()


def test_looking_leaves_the_model_alone() -> None:
    model = CONV_BN.build()
    state = {n: v.clone() for n, v in model.state_dict().items()}
    pruner = trained_pruner(CONV_BN, model)
    pruner.step()
    assert pruner.tickets.compact_only == ()
    assert all(torch.equal(state[n], v) for n, v in model.state_dict().items())
    assert all(v.dtype == state[n].dtype for n, v in model.state_dict().items())
    assert cross_entropy(pruner.compact("a"), batches(CONV_BN, "a")[0]).isfinite()
