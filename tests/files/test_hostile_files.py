"""A damaged, truncated, foreign or lying file is refused before anything is built from it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from rtl_plugin.errors import DamagedFile, MissingFile
from rtl_plugin.tickets import TicketSet
from tests.files.signed import (
    changed,
    container,
    foreign,
    sign,
    valid_header,
    valid_tensors,
)


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(DamagedFile, match=message) as caught:
        TicketSet.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable safetensors file"),
        (b"hello, I am a text file\n" * 20, "not a readable safetensors file"),
        (b"\x80\x04\x95" + b"\0" * 100, "not a readable safetensors file"),
        (b"PK\x03\x04" + b"\0" * 100, "not a readable safetensors file"),
        (b"\0" * 4096, "not a readable safetensors file"),
        (b"\xff" * 4096, "not a readable safetensors file"),
        (container(b"{}"), "not one of rtl-plugin"),
        (container(b"[]"), "not a readable safetensors file"),
        (container(b'{"__metadata__": {"rtl_plugin": 3}}'), "not a readable safetensors file"),
        (container(b"\xff\xfe{}"), "not a readable safetensors file"),
        (container(b'{"a": ' + b"[" * 100_000 + b"}"), "not a readable safetensors file"),
        ((2**62).to_bytes(8, "little") + b"{}", "not a readable safetensors file"),
    ],
    ids=[
        *("empty", "text", "pickle", "zip", "zeros", "ones", "no header", "list", "number"),
        *("not utf-8", "deep", "huge header"),
    ],
)
def test_other_files(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(content)
    assert_refused(tmp_path / "other", message)


def test_somebody_else_s_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"fc.weight": torch.ones(2, 2)}, path)
    assert_refused(path, "is a safetensors file, but not one of rtl-plugin")
    safetensors.torch.save_file({"fc.weight": torch.ones(2, 2)}, path, {"format": "pt"})
    assert_refused(path, "no 'rtl_plugin' header")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a header that is not JSON"),
        ("{", "a header that is not JSON"),
        ("[]", "a header that is not a JSON object"),
        ("null", "a header that is not a JSON object"),
        ('"text"', "a header that is not a JSON object"),
        ("{}", "format None, expected 'rtl-plugin tickets'"),
        ('{"format": "onnx"}', "format 'onnx', expected 'rtl-plugin tickets'"),
        ('{"format": ["rtl-plugin tickets"]}', r"format \['rtl-plugin tickets'\], expected"),
        ('{"format": "rtl-plugin tickets"}', "version None, this rtl-plugin reads 1"),
        ('{"format": "rtl-plugin tickets", "version": 999}', "version 999, .* install the release"),
        ('{"format": "rtl-plugin tickets", "version": 0}', "version 0, this rtl-plugin reads 1"),
        ('{"format": "rtl-plugin tickets", "version": "1"}', "version '1', this"),
        ('{"format": "rtl-plugin tickets", "version": true}', "version True, this"),
        ('{"format": "rtl-plugin tickets", "version": 1.0}', "version 1.0, this"),
        ('{"format": "rtl-plugin tickets", "version": 1}', "SHA-256 does not match"),
        ('{"format": "rtl-plugin tickets", "sha256": 1, "version": 1}', "SHA-256 does not match"),
        ('{"version": 1, "format": "rtl-plugin tickets"}', "not in canonical form"),
        ('{"format": "x", "format": "rtl-plugin tickets", "version": 1}', "not in canonical form"),
        ('{"format": ' + "1" * 5000 + "}", "a header that is not JSON"),
    ],
)
def test_headers_of_another_format_or_version(text: str, message: str, tmp_path: Path) -> None:
    assert_refused(foreign(tmp_path / "f", text), message)


def test_a_second_metadata_entry(tmp_path: Path) -> None:
    # The signature does not speak of it, so it was not there when the file was signed.
    path = sign(tmp_path / "f")
    with safe_open(path, framework="pt") as file:
        metadata = {**file.metadata(), "note": "added later"}
    safetensors.torch.save_file(valid_tensors(), path, metadata)
    assert_refused(path, "altered or damaged: its header is not in canonical form")


def test_json_nested_to_any_depth(tmp_path: Path) -> None:
    # Around the interpreter's recursion limit reading may succeed and writing fail.
    for depth in [*range(1, 1200, 13), *range(900, 1050), 3000, 100_000]:
        nested = "[" * depth + "]" * depth
        text = f'{{"format": "rtl-plugin tickets", "version": 1, "x": {nested}}}'
        assert_refused(foreign(tmp_path / "deep", text), "rtl|JSON|SHA-256")


LIES: list[tuple[tuple[Any, ...], Any, str]] = [
    (("parameters", 0, "shape"), [-2, -3], "is not a list of at most 64 sizes"),
    (("parameters", 0, "shape"), [True, 6], "is not a list of at most 64 sizes"),
    (("parameters", 0, "shape"), ["2", "3"], "is not a list of at most 64 sizes"),
    (("parameters", 0, "shape"), [2.0, 3.0], "is not a list of at most 64 sizes"),
    (("parameters", 0, "shape"), [None], "is not a list of at most 64 sizes"),
    (("parameters", 0, "shape"), [[2, 3]], "is not a list of at most 64 sizes"),
    (("parameters", 0, "shape"), [1] * 65, "is not a list of at most 64 sizes"),
    (("parameters", 0, "shape"), "2x3", "'shape' is missing or of the wrong kind"),
    (("parameters", 0, "shape"), 6, "'shape' is missing or of the wrong kind"),
    (("parameters", 0, "shape"), None, "'shape' is missing or of the wrong kind"),
    (("parameters", 0, "shape"), [2, 30], "needs 8 packed bytes"),
    (("parameters", 0, "shape"), [9], "needs 2 packed bytes"),
    (("parameters", 0, "shape"), [2**40, 2**40], "packed bytes"),
    (("parameters", 0, "shape"), [10**4000], "packed bytes"),
    (("parameters", 0, "shape"), [0], "needs 0 packed bytes"),
    (("parameters", 0, "shape"), [5], "bits set behind its end"),
    (("parameters", 0, "shape"), [], "bits set behind its end"),
    (("parameters", 0, "name"), "", "must list non-empty strings"),
    (("parameters", 0, "name"), 3, "'name' is missing or of the wrong kind"),
    (("parameters", 0), {}, "'name' is missing"),
    (("parameters", 0), {"name": "a.w"}, "'shape' is missing"),
    (("parameters", 0), ["a.w", [2, 3]], "'parameters' must list JSON objects"),
    (("parameters",), [], "holds no masks"),
    (("parameters",), {"a.w": [2, 3]}, "'parameters' is missing or of the wrong kind"),
    (("parameters",), [{"name": "a.w", "shape": [2, 3]}] * 2, "'parameters' lists a name twice"),
    (
        ("parameters",),
        [{"name": "a.w", "shape": [2, 3]}, {"name": "b", "shape": [2]}],
        "tensor 'mask.0.1' is missing",
    ),
    (("tickets",), [], "holds no masks"),
    (("tickets",), None, "'tickets' is missing or of the wrong kind"),
    (("tickets",), ["x"], "'tickets' must list JSON objects"),
    (("tickets",), [{"name": "x", "state": []}] * 2, "'tickets' lists a name twice"),
    (("tickets", 0, "name"), "", "'tickets' must list non-empty strings"),
    (("tickets", 0, "name"), ["x"], "'name' is missing or of the wrong kind"),
    (("tickets", 0, "state"), {}, "'state' is missing or of the wrong kind"),
    (("tickets", 0, "state"), "mean", "'state' is missing or of the wrong kind"),
    (("tickets", 0, "state"), [3], "'state' must list non-empty strings"),
    (("tickets", 0, "state"), [["mean"]], "'state' must list non-empty strings"),
    (("tickets", 0, "state"), [""], "'state' must list non-empty strings"),
    (("tickets", 0, "state"), ["mean", "mean"], "'state' lists a name twice"),
    (("tickets", 0, "state"), ["mean", "var"], "tensor 'state.0.1' is missing"),
    (("tickets", 0, "state"), [], r"does not name: \['state.0.0'\]"),
    (("rewind_state",), [], r"does not name: \['rewind.0'\]"),
    (("rewind_state",), ["a.w", "b"], "tensor 'rewind.1' is missing"),
    (("rewind_state",), None, "'rewind_state' is missing or of the wrong kind"),
    (("weights",), ["fc"], "tensor 'weight.0' is missing"),
    (("weights",), "fc", "'weights' is missing or of the wrong kind"),
    (("fingerprint",), None, "'fingerprint' is missing or of the wrong kind"),
    (("fingerprint",), {"structure": None}, "'theta_0' is missing or of the wrong kind"),
    (("fingerprint", "structure"), 5, "'structure' is missing or of the wrong kind"),
    (("schedule",), [1], "'schedule' is missing or of the wrong kind"),
    (("schedule",), "linear", "'schedule' is missing or of the wrong kind"),
    (("history",), {}, "'history' is missing or of the wrong kind"),
    (("history",), ["round 1"], "'history' must list JSON objects"),
    (("history",), [[]], "'history' must list JSON objects"),
]


@pytest.mark.parametrize(("at", "value", "message"), LIES)
def test_a_signed_header_that_lies(
    at: tuple[Any, ...], value: Any, message: str, tmp_path: Path
) -> None:
    assert_refused(sign(tmp_path / "lie", changed(valid_header(), at, value)), message)


@pytest.mark.parametrize("field", sorted(valid_header()))
def test_a_signed_header_without_a_field(field: str, tmp_path: Path) -> None:
    header = valid_header()
    del header[field]
    assert_refused(sign(tmp_path / "lie", header), f"'{field}' is missing or of the wrong kind")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mask.0.0", None, "tensor 'mask.0.0' is missing"),
        ("state.0.0", None, "tensor 'state.0.0' is missing"),
        ("rewind.0", None, "tensor 'rewind.0' is missing"),
        ("mask.0.1", torch.zeros(1, dtype=torch.uint8), "does not name: .'mask.0.1'"),
        ("weight.0", torch.zeros(1), "does not name: .'weight.0'"),
        ("extra", torch.zeros(1), "does not name: .'extra'"),
        ("mask.0.0", torch.zeros(0, dtype=torch.uint8), r"1 packed bytes .* got torch.uint8 \(0,"),
        ("mask.0.0", torch.zeros(2, dtype=torch.uint8), "needs 1 packed bytes"),
        ("mask.0.0", torch.ones(2, 3, dtype=torch.bool), "needs 1 packed bytes .* got torch.bool"),
        ("mask.0.0", torch.ones(1, dtype=torch.int8), "got torch.int8"),
        ("mask.0.0", torch.ones(1, 1, dtype=torch.uint8), r"got torch.uint8 \(1, 1\)"),
        ("mask.0.0", torch.tensor([0b11000000], dtype=torch.uint8), "bits set behind its end"),
        ("mask.0.0", torch.tensor([0], dtype=torch.uint8), "ticket 'x' keeps no weight at all"),
    ],
)
def test_signed_tensors_that_lie(
    key: str, value: torch.Tensor | None, message: str, tmp_path: Path
) -> None:
    tensors = {k: v for k, v in {**valid_tensors(), key: value}.items() if v is not None}
    assert_refused(sign(tmp_path / "lie", None, tensors), message)


@pytest.mark.parametrize("shape", [[0, 2**70], [0, 2**62, 2**62], [2**64, 0], [0] * 64])
def test_shapes_without_entries_and_with_impossible_sizes(shape: list[int], tmp_path: Path) -> None:
    header = valid_header()
    header["parameters"].append({"name": "b", "shape": shape})
    tensors = {**valid_tensors(), "mask.0.1": torch.zeros(0, dtype=torch.uint8)}
    path = sign(tmp_path / "odd", header, tensors)
    if shape == [0] * 64:
        assert TicketSet.load(path)["x"].masks["b"].shape == (0,) * 64
    else:
        assert_refused(path, "no tensor can have the shape")


def test_sizes_in_safetensors_own_header_beyond_64_bits(tmp_path: Path) -> None:
    text = json.dumps({"format": "rtl-plugin tickets", "version": 1}, sort_keys=True)
    entry = {"dtype": "U8", "shape": [0, 2**64 - 1], "data_offsets": [0, 0]}
    assert_refused(foreign(tmp_path / "f", text, a=entry), "not a readable safetensors file")


def test_a_folder_is_called_a_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="is a folder, expected a file of rtl-plugin"):
        TicketSet.load(tmp_path)


@pytest.mark.parametrize("name", ["nothing.safetensors", "no/such/folder/t.safetensors"])
def test_a_missing_file_is_called_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no such file: .*{name}"):
        TicketSet.load(tmp_path / name)


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = sign(tmp_path / "secret")
    path.chmod(0)
    with pytest.raises(PermissionError, match="secret"):
        TicketSet.load(path)
