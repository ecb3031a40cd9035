"""Evaluators of several groups over one model, tied to its parameters by name."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from rtl_nni.host_types import DeepspeedTorchEvaluator, Evaluator
from rtl_nni.optimizer_names import optimized_names, refuse_strangers
from rtl_plugin.integration_api import InvalidArgument

Evaluators = Mapping[str, Any] | Callable[[str], Any]


def evaluators_by_group(evaluators: Evaluators, groups: Iterable[str] | None) -> dict[str, Any]:
    """One evaluator a group.

    Args:
        evaluators: group -> evaluator, or a function of the group's name.
        groups: names, where a function is given.

    Returns:
        Group -> evaluator.

    Raises:
        InvalidArgument: no groups, something that is no evaluator, or one evaluator for two.
    """
    if isinstance(evaluators, Mapping):
        if groups is not None and list(groups) != list(evaluators):
            raise InvalidArgument(
                f"groups= {list(groups)} and evaluators= {list(evaluators)} name different groups: "
                "leave groups= out"
            )
        found = dict(evaluators)
    elif callable(evaluators) and groups is not None and not isinstance(groups, str):
        names = list(groups)
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise InvalidArgument(f"groups= names {repeated[0]!r} twice: give each its own name")
        found = {name: evaluators(name) for name in names}
    else:
        raise InvalidArgument(
            "evaluators= takes a mapping group -> NNI evaluator, or a function of a group's name "
            f"together with groups=[...], got {evaluators!r}"
        )
    if not found:
        raise InvalidArgument("evaluators= is empty: give one evaluator a data group")
    for name, evaluator in found.items():
        if not isinstance(name, str) or not name:
            raise InvalidArgument(f"a group's name must be a non-empty string, got {name!r}")
        _check_kind(name, evaluator)
    if len({id(evaluator) for evaluator in found.values()}) < len(found):
        raise InvalidArgument(
            "two groups share one evaluator object, so they would train on the same data: make one "
            "a group (rtl_nni.torch_evaluators does)"
        )
    return found


def _check_kind(name: str, evaluator: Any) -> None:
    if isinstance(evaluator, DeepspeedTorchEvaluator):
        raise InvalidArgument(
            f"evaluator of {name!r}: DeepspeedTorchEvaluator cannot be used twice (NNI forgets its "
            "configuration when it unbinds): use TorchEvaluator"
        )
    if not isinstance(evaluator, Evaluator):
        raise InvalidArgument(
            f"evaluator of {name!r} must be an NNI evaluator (TorchEvaluator, "
            "rtl_nni.LightningEvaluator, rtl_nni.TransformersEvaluator), got "
            f"{type(evaluator).__name__}"
        )


def bind_to_names(evaluators: Mapping[str, Any], model: nn.Module) -> None:
    """Let every evaluator note its optimizers' parameters by name, before anything is wrapped.

    NNI matches them by identity when it first uses an evaluator, and drops in silence what a
    wrapper has replaced by then.

    Args:
        evaluators: group -> evaluator, none of them bound.
        model: the network, unwrapped.

    Raises:
        InvalidArgument: an optimizer holds other parameters than the model's, or a trainable
            parameter is in no optimizer.
    """
    for name, evaluator in evaluators.items():
        if evaluator.model is not None:
            raise InvalidArgument(
                f"evaluator of {name!r} is bound to a model: call its unbind_model() first"
            )
        if not evaluator._initialization_complete:
            refuse_strangers(f"evaluator of {name!r}", evaluator, model)
            evaluator._init_optimizer_helpers(model)
    for name, evaluator in evaluators.items():
        _check_coverage(name, evaluator, model)


def _check_coverage(name: str, evaluator: Any, model: nn.Module) -> None:
    held = optimized_names(evaluator)
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    lost = [n for n in trainable if n not in held]
    if lost:
        shown = ", ".join(map(repr, lost[:4])) + (", ..." if len(lost) > 4 else "")
        raise InvalidArgument(
            f"evaluator of {name!r}: {len(lost)} of {len(trainable)} trainable parameters are in "
            f"no optimizer and would not train ({shown}). Give the optimizer all of "
            "model.parameters(), freeze what is to stay with requires_grad_(False), and make "
            "evaluators before any pruner has wrapped the model"
        )
