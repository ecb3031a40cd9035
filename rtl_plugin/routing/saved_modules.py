"""Weights of a router's module in a file without pickle."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rtl_plugin.errors import DamagedFile, InvalidArgument, StructureMismatch
from rtl_plugin.routing.modules import detached_copy
from rtl_plugin.routing.saved_fields import field


def module_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's state dict for a file without pickle.

    Args:
        module: any module.

    Returns:
        Name -> tensor.

    Raises:
        InvalidArgument: an entry is no tensor.

    Example:
        >>> list(module_state(nn.Linear(1, 1)))
        ['weight', 'bias']
    """
    state = dict(module.state_dict())
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise InvalidArgument(
                f"{type(module).__name__} keeps {name!r}, a {type(value).__name__}, in its state "
                "dict, which a file without pickle cannot hold: save(path, router=False)"
            )
    return state


def saved_module(state: Mapping[Any, Any], key: str, skeleton: Any) -> nn.Module | None:
    """A saved module: a copy of the skeleton's with the saved weights.

    Args:
        state: the decoded fields of a router.
        key: which module.
        skeleton: the module that the given router holds there, or anything else.

    Returns:
        The copy, or None where none was saved.

    Raises:
        DamagedFile: the field is wrong.
        InvalidArgument: there is no module to copy.
        StructureMismatch: it is of another structure.

    Example:
        >>> saved_module({"classifier": None}, "classifier", None) is None
        True
    """
    values = field(state, key, dict, type(None))
    if values is None:
        return None
    if not isinstance(skeleton, nn.Module):
        raise InvalidArgument(
            f"the file holds the weights of the router's {key}, not its code: give router= a "
            f"router of the same kind with a {key} of the same structure (with any weights), or "
            "router=False to leave the saved one out"
        )
    module = detached_copy(skeleton)
    _install(module, values, key)
    return module


def _install(module: nn.Module, state: Mapping[Any, Any], what: str) -> None:
    if not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()):
        raise DamagedFile(f"the saved {what} is not a state dict")
    own = module.state_dict()
    shapes = {name: tuple(v.shape) for name, v in own.items() if isinstance(v, torch.Tensor)}
    for name in sorted(shapes.keys() | state.keys()):
        saved = tuple(state[name].shape) if name in state else None
        if shapes.get(name) != saved:
            raise StructureMismatch(
                f"the {what} of the given router has {name!r} with shape {shapes.get(name)}, the "
                f"saved one has {saved}: build it as it was built for the saved router"
            )
    module.load_state_dict(dict(state))
