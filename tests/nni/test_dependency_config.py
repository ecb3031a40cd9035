"""Emitted entries make NNI's own pruners mask what is coupled alike."""

import copy
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from rtl_nni.dependency_config import add_dependency_ids, add_norm_alignment, norms_left_out
from rtl_nni.exact_speedup import speedup_with_report
from rtl_nni.host import imported
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.randomness import forked
from tests.nni.coupled_networks import CNN, CONCATENATED, DEPTHWISE, RESIDUAL

CONVS: dict[str, Any] = {"op_types": ["Conv2d"], "sparse_ratio": 0.5}


def pruned(model: nn.Module, config: list[dict[str, Any]], name: str = "L1NormPruner") -> Any:
    pruner = getattr(imported("nni.compression.pruning"), name)(copy.deepcopy(model), config)
    return pruner.compress()[1]


def ids(config: list[dict[str, Any]]) -> dict[str, Any]:
    return {entry["op_names"][0]: entry.get("dependency_group_id") for entry in config}


def torchvision_model(name: str) -> nn.Module:
    with forked(0):
        return getattr(torchvision.models, name)(weights=None, num_classes=8).eval()


def test_one_entry_a_layer_in_the_models_order() -> None:
    config = add_dependency_ids([CONVS], RESIDUAL.build(), RESIDUAL.inputs())
    assert [entry["op_names"] for entry in config] == [["stem"], ["up"], ["down"]]
    found = ids(config)
    assert found["stem"] == found["down"] is not None
    assert found["up"] is None
    assert all(entry["sparse_ratio"] == 0.5 for entry in config)


def test_the_given_config_and_model_stay() -> None:
    model, config = RESIDUAL.build().train(), [copy.deepcopy(CONVS)]
    before = copy.deepcopy(model.state_dict())
    add_norm_alignment(
        add_dependency_ids(config, model, RESIDUAL.inputs()), model, RESIDUAL.inputs()
    )
    assert config == [CONVS]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training


def test_a_depthwise_convolution_is_a_member_without_block() -> None:
    config = add_dependency_ids([CONVS], DEPTHWISE.build(), DEPTHWISE.inputs())
    assert ids(config) == {"parts.0": ids(config)["parts.3"], "parts.3": "parts.3", "parts.6": None}
    assert not any("internal_metric_block" in entry for entry in config)


def test_grouped_convolutions_have_blocks() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=2), nn.ReLU(),
        nn.Conv2d(12, 6, 1),
        nn.ReLU(), nn.Conv2d(6, 2, 1),
    )  # fmt: skip
    inputs = torch.randn(1, 2, 5, 5)
    entry = {**CONVS, "exclude_op_names": ["6"]}
    config = add_dependency_ids([entry], model, inputs)
    blocks = {e["op_names"][0]: e.get("internal_metric_block") for e in config}
    assert blocks == {"0": 2, "2": 2, "4": None}
    assert ids(config) == {"0": "0", "2": "2", "4": None}
    report = speedup_with_report(model, pruned(model, config), inputs)
    assert report.left_whole == ()
    assert report.widths == {"4": (3, 6), "2": (6, 12), "0": (4, 8)}


def test_layers_coupled_in_another_order_have_no_id() -> None:
    config = add_dependency_ids([CONVS], CONCATENATED.build(), CONCATENATED.inputs())
    assert set(ids(config).values()) == {None}


def test_only_configured_layers_count() -> None:
    entry = {**CONVS, "exclude_op_names": ["down"]}
    assert set(ids(add_dependency_ids([entry], RESIDUAL.build(), RESIDUAL.inputs())).values()) == {
        None
    }


