"""Which names a function's code reads from outside, and which part of each."""

import dis
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any, TypeAlias

Step: TypeAlias = tuple[str, Any]
Path: TypeAlias = tuple[Step, ...]
_SILENT = {"EXTENDED_ARG", "CACHE"}
_KEYS = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Uses:
    """What code reads from outside.

    Args:
        outer: global name -> the parts of it that are read, each a path of ``("attribute", name)``
            and ``("item", key)`` steps; an empty path means the name itself.
        free: the same of closure variables.
        imports: modules that are imported inside: (level, name).
    """

    outer: Mapping[str, frozenset[Path]]
    free: Mapping[str, frozenset[Path]]
    imports: frozenset[tuple[int, str]]


def uses(code: CodeType) -> Uses:
    """Read bytecode, that of functions and classes defined inside too.

    Args:
        code: of a function.

    Returns:
        What it reads; a name that is written to counts as read whole.

    Example:
        >>> found = uses((lambda params: rate * table["lr"] * settings.warm_up).__code__)
        >>> sorted(found.outer), found.outer["table"]
        (['rate', 'settings', 'table'], frozenset({(('item', 'lr'),)}))
    """
    outer: dict[str, set[Path]] = {}
    free: dict[str, set[Path]] = {}
    imports: set[tuple[int, str]] = set()
    for part in _nested(code):
        told = [step for step in dis.get_instructions(part) if step.opname not in _SILENT]
        for at, step in enumerate(told):
            if step.opname == "IMPORT_NAME":
                # Python pushes the level and the names before it imports.
                imports.add((_level(told, at), step.argval))
            elif "DEREF" in step.opname:
                free.setdefault(step.argval, set()).add(_path(told, at))
            elif "GLOBAL" in step.opname or step.opname == "LOAD_NAME":
                outer.setdefault(step.argval, set()).add(_path(told, at))
    return Uses(_frozen(outer), _frozen(free), frozenset(imports))


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _level(told: list[dis.Instruction], at: int) -> int:
    level = told[at - 2].argval if at >= 2 else 0
    return level if isinstance(level, int) else 0


def _path(told: list[dis.Instruction], at: int) -> Path:
    """The attributes and items with constant keys that are taken right after a name is loaded."""
    steps: list[Step] = []
    loads = told[at].opname.startswith("LOAD")
    at += 1
    while loads and at < len(told):
        if told[at].opname in ("LOAD_ATTR", "LOAD_METHOD"):
            steps.append(("attribute", told[at].argval))
            at += 1
        elif _is_item(told[at : at + 2]):
            steps.append(("item", told[at].argval))
            at += 2
        else:
            break
    return tuple(steps)


def _is_item(pair: list[dis.Instruction]) -> bool:
    if len(pair) < 2 or pair[0].opname not in ("LOAD_CONST", "LOAD_SMALL_INT"):
        return False
    taken = pair[1].opname == "BINARY_SUBSCR" or (
        pair[1].opname == "BINARY_OP" and pair[1].argrepr == "[]"
    )
    return taken and isinstance(pair[0].argval, _KEYS)


def _frozen(found: dict[str, set[Path]]) -> dict[str, frozenset[Path]]:
    return {name: frozenset(paths) for name, paths in found.items()}
