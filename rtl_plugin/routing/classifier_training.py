"""The small training loop of a module that classifies groups."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rtl_plugin.arguments import whole_number
from rtl_plugin.errors import InvalidArgument, TrainingDiverged
from rtl_plugin.nested import map_tensors, tensors_in, to_device
from rtl_plugin.optimizers import OptimizerFactory, build_optimizer
from rtl_plugin.randomness import derived_seed, forked
from rtl_plugin.routing.group_keys import Batches, check_every_ticket
from rtl_plugin.routing.number_arguments import seed_number
from rtl_plugin.structure import device_of


@dataclass(frozen=True)
class TrainingPlan:
    """How a classifier is trained.

    Args:
        optimizer: parameters -> optimizer, or a pair of it and a scheduler.
        epochs: passes over the samples, at least 1.
        seed: of the order and of the module's own randomness.

    Raises:
        InvalidArgument: a number is out of range.

    Example:
        >>> TrainingPlan(lambda params: torch.optim.SGD(params, 0.1), epochs=2).epochs
        2
    """

    optimizer: OptimizerFactory
    epochs: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("epochs", self.epochs, least=1)
        seed_number(self.seed)


def train_classifier(
    module: nn.Module, batches: Batches, tickets: tuple[str, ...], plan: TrainingPlan
) -> None:
    """Minimise the cross-entropy of a module over batches, in place.

    Args:
        module: gives logits [B, K]; left in eval mode.
        batches: one pass a call, see ``labelled_batches``.
        tickets: all names, in order.
        plan: optimizer, epochs and seed.

    Raises:
        InvalidArgument: logits do not fit.
        InvalidGroups: a ticket has no sample.
        TrainingDiverged: the loss became NaN or infinite.
    """
    with torch.enable_grad(), forked(derived_seed(plan.seed, "classifier router")):
        trained = [p for p in module.parameters() if p.requires_grad]
        if not trained:
            raise InvalidArgument(
                f"{type(module).__name__} has no parameter that can be trained: unfreeze some, or "
                "leave fit out"
            )
        device = device_of(module)
        optimizer, scheduler = build_optimizer(plan.optimizer, trained, {})
        module.train()
        for epoch in range(plan.epochs):
            counts = torch.zeros(len(tickets), dtype=torch.long)
            for x, positions in batches():
                if not len(positions):
                    continue  # the mean loss of no sample is NaN
                counts += positions.bincount(minlength=len(tickets))
                given = to_device(_recordable(x), device)
                loss = _loss(module, given, positions.to(device), len(tickets))
                if not math.isfinite(loss.item()):
                    raise TrainingDiverged(
                        f"the classifier's loss is {loss.item()} in epoch {epoch + 1}: check the "
                        "input, or lower the learning rate"
                    )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
            check_every_ticket(counts, tickets)
        module.eval()
        module.zero_grad()


def _recordable(x: Any) -> Any:
    """What autograd can keep: a tensor that was made under ``inference_mode`` it cannot."""
    if not any(tensor.is_inference() for tensor in tensors_in(x)):
        return x
    return map_tensors(torch.clone, x)


def _loss(module: nn.Module, x: object, positions: torch.Tensor, count: int) -> torch.Tensor:
    logits = module(x)
    expected = (len(positions), count)
    came = next(tensors_in(logits), None)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
        shape = None if came is None else tuple(came.shape)
        raise InvalidArgument(
            f"{type(module).__name__} must give logits {expected} for {count} tickets, got a "
            f"{type(logits).__name__} of shape {shape}"
        )
    return nn.functional.cross_entropy(logits.float(), positions)