def test_every_key_keeps_its_meaning() -> None:
    legacy = [{"op_types": ["Conv2d"], "sparsity": 0.5}, {"exclude": True, "op_names": ["up"]}]
    entry = {
        "op_names_re": ["(stem|up|down)"], "exclude_op_names": ["up"],
        "target_settings": {"weight": {"sparse_ratio": 0.5, "max_sparse_ratio": 0.7}},
    }  # fmt: skip
    for config in (legacy, [entry]):
        found = add_dependency_ids(config, RESIDUAL.build(), RESIDUAL.inputs())
        assert list(ids(found)) == ["stem", "down"]
        assert all(e["target_settings"]["weight"]["sparse_ratio"] == 0.5 for e in found)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([{**CONVS, "dependency_group_id": "x"}], "'stem' has a dependency_group_id already"),
        (
            [{**CONVS, "target_settings": {"weight": {"dependency_group_id": 1}}}],
            "has a dependency_group_id already",
        ),
        ([{"op_types": ["Conv3d"], "sparse_ratio": 0.5}], "matches a layer of Residual"),
        (
            [
                {"op_names": ["stem"], "sparse_ratio": 0.5},
                {"op_names": ["down"], "sparse_ratio": 0.25},
            ],
            "need one common sparse_ratio",
        ),
        ([{"op_types": ["Conv2d"], "sparse_threshold": 0.1}], "need one common sparse_ratio"),
    ],
)
def test_refused_configs(config: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        add_dependency_ids(config, RESIDUAL.build(), RESIDUAL.inputs())


def test_alignment_needs_ids() -> None:
    with pytest.raises(InvalidArgument, match="call add_dependency_ids"):
        add_norm_alignment([CONVS], RESIDUAL.build(), RESIDUAL.inputs())


def test_the_emitted_entry() -> None:
    model = CNN.build()
    config = add_norm_alignment([CONVS], model, CNN.inputs())
    align = {"module_name": "parts.0", "target_name": "weight", "dims": [0]}
    assert config[0] == CONVS
    assert {
        "op_names": ["parts.1"],
        "target_names": ["weight", "bias"],
        "target_settings": {
            "weight": {"align": align, "granularity": "out_channel"},
            "bias": {"align": align},
        },
    } in config[1:]
    assert norms_left_out([CONVS], model, CNN.inputs()) == {}


def test_norms_that_no_entry_can_align_are_named() -> None:
    model = CONCATENATED.build()
    assert add_norm_alignment([CONVS], model, CONCATENATED.inputs()) == [CONVS]
    (reason,) = norms_left_out([CONVS], model, CONCATENATED.inputs()).values()
    assert "several places" in reason
    partly = [{**CONVS, "exclude_op_names": ["down"]}]
    left = norms_left_out(partly, RESIDUAL.build(), RESIDUAL.inputs())
    assert left == dict.fromkeys(
        ("bn", "outer"), "its channels also come from 'down', which no entry matches"
    )


def test_transposed_convolutions_are_ranked_by_inputs() -> None:
    """Of their weights NNI masks the first dimension, which are no outputs."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.ConvTranspose2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
    )
    config = [{"op_names": ["1"], "sparse_ratio": 0.5}]
    assert add_norm_alignment(config, model, torch.randn(1, 2, 5, 5)) == config
    assert list(norms_left_out(config, model, torch.randn(1, 2, 5, 5))) == ["2"]


def test_a_norm_that_is_configured_itself_is_left_to_its_entry() -> None:
    config = [CONVS, {"op_types": ["BatchNorm2d"], "sparse_ratio": 0.5}]
    assert add_norm_alignment(config, CNN.build(), CNN.inputs()) == config


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("pruner", ["L1NormPruner", "FPGMPruner"])
def test_coupled_masks_and_norms_agree(name: str, pruner: str) -> None:
    model, inputs = torchvision_model(name), torch.randn(1, 3, 32, 32)
    config = add_dependency_ids([CONVS], model, inputs)
    aligned = add_norm_alignment(config, model, inputs)
    norms = [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert sorted(e["op_names"][0] for e in aligned[len(config) :]) == sorted(norms)
    masks = pruned(model, aligned, pruner)
    rows: dict[Any, torch.Tensor] = {}
    for entry in config:
        mask = masks[entry["op_names"][0]]["weight"].flatten(1).any(1)
        assert torch.equal(rows.setdefault(entry.get("dependency_group_id", object()), mask), mask)
        assert float(mask.float().mean()) == 0.5
    for entry in aligned[len(config) :]:
        source = entry["target_settings"]["weight"]["align"]["module_name"]
        expected = masks[source]["weight"].flatten(1).any(1)
        for target in ("weight", "bias"):
            assert torch.equal(masks[entry["op_names"][0]][target].bool(), expected)


def test_shufflenet_on_which_nni_hangs() -> None:
    model, inputs = torchvision_model("shufflenet_v2_x0_5"), torch.randn(1, 3, 64, 64)
    config = add_dependency_ids([CONVS], model, inputs)
    found = ids(config)
    assert len(config) == sum(isinstance(m, nn.Conv2d) for m in model.modules())
    # The one coupling inside each branch: the depthwise convolution and what feeds it.
    assert found["stage2.1.branch2.0"] == found["stage2.1.branch2.3"] is not None
    aligned = add_norm_alignment(config, model, inputs)
    assert {"stage2.1.branch2.1", "stage2.1.branch2.4"} <= {e["op_names"][0] for e in aligned}
