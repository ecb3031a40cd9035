"""Running networks on the example input that a graph is traced with."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from rtl_plugin.integration_api import (
    InvalidArgument,
    PruningFailed,
    derived_seed,
    forked,
    tensors_in,
    to_device,
)

ForwardFn = Callable[[nn.Module, Any], Any]


def call_network(network: nn.Module, inputs: Any) -> Any:
    """Call a network on example inputs: a tuple or list is unpacked, a mapping by keyword.

    The host first unpacks a plain tensor along its batch; this does not.

    Args:
        network: any.
        inputs: a tensor, a tuple or list of arguments, or a mapping of keyword arguments.

    Returns:
        The network's output.
    """
    if isinstance(inputs, Mapping):
        return network(**inputs)
    return network(*inputs) if isinstance(inputs, (tuple, list)) else network(inputs)


class ExampleRun:
    """Runs the dense network and small ones on the same input.

    Args:
        inputs: the user's example inputs.
        device: where the model lives.
        forward_fn: the user's ``(network, inputs) -> output``, or None for a plain call.

    Raises:
        InvalidArgument: there is no tensor in the inputs.
    """

    def __init__(self, inputs: Any, device: torch.device, forward_fn: ForwardFn | None) -> None:
        self.inputs = to_device(inputs, device)
        self.forward_fn: ForwardFn = call_network if forward_fn is None else forward_fn
        self.dense_shapes: list[tuple[int, ...]] = []
        if next(tensors_in(self.inputs), None) is None:
            raise InvalidArgument(
                f"example_inputs must hold a tensor that the network accepts, got {inputs!r}"
            )

    def __call__(self, network: nn.Module, dtype: torch.dtype | None = None) -> Any:
        """Run a network without gradients, and leave random states as they were.

        Args:
            network: in the mode that it is to run in.
            dtype: convert floating inputs to it first.

        Returns:
            Its output.
        """
        inputs = self.inputs if dtype is None else _converted(self.inputs, dtype)
        with torch.no_grad(), forked(derived_seed("example")):
            return self.forward_fn(network, inputs)

    def trace(self, network: nn.Module, inputs: Any) -> Any:
        """Run the uncut network for the host's trace, and remember the shapes of its outputs.

        Args:
            network: a copy of the user's model.
            inputs: the example inputs, as the host hands them on.

        Returns:
            Its output.

        Raises:
            InvalidArgument: it does not accept the example inputs.
        """
        try:
            with forked(derived_seed("example")):
                output = self.forward_fn(network, inputs)
        except Exception as error:
            raise InvalidArgument(
                f"{type(network).__name__} does not accept example_inputs "
                f"({type(error).__name__}: {error}): pass a batch as its forward takes it, a tuple "
                "of arguments, or a dict of keyword arguments"
            ) from error
        self.dense_shapes = _shapes(output)
        return output

    def check_small(self, network: nn.Module, where: object, suspects: list[str]) -> None:
        """Refuse a small network that does not run, or gives outputs of another shape.

        Args:
            network: a small network.
            where: for the message.
            suspects: attributes that may be stale.

        Raises:
            PruningFailed: naming them.
        """
        try:
            shapes = _shapes(self(network.eval()))
        except Exception as error:
            hint = f"; suspects: {', '.join(suspects)}" if suspects else ""
            raise PruningFailed(
                f"{where}: the cut {type(network).__name__} does not run any more "
                f"({type(error).__name__}: {error}). Its forward relies on a width that "
                "Torch-Pruning does not know of: set it in fix_attributes=, a function of the cut "
                f"network, or add the layers to ignored_layers{hint}"
            ) from error
        if shapes != self.dense_shapes:
            raise PruningFailed(
                f"{where}: cutting changed the network's outputs from shapes "
                f"{self.dense_shapes} to {shapes}: add the output layers to ignored_layers"
            )


def _shapes(output: Any) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in tensors_in(output)]


def _converted(nested: Any, dtype: torch.dtype) -> Any:
    if isinstance(nested, torch.Tensor):
        return nested.to(dtype) if nested.is_floating_point() else nested
    if isinstance(nested, Mapping):
        return {key: _converted(value, dtype) for key, value in nested.items()}
    if type(nested) in (list, tuple):
        return type(nested)(_converted(value, dtype) for value in nested)
    return nested
