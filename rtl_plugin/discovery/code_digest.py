"""One SHA-256 over what a function does, and the names of what it cannot see of it."""

import hashlib
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from rtl_plugin.discovery.code_classes import class_members, is_opaque, wrapped_parts
from rtl_plugin.discovery.code_origin import Origins
from rtl_plugin.discovery.code_parts import CONTAINERS, METHODS, PLAIN, follow, sorted_set
from rtl_plugin.discovery.code_uses import Path, Uses, uses
from rtl_plugin.discovery.content_digest import attributes, content_digest, dotted_name

# Bounds of what is described: a graph of objects beyond them is no setting of a function.
MOST_PARTS, DEEPEST = 50_000, 25
# What they give can be anything, and no code that names them says what.
_BLINDING = {"__import__", "eval", "exec", "globals", "input", "open"}
_BLINDING_IN_OS = {"environ", "environb", "getenv", "getenvb"}


class CodeRead(NamedTuple):
    """What was read of a function.

    Args:
        digest: 64 hexadecimal digits.
        unseen: names of what could not be compared, each with its type; empty where all was.
    """

    digest: str
    unseen: tuple[str, ...]


def read_code(function: Any) -> CodeRead:
    """SHA-256 over a function's code and over all that it reads from outside.

    Followed are defaults, closures, attributes and the globals that the code names: numbers,
    tensors, containers, objects with attributes, functions, classes and modules of the user's own.
    Of installed packages the version is told, of a dict or namespace that is only asked for named
    parts these parts.

    Args:
        function: a function, a method, a ``functools.partial`` or an object that can be called.

    Returns:
        The digest, the same in every process of one Python version, and what it does not cover.

    Example:
        >>> def scaled(factor):
        ...     return lambda x: factor * x
        >>> two, again, three = (read_code(scaled(factor)).digest for factor in (2, 2, 3))
        >>> two == again, two == three
        (True, False)
        >>> read_code(iter([])).unseen
        ('list_iterator (a list_iterator)',)
    """
    reader = _Reader()
    told = reader.read(function)
    return CodeRead(hashlib.sha256(repr(told).encode()).hexdigest(), tuple(reader.unseen))


