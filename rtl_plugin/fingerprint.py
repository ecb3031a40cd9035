"""Fingerprints of a network: its structure, and the values of its weights."""

import hashlib
import json
from collections.abc import Iterable, Mapping

import torch


def raw_bytes(tensor: torch.Tensor) -> bytes:
    r"""The bytes of a tensor in row-major order, whatever its dtype and device.

    Args:
        tensor: any dense tensor.

    Returns:
        ``numel * itemsize`` bytes.

    Example:
        >>> raw_bytes(torch.tensor([1, 2], dtype=torch.uint8))
        b'\x01\x02'
    """
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def bit_equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors hold the same bits (so NaN equals itself and 0.0 is not -0.0).

    Args:
        first: any dense tensor.
        second: any dense tensor on the same device.

    Returns:
        True when dtype, shape and every bit agree.

    Example:
        >>> bit_equal(torch.tensor([0.0]), torch.tensor([-0.0]))
        False
    """
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    views = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (first, second)]
    return torch.equal(views[0], views[1])


def structure_fingerprint(shapes: Iterable[tuple[str, Iterable[int]]]) -> str:
    """SHA-256 over parameter names and shapes, in order.

    Args:
        shapes: pairs of parameter name and shape.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> len(structure_fingerprint([("weight", (2, 3))]))
        64
    """
    listed = [[name, [int(size) for size in shape]] for name, shape in shapes]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def values_fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and values, in order.

    Args:
        tensors: name -> tensor.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> values_fingerprint({"a": torch.zeros(1)}) == values_fingerprint({"a": torch.ones(1)})
        False
    """
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()


def model_structure(model: torch.nn.Module) -> str:
    """The structure fingerprint of a model's parameters.

    Args:
        model: any module.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> model_structure(torch.nn.Linear(2, 1)) == model_structure(torch.nn.Linear(2, 2))
        False
    """
    return structure_fingerprint((name, p.shape) for name, p in model.named_parameters())


def model_values(model: torch.nn.Module) -> str:
    """The fingerprint of the values of a model's parameters (``theta_0`` at the start).

    Args:
        model: any module.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> len(model_values(torch.nn.Linear(2, 1)))
        64
    """
    return values_fingerprint(dict(model.named_parameters()))
