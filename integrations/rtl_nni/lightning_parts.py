"""What a user gives to the Lightning evaluator, checked and read."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rtl_nni.host_types import is_traceable
from rtl_nni.traced_training import check_traced, check_traced_scheduler
from rtl_plugin.integration_api import InvalidArgument, MissingExtra

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def package_of(trainer: Any) -> str:
    """Which of Lightning's packages a trainer is from.

    Args:
        trainer: the user's.

    Returns:
        Its name; it is imported.

    Raises:
        MissingExtra: Lightning is not installed.
        InvalidArgument: it is no trainer of Lightning.
    """
    # An object's class is there only if its package has been imported.
    for package in _PACKAGES:
        if isinstance(trainer, getattr(sys.modules.get(package), "Trainer", ())):
            return package
    if not any(find_spec(package.partition(".")[0]) for package in _PACKAGES):
        raise MissingExtra(
            "lightning is needed for rtl_nni.LightningEvaluator and is not installed: "
            "pip install lightning"
        )
    raise InvalidArgument(
        "trainer= must be a Trainer of lightning.pytorch or pytorch_lightning made with "
        f"nni.trace, got {_full_name(trainer)}: nni.trace(lightning.pytorch.Trainer)(...)"
    )


def check_part(part: Any, name: str, package: str, kind: str) -> None:
    """Refuse a class of another package, and what NNI cannot make anew.

    Args:
        part: the user's.
        name: what to call it.
        package: of the trainer.
        kind: name of the class in the package; a module is not made anew, the others are.

    Raises:
        InvalidArgument: with the remedy.
    """
    if not isinstance(part, getattr(sys.modules[package], kind)):
        raise InvalidArgument(
            f"{name} must be a {package}.{kind}, as the trainer is from {package}; got "
            f"{_full_name(part)}: take all classes from one package"
        )
    if kind != "LightningModule" and not is_traceable(part):
        own = type(part).__name__
        raise InvalidArgument(
            f"{name} expected an object made with nni.trace, got {own} (not traced): make it with "
            f"nni.trace({own})(...)"
        )


def configured(answer: Any, where: str) -> tuple[list[Any], list[dict[str, Any]]]:
    """Optimizers and scheduler configurations, from any form that Lightning takes.

    Args:
        answer: of ``configure_optimizers``.
        where: it came from.

    Returns:
        Optimizers, and for each scheduler a dictionary of its own.

    Raises:
        InvalidArgument: another form, or something in it is not traced.
    """
    optimizers, configs = _parts_of(answer, where)
    if not optimizers:
        raise InvalidArgument(f"{where} returned no optimizer, got {answer!r}")
    for optimizer in optimizers:
        check_traced(optimizer, where)
    for config in configs:
        scheduler: Any = config.get("scheduler")
        check_traced_scheduler(scheduler, where)
        if not any(scheduler.optimizer is optimizer for optimizer in optimizers):
            raise InvalidArgument(
                f"{where}: {type(scheduler).__name__} belongs to an optimizer that is not returned "
                "with it: return the optimizer that the scheduler was made of"
            )
    return optimizers, configs


def _parts_of(answer: Any, where: str) -> tuple[list[Any], list[dict[str, Any]]]:
    if isinstance(answer, (Optimizer, dict)):
        answer = [answer]
    if not isinstance(answer, (list, tuple)) or not answer:
        raise InvalidArgument(
            f"{where} must return a traced optimizer, several, or the dictionaries and lists of "
            f"them that Lightning takes, got {answer!r}"
        )
    if isinstance(answer[0], (list, tuple)):
        optimizers, schedulers = answer
        if isinstance(schedulers, (dict, LRScheduler)):
            schedulers = [schedulers]
        return list(optimizers), [_config(scheduler, {}) for scheduler in schedulers]
    found, configs = [], []
    for one in answer:
        whole = one if isinstance(one, dict) else {"optimizer": one}
        found.append(whole.get("optimizer"))
        if whole.get("lr_scheduler") is not None:
            configs.append(_config(whole["lr_scheduler"], whole))
    return found, configs


def _config(scheduler: Any, beside: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(scheduler, dict):
        return dict(scheduler)
    monitored = {"monitor": beside["monitor"]} if beside.get("monitor") else {}
    return {"scheduler": scheduler, **monitored}


def _full_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
