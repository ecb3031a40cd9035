"""Networks that speedup returns compute what the completed masked network computes."""

import copy
import importlib
import sys
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from rtl_nni.dependency_config import add_dependency_ids, add_norm_alignment
from rtl_nni.exact_speedup import speedup, speedup_with_report
from rtl_nni.host import imported
from rtl_plugin.errors import (
    InvalidArgument,
    InvalidTicket,
    MissingExtra,
    PruningFailed,
    StructureMismatch,
)
from rtl_plugin.fingerprint import bit_equal
from rtl_plugin.randomness import forked
from tests.nni.coupled_networks import (
    CASES,
    CNN,
    CONCATENATED,
    DEPTHWISE,
    GROUP_NORM,
    LAYER_NORM,
    RESIDUAL,
    SIGMOID,
    Case,
    completed_by_loops,
    dead_by_loops,
    masked_by_loops,
    masked_layer,
    random_masks,
)


def gap(one: nn.Module, other: nn.Module, inputs: torch.Tensor) -> float:
    with torch.no_grad():
        return float((one(inputs) - other(inputs)).abs().max())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["f32", "f64"]
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_are_those_of_the_completed_masked_network(
    case: Case, dtype: torch.dtype, tolerance: float, seed: int
) -> None:
    model, inputs = case.build(seed, dtype), case.inputs(dtype)
    masks = random_masks(case, model, seed, disagree=0.3)
    completed = completed_by_loops(case, model, masks)
    dead = {c.producers[0]: tuple(dead_by_loops(model, masks, c)) for c in case.couplings}
    expected = {c.producers[0]: dead[c.producers[0]] for c in case.couplings if c.exact}
    if not any(expected.values()):
        with pytest.raises(PruningFailed):
            speedup(model, masks, inputs)
        return
    report = speedup_with_report(model, masks, inputs)
    for coupling in case.couplings:
        for name in coupling.producers:
            assert report.cut.get(name, ()) == expected.get(coupling.producers[0], ())
    assert report.completed == completed
    reference = masked_by_loops(model, masks, completed)
    assert gap(report.network, reference, inputs) <= tolerance
    assert gap(report.network, reference, torch.rand_like(inputs)) <= tolerance
    assert report.difference <= 1e-10
    given = masked_by_loops(model, masks, {})
    seen = gap(report.network, given, inputs)
    assert report.from_given >= seen - tolerance
    assert type(report.network) is type(model)
    assert not any(module.training for module in report.network.modules())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_model_stays_as_it_was(case: Case) -> None:
    model = case.build().train()
    model(case.inputs()).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [
        (p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()
    ]
    small = speedup(model, random_masks(case, model), case.inputs())
    assert all(bit_equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    for parameter, (trainable, gradient) in zip(model.parameters(), flags, strict=True):
        assert parameter.requires_grad == trainable
        assert gradient is None or bit_equal(gradient, parameter.grad)
    for one, other in zip(model.parameters(), small.parameters(), strict=True):
        assert one.requires_grad == other.requires_grad
        assert other.grad is None
        assert one.data_ptr() != other.data_ptr()


def test_without_completing_only_channels_with_masked_norms_go() -> None:
    model = CNN.build()
    masks = random_masks(CNN, model)
    with pytest.raises(PruningFailed, match=r"'parts\.1' is not masked there"):
        speedup(model, masks, CNN.inputs(), complete_norms=False)
    dead = dead_by_loops(model, masks, CNN.couplings[0])
    gone = torch.zeros(8, dtype=torch.bool)
    gone[dead[:1]] = True
    masks["parts.1"] = masked_layer(model.get_submodule("parts.1"), gone)
    report = speedup_with_report(model, masks, CNN.inputs(), complete_norms=False)
    assert report.cut == {"parts.0": (dead[0],)}
    assert report.completed == {}
    assert report.from_given <= 1e-10
    assert gap(report.network, masked_by_loops(model, masks, {}), CNN.inputs()) <= 1e-5
    assert any(left.group == "parts.3" for left in report.left_whole)


def test_half_a_masked_norm_is_not_masked() -> None:
    """A norm's bias alone would still shift the channel."""
    model = CNN.build()
    masks = random_masks(CNN, model)
    gone = torch.zeros(8, dtype=torch.bool)
    gone[dead_by_loops(model, masks, CNN.couplings[0])] = True
    masks["parts.1"] = {"weight": (~gone).float(), "bias": None}
    with pytest.raises(PruningFailed, match="is not masked there"):
        speedup(model, masks, CNN.inputs(), complete_norms=False)
    assert speedup_with_report(model, masks, CNN.inputs()).completed["parts.1"]


def test_members_that_disagree_lose_the_intersection() -> None:
    model = RESIDUAL.build()
    one, other = torch.zeros(2, 8, dtype=torch.bool)
    one[[0, 1, 2]], other[[1, 2, 5]] = True, True
    masks = {"stem": masked_layer(model.stem, one), "down": masked_layer(model.down, other)}
    report = speedup_with_report(model, masks, RESIDUAL.inputs())
    assert report.cut == {"stem": (1, 2), "down": (1, 2)}
    (left,) = report.left_whole
    assert left.channels == (0, 5)
    assert "'stem'" in left.reason
    assert "'down'" in left.reason
    assert report.network.stem.weight[0].abs().max() == 0  # what stays keeps its zeros


def test_a_layer_that_nobody_masks_keeps_its_channels() -> None:
    model = DEPTHWISE.build()
    masks = random_masks(DEPTHWISE, model)
    del masks["parts.3"]
    report = speedup_with_report(model, masks, DEPTHWISE.inputs())
    assert set(report.cut) == {"parts.6"}
    assert "not in 'parts.3'" in report.left_whole[0].reason


def test_a_bias_that_stays_keeps_the_channel() -> None:
    model = CNN.build()
    masks = random_masks(CNN, model)
    masks["parts.0"] = {"weight": masks["parts.0"]["weight"]}
    assert set(speedup_with_report(model, masks, CNN.inputs()).cut) == {"parts.3"}


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (SIGMOID, "outputs of 'parts.2' would differ"),
        (LAYER_NORM, "'parts.1' looks across channels"),
        (GROUP_NORM, "'parts.1' looks across channels"),
    ],
    ids=str,
)
def test_what_cannot_be_cut_is_left_and_said(case: Case, why: str) -> None:
    model = case.build()
    report = speedup_with_report(model, random_masks(case, model), case.inputs())
    reasons = {left.group: left.reason for left in report.left_whole}
    assert why in reasons["parts.0"]
    assert why in str(report)
    alone = {"parts.0": random_masks(case, model)["parts.0"]}
    with pytest.raises(PruningFailed, match="no masked channel can be cut exactly") as caught:
        speedup(model, alone, case.inputs())
    assert why in str(caught.value)


