"""Whether tensors were written to since they were last looked at."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Snapshot:
    """Tensors and how they looked at one moment; they keep their identity while it is held."""

    sources: tuple[torch.Tensor, ...]
    versions: tuple[tuple[int, int], ...]
    memory: tuple[torch.Tensor, ...]  # held, so that no later value comes to lie at its address

    def still_holds(self, sources: Iterable[torch.Tensor]) -> bool:
        """Whether the tensors are the same ones, unwritten since.

        Args:
            sources: the tensors as they are now, in the order of the snapshot.
        """
        now = tuple(sources)
        return (
            len(now) == len(self.sources)
            and all(a is b for a, b in zip(now, self.sources, strict=True))
            and tuple(map(version, now)) == self.versions
        )


def snapshot(sources: Iterable[torch.Tensor]) -> Snapshot:
    """Remember tensors as they are.

    A write that leaves no trace is not seen: one through ``.data``, and a step of a fused optimizer
    outside ``retrain``.

    Args:
        sources: any tensors.

    Returns:
        What :meth:`Snapshot.still_holds` compares with.

    Example:
        >>> weight = torch.ones(2)
        >>> before = snapshot([weight])
        >>> before.still_holds([weight]), before.still_holds([weight.zero_()])
        (True, False)
    """
    tensors = tuple(sources)
    memory = tuple(tensor.detach() for tensor in tensors)
    return Snapshot(tensors, tuple(map(version, tensors)), memory)


def version(tensor: torch.Tensor) -> tuple[int, int]:
    """Changes with every write in place, and when a module is moved or converted.

    Args:
        tensor: any tensor; inference tensors keep no count, and can hardly change.

    Returns:
        Address and version counter.

    Example:
        >>> before = version(weight := torch.ones(2))
        >>> before == version(weight.zero_())
        False
    """
    return tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version
