"""Masked copies of one weight for the tickets of a batch, written into one buffer."""

import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.mixture.kernels.configs import choose_config
from rtl_plugin.mixture.kernels.launch import (
    check_operands,
    check_words,
    constants,
    launch,
    refuse_gradients,
)


def expand_masked(
    weight: torch.Tensor,
    words: torch.Tensor,
    tickets: torch.Tensor,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """The weight where a ticket keeps it and exact zeros elsewhere, one copy a listed ticket.

    Args:
        weight: [N, K]; float32, float16 or bfloat16; K must have stride 1. What is masked may be
            NaN or infinite: it becomes 0.
        words: int64 [T, ceil(K / 64), N] of :func:`pack_words`.
        tickets: int32 [A], each in [0, T). On a GPU the values are not checked first: the copy of
            one out of range is NaN.
        out: contiguous [A, N, K] of the weight's dtype to write to; None makes a new one.

    Returns:
        [A, N, K], ``out`` where it was given.

    Raises:
        InvalidArgument: a shape, dtype, device, layout or index does not fit, Triton cannot run
            there, or the weight requires a gradient.

    Example:
        >>> from rtl_plugin.mixture.kernels import available, pack_words
        >>> words = pack_words([torch.tensor([[True, False]])])
        >>> if available(torch.device("cpu")):
        ...     copies = expand_masked(torch.ones(1, 2), words, torch.zeros(1, dtype=torch.int32))
        ...     assert copies.tolist() == [[[1.0, 0.0]]]
    """
    refuse_gradients("expand_masked", {"weight": weight, "out": out})
    compiling = torch.compiler.is_compiling()
    if out is None:
        return (_expand_op if compiling else _expand)(weight, words, tickets)
    (_expand_into_op if compiling else _expand_into)(weight, words, tickets, out)
    return out


def _expand(weight: torch.Tensor, words: torch.Tensor, tickets: torch.Tensor) -> torch.Tensor:
    out = weight.new_empty(tickets.numel(), *weight.shape)
    _expand_into(weight, words, tickets, out)
    return out


def _expand_into(
    weight: torch.Tensor, words: torch.Tensor, tickets: torch.Tensor, out: torch.Tensor
) -> None:
    _check(weight, words, tickets, out)
    check_operands("expand_masked", weight, {"out": out}, {"words": words, "tickets": tickets})
    config = choose_config("expand", weight.dtype, 1, weight.shape[0])
    outputs, columns = weight.shape
    blocks = -(-outputs // config.block_out) * -(-columns // config.block_k)
    arguments = (
        weight, words, tickets.contiguous(), out,
        outputs, columns, words.shape[0], words.shape[1], weight.stride(0),
    )  # fmt: skip
    values = constants("expand", weight.dtype, config)
    launch("expand", tickets.numel() * blocks, arguments, values, config)


def _check(
    weight: torch.Tensor, words: torch.Tensor, tickets: torch.Tensor, out: torch.Tensor
) -> None:
    if weight.dim() != 2 or weight.numel() == 0 or (weight.stride(1) != 1 and weight.shape[1] > 1):
        raise InvalidArgument(
            "weight must be [N, K], not empty, with stride 1 along K, got shape "
            f"{tuple(weight.shape)} and strides {weight.stride()}: flatten a convolution's weight "
            "from dimension 1"
        )
    check_words(words, weight.shape[0], weight.shape[1])
    check_ticket_indices("tickets", tickets, words.shape[0])
    if out.shape != (tickets.shape[0], *weight.shape) or not out.is_contiguous():
        raise InvalidArgument(
            f"out must be contiguous of shape {(tickets.shape[0], *weight.shape)}, got shape "
            f"{tuple(out.shape)} and strides {out.stride()}"
        )


def check_ticket_indices(name: str, indices: torch.Tensor, tickets: int) -> None:
    """Refuse indices that are not int32 [n], or on a CPU: not in [0, T).

    Args:
        name: of the argument.
        indices: int32 [n].
        tickets: T.

    Raises:
        InvalidArgument: they are not what is expected.

    Example:
        >>> check_ticket_indices("tickets", torch.tensor([0, 2], dtype=torch.int32), 3)
    """
    if indices.dtype != torch.int32 or indices.dim() != 1:
        raise InvalidArgument(
            f"{name} must be int32 of one dimension, got {indices.dtype} of shape "
            f"{tuple(indices.shape)}"
        )
    # Reading a GPU's values would wait for it.
    if indices.device.type == "cpu" and indices.numel():
        least, most = int(indices.min()), int(indices.max())
        if least < 0 or most >= tickets:
            raise InvalidArgument(
                f"{name} must lie in 0 to {tickets - 1}, got values from {least} to {most}"
            )


_expand_op = torch.library.custom_op("rtl_plugin::expand_masked", _expand, mutates_args=())
_expand_into_op = torch.library.custom_op(
    "rtl_plugin::expand_masked_into", _expand_into, mutates_args=("out",)
)


@_expand_op.register_fake
def _(weight: torch.Tensor, words: torch.Tensor, tickets: torch.Tensor) -> torch.Tensor:
    return weight.new_empty(tickets.shape[0], *weight.shape)


@_expand_into_op.register_fake
def _(*_: torch.Tensor) -> None:
    return None
