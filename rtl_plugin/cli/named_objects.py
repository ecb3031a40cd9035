"""Objects named on the command line as ``package.module:name``."""

import importlib
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