class _Reader:
    """Describes functions, classes and objects one after the other, each once."""

    def __init__(self) -> None:
        self.unseen: dict[str, None] = {}
        self._origins = Origins()
        self._met: dict[int, int] = {}
        self._pending: list[tuple[Any, str]] = []
        self._inside: list[int] = []
        self._parts = 0

    def read(self, function: Any) -> list[Any]:
        told = [self._of(function, getattr(function, "__name__", type(function).__name__))]
        for value, name in self._pending:  # describing one may add others
            told.append(self._described(value, name))
        return told

    def _of(self, value: Any, name: str) -> Any:
        self._parts += 1
        if self._parts > MOST_PARTS:
            return self._blind("all that it reads", "more than can be compared")
        if type(value) in PLAIN:
            return repr(value)
        if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
            return self._numbers(value, name)
        if isinstance(value, CONTAINERS):
            return self._container(value, name)
        if isinstance(value, METHODS):
            return ["method", self._of(value.__func__, name), self._of(value.__self__, name)]
        if id(value) not in self._met:
            self._met[id(value)] = len(self._met)
            self._pending.append((value, name))
        return ["met", self._met[id(value)]]

    def _blind(self, name: str, what: str) -> list[str]:
        self.unseen[f"{name} ({what})"] = None
        return ["unseen", what]

    def _numbers(self, value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor):
            if value.is_meta:
                return self._blind(name, "a tensor without values")
            return ["tensor", value.requires_grad, content_digest(value.detach())]
        if value.dtype.hasobject:
            return ["array", list(value.shape), self._of(value.tolist(), name)]
        return ["array", content_digest(value)]

    def _container(self, value: Any, name: str) -> Any:
        if id(value) in self._inside:
            return "circle"
        if len(self._inside) >= DEEPEST:
            return self._blind(name, "nested deeper than can be compared")
        self._inside.append(id(value))
        told = [self._of(type(value), name), self._items(value, name)]
        held = attributes(value)
        factory = getattr(value, "default_factory", None)
        told += [self._of(held, name), self._of(factory, name)] if held or factory else []
        self._inside.pop()
        return told

    def _items(self, value: Any, name: str) -> Any:
        if isinstance(value, (set, frozenset)):
            elements = sorted_set(value)
            return (
                elements if elements is not None else self._blind(name, f"a {type(value).__name__}")
            )
        if hasattr(value, "items"):
            told = []
            for key, part in value.items():
                where = f"{name}[{key!r}]" if type(key) in PLAIN else name
                told.append([self._of(key, name), self._of(part, where)])
            return told
        return [self._of(part, f"{name}[{at}]") for at, part in enumerate(value)]

    def _described(self, value: Any, name: str) -> Any:
        if isinstance(value, ModuleType):
            return self._module(value, name)
        if isinstance(value, FunctionType):
            return self._function(value, name)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, CodeType):
            return self._code(value, name)
        parts = wrapped_parts(value)
        if parts is not None:
            return [type(value).__name__, *(self._of(part, name) for part in parts)]
        return self._object(value, name)

    def _object(self, value: Any, name: str) -> Any:
        kind = type(value)
        held = attributes(value)
        installed = self._origins.version(kind.__module__) is not None
        if is_opaque(kind) or (installed and not hasattr(value, "__dict__") and not held):
            return self._blind(name, f"a {kind.__qualname__}")
        parts = [[key, self._of(held[key], f"{name}.{key}")] for key in sorted(held)]
        return ["object", self._of(kind, name), parts]

    def _module(self, module: ModuleType, name: str) -> Any:
        version = self._origins.version(module.__name__)
        if version is not None:
            return ["module", module.__name__, version]
        try:
            with open(str(module.__file__), "rb") as source:
                return ["module", module.__name__, hashlib.sha256(source.read()).hexdigest()]
        except (AttributeError, OSError):
            return self._blind(name, "a module without a source file")

    def _class(self, kind: type) -> Any:
        version = self._origins.version(kind.__module__)
        if version is not None:
            return ["installed class", dotted_name(kind), version]
        bases = [self._of(base, base.__qualname__) for base in (type(kind), *kind.__bases__)]
        members = [
            [key, self._of(member, f"{kind.__qualname__}.{key}")]
            for key, member in class_members(kind)
        ]
        return ["class", dotted_name(kind), bases, members]

    def _function(self, function: FunctionType, name: str) -> Any:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        held = {key: cell.cell_contents for key, cell in cells if _is_filled(cell)}
        version = self._origins.version(function.__globals__.get("__name__"))
        if version is not None:  # a decorator's, or a factory's: what it was given is in its cells
            called = f"{function.__globals__['__name__']}.{function.__qualname__}"
            return ["installed function", called, version, self._of(held, name)]
        read = uses(function.__code__)
        settings = (function.__defaults__, function.__kwdefaults__, function.__dict__)
        whole = frozenset({()})
        free = [[k, self._read(v, read.free.get(k, whole), k)] for k, v in held.items()]
        told = [self._code(function.__code__, name), *(self._of(each, name) for each in settings)]
        return ["function", *told, free, self._globals(function, read)]

    def _code(self, code: CodeType, name: str) -> Any:
        constants = [
            self._code(each, name) if isinstance(each, CodeType) else self._of(each, name)
            for each in code.co_consts
        ]
        names = [list(code.co_names), list(code.co_freevars)]
        return ["code", code.co_code.hex(), names, constants]

    def _globals(self, function: FunctionType, read: Uses) -> list[Any]:
        told, around = [], function.__globals__
        for name in sorted(read.outer):
            if name in around:
                told += [name, self._read(around[name], read.outer[name], name)]
            elif name in _BLINDING:
                told.append(self._blind(name, f"called by {function.__qualname__}"))
        for level, name in sorted(read.imports):
            told.append(self._imported(function, level, name))
        return told

    def _imported(self, function: FunctionType, level: int, name: str) -> Any:
        """A module that is imported inside: what is taken from it is named nowhere else."""
        if level == 0 and name:
            version = self._origins.version(name)
            if version is not None and name != "os":  # of which the environment may be wanted
                return ["import", name, version]
        return self._blind(name or ".", f"imported inside {function.__qualname__}")

    def _read(self, value: Any, paths: frozenset[Path], name: str) -> list[Any]:
        return [self._part(value, path, name) for path in sorted(paths, key=repr)]

    def _part(self, value: Any, path: Path, name: str) -> Any:
        told: list[Any] = []
        passed, value, name = follow(value, path, name, self._is_own)
        told += [self._of(module, name) for module in passed]
        if isinstance(value, ModuleType) and self._is_own(value):
            told.append(self._blind(name, "a module that is used as a whole"))
        elif getattr(value, "__name__", None) == "os" and _asks_environment(path):
            told.append(self._blind(f"{name}.{path[0][1]}", "the environment"))
        return [*told, repr(path), self._of(value, name)]

    def _is_own(self, module: ModuleType) -> bool:
        return self._origins.version(module.__name__) is None


def _asks_environment(path: Path) -> bool:
    return len(path) > 0 and path[0][1] in _BLINDING_IN_OS


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty cell says so by raising
    except ValueError:
        return False
    return True
