"""Mask files that NNI users have: ``torch.save(masks, "masks.pth")``."""

import os
import pickle
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from rtl_plugin.integration_api import DamagedFile, MissingFile

# What unpicklers raise on truncated, damaged and foreign files.
_OF_BROKEN_FILES = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, OSError, struct.error,
    AssertionError, TypeError, AttributeError,
)  # fmt: skip


def load_masks(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read masks that were saved with ``torch.save``, without running what a pickle may hold.

    NNI hands out a ``defaultdict``, which ``torch.load`` refuses since torch 2.6. Not for several
    threads at once: what torch allows safely is set for the length of the call.

    Args:
        path: the file.

    Returns:
        Module name -> target name -> tensor on the CPU, or None (or group -> such a dictionary,
        where these were saved); names as they were saved (``TicketSet.from_nni`` understands a
        leading ``module.``).

    Raises:
        MissingFile: there is no such file, or the path is a folder.
        DamagedFile: it is no file of torch, holds anything but plain data, or no masks.

    Example:
        >>> import collections, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "masks.pth")
        ...     torch.save(collections.defaultdict(dict, fc={"weight": torch.ones(1)}), path)
        ...     load_masks(path)
        {'fc': {'weight': tensor([1.])}}
    """
    if not os.path.isfile(path):
        raise MissingFile(f"no file at {os.fspath(path)!r}")
    try:
        with _only_masks_allowed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that torch itself does not write
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except _OF_BROKEN_FILES as error:
        raise DamagedFile(
            f"{os.fspath(path)!r} is not a mask file of NNI that can be read safely "
            f"({_first_line(error)})"
        ) from error
    return _checked(loaded, path)


@contextmanager
def _only_masks_allowed() -> Iterator[None]:
    """Without what the user has allowed: two classes under one name, and a set decides."""
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([dict, (_plain_dict, "collections.defaultdict")])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)


def _plain_dict(factory: object = None) -> dict[Any, Any]:
    """Stands in for NNI's ``defaultdict``, which the safe unpickler does not fill."""
    return {}


def _checked(loaded: Any, path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    if isinstance(loaded, Mapping) and loaded and all(map(_holds_masks, loaded.values())):
        return {name: _checked(masks, path) for name, masks in loaded.items()}  # by group
    plain = isinstance(loaded, Mapping) and all(
        isinstance(module, str)
        and isinstance(targets, Mapping)
        and all(mask is None or isinstance(mask, torch.Tensor) for mask in targets.values())
        for module, targets in loaded.items()
    )
    if not plain or not loaded:
        came = "an empty mapping" if plain else type(loaded).__name__
        raise DamagedFile(
            f"{os.fspath(path)!r} holds {came}, and masks are module name -> target name -> tensor"
        )
    return {module: dict(targets) for module, targets in loaded.items()}


def _holds_masks(targets: Any) -> bool:
    return (
        isinstance(targets, Mapping)
        and bool(targets)
        and all(isinstance(each, Mapping) for each in targets.values())
    )


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
