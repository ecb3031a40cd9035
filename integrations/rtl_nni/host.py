"""NNI, imported without its noise, and only where something needs it."""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from rtl_plugin.integration_api import InvalidArgument, MissingExtra, require

_MAJOR = "3"


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore deprecation notes of others for a block, and put the caller's filters back.

    Example:
        >>> with quiet():
        ...     warnings.warn("old", DeprecationWarning)
    """
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, UserWarning, RuntimeWarning):
            warnings.simplefilter("ignore", category)
        yield


def imported(module: str) -> Any:
    """Import a module of the host without the deprecation notes that importing it prints.

    Args:
        module: its dotted name.

    Returns:
        The module.

    Raises:
        MissingExtra: NNI is not installed, or cannot be on this Python.

    Example:
        >>> imported("nni.compression.pruning").LevelPruner.__name__
        'LevelPruner'
    """
    _check_python()
    with quiet():
        require("nni", "nni", "rtl_nni")
        return importlib.import_module(module)


def check_version() -> None:
    """Refuse a version of NNI whose compression API is another one.

    Raises:
        MissingExtra: NNI is not installed.
        InvalidArgument: it is not version 3.
    """
    imported("nni")
    present = version("nni")
    if present.partition(".")[0] != _MAJOR:
        raise InvalidArgument(
            f"rtl_nni needs NNI {_MAJOR}.x, whose compression API differs from all before it; "
            f"installed is {present}: pip install 'rtl-plugin[nni]'"
        )


def _check_python() -> None:
    """Where NNI cannot be imported, the extra installs nothing, so it is not what to name."""
    if sys.version_info >= (3, 14) and importlib.util.find_spec("nni") is None:
        raise MissingExtra(
            "rtl_nni needs NNI, and NNI 3.0 cannot be imported on Python 3.14 or newer (the "
            "typeguard that it pins uses what was removed): use Python 3.10 to 3.13"
        )
