"""A stand-in for a tensor that may only be read while its ticket is known."""

from typing import Any, NoReturn

import torch

from rtl_plugin.errors import MaskBypassed


class GuardedRead(MaskBypassed):
    """A forward pass read a ticket's tensor other than through the layer that it belongs to."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the forward pass reads {name!r} around the layer that it belongs to")
        self.name = name


class GuardedTensor(torch.Tensor):
    """Has the shape, dtype and device of a tensor; computing with it raises.

    Args:
        like: the tensor it stands for.
        name: its name in the user's model.

    Raises:
        GuardedRead: on use, when anything is computed with it.

    Example:
        >>> guard = GuardedTensor(torch.ones(2, 3), "fc.weight")
        >>> guard.shape, guard.dtype
        (torch.Size([2, 3]), torch.float32)
        >>> guard + 1
        Traceback (most recent call last):
        rtl_plugin.mixture.guarded_tensor.GuardedRead: the forward pass reads 'fc.weight' ...
    """

    guarded_name: str

    @staticmethod
    def __new__(cls, like: torch.Tensor, name: str) -> "GuardedTensor":
        """Make a tensor without values."""
        guard: GuardedTensor = torch.Tensor._make_wrapper_subclass(
            cls, like.shape, dtype=like.dtype, device=like.device
        )
        guard.guarded_name = name
        return guard

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> NoReturn:
        """Refuse every computation; reading shape, dtype and device never comes here."""
        given = [*args, *(kwargs or {}).values()]
        listed = [part for g in given for part in (g if isinstance(g, (list, tuple)) else [g])]
        raise GuardedRead(next(g.guarded_name for g in listed if isinstance(g, cls)))
