"""The rewind point: the weights every round starts from, checked bit for bit."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import nn

from rtl_plugin.errors import RewindFailed
from rtl_plugin.fingerprint import bit_equal, values_fingerprint
from rtl_plugin.structure import persistent_buffers


@dataclass(frozen=True)
class RewindPoint:
    """A snapshot of a network that training can start from again and again.

    Args:
        parameters: parameter name -> values.
        buffers: buffer name -> values, those outside the ``state_dict`` too.
        persistent: names of the buffers that a ticket owns.
        trainable: names of the parameters that require a gradient.
        fingerprint: of the parameters when the snapshot was taken.
        step: dense training steps before it; 0 is the initialisation.
    """

    parameters: Mapping[str, torch.Tensor]
    buffers: Mapping[str, torch.Tensor]
    persistent: tuple[str, ...]
    trainable: tuple[str, ...]
    fingerprint: str
    step: int = 0

    @staticmethod
    def capture(model: nn.Module, fingerprint: bool = True) -> "RewindPoint":
        """Copy a model's parameters and buffers.

        Args:
            model: the network, unchanged by this.
            fingerprint: False leaves it empty, where nobody compares it.

        Returns:
            The rewind point at step 0.

        Example:
            >>> RewindPoint.capture(nn.Linear(1, 1)).step
            0
        """
        parameters = {name: p.detach().clone() for name, p in model.named_parameters()}
        buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
        trainable = tuple(name for name, p in model.named_parameters() if p.requires_grad)
        persistent = tuple(persistent_buffers(model))
        return RewindPoint(
            parameters,
            buffers,
            persistent,
            trainable,
            values_fingerprint(parameters) if fingerprint else "",
        )

    def leaves(self) -> dict[str, torch.Tensor]:
        """Fresh copies of the parameters to train: parameter name -> leaf tensor."""
        return {
            name: value.clone().requires_grad_(name in self.trainable)
            for name, value in self.parameters.items()
        }

    def own_buffers(self) -> dict[str, torch.Tensor]:
        """Fresh copies of all buffers: buffer name -> tensor."""
        return {name: value.clone() for name, value in self.buffers.items()}

    def ticket_state(self) -> dict[str, torch.Tensor]:
        """A ticket's own state at the rewind point: copies of the persistent buffers."""
        return {name: self.buffers[name].clone() for name in self.persistent}

    def state(self) -> dict[str, torch.Tensor]:
        """Parameters and persistent buffers by name, as kept for a late rewind."""
        return {**self.parameters, **{name: self.buffers[name] for name in self.persistent}}


def verify_rewind(
    point: RewindPoint,
    leaves: Mapping[str, torch.Tensor],
    masks: Mapping[str, torch.Tensor],
    theta_0: Mapping[str, torch.Tensor] | None,
    where: object,
) -> None:
    """Check that a round starts from the rewind point, bit for bit.

    Args:
        point: the rewind point.
        leaves: what is about to be trained, by parameter name.
        masks: the ticket's masks; only survivors matter in masked parameters.
        theta_0: the model's own parameters when rewinding to step 0, otherwise None.
        where: for the message.

    Raises:
        RewindFailed: a survivor or a dense parameter differs, or the rewind point itself changed.
    """
    if values_fingerprint(point.parameters) != point.fingerprint:
        raise RewindFailed(f"{where}: the rewind point was written to since it was taken")
    for source in (point.parameters, *([] if theta_0 is None else [theta_0])):
        for name, leaf in leaves.items():
            kept = masks[name] if name in masks else ...
            if not bit_equal(leaf[kept], source[name][kept]):
                raise RewindFailed(
                    f"{where}: after the rewind {name!r} differs from the rewind point: does the "
                    "loss, or a hook, write to the model's parameters?"
                )


class Untouched:
    """Holds a block to leaving a model bit-identical, and puts back what was written to.

    Args:
        model: the network.
        start: its snapshot from before the block.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> with Untouched(model, RewindPoint.capture(model)) as untouched:
        ...     untouched.check("here")
    """

    def __init__(self, model: nn.Module, start: RewindPoint) -> None:
        self._model = model
        self._originals = {**start.parameters, **start.buffers}

    def check(self, where: object) -> None:
        """Refuse a model that was written to.

        Args:
            where: for the message.

        Raises:
            RewindFailed: naming a parameter or buffer that changed.
        """
        changed = list(self._changed())
        if changed:
            raise RewindFailed(
                f"{where}: the loss, or a hook, wrote to the model's own {changed[0]!r}, so rounds "
                "would no longer start alike: call the model that the loss is given, and change "
                "nothing behind its back (the model was put back as it was)"
            )

    def _changed(self) -> dict[str, torch.Tensor]:
        present = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        return {
            name: tensor
            for name, tensor in present.items()
            if name in self._originals and not bit_equal(tensor, self._originals[name])
        }

    def __enter__(self) -> "Untouched":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with torch.no_grad():
            for name, tensor in self._changed().items():
                tensor.copy_(self._originals[name])
