"""What the pruner refuses when it is built: what was expected, what came, what to do."""

from typing import Any

import pytest
import torch
import torch_pruning as tp
from torch import nn

from rtl_plugin import DataGroups
from rtl_plugin.errors import InvalidArgument, NothingPrunable
from rtl_torch_pruning import RTLPruner
from tests.torch_pruning.setups import (
    cross_entropy,
    example,
    groups_of,
    magnitude,
    pruner_of,
    sgd,
)
from tests.torch_pruning.zoo import CONV_BN, FUSED, UNWRAPPED, Net


def refused(message: str, net: Net = CONV_BN, importance: Any = None, **others: Any) -> None:
    model = net.build()
    with pytest.raises(InvalidArgument, match=message):
        pruner_of(net, model, importance, **others)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.rand(2, 3, 5, 5), r"Features does not accept example_inputs \(RuntimeError: .*3 ch"),
        (torch.rand(2, 8), "does not accept example_inputs"),
        ((torch.rand(2, 2, 5, 5), 1), r"does not accept .*TypeError.*a tuple of arguments"),
        ({"y": torch.rand(2, 2, 5, 5)}, "does not accept .*'y'.*a dict of keyword arguments"),
        (None, "must hold a tensor that the network accepts, got None"),
        ((2, 2, 5, 5), r"must hold a tensor .*got \(2, 2, 5, 5\)"),
        ([], r"must hold a tensor .*got \[\]"),
    ],
)
def test_example_inputs(inputs: Any, message: str) -> None:
    refused(message, example_inputs=inputs)


BAD_RATIOS = [-0.1, 1.0, 1.5, float("nan"), float("inf"), True, "0.5", torch.tensor(0.5)]


@pytest.mark.parametrize("ratio", BAD_RATIOS, ids=repr)
def test_ratios_out_of_range(ratio: Any) -> None:
    for name in ("pruning_ratio", "head_pruning_ratio", "ch_sparsity"):
        refused(rf"{name} must be in \[0, 1\), got .*: the fraction of channels", **{name: ratio})
    model = FUSED.build()
    for name in ("pruning_ratio_dict", "head_pruning_ratio_dict", "ch_sparsity_dict"):
        with pytest.raises(InvalidArgument, match=rf"{name}\[Linear\] must be in \[0, 1\), got"):
            pruner_of(FUSED, model, **{name: {model.qkv: ratio}})
    with pytest.raises(InvalidArgument, match=r"pruning_ratio_dict\[.*\] must be in \[0, 1\)"):
        pruner_of(FUSED, model, pruning_ratio_dict={(model.qkv, model.stem): ratio})
    if ratio != 1.0 or ratio is True:
        refused(r"max_pruning_ratio must be in \(0, 1\], got", max_pruning_ratio=ratio)


def test_no_ratio_at_all() -> None:
    refused(r"pruning_ratio must be in \[0, 1\), got None", pruning_ratio=None)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "8"])
def test_whole_numbers(value: Any) -> None:
    refused("round_to", round_to=value)
    refused("iterative_steps", iterative_steps=value)
    if value != 0 or isinstance(value, bool):
        refused("seed", seed=value)
        refused("steps", steps=value)


def test_unknown_keywords() -> None:
    refused("BasePruner has no keyword 'prunning_ratio'; it has .*pruning_ratio", prunning_ratio=1)
    refused("has no keyword 'model_'", model_=1)


@pytest.mark.parametrize(
    "keyword",
    [
        "ignored_layers", "pruning_ratio_dict", "tuple", "num_heads", "in_channel_groups",
        "out_channel_groups", "head_pruning_ratio_dict",
    ],
)  # fmt: skip
def test_modules_of_another_network(keyword: str) -> None:
    layer, value = nn.Linear(4, 4), 0.5 if "ratio" in keyword or keyword == "tuple" else 2
    given: Any = [layer] if keyword == "ignored_layers" else {layer: value}
    if keyword == "tuple":
        keyword, given = "pruning_ratio_dict", {(layer,): value}
    refused(
        f"{keyword} names a Linear that is not part of the model: pass the model's own",
        **{keyword: given},
    )


def test_parameters_of_another_network() -> None:
    other = nn.Parameter(torch.rand(8))
    refused("ignored_layers names a Parameter that is not part", ignored_layers=[other])
    for given in ({other: 0}, [(other, 0)]):
        refused("unwrapped_parameters names a Parameter", UNWRAPPED, unwrapped_parameters=given)


def test_types_that_the_model_has_not() -> None:
    refused("ignored_layers names LSTM; the model has none", ignored_layers=[nn.LSTM])


@pytest.mark.parametrize("layers", ["head", 3, nn.Linear(1, 1), nn.Linear])
def test_ignored_layers_that_are_no_list(layers: Any) -> None:
    refused("ignored_layers must be a list of layers, got", ignored_layers=layers)


@pytest.mark.parametrize("layer", ["parts.0", 3, None, torch.rand(2)])
def test_ignored_layers_by_something_else(layer: Any) -> None:
    """The host would cut them all the same."""
    refused(
        "must hold modules, parameters or types of modules .*in silence.*got",
        ignored_layers=[layer],
    )


TABLES = ("num_heads", "in_channel_groups", "out_channel_groups", "channel_groups")


