"""One SHA-256 over what a function does, as far as its code tells."""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch

from rtl_plugin.discovery.content_digest import attributes, dotted_name
from rtl_plugin.fingerprint import values_fingerprint

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_VERSIONED = {"abc", "builtins", "numpy", "torch", "typing"}


def code_digest(function: Any) -> str:
    """SHA-256 over a function's code and the settings that it carries.

    It sees the bytecode, defaults, what closures and attributes hold (numbers, strings, tensors,
    functions), and numbers and functions of the same module that the code names. It does not look
    into other modules or into other objects: another digest means other code, the same one does
    not prove the same result.

    Args:
        function: a function, a method, a ``functools.partial`` or an object that can be called.

    Returns:
        64 hexadecimal digits, the same in every process of one Python version.

    Example:
        >>> def scaled(factor):
        ...     return lambda x: factor * x
        >>> two, again, three = (code_digest(scaled(factor)) for factor in (2, 2, 3))
        >>> two == again, two == three
        (True, False)
    """
    return hashlib.sha256(repr(_Description().of(function, expand=True)).encode()).hexdigest()


class _Description:
    """Nested lists and text that say what a function does."""

    def __init__(self) -> None:
        self._met: dict[int, int] = {}  # functions call each other, so each is described once
        self._inside: list[int] = []

    def of(self, value: Any, expand: bool = False) -> Any:
        """Describe a value; ``expand`` looks into the attributes of any object."""
        if isinstance(value, _PLAIN):
            return repr(value)
        if isinstance(value, torch.Tensor):
            return values_fingerprint({"": value.detach()})
        if id(value) in self._inside:
            return "circle"
        self._inside.append(id(value))
        described = self._container(value) or self._callable(value, expand)
        self._inside.pop()
        return described

    def _container(self, value: Any) -> list[Any] | None:
        if isinstance(value, Mapping):
            return ["mapping", *([self.of(part) for part in item] for item in value.items())]
        if isinstance(value, (list, tuple)):
            return ["sequence", *map(self.of, value)]
        if isinstance(value, (set, frozenset)):
            return ["set", *sorted(repr(self.of(part)) for part in value)]
        if isinstance(value, CodeType):
            constants = [self.of(part) for part in value.co_consts]
            return ["code", value.co_code.hex(), list(value.co_names), constants]
        return None

    def _callable(self, value: Any, expand: bool) -> list[Any]:
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            return ["method", self.of(value.__func__), self.of(value.__self__, expand=True)]
        if isinstance(value, functools.partial):
            function = self.of(value.func, expand=True)
            return ["partial", function, self.of(value.args), self.of(value.keywords)]
        if expand and not hasattr(value, "__qualname__"):
            return [dotted_name(type(value)), self.of(_methods(value)), self.of(attributes(value))]
        # What it is, no more: it may be a data set, or a logger.
        return [dotted_name(value if hasattr(value, "__qualname__") else type(value))]

    def _function(self, function: FunctionType) -> list[Any]:
        if id(function) in self._met:
            return ["met", self._met[id(function)]]
        self._met[id(function)] = len(self._met)
        settings = (function.__code__, function.__defaults__, function.__kwdefaults__)
        held = (cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell))
        return ["function", *map(self.of, (*settings, *held)), self.of(_globals(function))]


def _methods(value: Any) -> dict[str, FunctionType]:
    """Methods of an object's class and its bases, but for those that versions tell of."""
    own = [k for k in type(value).__mro__ if k.__module__.partition(".")[0] not in _VERSIONED]
    return {
        f"{kind.__qualname__}.{name}": method
        for kind in own
        for name, method in sorted(vars(kind).items())
        if isinstance(method, FunctionType)
    }


def _globals(function: FunctionType) -> dict[str, Any]:
    """Numbers, strings and functions of the function's own module that its code names."""
    names = sorted(set(_names(function.__code__)))
    named = {name: function.__globals__[name] for name in names if name in function.__globals__}
    return {
        name: value
        for name, value in named.items()
        if isinstance(value, _PLAIN)
        or (isinstance(value, FunctionType) and value.__module__ == function.__module__)
    }


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty cell says so by raising
    except ValueError:
        return False
    return True
