"""Layers whose weights are easily read around a mask: tied, recurrent, fused, run again."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.masked_forward import TensorSlots, masked_backward
from tests.core.masking import (
    assert_no_trace,
    leaves_of,
    multiplied,
    random_masks,
    trace,
    view_of,
)
from tests.models import ZOO, Network


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(3, 3)
        self.decode = nn.Linear(3, 3)
        self.decode.weight = self.encode.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(torch.tanh(self.encode(x)))


def shared_layer() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer)


@pytest.mark.parametrize(
    ("build", "name"), [(Tied, "encode.weight"), (shared_layer, "0.weight")], ids=["tied", "shared"]
)
def test_a_tied_parameter_is_masked_at_every_use(build: type[nn.Module], name: str) -> None:
    torch.manual_seed(0)
    model = build().double()
    masks = random_masks(model, [name])
    reference = multiplied(model, masks)
    leaves, x = leaves_of(model), torch.randn(4, 3).double()
    before = trace(model)
    out = view_of(model, masks, leaves)(x)
    torch.testing.assert_close(out, reference(x), rtol=0, atol=1e-10)
    out.sum().backward()
    reference(x).sum().backward()
    torch.testing.assert_close(
        leaves[name].grad, reference.get_parameter(name).grad * masks[name], rtol=0, atol=1e-10
    )
    assert_no_trace(model, before)


@pytest.mark.parametrize(
    "recurrent",
    [
        lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True),
        lambda: nn.LSTM(3, 4, proj_size=2),
        lambda: nn.GRU(3, 4),
        lambda: nn.RNN(3, 4),
        lambda: nn.GRUCell(3, 4),
    ],
)
def test_recurrent_layers_see_the_mask(recurrent) -> None:
    torch.manual_seed(0)
    model = recurrent().double()
    masks = random_masks(model, [n for n, p in model.named_parameters() if p.dim() == 2])
    reference = multiplied(model, masks)
    leaves, x = leaves_of(model), torch.randn(5, 3).double()
    dense = copy.deepcopy(model)(x)[0]
    out, expected = view_of(model, masks, leaves)(x)[0], reference(x)[0]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    out.sum().backward()
    expected.sum().backward()
    for name, mask in masks.items():
        gradient = reference.get_parameter(name).grad * mask
        torch.testing.assert_close(leaves[name].grad, gradient, rtol=0, atol=1e-10, msg=name)
    # A recurrent layer keeps a second list of its weights, and copies of it copy that list.
    for weight, name in zip(
        getattr(model, "_flat_weights", ()), getattr(model, "_flat_weights_names", ()), strict=True
    ):
        assert weight is model.get_parameter(name)
    torch.testing.assert_close(model(x)[0], dense, rtol=0, atol=0)
    torch.testing.assert_close(copy.deepcopy(model)(x)[0], dense, rtol=0, atol=0)


@pytest.fixture
def fast_path_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the fused kernels of torch that ran."""
    calls: list[str] = []
    for name in ("_transformer_encoder_layer_fwd", "_native_multi_head_attention"):
        original = getattr(torch, name)

        def noted(*args, _name=name, _original=original, **kwargs):  # type: ignore[no-untyped-def]
            calls.append(_name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(torch, name, noted)
    return calls


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize(
    ("build", "kernel"),
    [
        (lambda: SelfAttention(8, 2, batch_first=True), "_native_multi_head_attention"),
        (
            lambda: nn.TransformerEncoderLayer(8, 2, 12, batch_first=True),
            "_transformer_encoder_layer_fwd",
        ),
    ],
    ids=["attention", "encoder_layer"],
)
def test_fused_fast_paths_see_the_mask(build, kernel: str, fast_path_calls: list[str]) -> None:
    torch.manual_seed(0)
    model = build().double().eval()
    masks = random_masks(model, [n for n, p in model.named_parameters() if p.dim() == 2])
    x = torch.randn(2, 5, 8).double()
    reference = multiplied(model, masks)
    view = view_of(model, masks)
    with torch.no_grad():
        out, expected, dense = view(x), reference(x), model(x)
    assert fast_path_calls == [kernel] * 3
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    assert (out - dense).abs().max() > 1e-3
    # And the slow path, which the same layer takes when gradients are wanted.
    torch.testing.assert_close(view(x), expected, rtol=0, atol=1e-10)


class Checkpointed(nn.Module):
    """Runs its body again during the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.body, x, use_reentrant=False)


def test_masked_backward_is_right_under_gradient_checkpointing() -> None:
    torch.manual_seed(0)
    model = Checkpointed().double()
    masks = random_masks(model, ["body.0.weight", "body.2.weight"])
    reference = multiplied(model, masks)
    leaves, x = leaves_of(model), torch.randn(4, 3).double()
    before = trace(model)
    view = view_of(model, masks, leaves)
    masked_backward(view, view(x).square().sum())
    reference.body(x).square().sum().backward()
    for name, parameter in reference.named_parameters():
        expected = parameter.grad * masks[name] if name in masks else parameter.grad
        torch.testing.assert_close(leaves[name].grad, expected, rtol=0, atol=1e-10, msg=name)
    assert_no_trace(model, before)


def test_parametrized_layers_see_the_mask_of_what_they_compute_from() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2)).double()
    masks = random_masks(model, ["0.parametrizations.weight.original1", "2.weight"])
    before, x = trace(model), torch.randn(5, 3).double()
    out = view_of(model, masks)(x)
    torch.testing.assert_close(out, multiplied(model, masks)(x), rtol=0, atol=1e-10)
    assert_no_trace(model, before)


# Dynamo looks at .grad of what it finds as a parameter, and a masked one is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("network", [n for n in ZOO if n.name in ("conv_net", "mlp")], ids=str)
def test_a_compiled_model_runs_every_ticket_and_itself(network: Network) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = network.build().double().eval()
    compiled = torch.compile(model, backend="eager")
    x = network.inputs().double()
    expected = model(x)
    torch.testing.assert_close(compiled(x), expected, rtol=0, atol=1e-10)
    first = random_masks(model)
    for masks in (first, {name: ~mask for name, mask in first.items()}):
        view = view_of(compiled, {f"_orig_mod.{name}": mask for name, mask in masks.items()})
        torch.testing.assert_close(view(x), multiplied(model, masks)(x), rtol=0, atol=1e-10)
        torch.testing.assert_close(compiled(x), expected, rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_a_scripted_module_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), torch.jit.script(nn.Linear(2, 2)))
    with pytest.raises(InvalidArgument, match="Sequential is or holds a TorchScript module"):
        TensorSlots(model)
