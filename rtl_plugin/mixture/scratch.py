"""Reused memory for masked weights that live only while one layer runs."""

import torch


class Scratch:
    """Memory for masked weights that live only while one layer runs; one thread's own."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}
        self._used = 0

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def release(self) -> None:
        """Let the next layer write over what was taken."""
        self._used = 0

    def free(self) -> None:
        """Give the memory back."""
        self._buffers.clear()

    def take(self, like: torch.Tensor, total: int) -> torch.Tensor:
        """Room for a tensor, as a view of the buffer.

        Args:
            like: shape, dtype and device; contiguous.
            total: numbers that are taken until the next release.
        """
        key = like.dtype, like.device
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < total:
            with torch.inference_mode(False):
                buffer = torch.empty(total, dtype=like.dtype, device=like.device)
            self._buffers[key] = buffer
        start, self._used = self._used, self._used + like.numel()
        return buffer[start : self._used].view(like.shape)