def test_activations_that_are_zero_hide_nothing() -> None:
    """A sigmoid makes a masked channel a half; behind it a bias lets no input through."""
    model = nn.Sequential(
        nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)
    )
    with torch.no_grad():
        model[2].bias.fill_(-100)
    masks = {"0": masked_layer(model[0], torch.arange(6) < 3)}
    with pytest.raises(PruningFailed, match="outputs of '2' would differ"):
        speedup(model, masks, torch.randn(3, 4))


def test_outputs_that_no_layer_makes_are_compared() -> None:
    """A sum outside of autograd, which the graph cannot see."""

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = CNN.build()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            first = self.net.parts[:3](x)
            return self.net.head(self.net.parts[3:](first).mean(dim=(2, 3))), self.count(first)

        def count(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(x).detach().sum(dim=1)

    model = Counted()
    masks = {f"net.{name}": targets for name, targets in random_masks(CNN, model.net).items()}
    report = speedup_with_report(model, masks, CNN.inputs())
    assert set(report.cut) == {"net.parts.3"}
    assert "outputs of the cut network would differ by" in report.left_whole[0].reason


def test_outputs_of_the_network_stay() -> None:
    model = CNN.build()
    masks = {
        **random_masks(CNN, model),
        "head": masked_layer(model.head, torch.tensor([True, False, False])),
    }
    report = speedup_with_report(model, masks, CNN.inputs())
    assert report.network(CNN.inputs()).shape == (3, 3)
    assert report.network.head.weight[0].abs().max() == 0
    assert any("outputs of the network" in left.reason for left in report.left_whole)


def test_a_bare_norm_with_statistics_keeps_its_channels() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 3, 1), nn.ReLU(),
        nn.Conv2d(3, 2, 1),
    )  # fmt: skip
    masks = {
        "0": masked_layer(model[0], torch.arange(4) < 2),
        "2": masked_layer(model[2], torch.arange(3) < 1),
    }
    report = speedup_with_report(model, masks, torch.randn(2, 2, 4, 4))
    assert report.cut == {"2": (0,)}
    assert "has no weight to mask" in report.left_whole[0].reason


