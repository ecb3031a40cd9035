"""Masks at one bit a weight that read like bool tensors."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

_OCTETS = 8  # whole 64-bit words are kept, so that they can be moved and read a word at a time


class PackedMasks(Mapping[str, torch.Tensor]):
    """A read-only mapping parameter name -> bool tensor that holds one bit a weight.

    Args:
        masks: parameter name -> bool tensor; copied.

    Example:
        >>> packed = PackedMasks({"w": torch.tensor([True, False, True])})
        >>> packed["w"], packed.nbytes
        (tensor([ True, False,  True]), 8)
    """

    def __init__(self, masks: Mapping[str, torch.Tensor]) -> None:
        self._shapes = {name: mask.shape for name, mask in masks.items()}
        self._words = {name: _packed(mask) for name, mask in masks.items()}

    @classmethod
    def from_bytes(cls, packed: Mapping[str, tuple[np.ndarray, tuple[int, ...]]]) -> "PackedMasks":
        """Masks that are packed already.

        Args:
            packed: name -> bytes of eight weights each (the first in the lowest bit, unused bits
                zero) and the mask's shape.

        Returns:
            The mapping; bytes are copied.
        """
        masks = cls({})
        for name, (octets, shape) in packed.items():
            masks._shapes[name] = torch.Size(shape)
            masks._words[name] = _whole_words(octets)
        return masks

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.unpacked(name).view(torch.bool)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __repr__(self) -> str:
        return f"PackedMasks({dict(self._shapes)})"

    @property
    def nbytes(self) -> int:
        """Bytes held: 8 for every 64 weights begun."""
        return sum(words.nbytes for words in self._words.values())

    def shape(self, name: str) -> torch.Size:
        """One mask's shape, without a look at the mask.

        Args:
            name: a parameter's name.
        """
        return self._shapes[name]

    def words(self, name: str) -> torch.Tensor:
        """The packed form of one mask.

        Args:
            name: a parameter's name.

        Returns:
            int64 tensor [ceil(numel / 64)] on the CPU that shares the storage; bit j of word w
            (little-endian) is the flat weight 64 w + j.
        """
        return torch.from_numpy(self._words[name].view(np.int64))

    def unpacked(self, name: str) -> torch.Tensor:
        """One mask as zeros and ones, which multiply a weight without a conversion.

        Args:
            name: a parameter's name.

        Returns:
            uint8 tensor of the parameter's shape, freshly made, on the CPU.
        """
        shape = self._shapes[name]
        bits = np.unpackbits(self._words[name], count=shape.numel(), bitorder="little")
        return torch.from_numpy(bits).view(shape)

    def unpacked_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Some rows of a mask as zeros and ones.

        Args:
            name: a parameter's name.
            start: first row along dimension 0, a multiple of 8.
            stop: one past the last.

        Returns:
            uint8 tensor [stop - start, ...], freshly made, on the CPU.
        """
        shape = self._shapes[name]
        per_row = shape[1:].numel()
        taken = self._words[name][start * per_row // 8 : -(-stop * per_row // 8)]
        bits = np.unpackbits(taken, count=(stop - start) * per_row, bitorder="little")
        return torch.from_numpy(bits).view(stop - start, *shape[1:])


def _packed(mask: torch.Tensor) -> np.ndarray:
    return _whole_words(np.packbits(mask.detach().cpu().numpy().reshape(-1), bitorder="little"))


def _whole_words(octets: np.ndarray) -> np.ndarray:
    words = np.zeros(-(-octets.size // _OCTETS) * _OCTETS, dtype=np.uint8)
    words[: octets.size] = octets
    return words
