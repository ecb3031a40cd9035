"""What compare refuses, all of it before any training."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import rtl_plugin as rtl
from rtl_plugin.baselines.methods import TrainedMethod
from rtl_plugin.errors import InvalidArgument, InvalidGroups, NothingPrunable
from tests.baselines.tiny import RECIPE, adam, batches, build_model, cross_entropy, groups

SINGLE = rtl.SingleModel(build_model, cross_entropy)
ONE_VS_REST = rtl.protocols.OneVsRest()


def never(model: Any, batch: Any) -> torch.Tensor:
    raise AssertionError("training began")


def refused(**changed: Any) -> None:
    arguments = {"optimizer": adam, "methods": None, "seeds": [0], **RECIPE, **changed}
    build, data = arguments.pop("build", build_model), arguments.pop("data", None)
    rtl.compare(build, groups() if data is None else data, never, **arguments)


def test_training_would_show() -> None:
    with pytest.raises(AssertionError, match="training began"):
        refused()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"methods": ["dense", "rtl"]}, "unknown method 'rtl': one of adaptive tickets, IMP sing"),
        ({"methods": "dense"}, "list of names, got the name 'dense' alone"),
        ({"methods": []}, r"at least one method and each once, got \[\]"),
        ({"methods": ["dense", "dense"]}, "at least one method and each once, got"),
        ({"seeds": []}, r"seeds must be distinct whole numbers such as range\(5\), got \[\]"),
        ({"seeds": [0, 1, 0]}, r"seeds must be distinct .* got \[0, 1, 0\]"),
        ({"seeds": 3}, r"seeds must be distinct .* got 3"),
        ({"seeds": [0, -1]}, r"seeds must be distinct .* got \[0, -1\]"),
        ({"seeds": [0, 0.5]}, r"seeds must be distinct .* got \[0, 0.5\]"),
        ({"seeds": [True]}, r"seeds must be distinct .* got \[True\]"),
        ({"split": "train"}, "split must be 'test' or 'validation', got 'train'"),
        ({"protocol": rtl.protocols.OneVsRest}, "protocol must be an instance of .* got <class"),
        ({"protocol": "accuracy"}, "protocol must be an instance of .* got 'accuracy'"),
        ({"data": {"a": []}}, "groups must be DataGroups, got dict"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"epochs": 1.5}, "epochs must be a whole number of at least 1, got 1.5"),
        ({"single": SINGLE, "methods": ["dense", "shared mask"]}, "'shared mask' puts the single"),
        (
            {"protocol": ONE_VS_REST, "methods": ["adaptive tickets", "shared mask"]},
            "'shared mask' under one-vs-rest would put .* leave it out",
        ),
        (
            {"protocol": ONE_VS_REST, "methods": ["adaptive tickets", "dense"]},
            r"'dense' under one-vs-rest .* give single=SingleModel\(build_model, loss\)",
        ),
    ],
)
def test_wrong_arguments(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        refused(**changed)


def held_out(validation: bool, test: bool, only: str | None = None) -> rtl.DataGroups:
    both = {"a": batches(2, 0.0, 1), "b": batches(2, 1.0, 2)}
    given = both if only is None else {only: both[only]}
    return rtl.DataGroups.from_loaders(
        both, validation=given if validation else None, test=given if test else None
    )


@pytest.mark.parametrize(
    ("data", "protocol", "split", "message"),
    [
        (held_out(True, False), None, "test", "group 'a' has no test split, .* fraction or loader"),
        (held_out(False, True), None, "test", "group 'a' has no validation split, which Grouped"),
        (held_out(True, True, only="a"), None, "test", "group 'b' has no test split"),
        (held_out(False, True), None, "validation", "group 'a' has no validation split"),
        (
            held_out(True, False),
            rtl.protocols.MeanOfMetric(len, "n"),
            "test",
            "group 'a' has no test split, which MeanOfMetric needs",
        ),
    ],
)
def test_missing_splits(data: Any, protocol: Any, split: str, message: str) -> None:
    with pytest.raises(InvalidGroups, match=message):
        refused(data=data, protocol=protocol, split=split)


def test_a_metric_of_the_user_needs_no_validation_split() -> None:
    metric = rtl.protocols.MeanOfMetric(lambda model, batch: model(batch[0])[:, 0], "first logit")
    comparison = rtl.compare(
        build_model,
        held_out(False, True),
        cross_entropy,
        optimizer=adam,
        methods=["dense"],
        seeds=[0],
        protocol=metric,
        **RECIPE,
    )
    assert [row["metric"] for row in comparison.rows] == ["first logit", "worst group"]


class Drifting:
    """Weights from a generator of its own that is never seeded again."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, seed: int) -> nn.Module:
        model = build_model(seed)
        with torch.no_grad():
            model[3].weight.normal_(generator=self.generator)
        return model