def test_a_bare_parameter_keeps_its_channels() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(2, 4, 1), nn.Linear(4, 5)
            self.shift = nn.Parameter(torch.ones(4, 1, 1))
            self.head = nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.last((self.conv(x) + self.shift).mean(dim=(2, 3)))))

    model = Shifted()
    masks = {
        "conv": masked_layer(model.conv, torch.arange(4) < 2),
        "last": masked_layer(model.last, torch.arange(5) < 2),
    }
    report = speedup_with_report(model, masks, torch.randn(2, 2, 4, 4))
    assert report.cut == {"last": (0, 1)}
    assert "bare parameter 'shift'" in report.left_whole[0].reason


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, groups=2, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 2, 1),
    )  # fmt: skip


def test_grouped_convolutions_lose_equally_many_channels_a_group() -> None:
    """Other ones in each group; what is left over keeps its zeros."""
    with forked(0):
        model = grouped()
        model[1].bias.data.normal_()
        model[4].bias.data.normal_()
    first, second = torch.zeros(8, dtype=torch.bool), torch.zeros(12, dtype=torch.bool)
    first[[0, 1, 6]], second[[2, 4, 7, 8, 9]] = True, True
    masks = {"0": masked_layer(model[0], first), "3": masked_layer(model[3], second)}
    inputs = torch.randn(2, 2, 5, 5)
    report = speedup_with_report(model, masks, inputs)
    assert report.cut == {"0": (0, 6), "3": (2, 4, 7, 8)}
    reference = masked_by_loops(model, masks, {"1": (0, 6), "4": (2, 4, 7, 8)})
    assert gap(report.network, reference, inputs) <= 1e-5
    assert report.network[3].groups == 2
    assert all("groups of '3'" in left.reason for left in report.left_whole)


def test_a_layer_keeps_one_channel() -> None:
    model = CNN.build()
    masks = {"parts.0": masked_layer(model.parts[0], torch.ones(8, dtype=torch.bool))}
    report = speedup_with_report(model, masks, CNN.inputs())
    assert report.network.parts[0].out_channels == 1
    reference = masked_by_loops(model, masks, {"parts.1": tuple(range(1, 8))})
    assert gap(report.network, reference, CNN.inputs()) <= 1e-5


def test_masked_values_that_are_no_numbers_do_not_spread() -> None:
    model = CNN.build()
    masks = random_masks(CNN, model)
    gone = masks["parts.0"]["weight"] == 0
    with torch.no_grad():
        model.parts[0].weight[gone] = torch.nan
    report = speedup_with_report(model, masks, CNN.inputs())
    assert all(bool(p.isfinite().all()) for p in report.network.parameters())
    assert report.from_given < 100


