"""Leave a user's model as it was: training flags and gradients."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def train_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into train mode for a block and restore every module's own flag.

    Args:
        model: the network.

    Example:
        >>> model = nn.Linear(1, 1).eval()
        >>> with train_mode(model):
        ...     model.training
        True
        >>> model.training
        False
    """
    with _restored_flags(model):
        model.train()
        yield


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode for a block and restore every module's own flag.

    Args:
        model: the network.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> with eval_mode(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    with _restored_flags(model):
        model.eval()
        yield


@contextmanager
def _restored_flags(model: nn.Module) -> Iterator[None]:
    flags = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


@contextmanager
def set_aside_gradients(model: nn.Module) -> Iterator[None]:
    """Clear a model's gradients for a block and put them back afterwards.

    Args:
        model: the network.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> with set_aside_gradients(model):
        ...     model.weight.grad is None
        True
    """
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
