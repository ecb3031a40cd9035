"""The container of every file we write: safetensors with one signed JSON header."""

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from rtl_plugin.errors import DamagedFile, InvalidArgument, MissingFile
from rtl_plugin.fingerprint import raw_bytes

HEADER_KEY = "rtl_plugin"
FORMAT_PREFIX = "rtl-plugin "
VERSION = 1
TEMPORARY = ".tmp"  # how the name of a file that is being written ends


def pack_mask(mask: torch.Tensor) -> torch.Tensor:
    """Pack a mask to one bit a weight, little-endian within each byte.

    Args:
        mask: bool tensor of any shape.

    Returns:
        uint8 tensor [ceil(numel / 8)] on the CPU; unused bits of the last byte are zero.

    Example:
        >>> pack_mask(torch.tensor([True, False, True]))
        tensor([5], dtype=torch.uint8)
    """
    flat = mask.detach().cpu().numpy().reshape(-1)
    return torch.from_numpy(np.packbits(flat, bitorder="little"))


def unpack_mask(packed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Undo :func:`pack_mask`.

    Args:
        packed: uint8 tensor [ceil(numel / 8)].
        shape: the mask's shape.

    Returns:
        bool tensor of that shape on the CPU.

    Raises:
        DamagedFile: the number of bytes does not fit the shape, unused bits are set, or no tensor
            can have the shape.

    Example:
        >>> unpack_mask(torch.tensor([5], dtype=torch.uint8), (3,))
        tensor([ True, False,  True])
    """
    numel = int(np.prod(shape, dtype=object)) if shape else 1
    bits = np.unpackbits(checked_mask_bytes(packed, shape), bitorder="little")
    return torch.from_numpy(bits[:numel].astype(bool).reshape(shape))


def checked_mask_bytes(packed: torch.Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Refuse bytes that are no packed mask of a shape.

    Args:
        packed: uint8 tensor [ceil(numel / 8)].
        shape: the mask's shape.

    Returns:
        The bytes.

    Raises:
        DamagedFile: the number of bytes does not fit the shape, unused bits are set, or no tensor
            can have the shape.

    Example:
        >>> checked_mask_bytes(torch.tensor([5], dtype=torch.uint8), (3,)).tolist()
        [5]
    """
    numel = int(np.prod(shape, dtype=object)) if shape else 1
    expected = (numel + 7) // 8
    if packed.dtype != torch.uint8 or packed.dim() != 1 or packed.numel() != expected:
        raise DamagedFile(
            f"a mask of shape {shape} needs {expected} packed bytes (uint8, one dimension), "
            f"got {packed.dtype} {tuple(packed.shape)}"
        )
    octets = packed.cpu().numpy()
    if numel % 8 and octets[-1] >> (numel % 8):
        raise DamagedFile(f"a packed mask of shape {shape} has bits set behind its end")
    try:
        np.broadcast_to(np.zeros((), dtype=bool), shape)
    except (ValueError, OverflowError) as error:  # beside a size of 0 the others may be anything
        raise DamagedFile(f"no tensor can have the shape {shape}") from error
    return octets


def _signature(header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    unsigned = {key: value for key, value in header.items() if key != "sha256"}
    digest.update(json.dumps(unsigned, sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        digest.update(json.dumps([key, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        path: where to; missing parent folders are made.
        content: the bytes.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(
    path: str | os.PathLike[str],
    kind: str,
    header: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
) -> None:
    """Write tensors and a header; the same content gives the same bytes.

    Args:
        path: the file; written atomically.
        kind: what the file is, for example ``"tickets"``.
        header: JSON-serialisable fields.
        tensors: key -> tensor, any dtype safetensors knows.

    Raises:
        OSError: the folder cannot be written.
        InvalidArgument: safetensors does not know a tensor's dtype.
    """
    owned = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    signed = {"format": f"{FORMAT_PREFIX}{kind}", "version": VERSION, **header}
    signed["sha256"] = _signature(json.loads(json.dumps(signed)), owned)
    # One metadata key: safetensors does not keep the order of several.
    metadata = {HEADER_KEY: json.dumps(signed, sort_keys=True)}
    try:
        content = safetensors.torch.save(owned, metadata)
    except KeyError as error:
        raise InvalidArgument(
            f"{path}: a safetensors file cannot hold {error} tensors: give the ticket's state and "
            "the model's buffers another dtype"
        ) from error
    write_atomically(Path(path), content)


def read_file(
    path: str | os.PathLike[str], kind: str
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read a file of :func:`write_file` after checking kind, version and signature.

    Args:
        path: the file.
        kind: the kind the caller expects.

    Returns:
        The header without its format fields, and key -> tensor on the CPU.

    Raises:
        MissingFile: there is no such file, or the path is a folder.
        DamagedFile: not a safetensors file, not ours, another kind or version, or altered.
    """
    path = Path(path)
    _check_is_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = _checked_header(path, kind, file.metadata())
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}
    except (SafetensorError, TypeError) as error:  # TypeError: a size beyond 64 bits
        raise DamagedFile(f"{path} is not a readable safetensors file: {error}") from error
    _check_padding(path)
    if header.get("sha256") != _signature(header, tensors):
        raise DamagedFile(f"{path} was altered or damaged: its SHA-256 does not match its content")
    for key in ("format", "version", "sha256"):
        del header[key]
    return header, tensors


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise MissingFile(f"{path} is a folder, expected a file of rtl-plugin")
    if not path.is_file():
        raise MissingFile(f"no such file: {path}")


def read_kind(path: str | os.PathLike[str]) -> str:
    """What kind of file a path holds, before reading it.

    Args:
        path: a file of :func:`write_file`.

    Returns:
        The kind, for example ``"tickets"``.

    Raises:
        MissingFile: there is no such file, or the path is a folder.
        DamagedFile: not a safetensors file, or not one of ours.
    """
    path = Path(path)
    _check_is_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER_KEY, "null"))
    except (SafetensorError, json.JSONDecodeError, RecursionError) as error:
        raise DamagedFile(f"{path} is not a readable file of rtl-plugin: {error}") from error
    name = header.get("format") if isinstance(header, dict) else None
    if not isinstance(name, str) or not name.startswith(FORMAT_PREFIX):
        raise DamagedFile(f"{path} is not a file of rtl-plugin")
    return name.removeprefix(FORMAT_PREFIX)


def _checked_header(path: Path, kind: str, metadata: dict[str, str] | None) -> dict[str, Any]:
    if not metadata or HEADER_KEY not in metadata:
        raise DamagedFile(
            f"{path} is a safetensors file, but not one of rtl-plugin (no {HEADER_KEY!r} header)"
        )
    try:
        header = json.loads(metadata[HEADER_KEY])
        canonical = json.dumps(header, sort_keys=True)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        raise DamagedFile(f"{path} has a header that is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise DamagedFile(f"{path} has a header that is not a JSON object")
    if header.get("format") != f"{FORMAT_PREFIX}{kind}":
        raise DamagedFile(
            f"{path} is a file of format {header.get('format')!r}, expected 'rtl-plugin {kind}'"
        )
    version = header.get("version")
    if type(version) is not int or version != VERSION:
        raise DamagedFile(
            f"{path} has version {version!r}, this rtl-plugin reads {VERSION}: "
            "install the release that wrote it, or write it again"
        )
    if metadata[HEADER_KEY] != canonical or len(metadata) > 1:
        # The signature speaks of the parsed header, which other spellings or doubled keys share.
        raise DamagedFile(f"{path} was altered or damaged: its header is not in canonical form")
    return header


def _check_padding(path: Path) -> None:
    """Refuse whitespace that safetensors accepts in its own header, but no writer puts there."""
    with path.open("rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
    if any(byte in header for byte in b"\t\n\r"):
        raise DamagedFile(f"{path} was altered or damaged: its header holds stray whitespace")
