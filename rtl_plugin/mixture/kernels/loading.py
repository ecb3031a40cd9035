"""Where the kernels can run, and their compilation at first use."""

import functools
import inspect
import os
import types
from typing import Any

import torch

from rtl_plugin.extras import require
from rtl_plugin.mixture.kernels import device_code, device_code_few_rows, device_code_images

MINIMUM_CAPABILITY = (8, 0)


def interpreted() -> bool:
    """Whether Triton runs kernels in its interpreter, on any device and very slowly.

    Example:
        >>> interpreted() == (os.environ.get("TRITON_INTERPRET") == "1")
        True
    """
    return os.environ.get("TRITON_INTERPRET", "") == "1"


def why_not(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device.

    Args:
        device: any device; CUDA is asked about only if it is one.

    Returns:
        The reason in words, or None where they can run.

    Example:
        >>> if not interpreted():
        ...     assert "CUDA" in why_not(torch.device("cpu"))
    """
    if not _has_triton():
        return "Triton is not installed (it comes with torch's CUDA builds for Linux)"
    if interpreted():
        return None
    if device.type != "cuda":
        return f"Triton kernels run on CUDA devices, and the tensors are on {device.type!r}"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if torch.version.hip is not None:
        return "the kernels are made and checked for NVIDIA GPUs, and this torch is built for AMD's"
    capability = torch.cuda.get_device_capability(device)
    if capability < MINIMUM_CAPABILITY:
        needed = ".".join(map(str, MINIMUM_CAPABILITY))
        got = ".".join(map(str, capability))
        return f"the kernels need compute capability {needed} (A100 or newer), {device} has {got}"
    return None


def available(device: torch.device) -> bool:
    """Whether the kernels can run on a device.

    Args:
        device: any device; CUDA is initialised only if it is one.

    Returns:
        True for CUDA devices of compute capability 8.0 or more where Triton is installed, and
        for every device where ``TRITON_INTERPRET=1`` is set.

    Example:
        >>> available(torch.device("cpu")) == interpreted()
        True
    """
    return why_not(device) is None


def kernel(name: str) -> Any:
    """A kernel by its function's name, compiled for whatever arguments it is launched with.

    Args:
        name: of a function in one of the modules with device code.

    Returns:
        Triton's function, launched as ``kernel(name)[grid](...)``.

    Raises:
        MissingExtra: Triton is not installed.
    """
    return _compiled(interpreted())[name]


@functools.cache
def _has_triton() -> bool:
    try:
        require("triton", "gpu", "the GPU kernels")
    except ImportError:
        return False
    return True


@functools.cache
def _compiled(interpreted: bool) -> dict[str, Any]:
    """Name -> Triton's function, bound to a namespace in which Triton's language is known."""
    triton = require("triton", "gpu", "the GPU kernels")
    language = require("triton.language", "gpu", "the GPU kernels")
    modules = (device_code, device_code_few_rows, device_code_images)
    names = {m.__name__ for m in modules}
    functions = {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ in names
    }
    scope: dict[str, Any] = {"tl": language, "constexpr": language.constexpr}
    scope["__builtins__"] = device_code.__dict__["__builtins__"]
    for name, function in functions.items():
        bound = types.FunctionType(function.__code__, scope, name)
        bound.__module__, bound.__annotations__ = function.__module__, function.__annotations__
        # The number of tiles changes with every batch size: no compilation for each kind of it.
        loose = [p for p in ("n_tiles",) if p in inspect.signature(bound).parameters]
        scope[name] = triton.jit(bound, do_not_specialize=loose)
    return {name: scope[name] for name in functions}
