"""One fresh NNI pruner, run: trained, its masks read."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from rtl_nni.host_types import MovementPruner, ScheduledPruner
from rtl_nni.pruner_source import Training
from rtl_plugin.integration_api import InvalidArgument, PruningFailed


def check_length(pruner: Any, training: Training) -> None:
    """Refuse a training that would end before the pruner has made its final masks.

    Args:
        pruner: fresh.
        training: how long it trains.

    Raises:
        InvalidArgument: saying which number contradicts which.
    """
    kind = type(pruner).__name__
    if isinstance(pruner, ScheduledPruner):
        movement = isinstance(pruner, MovementPruner)
        least = pruner.cooldown_begin_step if movement else _least_steps(pruner)
        what = "cooldown_begin_step" if movement else "interval_steps * total_times"
        if training.steps is None and training.epochs is None:
            raise InvalidArgument(f"{kind} trains while it prunes: give steps= or epochs=")
        if training.steps is not None and training.steps < least:
            raise InvalidArgument(
                f"{kind} makes its final masks after {least} steps ({what}), and steps= is "
                f"{training.steps}: the masks would be denser than asked"
            )
    elif _counts_steps(pruner):
        own = pruner.training_steps
        if training.epochs is not None:
            raise InvalidArgument(f"{kind} counts steps: give steps=, not epochs=")
        if training.steps is not None and training.steps != own:
            raise InvalidArgument(
                f"{kind} has training_steps={own}, and steps= is {training.steps}: give both the "
                "same, or leave steps= out"
            )
    elif training.steps is None and training.epochs is None:
        raise InvalidArgument(f"{kind} does not train by itself: give steps= or epochs=")


def _least_steps(pruner: Any) -> int:
    inner = getattr(pruner, "bound_pruner", None)
    training = getattr(inner, "training_steps", 0)
    if training not in (0, pruner.interval_steps):
        late = "never make masks" if training > pruner.interval_steps else (
            "make its last masks before the last sparsity is asked for"
        )  # fmt: skip
        raise InvalidArgument(
            f"{type(inner).__name__} has training_steps={training}, and the "
            f"{type(pruner).__name__} around it has interval_steps={pruner.interval_steps}: it "
            f"would {late}; give both the same number"
        )
    return int(pruner.interval_steps * pruner.total_times)


def _counts_steps(pruner: Any) -> bool:
    return hasattr(pruner, "training_steps") and len(pruner.fused_compressors) == 1


def run(pruner: Any, evaluator: Any, training: Training) -> dict[str, dict[str, Any]]:
    """Train under a pruner and let it make its masks.

    Args:
        pruner: fresh; its model is wrapped and stays so.
        evaluator: of the group.
        training: how long.

    Returns:
        Module name -> target name -> float mask, or None where there is no such parameter.

    Raises:
        PruningFailed: NNI's own checks fail.
    """
    try:
        with _slow_attention(), host_refusals(type(pruner).__name__):
            _train_and_mask(pruner, evaluator, training)
    finally:
        _release(evaluator)
    return {name: dict(targets) for name, targets in pruner.get_masks().items()}


@contextmanager
def host_refusals(what: str) -> Iterator[None]:
    """Say what refused where NNI asserts; what the user's own code asserts passes.

    Args:
        what: the pruner, or what makes it.

    Raises:
        PruningFailed: in the place of the host's assertion.
    """
    try:
        yield
    except AssertionError as error:
        if not _from_host(error):
            raise
        raise PruningFailed(
            f"NNI refused to make or run {what}: {str(error) or 'an assertion without words'}"
        ) from error


def _release(evaluator: Any) -> None:
    """Unbind an evaluator, also one that a failure left bound half-way."""
    if evaluator.model is None:
        return
    try:
        evaluator.unbind_model()
    except (AssertionError, AttributeError, TypeError):  # its optimizers were never built
        evaluator.remove_all_hooks()
        evaluator.model = None


def _from_host(error: BaseException) -> bool:
    """Whether the host raised it, not the user's training function."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__", "")).startswith("nni.")


def _train_and_mask(pruner: Any, evaluator: Any, training: Training) -> None:
    if isinstance(pruner, ScheduledPruner) or len(pruner.fused_compressors) > 1:
        pruner.compress(training.steps, training.epochs)
    else:
        if not _counts_steps(pruner) and training.steps != 0:
            train(pruner.bound_model, evaluator, training, pruner._get_param_names_map())
        pruner.compress(None, None)


@contextmanager
def _slow_attention() -> Iterator[None]:
    """In eval mode torch's fused encoder layers read weights around NNI's wrappers."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def train(
    model: nn.Module, evaluator: Any, training: Training, names: Mapping[str, str] | None
) -> None:
    """Let an evaluator train a model.

    Args:
        model: wrapped or not.
        evaluator: tied to parameter names; unbound afterwards, also after an exception.
        training: how long.
        names: parameter name -> its name in the wrapped model, None where it is not wrapped.
    """
    try:
        evaluator.bind_model(model, names)
        with _slow_attention():
            evaluator.train(training.steps, training.epochs)
    finally:
        _release(evaluator)
