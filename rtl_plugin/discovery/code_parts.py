"""What settings of a function are made of, and how one part of them is reached."""

import argparse
from collections import deque
from collections.abc import Callable, Set
from types import EllipsisType, MappingProxyType, MethodType, ModuleType, SimpleNamespace
from typing import Any

from rtl_plugin.discovery.code_uses import Path
from rtl_plugin.discovery.content_digest import content_digest

# Their repr is all of them; subclasses may hold more.
PLAIN = {
    type(None), bool, int, float, complex, str, bytes, range, slice, EllipsisType,
    type(NotImplemented),
}  # fmt: skip
CONTAINERS = (dict, MappingProxyType, list, tuple, set, frozenset, deque)
METHODS = (MethodType,)
_NAMESPACES = {SimpleNamespace, argparse.Namespace}


def follow(
    value: Any, path: Path, name: str, is_own: Callable[[ModuleType], bool]
) -> tuple[list[ModuleType], Any, str]:
    """Go along a path as far as only the part at its end can matter.

    Args:
        value: what a name stands for.
        path: the attributes and items that are taken from it.
        name: the name.
        is_own: whether a module is the user's own; others are not gone into.

    Returns:
        The user's modules on the way, the part, and its name.

    Example:
        >>> follow({"lr": 0.1, "rounds": 3}, (("item", "lr"),), "params", lambda module: False)
        ([], 0.1, "params['lr']")
    """
    passed: list[ModuleType] = []
    for kind, step in path:
        if isinstance(value, ModuleType):
            if kind != "attribute" or not is_own(value) or step not in vars(value):
                break
            passed.append(value)
            value = vars(value)[step]
        elif kind == "attribute" and type(value) in _NAMESPACES and step in vars(value):
            value = vars(value)[step]
        elif kind == "item" and type(value) is dict and step in value:
            value = value[step]
        else:
            break
        name = f"{name}.{step}" if kind == "attribute" else f"{name}[{step!r}]"
    return passed, value, name


def sorted_set(held: Set[Any]) -> list[str] | None:
    """The elements of a set in an order that every process agrees on.

    Args:
        held: a set.

    Returns:
        Their digests, sorted; None where one is more than plain data.

    Example:
        >>> sorted_set({"b", "a"}) == sorted_set({"a", "b"}), sorted_set({object()})
        (True, None)
    """
    return sorted(map(content_digest, held)) if all(map(_is_plain, held)) else None


def _is_plain(value: Any) -> bool:
    if type(value) in (tuple, frozenset):
        return all(map(_is_plain, value))
    return type(value) in PLAIN
