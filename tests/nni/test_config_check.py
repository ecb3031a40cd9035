"""The dry run: NNI's own meaning of every key, and every silent trap as an error."""

import copy
import re
from typing import Any

import pytest
import torch
from nni.compression.pruning import FPGMPruner, L1NormPruner, LevelPruner
from torch import nn
from torch.nn.utils import parametrizations, prune

from rtl_nni import ConfigCheck, check
from rtl_nni.config_check import checked_config
from rtl_plugin.errors import InvalidArgument, NothingPrunable
from tests.nni.networks import CNN, ENCODER, MLP, Network, pruner_of


def conv(**settings: Any) -> list[dict[str, Any]]:
    return [{"op_names": ["3"], "sparse_ratio": 0.5, **settings}]


def aligned(layer: str, dims: list[int], to: str) -> dict[str, Any]:
    source = {"module_name": to, "target_name": "weight", "dims": dims}
    settings = {"weight": {"align": source}}
    return {"op_names": [layer], "target_names": ["weight"], "target_settings": settings}


# name -> (configuration of the small CNN, what the message must say)
TRAPS: dict[str, tuple[Any, str]] = {
    "no list": ({"op_types": ["Conv2d"]}, "must be a list of at least one dict"),
    "nothing": ([], "must be a list of at least one dict"),
    "unknown key": (conv(ticket_group="a"), r"config_list\[0\].*Wrong key 'ticket_group'"),
    "misspelt granularity": (conv(sparse_granularity="default"), "'sparse_granularity'"),
    "unknown granularity": (conv(granularity="fine"), "did not validate 'fine'"),
    "whole number": (conv(sparse_ratio=1), "floats"),
    "ratio and threshold": (conv(sparse_threshold=0.1), "multiple keys"),
    "no selection": ([{"sparse_ratio": 0.5}], "Missing key"),
    "no list of names": ([{"op_names": "3", "sparse_ratio": 0.5}], "should be instance of 'list'"),
    "quantisation": (conv(quant_dtype="int8"), "quant_dtype"),
    "ratio above one": (conv(sparse_ratio=1.5), r"'3\.weight': sparse_ratio must be .* got 1\.5"),
    "negative ratio": (conv(sparse_ratio=-0.5), r"got -0\.5"),
    "keeps nothing": (conv(sparse_ratio=1.0), r"'3\.weight': .*keeps nothing: at most 0\.99"),
    "infinite threshold": (
        [{"op_names": ["3"], "sparse_threshold": float("inf")}],
        "sparse_threshold must be a finite number",
    ),
    "limits crossed": (
        conv(min_sparse_ratio=0.9, max_sparse_ratio=0.2),
        r"min_sparse_ratio 0\.9 is above max_sparse_ratio 0\.2",
    ),
    "unknown type": ([{"op_types": ["conv2d"], "sparse_ratio": 0.5}], "'conv2d' in op_types"),
    "unknown name": ([{"op_names": ["conv1"], "sparse_ratio": 0.5}], "'conv1' in op_names"),
    "unknown exclusion": (conv(exclude_op_names=["fc"]), "'fc' in exclude_op_names matches"),
    "unknown excluded type": (conv(exclude_op_types=["GRU"]), "'GRU' in exclude_op_types"),
    "pattern without match": (
        [{"op_names_re": ["conv.*"], "sparse_ratio": 0.5}],
        r"'conv\.\*' in op_names_re matches nothing",
    ),
    "excluding pattern without match": (conv(exclude_op_names_re=["x"]), "exclude_op_names_re"),
    "no pattern": ([{"op_names_re": ["("], "sparse_ratio": 0.5}], "no regular expression"),
    "no setting for the type": (
        [{"op_types": ["ReLU"], "sparse_ratio": 0.5}],
        r"'2': NNI has no setting for ReLU.*PruningSetting\.register\('ReLU'",
    ),
    "second entry for a layer": (
        [*conv(), {"op_types": ["Conv2d"], "sparse_ratio": 0.25}],
        r"config_list\[1\], '3\.weight': config_list\[0\] configures it already.*exclude_op_names",
    ),
    "global group with a limit": (
        conv(global_group_id=1, max_sparse_ratio=0.6),
        r"'3\.weight': NNI does not hold a layer of a global group to max_sparse_ratio",
    ),
    "global group with two ratios": (
        [
            conv(global_group_id=1)[0],
            {"op_names": ["0"], "sparse_ratio": 0.25, "global_group_id": 1},
        ],
        r"global_group_id 1 .*one common sparse_ratio, got 0\.25, 0\.5",
    ),
    "dependency group with a limit": (
        conv(dependency_group_id="x", min_sparse_ratio=0.1),
        "NNI ignores min_sparse_ratio beside a dependency_group_id",
    ),
    "both kinds of group": (
        conv(dependency_group_id="x", global_group_id=1),
        "NNI ignores global_group_id beside a dependency_group_id",
    ),
    "dependency group with two ratios": (
        [
            conv(dependency_group_id="x")[0],
            {"op_names": ["0"], "sparse_ratio": 0.25, "dependency_group_id": "x"},
        ],
        r"dependency_group_id 'x' .*one common sparse_ratio, got 0\.25, 0\.5",
    ),
    "dependency group of two sizes": (
        [{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "dependency_group_id": 1}],
        "different numbers of output channels",
    ),
    "activations": (conv(target_names=["weight", "_output_"]), "'_output_' masks activations"),
    "unknown target": (conv(target_names=["wieght"]), "no target 'wieght', only 'weight', 'bias'"),
    "bias alone": (conv(target_names=["bias"]), r"'3\.bias': it is to follow '3\.weight'"),
    "nothing asked": ([{"op_names": ["3"]}], r"'3\.weight': nothing is asked of it"),
    "aligned to one dimension": (
        [
            {"op_names": ["1"], "sparse_ratio": 0.5, "target_names": ["weight"]},
            aligned("4", [0], "1"),
        ],
        r"'4\.weight': it is to follow '1\.weight', which has one dimension.*convolution",
    ),
    "aligned to what is not configured": (
        [*conv(), aligned("1", [0], "0")],
        r"'1\.weight': it is to follow '0\.weight', which has no ratio",
    ),
    "aligned to another size": (
        [*conv(), aligned("1", [0], "3")],
        r"dims \[0\] of '3\.weight' \(shape \(12, 8, 3, 3\)\) do not have its first size \(8,\)",
    ),
    "aligned to a dimension that is not there": (
        [*conv(), aligned("4", [7], "3")],
        r"dims \[7\] of '3\.weight'",
    ),
    "total sparsity of NNI 2": (
        [{"total_sparsity": 0.5, "op_types": ["Conv2d"]}],
        "total_sparsity: write 'sparse_ratio' and a 'global_group_id'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_an_error_with_its_remedy(name: str) -> None:
    config, message = TRAPS[name]
    model = CNN.build()
    with pytest.raises(InvalidArgument, match=f"(?s){message}"):
        check(config, model)
    with pytest.raises(InvalidArgument, match=f"(?s){message}"):
        pruner_of(CNN, model, config=config or ["nothing"])


@pytest.mark.parametrize(
    "config",
    [
        [{"op_types": ["Conv2d"], "exclude_op_names": ["0", "3"], "sparse_ratio": 0.5}],
        [{"op_types": ["Conv2d"], "op_names": ["8"], "sparse_ratio": 0.5}],
    ],
)
def test_nothing_selected(config: Any) -> None:
    with pytest.raises(NothingPrunable, match="selects no layer at all"):
        check(config, CNN.build())


def test_all_faults_are_told_at_once() -> None:
    config = [{"op_types": ["Conv2d"], "sparse_ratio": 1.5, "min_sparse_ratio": 0.25}]
    with pytest.raises(InvalidArgument) as caught:
        check(config, CNN.build())
    assert str(caught.value).count("\n- ") == 2
    assert "'0.weight'" in str(caught.value)
    assert "'3.weight'" in str(caught.value)


def test_out_proj_of_attention() -> None:
    """Its weight is read around the layer, so a mask changes nothing."""
    config = [{"op_names_re": [".*linear.*", ".*out_proj"], "sparse_ratio": 0.5}]
    message = r"'layer\.self_attn\.out_proj': 'layer\.self_attn' \(MultiheadAttention\) reads"
    with pytest.raises(InvalidArgument, match=message):
        check(config, ENCODER.build())
    config[0]["exclude_op_names"] = ["layer.self_attn.out_proj"]
    assert {row.layer for row in checked_config(config, ENCODER.build()).rows} == {
        "layer.linear1",
        "layer.linear2",
    }


def test_layer_norm_in_an_encoder() -> None:
    with pytest.raises(InvalidArgument, match="NNI has no setting for LayerNorm"):
        check([{"op_types": ["LayerNorm"], "sparse_ratio": 0.5}], ENCODER.build())


def test_whole_outputs_of_the_last_layer() -> None:
    config = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
    message = r"'4\.weight': the last linear layer would lose whole outputs"
    for pruner in (L1NormPruner, FPGMPruner):
        with pytest.raises(InvalidArgument, match=message):
            check(config, MLP.build(), pruner)
    check(config, MLP.build(), LevelPruner)
    named = [{"op_names": ["0", "4"], "sparse_ratio": 0.5}]
    check(named, MLP.build(), L1NormPruner)


def test_whole_outputs_where_a_function_makes_the_pruner() -> None:
    pruner = pruner_of(
        MLP,
        MLP.build(),
        config=[{"op_types": ["Linear"], "sparse_ratio": 0.5}],
        pruner=lambda model, config, evaluator: L1NormPruner(model, config, evaluator),
        pruner_options=None,
    )
    with pytest.raises(InvalidArgument, match="would lose whole outputs"):
        pruner.compress()


class Tied(nn.Module):
    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = self.a if whole else nn.Linear(4, 4)
        self.b.weight = self.a.weight


@pytest.mark.parametrize("whole", [True, False])
def test_tied_parameters(whole: bool) -> None:
    message = r"'a\.weight': it is tied \(a\.weight, b\.weight\).*exclude every use"
    with pytest.raises(InvalidArgument, match=message):
        check([{"op_names": ["a"], "sparse_ratio": 0.5}], Tied(whole))


def test_models_with_torch_prune_or_parametrizations() -> None:
    model = CNN.build()
    prune.random_unstructured(model[3], "weight", 0.5)  # type: ignore[index]
    with pytest.raises(InvalidArgument, match=r"'3\.weight': it is computed.*remove that first"):
        check(conv(), model)
    model = CNN.build()
    parametrizations.weight_norm(model[3])  # type: ignore[index]
    with pytest.raises(InvalidArgument, match="ParametrizedConv2d"):
        check(conv(), model)


def test_wrapped_models() -> None:
    model = CNN.build()
    L1NormPruner(model, conv())
    with pytest.raises(InvalidArgument, match=r"'3' is still wrapped.*unwrap_model\(\)"):
        check(conv(), model)
    with pytest.raises(InvalidArgument, match=r"DataParallel: pass model\.module"):
        check(conv(), nn.DataParallel(CNN.build()))
    with pytest.raises(InvalidArgument, match=r"must be a torch\.nn\.Module, got dict"):
        check(conv(), {})  # type: ignore[arg-type]


# Configurations that NNI runs as written, as in its manual.
GOOD: dict[str, tuple[Network, list[dict[str, Any]]]] = {
    "types": (CNN, [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.5}]),
    "names": (CNN, [{"op_names": ["3", "0"], "sparse_ratio": 0.5}]),
    "patterns": (ENCODER, [{"op_names_re": [r"layer\.linear.", "head"], "sparse_ratio": 0.5}]),
    "anchored pattern": (ENCODER, [{"op_names_re": ["linear|embed"], "sparse_ratio": 0.5}]),
    "names and types": (
        ENCODER, [{"op_names_re": ["layer.*"], "op_types": ["Linear"], "sparse_ratio": 0.5}]
    ),
    "excluded": (
        ENCODER,
        [
            {
                "op_types": ["Linear"], "exclude_op_names": ["head"],
                "exclude_op_names_re": [r".*linear2"], "sparse_ratio": 0.5,
            }
        ],
    ),
    "excluded types": (
        CNN,
        [{"op_names_re": ["[038]"], "exclude_op_types": ["Linear"], "sparse_ratio": 0.25}],
    ),
    "several entries": (
        CNN,
        [
            {"op_types": ["Linear"], "sparse_ratio": 0.75},
            {"op_types": ["Conv2d"], "sparse_ratio": 0.25, "target_names": ["weight"]},
        ],
    ),
    "settings of a target": (
        CNN, [{"op_names": ["3"], "target_settings": {"weight": {"sparse_ratio": 0.5}}}]
    ),
    "settings that override": (
        CNN,
        [
            {
                "op_names": ["3"], "sparse_ratio": 0.5,
                "target_settings": {"weight": {"max_sparse_ratio": 0.4, "min_sparse_ratio": 0.1}},
            }
        ],
    ),
    "thresholds": (CNN, [{"op_types": ["Conv2d"], "sparse_threshold": 0.1}]),
    "global group": (
        CNN, [{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "global_group_id": "all"}]
    ),
    "dependency group": (CNN, conv(dependency_group_id=3, internal_metric_block=2)),
    "in channels": (CNN, conv(granularity="in_channel")),
    "blocks": (CNN, conv(granularity=[4, 1, 1, 1])),
    "blocks with padding": (CNN, conv(granularity=[[4, 1], "back", -1])),
    "aligned norm": (CNN, [*conv(), aligned("4", [0], "3")]),
    "aligned before its source": (CNN, [aligned("4", [0], "3"), *conv()]),
    "ratio of NNI 2": (CNN, [{"sparsity": 0.5, "op_types": ["Conv2d"]}]),
    "ratio a layer of NNI 2": (CNN, [{"sparsity_per_layer": 0.5, "op_types": ["Conv2d"]}]),
    "limit of NNI 2": (
        CNN, [{"sparsity": 0.5, "max_sparsity_per_layer": 0.6, "op_types": ["Conv2d"]}]
    ),
    "exclusion of NNI 2": (
        CNN, [{"sparsity": 0.5, "op_types": ["Conv2d"]}, {"exclude": True, "op_names": ["0"]}]
    ),
    "partial names of NNI 2": (
        ENCODER, [{"sparsity": 0.5, "op_types": ["Linear"], "op_partial_names": ["linear"]}]
    ),
}  # fmt: skip


def spaces(pruner: Any) -> dict[str, Any]:
    """Everything that NNI goes by, layer by layer."""
    return {
        f"{layer}.{target}": (
            dict(space.setting),
            None if space._scaler is None else vars(space._scaler),
        )
        for layer, targets in pruner._target_spaces.items()
        for target, space in targets.items()
    }


@pytest.mark.parametrize("pruner", [LevelPruner, L1NormPruner], ids=lambda p: p.__name__)
@pytest.mark.parametrize("name", GOOD)
def test_our_entries_mean_what_nni_makes_of_the_users(name: str, pruner: Any) -> None:
    network, config = GOOD[name]
    before = copy.deepcopy(config)
    checked = checked_config(config, network.build())
    expanded = [entry.as_config() for entry in checked.entries]
    theirs, ours = pruner(network.build(), config), pruner(network.build(), expanded)
    assert spaces(ours) == spaces(theirs)
    assert {row.name for row in checked.rows} == set(spaces(theirs))
    assert config == before


@pytest.mark.parametrize("name", GOOD)
def test_good_configurations_print_a_line_a_parameter(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    network, config = GOOD[name]
    checked = check(config, network.build())
    assert isinstance(checked, ConfigCheck)
    printed = capsys.readouterr().out
    assert printed == f"{checked}\n"
    assert printed.count("\n") == len(checked.rows) + 4
    for row in checked.rows:
        assert re.search(rf"^\s*{row.entry}\s+{re.escape(row.name)} ", printed, re.MULTILINE)


def test_the_table_says_ratio_granularity_group_and_what_follows() -> None:
    config = [
        {"op_names": ["3"], "sparse_ratio": 0.5, "global_group_id": 2},
        {"op_names": ["8"], "sparse_threshold": 0.25, "granularity": "in_channel"},
        aligned("4", [0], "3"),
    ]
    rows = {row.name: row for row in checked_config(config, CNN.build(), L1NormPruner).rows}
    assert (rows["3.weight"].asked, rows["3.weight"].granularity) == ("ratio 0.5", "out_channel")
    assert rows["3.weight"].group == "global 2"
    assert rows["3.bias"].asked == "as 3.weight"
    assert (rows["8.weight"].asked, rows["8.weight"].granularity) == (
        "threshold 0.25",
        "in_channel",
    )
    assert rows["4.weight"].asked == "as 3.weight"
    assert rows["4.weight"].numel == 12


def test_prunable_counts_what_has_a_ratio_of_its_own() -> None:
    checked = checked_config(CNN.config(), CNN.build())
    assert checked.prunable == 72 + 864
    assert "936 of 956 matched weights" in str(checked)


def test_default_granularity_depends_on_the_pruner() -> None:
    model = CNN.build()
    for pruner, expected in (
        (LevelPruner, "fine"),
        (L1NormPruner, "out_channel"),
        (None, "default"),
    ):
        assert checked_config(conv(), model, pruner).rows[0].granularity == expected


def test_notes_on_what_will_not_be_masked() -> None:
    rows = checked_config(
        [
            {"op_names": ["0"], "sparse_ratio": 0.1},
            {"op_names": ["1"], "sparse_ratio": 0.5},
        ],
        CNN.build(),
        L1NormPruner,
    ).rows
    notes = {row.name: row.note for row in rows}
    assert notes["0.weight"] == "nothing goes: 0.1 of 8 rounds down to 0"
    assert notes["1.bias"].startswith("never masked")


def test_layers_without_bias() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2))
    rows = checked_config([{"op_names": ["0"], "sparse_ratio": 0.5}], model).rows
    assert [(row.name, row.shape, row.note) for row in rows][1] == (
        "0.bias",
        None,
        "the layer has no bias",
    )


def test_entries_in_the_users_order_and_layers_in_the_models() -> None:
    config = [
        {"op_types": ["Linear"], "sparse_ratio": 0.5},
        {"op_types": ["Conv2d"], "sparse_ratio": 0.5},
    ]
    rows = checked_config(config, CNN.build()).rows
    assert [row.layer for row in rows if row.target == "weight"] == ["8", "0", "3"]


def test_the_same_twice_is_no_contradiction() -> None:
    config = [*conv(), {"op_types": ["Conv2d"], "sparse_ratio": 0.5}]
    rows = checked_config(config, CNN.build()).rows
    assert [(row.name, row.entry) for row in rows if row.ranked] == [
        ("3.weight", 0),
        ("0.weight", 1),
    ]


def test_checking_leaves_the_model_as_it_was() -> None:
    model = CNN.build()
    before = {name: (id(p), p.detach().clone()) for name, p in model.named_parameters()}
    check(CNN.config(), model, L1NormPruner)
    for name, parameter in model.named_parameters():
        assert id(parameter) == before[name][0]
        assert torch.equal(parameter, before[name][1])
