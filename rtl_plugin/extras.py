"""Optional dependencies, imported inside the function that needs them."""

import importlib
import random
from typing import Any

from rtl_plugin.errors import MissingExtra


def require(module: str, extra: str, purpose: str) -> Any:
    """Import an optional dependency or say how to install it.

    Args:
        module: dotted module name, for example ``"sklearn.cluster"``.
        extra: the extra of rtl-plugin that brings it.
        purpose: what the caller needs it for, completing "... is needed for".

    Returns:
        The imported module.

    Raises:
        MissingExtra: the module is not installed.

    Example:
        >>> require("json", "report", "this example").dumps([1])
        '[1]'
    """
    drawn = random.getstate()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise  # the package is there, but something inside it is broken
        raise MissingExtra(
            f"{module.partition('.')[0]} is needed for {purpose} and is not installed: "
            f"pip install 'rtl-plugin[{extra}]'"
        ) from error
    finally:
        # Importing scikit-learn draws from the global stream, which is the caller's.
        random.setstate(drawn)