class DriftingBuffers:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, seed: int) -> nn.Module:
        self.calls += 1
        model = build_model(seed)
        model[1].running_mean.fill_(self.calls)
        return model


KEPT = build_model(0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Drifting(), r"^build_model\(0\) gave other weights when it was called again"),
        (DriftingBuffers(), r"^build_model\(0\) gave other weights when it was called again"),
        (lambda seed: KEPT, "^build_model returned the same parameters twice: build a new model"),
        (
            lambda seed: nn.Sequential(build_model(seed)[0], KEPT[3], nn.Linear(6, 2)),
            "^build_model returned the same parameters twice",
        ),
        (lambda seed: cross_entropy, "^build_model must return an nn.Module, got function"),
    ],
    ids=["weights", "buffers", "same model", "same layer", "no module"],
)
def test_build_models_that_cannot_be_compared(build: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        refused(build=build)
    single = message.replace("^build_model", "^single.build_model")
    with pytest.raises(InvalidArgument, match=single):
        refused(single=rtl.SingleModel(build, never))


def test_a_model_that_draws_from_the_global_generators_is_fine() -> None:
    with pytest.raises(AssertionError, match="training began"):
        refused(build=build_model)  # it never seeds torch itself


def test_nothing_prunable() -> None:
    with pytest.raises(NothingPrunable, match=r"'conv.\*'"):
        refused(prunable=["conv.*"])


def test_the_default_methods_leave_the_shared_mask_out_beside_a_single_model() -> None:
    comparison = rtl.compare(
        build_model,
        groups(),
        cross_entropy,
        optimizer=adam,
        seeds=[0],
        single=SINGLE,
        schedule=rtl.OneShotSchedule(0.5),
        steps=1,
        epochs=1,
    )
    methods = list(dict.fromkeys(row["method"] for row in comparison.rows))
    assert len(methods) == 6
    assert "shared mask" not in methods


def test_batches_that_one_model_cannot_train_on() -> None:
    data = groups(b=[[x, y] for x, y in batches(2, 3.0, 2)])
    with pytest.raises(InvalidGroups, match=r"batches of groups 'a' and 'b' differ at batch: <cla"):
        refused(data=data, methods=["adaptive tickets", "dense"])
    with pytest.raises(AssertionError, match="training began"):
        refused(data=data, methods=["adaptive tickets", "IMP multiple", "random tickets"])


@pytest.mark.parametrize(
    ("outputs", "merged"), [(4, {"even": [0, 2], "odd": [1, 3]}), (3, None), (5, None)]
)
def test_a_single_model_of_other_classes_than_the_groups(
    outputs: int, merged: dict[str, list[int]] | None
) -> None:
    data = TensorDataset(torch.randn(80, 6), torch.arange(80) % 4)
    groups = rtl.DataGroups.from_labels(data, batch_size=8, groups=merged)
    with pytest.raises(InvalidGroups, match=f"single model of {outputs} outputs and labels 0..3"):
        refused(
            data=groups,
            protocol=ONE_VS_REST,
            single=rtl.SingleModel(lambda seed: nn.Linear(6, outputs), never),
            methods=["dense"],
        )


def test_a_metric_averaged_over_the_batch() -> None:
    protocol = rtl.protocols.MeanOfMetric(lambda model, batch: batch[0].mean(), "mean")
    trained = TrainedMethod("m", {"a": nn.Linear(1, 1)}, 0, 0, False, ())
    batch = [(torch.ones(3, 1), torch.ones(3))]
    groups = rtl.DataGroups.from_loaders({"a": batch}, test={"a": batch})
    with pytest.raises(InvalidArgument, match="one value a sample, it gave 1 for a batch of 3"):
        protocol.score(trained, groups, "test")