@pytest.mark.parametrize("name", [*TABLES, "pruning_ratio_dict", "head_pruning_ratio_dict"])
def test_tables(name: str) -> None:
    refused(f"{name} must be a dict, got list", **{name: [2]})
    refused(f"keys of {name} must be the model's own modules, got 'qkv'", **{name: {"qkv": 0.5}})
    refused(f"keys of {name} must be .*got <class", **{name: {nn.Linear: 0.5}})
    for value in (0, -1, 1.5, True, None) if name in TABLES else ():
        model = FUSED.build()
        with pytest.raises(InvalidArgument, match=rf"{name}\[Linear\]"):
            pruner_of(FUSED, model, **{name: {model.qkv: value}})


def test_none_is_the_default_of_a_table() -> None:
    nothing = dict.fromkeys([*TABLES, "pruning_ratio_dict", "customized_pruners"])
    pruner_of(CONV_BN, CONV_BN.build(), **nothing).step()


def test_schedules_are_callable() -> None:
    message = r"iterative_pruning_ratio_scheduler must be callable .*geometric_scheduler, got 3"
    refused(message, iterative_pruning_ratio_scheduler=3)


def test_customized_pruners_by_instance() -> None:
    model = CONV_BN.build()
    with pytest.raises(
        InvalidArgument, match=r"customized_pruners maps layer types .*Conv2d as key"
    ):
        pruner_of(CONV_BN, model, customized_pruners={model.parts[0]: object()})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"either steps= .* or train=.*got steps=None, train=None"),
        ({"steps": 1, "train": print}, "either steps= .* or train="),
        ({"steps": 1}, "steps=1 needs loss=, .*got loss=None and optimizer=None"),
        ({"steps": 1, "loss": cross_entropy}, "steps=1 needs .*optimizer=None"),
        ({"steps": 1, "optimizer": sgd}, "steps=1 needs .*loss=None"),
        ({"steps": 1, "optimizer": sgd, "loss": 3}, "a callable loss.*got loss=3"),
        ({"steps": 0, "optimizer": sgd}, "optimizer= is used with steps= of at least 1 only"),
        ({"train": print, "optimizer": sgd}, "optimizer= is used with steps="),
        ({"train": 3}, "train must be callable, got 3"),
        ({"steps": -1}, "steps"),
    ],
)
def test_training_settings(settings: dict[str, Any], message: str) -> None:
    model = CONV_BN.build()
    with pytest.raises(InvalidArgument, match=message):
        RTLPruner(
            model, example(CONV_BN), magnitude(), groups=groups_of(CONV_BN),
            ignored_layers=[model.head], **settings,
        )  # fmt: skip


def test_outputs_must_be_ignored() -> None:
    message = "would remove outputs of the network, those of 'head': add this layer to ignored"
    refused(message, ignored_layers=[])
    refused(message, ignored_layers=None)
    refused(message, ignored_layers=[nn.BatchNorm2d])
    model = CONV_BN.build()
    zero = pruner_of(CONV_BN, model, ignored_layers=[], pruning_ratio_dict={model.head: 0.0})
    zero.step()
    assert zero.compact("a").head.out_features == 3


def test_everything_ignored() -> None:
    for ignored in ([nn.Conv2d, nn.Linear], [nn.Module]):
        with pytest.raises(NothingPrunable, match="no group of channels to cut: everything is in"):
            pruner_of(CONV_BN, CONV_BN.build(), ignored_layers=ignored)
    with pytest.raises(NothingPrunable, match="root_module_types"):
        pruner_of(CONV_BN, CONV_BN.build(), root_module_types=[nn.LSTM])


@pytest.mark.parametrize("name", ["OBDCImportance", "ActivationImportance"])
def test_importances_that_look_at_the_working_network(name: str) -> None:
    kind = getattr(tp.pruner.importance, name)
    importance = kind.__new__(kind)
    refused(f"{name} records activations .* use GroupTaylorImportance or", importance=importance)


def test_importance_must_be_callable() -> None:
    refused("importance must be callable .*got 'magnitude'.*for example", importance="magnitude")


def test_groups_and_models() -> None:
    for groups in ({"a": []}, [1], None):
        refused(r"groups=DataGroups, got Features and \w+: make groups with", groups=groups)
    with pytest.raises(InvalidArgument, match=r"takes an nn\.Module .*got function and DataGroups"):
        RTLPruner(cross_entropy, example(CONV_BN), magnitude(), groups=groups_of(CONV_BN), steps=0)
    refused('on_vanishing must be "error" or "keep", got True', on_vanishing=True)


def test_models_that_cannot_be_copied() -> None:
    def made() -> nn.Module:
        model = CONV_BN.build()
        model.generator = (number for number in range(3))
        return model

    net = Net("generator", made, CONV_BN.inputs)
    refused("Features cannot be deep-copied .*keep only parameters, buffers and plain", net)


def test_nothing_is_left_of_a_refusal() -> None:
    model = CONV_BN.build()
    flags = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for others in ({"round_to": 0}, {"example_inputs": torch.rand(1)}, {"ignored_layers": []}):
        with pytest.raises(InvalidArgument):
            pruner_of(CONV_BN, model, **others)
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert isinstance(groups_of(CONV_BN), DataGroups)
