"""Which parameters an evaluator's optimizers hold."""

from typing import Any

import torch
from torch import nn

from rtl_plugin.integration_api import InvalidArgument


def optimized_names(evaluator: Any) -> set[str]:
    """Names of the parameters that an evaluator's optimizers hold, once it noted them.

    Args:
        evaluator: an NNI evaluator.
    """
    helpers = getattr(evaluator, "_optimizer_helpers", None) or [evaluator._optimizer_helper]
    names: set[str] = set()
    for helper in helpers:
        groups = helper.kwargs["params"] if "params" in helper.kwargs else helper.args[0]
        names.update(name for group in groups for name in group["params"])
    return names


def refuse_strangers(whose: str, evaluator: Any, model: nn.Module) -> None:
    """Refuse an evaluator whose optimizers hold other parameters than the model's.

    Args:
        whose: what to call it in the message.
        evaluator: one that has not noted its parameters by name yet.
        model: the network, unwrapped.

    Raises:
        InvalidArgument: saying how many.
    """
    own = {id(parameter) for parameter in model.parameters()}
    for optimizer in _unnamed_optimizers(evaluator):
        held = [p for group in optimizer.param_groups for p in group["params"]]
        strangers = sum(id(parameter) not in own for parameter in held)
        if strangers:
            raise InvalidArgument(
                f"{whose}: {strangers} of the {len(held)} parameters of its "
                f"{type(optimizer).__name__} are not this model's, so they would not train: make "
                "the optimizer of model.parameters() after the model is final (unwrapped, not "
                "copied, on its device), and evaluators before the first pruner"
            )


def _unnamed_optimizers(evaluator: Any) -> list[torch.optim.Optimizer]:
    held = getattr(evaluator, "_tmp_optimizers", None)
    if held is None:
        held = [getattr(getattr(evaluator, "traced_trainer", None), "optimizer", None)]
    return [optimizer for optimizer in held if isinstance(optimizer, torch.optim.Optimizer)]