def test_broadcast_masks_and_prefixes_are_understood() -> None:
    model = CNN.build()
    masks = random_masks(CNN, model)
    narrow = {
        "module." + name: {**targets, "weight": targets["weight"][:, :1, :1, :1].bool()}
        for name, targets in masks.items()
    }
    ours, plain = (speedup(model, each, CNN.inputs()) for each in (narrow, masks))
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert bit_equal(one, other)


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.head = nn.Embedding(9, 6), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, tokens: torch.Tensor, scale: torch.Tensor | None = None) -> dict[str, Any]:
        hidden = torch.relu(self.up(self.embed(tokens)))
        return {"logits": self.head(hidden), "best": self.head(hidden).argmax(-1)}


def test_inputs_by_keyword_and_by_position() -> None:
    model, tokens = Keyword(), torch.randint(9, (2, 5))
    masks = {"up": masked_layer(model.up, torch.arange(8) < 3)}
    for inputs in (tokens, (tokens,), [tokens, None], {"tokens": tokens}):
        assert speedup(model, masks, inputs).up.out_features == 5


def test_half_precision_stays() -> None:
    model = CNN.build().to(torch.bfloat16)
    small = speedup(model, random_masks(CNN, model), CNN.inputs(torch.bfloat16))
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}


def test_a_forward_that_insists_on_its_dtype() -> None:
    class Insists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = CNN.build()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.dtype == torch.float32
            return self.net(x)

    model = Insists()
    masks = {f"net.{name}": targets for name, targets in random_masks(CNN, model.net).items()}
    assert speedup_with_report(model, masks, CNN.inputs()).difference < 1e-4


def test_refused_arguments() -> None:
    model, inputs = CNN.build(), CNN.inputs()
    masks = random_masks(CNN, model)
    with pytest.raises(PruningFailed, match="nothing is masked"):
        speedup(model, {"parts.0": {"weight": torch.ones(8, 1, 1, 1)}}, inputs)
    with pytest.raises(PruningFailed, match="nothing is masked"):
        speedup(model, {}, inputs)
    fine = {"parts.0": {"weight": (torch.rand(8, 2, 3, 3) > 0.3).float()}}
    with pytest.raises(PruningFailed, match="single weights make no layer smaller"):
        speedup(model, fine, inputs)
    with pytest.raises(InvalidArgument, match=r"pass masks\['a'\]"):
        speedup(model, {"a": masks, "b": masks}, inputs)
    with pytest.raises(InvalidArgument, match="one NNI mask dictionary"):
        speedup(model, [masks], inputs)
    with pytest.raises(InvalidArgument, match=r"nn\.Module"):
        speedup(masks, model, inputs)  # type: ignore[arg-type]
    with pytest.raises(StructureMismatch):
        speedup(model, {"conv9": masks["parts.0"]}, inputs)
    with pytest.raises(InvalidTicket):
        speedup(model, {"parts.0": {"weight": torch.full((8, 2, 3, 3), 0.5)}}, inputs)
    with pytest.raises(InvalidArgument, match="does not accept"):
        speedup(model, masks, torch.randn(2, 7, 5, 5))


def test_a_wrapped_model_is_refused() -> None:
    pruners = imported("nni.compression.pruning")
    model = CNN.build()
    pruner = pruners.L1NormPruner(model, [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}])
    _, masks = pruner.compress()
    with pytest.raises(InvalidArgument, match="unwrap_model"):
        speedup(model, masks, CNN.inputs())
    pruner.unwrap_model()
    assert speedup(model, masks, CNN.inputs()).parts[0].out_channels == 4


def test_without_torch_pruning_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    model = CNN.build()
    with pytest.raises(MissingExtra, match=r"pip install 'rtl-plugin\[nni,torch-pruning\]'"):
        speedup(model, random_masks(CNN, model), CNN.inputs())


