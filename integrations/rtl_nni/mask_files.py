"""Mask files that NNI users have: ``torch.save(masks, "masks.pth")``."""

import collections
import os
import pickle
from collections.abc import Mapping
from typing import Any

import torch

from rtl_plugin.integration_api import DamagedFile, MissingFile


def load_masks(path: str | os.PathLike[str]) -> dict[str, dict[str, torch.Tensor | None]]:
    """Read masks that were saved with ``torch.save``, without running what a pickle may hold.

    NNI hands out a ``defaultdict``, which ``torch.load`` refuses since torch 2.6.

    Args:
        path: the file.

    Returns:
        Module name -> target name -> tensor on the CPU, or None; names as they were saved
        (``TicketSet.from_nni`` understands a leading ``module.``).

    Raises:
        MissingFile: there is no such file, or the path is a folder.
        DamagedFile: it is no file of torch, holds anything but plain data, or no masks.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "masks.pth")
        ...     torch.save(collections.defaultdict(dict, fc={"weight": torch.ones(1)}), path)
        ...     load_masks(path)
        {'fc': {'weight': tensor([1.])}}
    """
    if not os.path.isfile(path):
        raise MissingFile(f"no file at {os.fspath(path)!r}")
    try:
        with torch.serialization.safe_globals([dict, (_plain_dict, "collections.defaultdict")]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    # EOFError, KeyError and the like come from truncated or foreign files.
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise DamagedFile(
            f"{os.fspath(path)!r} is not a mask file of NNI that can be read safely "
            f"({_first_line(error)})"
        ) from error
    return _checked(loaded, path)


def _plain_dict(factory: object = None) -> dict[Any, Any]:
    """Stands in for NNI's ``defaultdict``, which the safe unpickler does not fill."""
    return {}


def _checked(loaded: Any, path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
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


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
