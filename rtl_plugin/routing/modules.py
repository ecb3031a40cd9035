"""Copies of a user's module: one that shares its tensors, and one that shares nothing."""

import copy
from typing import Any

import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument


class EvalReplica:
    """A second module tree over the same tensors, in eval mode.

    Running it does not change the flags of the user's module, so threads may share it. Changes of
    the user's tensors show in it, also by ``to()`` or ``load_state_dict(assign=True)``, which put
    others in their place.

    Args:
        module: the user's, left as it is.

    Raises:
        InvalidArgument: the module cannot be copied.

    Example:
        >>> dropout = nn.Dropout(0.5).train()
        >>> EvalReplica(dropout)(torch.ones(3)), dropout.training
        (tensor([1., 1., 1.]), True)
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._held = self._made()

    def __call__(self, x: Any) -> Any:
        """Run the replica without gradients.

        Args:
            x: the module's input.

        Returns:
            Its output.
        """
        if self._key() != self._held[0]:
            self._held = self._made()
        with torch.no_grad():
            return self._held[1](x)

    def _tensors(self) -> list[torch.Tensor]:
        return [*self._module.parameters(), *self._module.buffers()]

    def _key(self) -> list[int]:
        # The replica keeps the tensors of its time alive, so no later one can have their ids.
        return [id(tensor) for tensor in self._tensors()]

    def _made(self) -> tuple[list[int], nn.Module]:
        shared: dict[int, Any] = {id(tensor): tensor for tensor in self._tensors()}
        key = list(shared)
        return key, _copied(self._module, shared).eval()


def detached_copy(module: nn.Module) -> nn.Module:
    """A copy with tensors of its own, so that the user's module is never written to.

    Args:
        module: the user's, left as it is.

    Returns:
        The copy, in the same mode.

    Raises:
        InvalidArgument: the module cannot be copied.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> detached_copy(layer).weight is layer.weight
        False
    """
    return _copied(module, {})


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise InvalidArgument(
            f"{type(module).__name__} cannot be deep-copied ({type(error).__name__}: {error}): "
            "keep only parameters, buffers and plain values as attributes"
        ) from error