def test_a_wrong_network_is_never_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut that goes wrong anywhere shows in the outputs."""
    module = importlib.import_module("rtl_nni.exact_speedup")
    real = module.compact_with

    def wrong(*arguments: Any) -> nn.Module:
        small = real(*arguments)
        small.parts[3].weight.data[0, 0, 0, 0] += 0.1
        return small

    monkeypatch.setattr(module, "compact_with", wrong)
    model = CNN.build()
    with pytest.raises(PruningFailed, match="would differ"):
        speedup(model, random_masks(CNN, model), CNN.inputs())


def test_the_dummy_input_alone_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of zeros agrees with anything on a dummy of zeros."""
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False))
    module = importlib.import_module("rtl_nni.exact_speedup")
    real = module.compact_with

    def wrong(*arguments: Any) -> nn.Module:
        small = real(*arguments)
        small[2].weight.data.mul_(2)
        return small

    masks = {"0": masked_layer(model[0], torch.arange(4) < 2)}
    assert speedup(model, masks, torch.zeros(1, 2, 3, 3))[0].out_channels == 2
    monkeypatch.setattr(module, "compact_with", wrong)
    with pytest.raises(PruningFailed, match="would differ"):
        speedup(model, masks, torch.zeros(1, 2, 3, 3))


def test_the_report_reads_as_a_table() -> None:
    model = CONCATENATED.build()
    report = speedup_with_report(model, random_masks(CONCATENATED, model), CONCATENATED.inputs())
    text = str(report)
    assert f"parameters {report.dense_parameters:,} -> {report.parameters:,}" in text
    assert "now masked too: bn" in text
    assert report.widths["left"] == (report.network.left.out_channels, 6)
    assert report.parameters == sum(p.numel() for p in report.network.parameters())


def warm(model: nn.Module) -> nn.Module:
    with forked(3), torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.2)
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
    return model


def built(name: str) -> nn.Module:
    with forked(0):
        return warm(getattr(torchvision.models, name)(weights=None, num_classes=8))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("aligned", [False, True], ids=["convs", "with_norms"])
def test_masks_of_nnis_own_pruner(name: str, aligned: bool) -> None:
    model, inputs = built(name).eval(), torch.randn(2, 3, 32, 32)
    config = add_dependency_ids([{"op_types": ["Conv2d"], "sparse_ratio": 0.5}], model, inputs)
    if aligned:
        config = add_norm_alignment(config, model, inputs)
    pruner = imported("nni.compression.pruning").L1NormPruner(copy.deepcopy(model), config)
    _, masks = pruner.compress()
    report = speedup_with_report(model, masks, inputs)
    assert report.parameters < 0.4 * report.dense_parameters
    assert report.left_whole == ()
    assert report.difference <= 1e-10
    given = masked_by_loops(model, masks, {})
    if aligned:
        assert report.completed == {}
        assert report.from_given <= 1e-10
        assert gap(report.network, given, inputs) <= 1e-5
    else:
        norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        assert len(report.completed) == norms
        assert report.from_given > 1e-3
        reference = masked_by_loops(model, masks, dict(report.completed))
        assert gap(report.network, reference, inputs) <= 1e-5


@pytest.mark.parametrize("name", ["densenet121", "efficientnet_b0", "shufflenet_v2_x1_0"])
def test_torchvision_networks(name: str) -> None:
    model, inputs = built(name).eval(), torch.randn(2, 3, 64, 64)
    masks = {
        layer: masked_layer(module, torch.arange(module.out_channels) % 2 == 0)
        for layer, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    report = speedup_with_report(model, masks, inputs)
    assert report.parameters < 0.6 * report.dense_parameters
    reference = masked_by_loops(model, masks, dict(report.completed))
    scale = max(1.0, float(reference(inputs).detach().abs().max()))
    assert gap(report.network, reference, inputs) <= 1e-5 * scale
