"""Which parameters may be masked: rules, verdicts with reasons, the printed table."""

import pytest
import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument, NothingPrunable
from rtl_plugin.prunable import Verdict, explain, select_prunable, verdicts
from tests.models import conv_net, mlp, resnet, transformer


def chosen(model: nn.Module, prunable: object = None) -> list[str]:
    return list(select_prunable(model, prunable))


def reasons(model: nn.Module, prunable: object = None) -> dict[str, str]:
    return {verdict.name: verdict.reason for verdict in verdicts(model, prunable)}


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (conv_net, ["0.weight", "3.weight"]),
        (mlp, ["0.weight", "2.weight"]),
        (
            resnet,
            [
                "stem.weight",
                "blocks.0.conv1.weight",
                "blocks.0.conv2.weight",
                "blocks.1.conv1.weight",
                "blocks.1.conv2.weight",
                "blocks.1.shortcut.0.weight",
            ],
        ),
        (
            transformer,
            [
                "encoder.self_attn.out_proj.weight",
                "encoder.linear1.weight",
                "encoder.linear2.weight",
            ],
        ),
    ],
    ids=["conv_net", "mlp", "resnet", "transformer"],
)
def test_the_default_takes_convolutions_and_linear_layers_but_the_last(build, expected) -> None:
    model = build()
    assert chosen(model) == expected
    said = reasons(model)
    last = "4.weight" if build is mlp else "8.weight" if build is conv_net else "fc.weight"
    assert said[last] == "last linear layer (the classifier) stays dense by default"


def test_the_default_takes_every_kind_of_convolution() -> None:
    model = nn.ModuleList(
        [
            nn.Conv1d(1, 1, 1),
            nn.Conv3d(1, 1, 1),
            nn.ConvTranspose2d(1, 1, 1),
            nn.Bilinear(1, 1, 1),
            nn.LSTM(1, 1),
            nn.Embedding(1, 1),
            nn.LayerNorm(1),
        ]
    )
    assert chosen(model) == ["0.weight", "1.weight", "2.weight"]
    said = reasons(model)
    assert said["3.weight"] == "Bilinear stays dense by default"
    assert said["0.bias"] == "bias of Conv1d stays dense by default"
    assert said["4.weight_ih_l0"] == "LSTM stays dense by default"


def test_the_chosen_parameters_are_the_model_s_own() -> None:
    model = mlp()
    assert select_prunable(model)["0.weight"] is model[0].weight


@pytest.mark.parametrize(
    ("prunable", "expected"),
    [
        (nn.Linear, ["8.weight"]),  # asked for by name, the last linear layer is prunable
        (nn.Conv2d, ["0.weight", "3.weight"]),
        ([nn.Conv2d, nn.Linear], ["0.weight", "3.weight", "8.weight"]),
        ("*.bias", ["0.bias", "1.bias", "3.bias", "4.bias", "8.bias"]),
        ("1.*", ["1.weight", "1.bias"]),  # batch norm's affine, if somebody wants that
        ((nn.Linear, "0.*"), ["0.weight", "0.bias", "8.weight"]),
        (lambda name, p, module: p.dim() == 4, ["0.weight", "3.weight"]),
        (lambda name, p, module: isinstance(module, nn.Linear), ["8.weight", "8.bias"]),
        (lambda name, p, module: name == "3.bias", ["3.bias"]),
    ],
)
def test_types_patterns_callables_and_mixed_lists(prunable: object, expected: list[str]) -> None:
    assert chosen(conv_net(), prunable) == expected


def test_a_type_selects_by_subclass_and_by_dimensions() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(Own(2, 2), nn.LSTM(2, 2))
    assert chosen(model, nn.Linear) == ["0.weight"]
    assert chosen(model, nn.LSTM) == ["1.weight_ih_l0", "1.weight_hh_l0"]


def test_patterns_are_case_sensitive_on_every_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.normcase", str.lower)  # as on Windows
    with pytest.raises(NothingPrunable, match=r"prunable='\*.WEIGHT' matches no parameter"):
        verdicts(mlp(), "*.WEIGHT")


@pytest.mark.parametrize("entry", [nn.Conv2d, "head.*", "weight"])
def test_an_entry_that_matches_nothing_is_an_error_beside_others_that_match(entry: object) -> None:
    shown = entry.__name__ if isinstance(entry, type) else repr(entry)
    with pytest.raises(NothingPrunable) as caught:
        verdicts(mlp(), [nn.Linear, entry])
    assert f"prunable={shown} matches no parameter; the model has 0.weight, 0.bias" in str(
        caught.value
    )
    assert "explain(model)" in str(caught.value)


@pytest.mark.parametrize("prunable", [5, [nn.Linear, 5], int, [lambda *a: True], [None], True])
def test_entries_of_another_kind_are_refused(prunable: object) -> None:
    with pytest.raises(InvalidArgument, match=r"prunable= takes .*types.* patterns"):
        verdicts(mlp(), prunable)


@pytest.mark.parametrize("layer", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), nn.ReLU()])
def test_a_module_instead_of_its_type_is_refused(layer: nn.Module) -> None:
    # A module is callable too, but it is not the callable that is meant.
    with pytest.raises(InvalidArgument, match=r"takes nn.Module types and name patterns, got"):
        verdicts(mlp(), layer)


@pytest.mark.parametrize("model", [nn.Linear, lambda x: x, "model", None])
def test_a_model_must_be_a_module(model: object) -> None:
    with pytest.raises(InvalidArgument, match=r"model must be a torch.nn.Module, got"):
        verdicts(model)


