"""Objects named on the command line as ``package.module:name``."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from rtl_plugin.errors import InvalidArgument


def load_object(spec: str) -> Any:
    """Import what a command line names.

    Args:
        spec: ``package.module:name``; modules in the working directory are found too.

    Returns:
        The object.

    Raises:
        InvalidArgument: the spec is malformed, or the module or the name does not exist.

    Example:
        >>> load_object("math:pi")
        3.141592653589793
    """
    module_name, colon, name = spec.partition(":")
    if not colon or not module_name or not name:
        raise InvalidArgument(f"{spec!r} is not of the form package.module:name")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InvalidArgument(f"cannot import {module_name!r} from {here}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise InvalidArgument(f"{module_name!r} has no {name!r}")
        found = getattr(found, part)
    return found


def called(spec: str, found: Any) -> Any:
    """What a function or class that a command line names returns.

    Args:
        spec: how the command line named it.
        found: the object.

    Returns:
        The result of calling it without arguments, or the object itself where it is not callable.

    Raises:
        InvalidArgument: it needs arguments.

    Example:
        >>> called("builtins:dict", dict)
        {}
    """
    if not callable(found):
        return found
    try:
        signature = inspect.signature(found)
    except ValueError:  # some built-ins do not tell their signature: calling them will
        return found()
    try:
        signature.bind()
    except TypeError as error:
        raise InvalidArgument(
            f"{spec} cannot be called without arguments ({error}): name a function that builds "
            "the object"
        ) from error
    return found()
