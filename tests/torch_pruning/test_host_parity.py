"""With one group and no training the pruner gives what Torch-Pruning's own gives, bit for bit."""

from typing import Any

import pytest
import torch
import torch_pruning as tp
from torch import nn

from rtl_plugin.discovery.sparsity_schedules import CubicSchedule, GeometricSchedule
from rtl_torch_pruning import geometric_scheduler
from tests.torch_pruning.setups import assert_parity, example, magnitude
from tests.torch_pruning.zoo import (
    CONV_BN,
    DENSE,
    FLATTEN,
    FUSED,
    GROUPED,
    LAYER_NORM,
    SEPARATE,
    UNWRAPPED,
    ZOO,
    Net,
    head_only,
)


@pytest.mark.parametrize("ranking", ["local", "global", "isomorphic"])
@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("net", ZOO, ids=str)
def test_zoo(net: Net, rounds: int, ranking: str) -> None:
    others: dict[str, dict[str, Any]] = {
        "local": {},
        "global": {"global_pruning": True, "max_pruning_ratio": 0.7},
        "isomorphic": {"global_pruning": True, "isomorphic": True, "max_pruning_ratio": 0.7},
    }
    keywords = {"pruning_ratio": 0.5, **others[ranking]}
    assert_parity(net.build(), example(net), lambda m: {**net.keywords(m), **keywords}, rounds)


def scaled_pruner(kind: type[nn.Module]) -> Any:
    class Pruner(tp.pruner.function.BasePruningFunc):
        """Cuts a Scaled layer."""

        TARGET_MODULES = kind

        def prune_out_channels(self, layer: Any, idxs: Any) -> Any:
            keep = [i for i in range(layer.width) if i not in set(idxs)]
            layer.gain = nn.Parameter(layer.gain.data[keep])
            layer.width = len(keep)
            return layer

        prune_in_channels = prune_out_channels

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.width)

        get_in_channels = get_out_channels

    return Pruner()