def tied_to_embedding(linear_first: bool) -> nn.Module:
    model = nn.ModuleDict()
    linear, embedding = nn.Linear(4, 6, bias=False), nn.Embedding(6, 4)
    names = ("linear", "embed") if linear_first else ("embed", "linear")
    for name in names:
        model[name] = linear if name == "linear" else embedding
    model["embed"].weight = model["linear"].weight
    model["body"] = nn.Linear(4, 4)
    model["head"] = nn.Linear(4, 2)
    return model


@pytest.mark.parametrize("linear_first", [True, False])
def test_tied_parameters_have_one_verdict_whatever_comes_first(linear_first: bool) -> None:
    model = tied_to_embedding(linear_first)
    first, second = ("linear", "embed") if linear_first else ("embed", "linear")
    said = reasons(model)
    assert f"{second}.weight" not in said
    assert said[f"{first}.weight"] == (
        f"Embedding stays dense by default; tied with {second}.weight"
    )
    assert chosen(model) == ["body.weight"]
    # Named explicitly, any use selects it, under its first name.
    for prunable in (f"{second}.*", f"{first}.*", nn.Embedding):
        assert chosen(model, prunable) == [f"{first}.weight"]
    assert f"{first}.weight" in chosen(model, nn.Linear)


def test_a_layer_tied_with_the_classifier_is_the_classifier() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    assert chosen(model) == ["1.weight"]
    assert reasons(model)["0.weight"] == (
        "last linear layer (the classifier) stays dense by default; tied with 2.weight"
    )


def test_a_layer_used_twice_is_tied_with_itself() -> None:
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(3, 2))
    assert chosen(model) == ["0.weight"]
    assert reasons(model)["0.weight"] == "weight of Linear; tied with 2.weight"


def test_frozen_parameters_stay_dense_also_when_named() -> None:
    model = mlp()
    model[0].weight.requires_grad_(False)
    assert chosen(model) == ["2.weight"]
    assert reasons(model, "*.weight")["0.weight"] == "frozen (requires_grad=False)"
    assert chosen(model, "*.weight") == ["2.weight", "4.weight"]


def test_complex_parameters_stay_dense() -> None:
    model = nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64), nn.Linear(2, 2), nn.Linear(2, 2))
    assert chosen(model) == ["1.weight"]
    assert reasons(model)["0.weight"] == "not floating point (torch.complex64)"


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_lazy_model_is_refused_until_its_first_pass() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    with pytest.raises(InvalidArgument, match=r"'0.weight' has no shape yet .*run one forward"):
        verdicts(model)
    model(torch.zeros(1, 3))
    assert chosen(model) == ["0.weight"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Linear(2, 2), "last linear layer"),
        (nn.LayerNorm(2), "LayerNorm stays dense by default"),
        (nn.ReLU(), "it has no parameters"),
        (mlp().requires_grad_(False), r"frozen \(requires_grad=False\)"),
    ],
)
def test_nothing_prunable_is_an_error_with_the_reasons(model: nn.Module, reason: str) -> None:
    with pytest.raises(
        NothingPrunable,
        match=f"no parameter of {type(model).__name__} may be pruned: .*{reason}.*prunable=",
    ):
        select_prunable(model)


def test_a_callable_that_refuses_everything_is_an_error() -> None:
    with pytest.raises(NothingPrunable, match="prunable= returned False"):
        select_prunable(mlp(), lambda name, parameter, module: None)


def test_an_empty_list_chooses_nothing_and_says_so() -> None:
    with pytest.raises(NothingPrunable, match="not matched by prunable="):
        select_prunable(mlp(), [])


def test_explain_prints_every_parameter_and_the_totals(capsys: pytest.CaptureFixture[str]) -> None:
    table = explain(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)))
    printed = capsys.readouterr().out.splitlines()
    rows = [line.split(maxsplit=3) for line in printed[2:-2]]
    assert rows == [
        ["0.weight", "2x1x3x3", "prunable", "weight of Conv2d"],
        ["0.bias", "2", "dense", "bias of Conv2d stays dense by default"],
        ["2.weight", "2x8", "dense", "last linear layer (the classifier) stays dense by default"],
        ["2.bias", "2", "dense", "bias of Linear stays dense by default"],
    ]
    assert printed[-1] == "18 of 38 parameters are prunable"
    assert table[0] == Verdict("0.weight", (2, 1, 3, 3), True, "weight of Conv2d")
    assert str(table) == "\n".join(printed)


def test_explain_prints_names_that_look_like_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    parameters = nn.ParameterList([nn.Parameter(torch.ones(2, 2)) for _ in range(11)])
    explain(nn.Sequential(parameters), "*")
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:-2]]
    assert names == [f"0.{k}" for k in range(11)]  # 0.10 is not 0.1


def test_explain_shows_scalars(capsys: pytest.CaptureFixture[str]) -> None:
    explain(nn.ParameterDict({"gain": nn.Parameter(torch.tensor(1.0))}), "gain")
    assert capsys.readouterr().out.splitlines()[2].split()[:3] == ["gain", "scalar", "prunable"]


def test_explain_prints_the_table_before_it_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NothingPrunable, match="no parameter of Linear may be pruned"):
        explain(nn.Linear(2, 2))
    assert "0 of 6 parameters are prunable" in capsys.readouterr().out
