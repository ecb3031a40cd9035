"""A random stream of a router's own, for several threads, in a file and in copies."""

import threading
from typing import Any

import torch

from rtl_plugin.errors import DamagedFile
from rtl_plugin.routing.number_arguments import seed_number


class OwnGenerator:
    """A generator with a lock; what the caller draws elsewhere neither changes it nor sees it.

    Args:
        seed: a whole number in 0..2**63 - 1 for a reproducible stream, or None for another one
            every time.

    Raises:
        InvalidArgument: the seed is something else.

    Example:
        >>> first, second = OwnGenerator(3), OwnGenerator(3)
        >>> torch.equal(first.uniform(4), second.uniform(4))
        True
    """

    def __init__(self, seed: int | None = None) -> None:
        self._lock = threading.Lock()
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed_number(seed))

    def uniform(self, *shape: int) -> torch.Tensor:
        """Numbers in [0, 1).

        Args:
            shape: sizes.

        Returns:
            float64 tensor of that shape.
        """
        with self._lock:
            return torch.rand(shape, generator=self._generator, dtype=torch.float64)

    def beta(self, successes: torch.Tensor, failures: torch.Tensor) -> torch.Tensor:
        """Draws from Beta distributions.

        Args:
            successes: positive float64 tensor.
            failures: positive float64 tensor of the same shape.

        Returns:
            float64 tensor of that shape, in [0, 1].
        """
        with self._lock:
            pair = torch.stack([successes, failures], dim=-1)
            return torch._sample_dirichlet(pair, self._generator)[..., 0]

    def state(self) -> torch.Tensor:
        """Where the stream stands.

        Returns:
            uint8 tensor.
        """
        with self._lock:
            return self._generator.get_state()

    def restore(self, state: torch.Tensor) -> None:
        """Put the stream where another one stood.

        Args:
            state: of :meth:`state`.

        Raises:
            DamagedFile: it is no such state.
        """
        with self._lock:
            try:
                self._generator.set_state(state)
            except (RuntimeError, TypeError) as error:
                raise DamagedFile(f"the saved random state is none: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"state": self.state()}  # a lock can be neither copied nor pickled

    def __setstate__(self, saved: dict[str, Any]) -> None:
        OwnGenerator.__init__(self)
        self.restore(saved["state"])
