"""Outputs of all tickets on one batch: for a router to look at, and to answer with."""

from collections.abc import Sequence
from typing import Any

import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.nested import map_tensors, tensors_in


def stack_outputs(outputs: Sequence[Any]) -> torch.Tensor:
    """What an output router decides from.

    Args:
        outputs: one a ticket, each a tensor [B, ...] of one shape; [B] is taken as [B, 1].

    Returns:
        Tensor [B, K, ...].

    Raises:
        InvalidArgument: an output is no tensor (an output router looks at one), or is not batch
            first, or shapes differ.

    Example:
        >>> stack_outputs([torch.zeros(5, 3), torch.ones(5, 3)]).shape
        torch.Size([5, 2, 3])
    """
    if not outputs:
        raise InvalidArgument("there are no outputs: a mixture has at least one ticket")
    for output in outputs:
        if not isinstance(output, torch.Tensor):
            raise InvalidArgument(
                "a router that decides from outputs needs one tensor [B, ...] a ticket, the "
                f"network gave a {type(output).__name__}: return the scores alone, or use a "
                "router that decides from the input"
            )
    shapes = {tuple(output.shape) for output in outputs}
    if len(shapes) > 1 or () in shapes:
        raise InvalidArgument(
            "a router that decides from outputs needs outputs [B, ...] of one shape from all "
            f"tickets, got {sorted(shapes)}"
        )
    stacked = torch.stack(list(outputs), dim=1)
    return stacked.unsqueeze(2) if stacked.dim() == 2 else stacked


def select_outputs(outputs: Sequence[Any], indices: torch.Tensor) -> Any:
    """Row by row, the output of the ticket that was chosen for it; nothing is computed.

    Args:
        outputs: one a ticket, of one nesting, batch first.
        indices: integer tensor [B] of positions in ``outputs``.

    Returns:
        The nesting of the first output.

    Raises:
        InvalidArgument: an output has no row a sample, or the tickets' outputs differ in structure.

    Example:
        >>> outputs = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])]
        >>> select_outputs(outputs, torch.tensor([1, 0]))
        tensor([3., 2.])
    """
    streams = [list(tensors_in(output)) for output in outputs]
    shapes = [[tuple(tensor.shape) for tensor in stream] for stream in streams]
    if any(shape != shapes[0] for shape in shapes):
        raise InvalidArgument(
            "the network gave outputs of different structure to different tickets, with shapes "
            f"{shapes[0]} and {next(shape for shape in shapes if shape != shapes[0])}"
        )
    together = iter(zip(*streams, strict=True))

    def select(_: torch.Tensor) -> torch.Tensor:
        stacked = torch.stack(list(next(together)))
        if stacked.dim() < 2 or stacked.shape[1] != indices.shape[0]:
            raise InvalidArgument(
                f"an output of shape {tuple(stacked.shape[1:])} has no row for each of "
                f"{indices.shape[0]} samples"
            )
        chosen = indices.to(device=stacked.device, dtype=torch.long)
        return stacked[chosen, torch.arange(len(chosen), device=stacked.device)]

    return map_tensors(select, outputs[0])


def checked_scores(outputs: Any, needed: str, router: Any, strict: bool = True) -> torch.Tensor:
    """The outputs of all tickets as an output router needs them.

    Args:
        outputs: what ``decide`` was given.
        needed: which last dimension it takes, ``"C >= 2"`` or ``"C = 1"``.
        router: the router, for the message.
        strict: refuse NaN.

    Returns:
        The same tensor in float32 at least.

    Raises:
        InvalidArgument: not a floating tensor [B, K, C], no such C, or, if strict, NaN in it.

    Example:
        >>> checked_scores(torch.zeros(4, 2, 1), "C = 1", None).shape
        torch.Size([4, 2, 1])
    """
    name = type(router).__name__
    if not isinstance(outputs, torch.Tensor) or not outputs.is_floating_point():
        came = outputs.dtype if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise InvalidArgument(f"{name} needs outputs in a floating tensor [B, K, C], got {came}")
    fits = outputs.dim() == 3 and outputs.shape[1] > 0
    if not fits or (outputs.shape[2] != 1 if needed == "C = 1" else outputs.shape[2] < 2):
        raise InvalidArgument(
            f"{name} needs outputs [B, K, C] with {needed}, got {tuple(outputs.shape)}: "
            "OneVsRestRouter is for one logit a ticket, ConfidenceRouter for class logits, and "
            "ConfidenceRouter(score=callable) for anything else"
        )
    if strict and torch.isnan(outputs).any():
        raise InvalidArgument(
            f"{name} was given outputs with NaN, which rank no ticket; ConfidenceThreshold sends "
            "such samples to the fallback"
        )
    return outputs.float() if outputs.dtype.itemsize < 4 else outputs
