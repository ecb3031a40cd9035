"""The checked forward and backward pass that discovery and retraining share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from rtl_plugin.errors import InvalidLoss, MaskBypassed, TrainingDiverged

Loss: TypeAlias = Callable[[Any, Any], torch.Tensor]

# A look at the loss waits for the GPU; on a CPU it is free and happens at every step.
_STEPS_BETWEEN_LOOKS = 16


@dataclass(frozen=True)
class Where:
    """Which training a message speaks of, for example discover, group 'a', round 2.

    Args:
        stage: ``"discover"`` or ``"retrain"``.
        group: the group's name.
        unit: ``"round"`` or ``"epoch"``.
        number: counted from 1.
    """

    stage: str
    group: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.stage}, group {self.group!r}, {self.unit} {self.number}"


def checked_loss(loss: Loss, model: Any, batch: Any, where: Where) -> torch.Tensor:
    """Call the user's loss and refuse what cannot be trained on.

    Args:
        loss: the user's ``loss(model, batch) -> scalar tensor``.
        model: what the loss receives: a network under a ticket.
        batch: on the model's device.
        where: for the message.

    Returns:
        A zero-dimensional tensor that requires a gradient.

    Raises:
        InvalidLoss: not a tensor, not a scalar, or independent of every trainable parameter.
    """
    value = loss(model, batch)
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        came = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise InvalidLoss(f"{where}: loss must return a scalar tensor, got {came}: reduce it")
    if not value.requires_grad:
        raise InvalidLoss(
            f"{where}: the loss does not depend on the model it was given: compute it from "
            "model(...), not under no_grad, and not from another model"
        )
    return value.reshape(())


class LossLog:
    """Collects a training's losses and stops it at the first that is not finite.

    Args:
        where: for the message.

    Example:
        >>> log = LossLog(Where("retrain", "a", "epoch", 1))
        >>> log.record(torch.tensor(1.0)); log.record(torch.tensor(3.0)); log.mean()
        2.0
    """

    def __init__(self, where: Where) -> None:
        self._where = where
        self._unseen: list[torch.Tensor] = []
        self._seen: list[float] = []

    def record(self, loss: torch.Tensor) -> None:
        """Note one step's loss.

        Raises:
            TrainingDiverged: this loss, or on a GPU one of the last few, is NaN or infinite.
        """
        self._unseen.append(loss.detach())
        if loss.device.type == "cpu" or len(self._unseen) >= _STEPS_BETWEEN_LOOKS:
            self._look()

    def mean(self) -> float:
        """Mean over all steps.

        Raises:
            TrainingDiverged: as in :meth:`record`.
        """
        self._look()
        return sum(self._seen) / max(len(self._seen), 1)

    def _look(self) -> None:
        for value in torch.stack(self._unseen).tolist() if self._unseen else []:
            self._seen.append(value)
            if not abs(value) < float("inf"):
                raise TrainingDiverged(
                    f"{self._where}, step {len(self._seen)}: the loss is {value}. Lower the "
                    "learning rate, clip gradients, or look at this group's batches; what was "
                    "finished before is kept"
                )
        self._unseen.clear()


def check_gradients(
    parameters: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor], where: Where
) -> None:
    """After a backward pass: every mask was applied, and the loss saw a masked weight.

    Args:
        parameters: the leaves that were trained, by name.
        masks: the ticket's masks on the same device.
        where: for the message.

    Raises:
        InvalidLoss: no masked parameter received a gradient.
        MaskBypassed: a weight outside its mask received one, so the forward read it unmasked.
        TrainingDiverged: a gradient is NaN or infinite.
    """
    seen = [name for name in masks if parameters[name].grad is not None]
    if not seen:
        raise InvalidLoss(
            f"{where}: no prunable parameter received a gradient, so magnitudes would rank the "
            f"initial weights: the loss must depend on {', '.join(list(masks)[:3])}"
        )
    for name in seen:
        gradient = parameters[name].grad
        if gradient is not None and bool((gradient * ~masks[name]).any()):
            # NaN times zero is NaN, so a gradient that is not finite seems to leave the mask.
            if not bool(torch.isfinite(gradient).all()):
                raise TrainingDiverged(
                    f"{where}: the loss is finite, but its gradient for {name!r} is not (a root or "
                    "logarithm at zero does that): make the loss differentiable where it is used"
                )
            raise MaskBypassed(
                f"{where}: the forward pass read {name!r} around its mask (a stored reference, "
                "or a function that holds the weight): read it as a parameter of its module, or "
                "leave it out of prunable="
            )


def check_finite(tensors: Mapping[str, torch.Tensor], where: object) -> None:
    """Refuse trained tensors with NaN or infinity, which a finite loss does not rule out.

    Args:
        tensors: name -> values that training moved; a frozen bound or an attention mask may well
            be infinite.
        where: for the message.

    Raises:
        TrainingDiverged: naming the first tensor that is not finite.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TrainingDiverged(
                f"{where}: {name!r} holds NaN or infinity after a step, although the loss was "
                "finite. Lower the learning rate or clip gradients; what was finished before is "
                "kept"
            )


def check_model_unused(model: nn.Module, where: Where) -> None:
    """After a backward pass on copies of a model's parameters: its own saw no gradient.

    Args:
        model: the network, without gradients before.
        where: for the message.

    Raises:
        MaskBypassed: one of its own parameters received a gradient.
    """
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            raise MaskBypassed(
                f"{where}: the loss used the model's own {name!r} instead of the ticket's: call "
                "the model that it is given, not another reference to it or to its weights"
            )
