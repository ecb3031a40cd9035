"""Building the user's optimizer and, where they return one, its learning-rate scheduler."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch

from rtl_plugin.errors import InvalidArgument, UnsupportedOptimizer

Scheduler: TypeAlias = torch.optim.lr_scheduler.LRScheduler
Built: TypeAlias = torch.optim.Optimizer | tuple[torch.optim.Optimizer, Scheduler]
OptimizerFactory: TypeAlias = Callable[[list[torch.Tensor]], Built]


def build_optimizer(
    factory: OptimizerFactory,
    parameters: Sequence[torch.Tensor],
    required: Mapping[str, torch.Tensor],
) -> tuple[torch.optim.Optimizer, Scheduler | None]:
    """Call the user's factory once and check what it returns.

    Args:
        factory: ``params -> optimizer`` or ``params -> (optimizer, lr_scheduler)``; the scheduler
            is stepped after every optimizer step.
        parameters: the leaves to be trained.
        required: masked parameters by name; all of them must be in the optimizer.

    Returns:
        The optimizer, and the scheduler or None.

    Raises:
        InvalidArgument: the factory returns something else, optimises foreign tensors, or leaves
            a masked parameter out.
        UnsupportedOptimizer: the optimizer needs a closure (LBFGS).

    Example:
        >>> weight = torch.zeros(2, requires_grad=True)
        >>> build_optimizer(lambda p: torch.optim.SGD(p, 0.1), [weight], {"w": weight})[1] is None
        True
    """
    frozen = [name for name, parameter in required.items() if not parameter.requires_grad]
    if frozen:
        raise InvalidArgument(
            f"masked parameters are frozen (requires_grad=False): {frozen[:3]}; unfreeze them, or "
            "leave them out of prunable="
        )
    if not callable(factory):
        raise InvalidArgument(
            "optimizer= must be a callable params -> torch.optim.Optimizer, got "
            f"{type(factory).__name__}: write lambda params: torch.optim.Adam(params, 1e-3)"
        )
    optimizer, scheduler = _unpacked(factory(list(parameters)))
    if isinstance(optimizer, torch.optim.LBFGS):
        raise UnsupportedOptimizer(
            "LBFGS mixes all weights in one update and calls the loss itself: use an "
            "element-wise optimizer such as SGD, Adam or AdamW"
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    given = {id(p) for p in parameters}
    if not held <= given:
        raise InvalidArgument(
            "optimizer= must optimise the parameters it is given and no others: write "
            "lambda params: torch.optim.Adam(params, 1e-3), not ... model.parameters()"
        )
    missing = [name for name, parameter in required.items() if id(parameter) not in held]
    if missing:
        raise InvalidArgument(f"optimizer= leaves prunable parameters out: {missing[:3]}")
    return optimizer, scheduler


def _unpacked(built: Any) -> tuple[torch.optim.Optimizer, Scheduler | None]:
    pair = built if isinstance(built, tuple) and len(built) == 2 else (built, None)
    optimizer, scheduler = pair
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InvalidArgument(
            "optimizer= must be a callable params -> torch.optim.Optimizer (or a pair of it and "
            f"an lr_scheduler), it returned {type(optimizer).__name__}"
        )
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise InvalidArgument(
            "ReduceLROnPlateau needs a metric at every step, which nobody gives it here: use a "
            "scheduler that counts steps, such as CosineAnnealingLR"
        )
    if scheduler is not None and not isinstance(scheduler, Scheduler):
        raise InvalidArgument(
            f"optimizer= returned a pair with {type(scheduler).__name__}, expected a learning-rate "
            "scheduler of torch.optim.lr_scheduler"
        )
    return optimizer, scheduler


def describe_optimizer(
    optimizer: torch.optim.Optimizer, scheduler: Scheduler | None = None
) -> dict[str, Any]:
    """Class and settings of an optimizer and its scheduler, as JSON-able data.

    Args:
        optimizer: a fresh optimizer.
        scheduler: its fresh learning-rate scheduler, or None.

    Returns:
        ``class``, ``groups`` (one object a parameter group: option -> text) and ``scheduler``.

    Example:
        >>> weight = torch.zeros(2, requires_grad=True)
        >>> describe_optimizer(torch.optim.SGD([weight], 0.1))["class"]
        'SGD'
    """
    groups = [
        {key: repr(value) for key, value in sorted(group.items()) if key != "params"}
        for group in optimizer.param_groups
    ]
    described: dict[str, Any] = {"class": type(optimizer).__name__, "groups": groups}
    if scheduler is not None:
        described["scheduler"] = {
            "class": type(scheduler).__name__,
            "settings": _comparable(scheduler.state_dict()),
        }
    return described


def _comparable(value: Any) -> Any:
    """JSON-able data that is the same in every process: no addresses of functions."""
    if isinstance(value, Mapping):
        return {str(key): _comparable(part) for key, part in sorted(value.items(), key=str)}
    if isinstance(value, (list, tuple)):
        return [_comparable(part) for part in value]
    if isinstance(value, (str, int, float, bool, type(None))):
        return repr(value)
    return type(value).__name__
