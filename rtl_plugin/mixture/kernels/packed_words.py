"""Masks as 64-bit words, laid out as the kernels read them: words of output rows side by side."""

from collections.abc import Sequence

import numpy as np
import torch

from rtl_plugin.errors import InvalidArgument


def pack_words(masks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Pack the masks of one weight matrix, one a ticket, 64 columns a word.

    Packing runs on the CPU; it belongs to construction, not to serving.

    Args:
        masks: T bool tensors [N, K] of one shape on one device.

    Returns:
        int64 [T, ceil(K / 64), N] on the masks' device; bit j of word w is column 64 w + j, and
        bits past K are zero.

    Raises:
        InvalidArgument: there are no masks, or they are not bool matrices of one shape and device.

    Example:
        >>> pack_words([torch.tensor([[True, False, True]])]).tolist()
        [[[5]]]
    """
    masks = list(masks)
    if not masks:
        raise InvalidArgument("expected at least one mask to pack, got none")
    first = masks[0]
    for place, mask in enumerate(masks):
        if mask.dtype != torch.bool or mask.dim() != 2 or mask.numel() == 0:
            raise InvalidArgument(
                f"mask {place} must be a bool matrix [N, K] that is not empty, got {mask.dtype} of "
                f"shape {tuple(mask.shape)}: flatten a convolution's mask from dimension 1"
            )
        if mask.shape != first.shape or mask.device != first.device:
            raise InvalidArgument(
                f"mask {place} has shape {tuple(mask.shape)} on {mask.device}, mask 0 has "
                f"{tuple(first.shape)} on {first.device}: masks of one weight must agree"
            )
    packed = [_packed(mask.cpu().numpy()) for mask in masks]
    return torch.from_numpy(np.stack(packed)).to(first.device)


def _packed(mask: np.ndarray) -> np.ndarray:
    """Bool [N, K] -> int64 [ceil(K / 64), N]."""
    octets = np.packbits(mask, axis=1, bitorder="little")
    padded = np.zeros((mask.shape[0], -(-mask.shape[1] // 64) * 8), np.uint8)
    padded[:, : octets.shape[1]] = octets
    # "<i8" is the file's and the GPU's byte order; astype makes it this machine's.
    return np.ascontiguousarray(padded.view("<i8").astype(np.int64, copy=False).T)


def unpack_words(words: torch.Tensor, columns: int) -> torch.Tensor:
    """The masks that were packed: slow, for checks and references.

    Args:
        words: int64 [T, ceil(columns / 64), N].
        columns: K.

    Returns:
        bool [T, N, K] on the words' device.

    Raises:
        InvalidArgument: the words have another shape or dtype, or bits past K are set.

    Example:
        >>> unpack_words(torch.tensor([[[5]]]), 3).tolist()
        [[[True, False, True]]]
    """
    if words.dtype != torch.int64 or words.dim() != 3 or words.shape[1] != -(-columns // 64):
        raise InvalidArgument(
            f"words must be int64 [T, {-(-columns // 64)}, N] for {columns} columns, got "
            f"{words.dtype} of shape {tuple(words.shape)}"
        )
    rows = np.ascontiguousarray(words.cpu().numpy().transpose(0, 2, 1)).astype("<i8", copy=False)
    bits = np.unpackbits(rows.view(np.uint8), axis=2, bitorder="little")
    if bits[:, :, columns:].any():
        raise InvalidArgument(f"the words keep columns past the {columns} of the weight")
    return torch.from_numpy(bits[:, :, :columns].astype(bool)).to(words.device)


def pack_depthwise(masks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Pack the masks of a depthwise convolution, one a ticket: a word holds a channel's taps.

    Args:
        masks: T bool tensors [C, 1, kh, kw] of one shape on one device.

    Returns:
        int64 [T, ceil(kh * kw / 64), C]; bit j of word w is tap 64 w + j, rows of taps first.

    Raises:
        InvalidArgument: a mask has another shape, or :func:`pack_words` refuses the masks.

    Example:
        >>> pack_depthwise([torch.ones(2, 1, 3, 3, dtype=torch.bool)]).tolist()
        [[[511, 511]]]
    """
    for place, mask in enumerate(masks):
        if mask.dim() != 4 or mask.shape[1] != 1:
            raise InvalidArgument(
                f"mask {place} of a depthwise convolution must be [C, 1, kh, kw], got shape "
                f"{tuple(mask.shape)}"
            )
    return pack_words([mask.flatten(1) for mask in masks])
