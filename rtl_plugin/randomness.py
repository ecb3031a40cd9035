"""Random streams named by (seed, stage, position, group), forked from the caller's."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


def derived_seed(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on their order.

    Args:
        parts: anything with a stable ``repr``, such as ``(seed, "discover", round, group)``.

    Returns:
        An integer in [0, 2**63).

    Example:
        >>> derived_seed(0, "discover", 1, "a") == derived_seed(0, "discover", 1, "b")
        False
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@dataclass
class RandomState:
    """The states of torch (CPU and initialised CUDA devices), numpy and ``random``."""

    torch_cpu: torch.Tensor
    torch_cuda: list[torch.Tensor]
    numpy: Any
    python: Any

    @staticmethod
    def capture() -> "RandomState":
        """The present global states."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return RandomState(torch.get_rng_state(), cuda, np.random.get_state(), random.getstate())

    def install(self) -> None:
        """Make these the global states."""
        torch.set_rng_state(self.torch_cpu)
        if self.torch_cuda:
            torch.cuda.set_rng_state_all(self.torch_cuda)
        np.random.set_state(self.numpy)
        random.setstate(self.python)


def seed_everything(seed: int) -> None:
    """Seed torch (CPU and initialised CUDA devices), numpy and ``random`` globally.

    Args:
        seed: an integer in [0, 2**63).
    """
    # torch.manual_seed would also queue the seed for a CUDA that starts later, and no fork could
    # take that back from the caller.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def forked(seed: int) -> Iterator[None]:
    """Run a block under its own random streams and restore the caller's afterwards.

    Args:
        seed: an integer in [0, 2**63), see :func:`derived_seed`.

    Example:
        >>> with forked(7):
        ...     first = torch.rand(1)
        >>> with forked(7):
        ...     second = torch.rand(1)
        >>> bool(first == second)
        True
    """
    callers = RandomState.capture()
    seed_everything(seed)
    try:
        yield
    finally:
        callers.install()


class RandomStream:
    """One group's own random stream, entered for each of its steps and left again.

    What group A draws never shifts what group B sees, so a group trains alike alone and in company.

    Args:
        seed: an integer in [0, 2**63), see :func:`derived_seed`.

    Example:
        >>> stream = RandomStream(3)
        >>> with stream:
        ...     first = torch.rand(1)
        >>> with stream:
        ...     second = torch.rand(1)
        >>> bool(first == second)
        False
    """

    def __init__(self, seed: int) -> None:
        with forked(seed):
            self._own = RandomState.capture()
        self._callers: RandomState | None = None

    def __enter__(self) -> "RandomStream":
        self._callers = RandomState.capture()
        self._own.install()
        return self

    def __exit__(self, *_: object) -> None:
        self._own = RandomState.capture()
        if self._callers is not None:
            self._callers.install()
            self._callers = None