class Scaled(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.gain = width, nn.Parameter(torch.rand(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gain.reshape(1, self.width, 1, 1)


def with_own_layer() -> nn.Module:
    model = CONV_BN.build()
    model.parts[1] = Scaled(8)
    return model


VARIANTS: dict[str, tuple[Any, Any]] = {
    "round_to": (CONV_BN, lambda m: {"round_to": 4, "pruning_ratio": 0.4}),
    "round_to of a flattened layer": (FLATTEN, lambda m: {"round_to": 2, "pruning_ratio": 0.1}),
    "ratio of a layer": (CONV_BN, lambda m: {"pruning_ratio_dict": {m.parts[0]: 0.25}}),
    "ratio of a tuple": (
        DENSE,
        lambda m: {"global_pruning": True, "pruning_ratio_dict": {(m.stem, m.two): 0.3}},
    ),
    "ratio of a tuple, local": (DENSE, lambda m: {"pruning_ratio_dict": {(m.stem, m.two): 0.3}}),
    "ratio of a part": (GROUPED, lambda m: {"pruning_ratio_dict": {m.parts: 0.3}}),
    "ceiling": (CONV_BN, lambda m: {"pruning_ratio": 0.75, "max_pruning_ratio": 0.5}),
    "ignored layer": (CONV_BN, lambda m: {"ignored_layers": [m.head, m.parts[3]]}),
    "ignored parameter": (UNWRAPPED, lambda m: {"ignored_layers": [m.head, m.conv, m.scale]}),
    "heads": (FUSED, lambda m: {"prune_num_heads": True, "head_pruning_ratio": 0.5}),
    "heads only": (
        FUSED,
        lambda m: {"prune_num_heads": True, "prune_head_dims": False, "head_pruning_ratio": 0.5},
    ),
    "heads, global": (
        FUSED,
        lambda m: {
            "prune_num_heads": True, "head_pruning_ratio": 0.5, "global_pruning": True,
            "max_pruning_ratio": 0.7,
        },
    ),
    "heads of a layer": (
        SEPARATE,
        lambda m: {
            "prune_num_heads": True, "prune_head_dims": False,
            "head_pruning_ratio_dict": {m.query: 0.5, m.key: 0.5, m.value: 0.5},
        },
    ),
    "separate heads": (SEPARATE, lambda m: {"prune_num_heads": True, "head_pruning_ratio": 0.25}),
    "channel groups": (
        CONV_BN,
        lambda m: {
            "out_channel_groups": {m.parts[0]: 2}, "in_channel_groups": {m.parts[3]: 2},
        },
    ),
    "unwrapped list": (UNWRAPPED, lambda m: {"unwrapped_parameters": [(m.scale, 1), (m.shift, 0)]}),
    "unwrapped dict": (UNWRAPPED, lambda m: {"unwrapped_parameters": {m.scale: 1, m.shift: 0}}),
    "root types": (FLATTEN, lambda m: {"root_module_types": [nn.Conv2d]}),
    "forward": (CONV_BN, lambda m: {"forward_fn": lambda model, x: model(x * 2)}),
    "outputs": (CONV_BN, lambda m: {"output_transform": lambda out: out.sum()}),
    "scheduler": (
        CONV_BN,
        lambda m: {"pruning_ratio": 0.6, "iterative_pruning_ratio_scheduler": geometric_scheduler},
    ),
    "core schedule": (
        CONV_BN,
        lambda m: {
            "pruning_ratio": 0.6, "iterative_pruning_ratio_scheduler": GeometricSchedule(0.6, 3),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_keywords(variant: str) -> None:
    net, keywords = VARIANTS[variant]
    model = net.build()

    def full(m: Any) -> dict[str, Any]:
        return {**net.keywords(m), **keywords(m)}

    assert_parity(model, example(net), full, rounds=3 if "schedule" in variant else 2)


def test_customized_pruners() -> None:
    def keywords(m: Any) -> dict[str, Any]:
        return {**head_only(m), "customized_pruners": {Scaled: scaled_pruner(Scaled)}}

    small = assert_parity(with_own_layer(), example(CONV_BN), keywords, rounds=2)
    assert small.parts[1].width == 4


def test_a_type_among_ignored_layers() -> None:
    """The host skips types in silence, so its pruner is told the layers."""
    model = FLATTEN.build()

    def keywords(m: Any) -> dict[str, Any]:
        return {"ignored_layers": [nn.Linear] if m is model else [m.parts[3], m.head]}

    assert assert_parity(model, example(FLATTEN), keywords).parts[3].out_features == 10


IMPORTANCES = {
    "LAMP": lambda: tp.importance.LAMPImportance(),
    "BN scale": lambda: tp.importance.BNScaleImportance(),
    "first": lambda: tp.importance.GroupMagnitudeImportance(p=1, group_reduction="first"),
    "sum of inputs": lambda: lambda group: group[0].dep.target.module.weight.flatten(1).sum(1),
}


@pytest.mark.parametrize("name", IMPORTANCES)
def test_importances(name: str) -> None:
    assert_parity(
        CONV_BN.build(), example(CONV_BN), head_only, rounds=2, importance=IMPORTANCES[name]
    )


@pytest.mark.parametrize(
    "inputs",
    [
        (torch.rand(2, 8),),
        {"x": torch.rand(2, 8)},
        [torch.rand(2, 8)],
    ],
    ids=["tuple", "dict", "list"],
)
def test_example_inputs(inputs: Any) -> None:
    assert_parity(LAYER_NORM.build(), inputs, head_only)


def test_a_cubic_schedule() -> None:
    def keywords(m: Any) -> dict[str, Any]:
        schedule = CubicSchedule(0.7, 4)
        return {
            **head_only(m), "pruning_ratio": 0.7, "iterative_pruning_ratio_scheduler": schedule,
        }  # fmt: skip

    assert_parity(CONV_BN.build(), example(CONV_BN), keywords, rounds=4, importance=magnitude)
