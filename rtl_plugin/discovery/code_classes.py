"""What classes and the small objects of Python's own machinery are made of."""

import enum
import functools
import logging
import re
from collections.abc import Callable
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    GenericAlias,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    SimpleNamespace,
    UnionType,
    WrapperDescriptorType,
)
from typing import Any

import numpy as np
import torch

from rtl_plugin.discovery.content_digest import content_digest, dotted_name

# What Python notes of a class beside what its author wrote.
_NOTES = {
    "__abstractmethods__", "__annotate__", "__annotate_func__", "__annotations__",
    "__annotations_cache__", "__conditional_annotations__", "__dataclass_fields__",
    "__dataclass_params__", "__dict__", "__doc__", "__firstlineno__", "__module__", "__qualname__",
    "__static_attributes__", "__weakref__", "_abc_impl",
}  # fmt: skip
# Modules whose objects say in their repr what they hold, all of it.
_TELLING = {"datetime", "decimal", "fractions", "pathlib", "torch", "typing", "uuid", "zoneinfo"}
_IN_C = (
    BuiltinFunctionType, ClassMethodDescriptorType, MethodDescriptorType, MethodWrapperType,
    WrapperDescriptorType,
)  # fmt: skip
_CACHED = type(functools.lru_cache(maxsize=1)(len))


def class_members(kind: type) -> list[tuple[str, Any]]:
    """What the author of a class wrote into it: methods, properties, class attributes.

    Args:
        kind: the class; its bases are not looked into.

    Returns:
        (name, member), sorted.

    Example:
        >>> class Half:
        ...     rate = 0.5
        >>> class_members(Half)
        [('rate', 0.5)]
    """
    slots = (GetSetDescriptorType, MemberDescriptorType)
    return [
        (name, member)
        for name, member in sorted(vars(kind).items())
        if name not in _NOTES and not isinstance(member, slots)
    ]


def is_opaque(kind: type) -> bool:
    """Whether objects of a class hold something that is in none of their attributes.

    Args:
        kind: a class, not one of the containers.

    Returns:
        True where a base makes its instances in C and tells nothing of them.

    Example:
        >>> import random
        >>> is_opaque(random.Random), is_opaque(torch.nn.Linear)
        (True, False)
    """
    bases = (base for base in kind.__mro__ if base not in (object, SimpleNamespace))
    return any(isinstance(vars(base).get("__new__"), BuiltinFunctionType) for base in bases)


def wrapped_parts(value: Any) -> list[Any] | None:
    """What objects of Python's own machinery are made of.

    Args:
        value: any object.

    Returns:
        Their parts; None for every other object.

    Example:
        >>> wrapped_parts(functools.partial(len, "ab")), wrapped_parts(object())
        ([<built-in function len>, ('ab',), {}, {}], None)
    """
    for kinds, parts in _PARTS:
        if isinstance(value, kinds):
            return parts(value)
    if type(value).__module__ in _TELLING or isinstance(value, (GenericAlias, UnionType)):
        return [repr(value)]
    return None


def _of_number(value: Any) -> list[Any]:
    base = next(each for each in (int, float, complex, str, bytes) if isinstance(value, each))
    return [type(value), base.__repr__(value), dict(getattr(value, "__dict__", {}))]


def _of_partial(value: Any) -> list[Any]:
    return [value.func, value.args, value.keywords, dict(vars(value))]


# Each with what may differ between two of its kind; the first that fits.
_PARTS: tuple[tuple[Any, Callable[[Any], list[Any]]], ...] = (
    (enum.Enum, lambda value: [type(value), value.name, value.value]),
    ((int, float, complex, str, bytes), _of_number),
    # What is logged decides nothing, and handlers are files and locks.
    (logging.Logger, lambda value: [value.name]),
    (functools.partial, _of_partial),
    (_CACHED, lambda value: [value.__wrapped__]),
    ((staticmethod, classmethod), lambda value: [value.__func__]),
    (property, lambda value: [value.fget, value.fset, value.fdel]),
    (functools.cached_property, lambda value: [value.func]),
    (re.Pattern, lambda value: [value.pattern, value.flags]),
    (torch.Generator, lambda value: [content_digest(value.get_state())]),
    (np.ufunc, lambda value: [value.__name__]),
    (_IN_C, lambda value: [dotted_name(value), getattr(value, "__self__", None)]),
)
