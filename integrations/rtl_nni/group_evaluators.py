"""One NNI evaluator a data group, from one training function or one training step."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from torch import nn

from rtl_nni.evaluator_binding import bind_to_names
from rtl_nni.host_types import TorchEvaluator, is_traceable
from rtl_plugin.integration_api import InvalidArgument, device_of, to_device

Loader = Iterable[Any]


def torch_evaluators(
    model: nn.Module,
    loaders: Mapping[str, Loader],
    training_step: Callable[..., Any],
    optimizer: Callable[[Any], Any],
    *,
    training_func: Callable[..., Any] | None = None,
    lr_scheduler: Callable[[Any], Any] | None = None,
    evaluating_func: Callable[[nn.Module], Any] | None = None,
) -> dict[str, Any]:
    """Make one ``TorchEvaluator`` a group, all over one model, their parameters checked.

    Args:
        model: the network, unwrapped and final (on its device).
        loaders: group -> batches; a loader or list that can be walked again and again.
        training_step: NNI's: ``training_step(batch, model)`` gives a loss, a tuple that starts with
            it, or a dict with the key ``loss``.
        optimizer: ``params -> optimizer``, its class traced: ``nni.trace(torch.optim.Adam)``.
        training_func: NNI's training function with one more keyword, ``loader``; None walks over
            the loader until ``max_steps`` or ``max_epochs``.
        lr_scheduler: ``optimizer -> scheduler``, its class traced; None has none. The default
            training function steps it after every optimizer step.
        evaluating_func: NNI's, ``model -> metric``.

    Returns:
        Group -> evaluator, tied to the model's parameter names.

    Raises:
        InvalidArgument: an optimizer is not traced or does not hold the model's parameters, or a
            loader is missing or can be walked once only.

    Example:
        >>> import nni
        >>> model = nn.Linear(2, 1)
        >>> evaluators = torch_evaluators(
        ...     model,
        ...     {"a": [torch.ones(4, 2)], "b": [torch.zeros(4, 2)]},
        ...     training_step=lambda batch, model: model(batch).square().mean(),
        ...     optimizer=lambda params: nni.trace(torch.optim.SGD)(params, lr=0.1),
        ... )
        >>> list(evaluators)
        ['a', 'b']
    """
    _check_loaders(loaders)
    made = {}
    for name, loader in loaders.items():
        own = _traced("optimizer", optimizer(model.parameters()))
        schedulers = None if lr_scheduler is None else _traced("lr_scheduler", lr_scheduler(own))
        loop = train_on if training_func is None else training_func
        made[name] = TorchEvaluator(
            functools.partial(loop, loader=loader),
            own,
            training_step,
            lr_schedulers=schedulers,
            evaluating_func=evaluating_func,
        )
    bind_to_names(made, model)
    return made


def train_on(
    model: nn.Module,
    optimizers: Any,
    training_step: Callable[..., Any],
    lr_schedulers: Any = None,
    max_steps: int | None = None,
    max_epochs: int | None = None,
    *,
    loader: Loader,
) -> None:
    """NNI's training function over one loader.

    Args:
        model: the network, wrapped by NNI.
        optimizers: one optimizer, or several that each step.
        training_step: ``training_step(batch, model)``.
        lr_schedulers: none, one or several; stepped after every optimizer step.
        max_steps: stop after as many optimizer steps, walking over the loader again.
        max_epochs: or after as many passes.
        loader: the group's batches.

    Raises:
        InvalidArgument: neither length is given, or the loader has no batches.
    """
    if max_steps is None and max_epochs is None:
        raise InvalidArgument("train_on needs max_steps or max_epochs")
    model.train()
    device = device_of(model)
    for batch in itertools.islice(_batches(loader, max_epochs), max_steps):
        for each in _listed(optimizers):
            each.zero_grad()
        _loss_of(training_step(to_device(batch, device), model)).backward()
        for each in (*_listed(optimizers), *_listed(lr_schedulers)):
            each.step()


def _batches(loader: Loader, epochs: int | None) -> Iterator[Any]:
    for _ in itertools.count() if epochs is None else range(epochs):
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise InvalidArgument("a loader has no batches: each must give some every time")


def _listed(one_or_several: Any) -> list[Any]:
    if one_or_several is None:
        return []
    return list(one_or_several) if isinstance(one_or_several, (list, tuple)) else [one_or_several]


def _loss_of(output: Any) -> torch.Tensor:
    if isinstance(output, Mapping):
        output = output["loss"]
    loss = output[0] if isinstance(output, (list, tuple)) else output
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise InvalidArgument(
            "training_step must return a scalar loss that depends on the model it is given (or a "
            f"tuple that starts with it, or a dict with 'loss'), got {type(loss).__name__}"
        )
    return loss


def _check_loaders(loaders: Any) -> None:
    if not isinstance(loaders, Mapping) or not loaders:
        raise InvalidArgument(
            f"loaders= takes a mapping group -> batches, got {type(loaders).__name__}"
        )
    for name, loader in loaders.items():
        if not isinstance(loader, Iterable) or isinstance(loader, Iterator):
            raise InvalidArgument(
                f"the loader of {name!r} can be walked once at most: pass a DataLoader or a list "
                "of batches, which every round walks again"
            )
        if isinstance(loader, Sized) and len(loader) == 0:
            raise InvalidArgument(f"the loader of {name!r} has no batches")


def _traced(argument: str, made: Any) -> Any:
    if not is_traceable(made):
        kind = type(made).__name__
        raise InvalidArgument(
            f"{argument}= made an untraced {kind}, which NNI cannot build again for the wrapped "
            f"model: write nni.trace(...{kind})(...)"
        )
    return made
