"""Optimizers that NNI can build anew, and tasks around their steps, for evaluators."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rtl_nni.host import quiet
from rtl_nni.host_types import is_traceable
from rtl_plugin.integration_api import InvalidArgument, PruningFailed

with quiet():
    from nni.compression.utils.constructor_helper import OptimizerConstructHelper

Task = Callable[[], Any]
LossPatch = Callable[[Tensor, Any], Tensor]


class StepTasks:
    """What pruners want done around every real step of an optimizer.

    They hang on the optimizer itself: what accelerate and Lightning wrap around it has a ``step``
    that at times does nothing, and that is not the one that every strategy calls.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.after: list[Task] = []
        self._before: list[Task] = []

    def add(self, before: Iterable[Task], after: Iterable[Task]) -> None:
        """Run more tasks, in NNI's order: as if each call wrapped the step of all calls so far.

        Args:
            before: once gradients are there, before they are used.
            after: after the weights have moved.
        """
        self._before[:0] = before
        self.after.extend(after)

    def clear(self) -> None:
        """Forget all tasks."""
        self._before.clear()
        self.after.clear()

    def attach(self, optimizer: Optimizer) -> None:
        """Run the tasks at every step of an optimizer.

        Args:
            optimizer: not wrapped.
        """
        optimizer.register_step_pre_hook(self._on_step)
        optimizer.register_step_post_hook(self._on_stepped)

    def _on_step(
        self, _: Optimizer, positional: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        waiting = list(self._before)

        def run() -> None:
            while waiting:
                waiting.pop(0)()

        def with_gradients(closure: Task) -> Task:
            def computed() -> Any:
                loss = closure()
                run()
                return loss

            return computed

        # Lightning computes the gradients inside the step, in a closure.
        if keywords.get("closure") is not None:
            return positional, {**keywords, "closure": with_gradients(keywords["closure"])}
        if len(positional) > 1 and positional[1] is not None:
            return (positional[0], with_gradients(positional[1]), *positional[2:]), keywords
        run()
        return None

    def _on_stepped(self, *_: Any) -> None:
        self.taken += 1
        for task in list(self.after):
            task()


def check_bound(evaluator: Any) -> None:
    """Refuse to go on with an evaluator that has no model.

    Args:
        evaluator: any.

    Raises:
        InvalidArgument: none is bound.
    """
    if evaluator.model is None:
        raise InvalidArgument(
            "this evaluator has no model: a pruner binds one while it compresses, "
            "bind_model(model) does by hand"
        )


def check_initialised(evaluator: Any) -> None:
    """Refuse to bind a model before optimizers are known by parameter names.

    Args:
        evaluator: any.

    Raises:
        InvalidArgument: ``_init_optimizer_helpers`` has not run.
    """
    if not evaluator._initialization_complete:
        raise InvalidArgument(
            "bind_model needs the optimizers' parameters by name: give the evaluator to a pruner, "
            "or call _init_optimizer_helpers(model) on the unwrapped model first"
        )


def check_traced(optimizer: Any, where: str) -> None:
    """Refuse an optimizer that NNI cannot build anew over a wrapped model.

    Args:
        optimizer: any.
        where: it came from.

    Raises:
        InvalidArgument: it is none, not traced, or its parameters came from an iterator.
    """
    kind = type(optimizer).__name__
    name = kind if isinstance(optimizer, Optimizer) else "SGD"
    remedy = f"nni.trace(torch.optim.{name})(model.parameters(), ...)"
    if not isinstance(optimizer, Optimizer) or not is_traceable(optimizer):
        raise InvalidArgument(
            f"{where}: expected an optimizer made with nni.trace, because NNI builds it anew for "
            f"the wrapped model; got {kind}{' (not traced)' if name == kind else ''}: make it with "
            f"{remedy}"
        )
    if not list(_traced_parameters(optimizer)):
        raise InvalidArgument(
            f"{where}: {kind} got its parameters from an iterator, which nni.trace finds used up: "
            "pass a list, such as list(filter(..., model.parameters()))"
        )


def check_traced_scheduler(scheduler: Any, where: str) -> None:
    """Refuse a learning-rate scheduler that NNI cannot build anew.

    Args:
        scheduler: any.
        where: it came from.

    Raises:
        InvalidArgument: it is none, or not traced.
    """
    if not isinstance(scheduler, LRScheduler) or not is_traceable(scheduler):
        kind = type(scheduler).__name__
        raise InvalidArgument(
            f"{where}: expected a learning-rate scheduler made with nni.trace, got {kind}"
            f"{' (not traced)' if isinstance(scheduler, LRScheduler) else ''}: make it with "
            "nni.trace(torch.optim.lr_scheduler.StepLR)(optimizer, ...) or the like"
        )


def _traced_parameters(optimizer: Any) -> Any:
    keywords = optimizer.trace_kwargs
    return keywords["params"] if "params" in keywords else optimizer.trace_args[0]


def optimizer_by_names(model: nn.Module, optimizer: Any, where: str) -> Any:
    """Note how an optimizer was made, with names for its parameters.

    Args:
        model: that the parameters belong to, not wrapped.
        optimizer: traced.
        where: it came from.

    Returns:
        NNI's helper that builds it anew.

    Raises:
        InvalidArgument: it holds parameters that are not the model's.
    """
    # NNI writes names into parameter groups, and a traced optimizer shares its own with the trace.
    given = _traced_parameters(optimizer)
    groups = [dict(group) if isinstance(group, dict) else group for group in given]
    positional, keywords = list(optimizer.trace_args), dict(optimizer.trace_kwargs)
    if "params" in keywords:
        keywords["params"] = groups
    else:
        positional[0] = groups
    helper = OptimizerConstructHelper(model, optimizer.trace_symbol, *positional, **keywords)
    noted = helper.kwargs["params"] if "params" in helper.kwargs else helper.args[0]
    found = sum(len(group["params"]) for group in noted)
    held = sum(len(group["params"]) for group in optimizer.param_groups)
    if found < held:
        raise InvalidArgument(
            f"{where}: {held - found} of the {held} parameters of {type(optimizer).__name__} are "
            f"not those of {type(model).__name__} and would not train: make the optimizer of this "
            "model's parameters, and evaluators before any pruner wraps the model (or give them to "
            "_init_optimizer_helpers before)"
        )
    return helper


def check_trained(taken: int, max_steps: int | None, max_epochs: int | None) -> None:
    """Refuse a training that ended early: the pruner's masks would be denser than asked.

    Args:
        taken: optimizer steps.
        max_steps: asked of the trainer.
        max_epochs: asked of the trainer.

    Raises:
        PruningFailed: saying how many are missing.
    """
    asked = max_steps if max_epochs is None else min(max_epochs, 1)
    if asked is not None and taken < asked:
        raise PruningFailed(
            f"the trainer was asked for {'at least ' if max_epochs else ''}{asked} optimizer steps "
            f"and stopped after {taken}: see that no callback stops it early, that no time limit "
            "is set, and that the training data are not empty"
        )
