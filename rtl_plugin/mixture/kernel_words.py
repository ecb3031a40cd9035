"""Masks in the form that the kernels read, made when first asked for."""

import threading

import torch

from rtl_plugin.mixture.kernels import pack_words
from rtl_plugin.tickets import TicketSet


class KernelWords:
    """Packed masks of all tickets, one tensor a weight; threads may share it.

    Args:
        tickets: whose masks.
    """

    def __init__(self, tickets: TicketSet) -> None:
        self._tickets = tickets
        self._words: dict[str, torch.Tensor] = {}
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(words.nbytes for words in list(self._words.values()))

    def on(self, device: torch.device, name: str) -> torch.Tensor:
        """The masks of one weight.

        Args:
            device: where to.
            name: a masked parameter.

        Returns:
            int64 [T, ceil(K / 64), N] of the weight seen as a matrix [N, K].
        """
        with self._lock, torch.inference_mode(False):
            words = self._words.get(name)
            if words is None or words.device != device:
                masks = [ticket.masks[name].flatten(1) for ticket in self._tickets.values()]
                words = self._words[name] = pack_words(masks).to(device)
            return words
