"""A file that lost, gained or changed a single byte is refused, whichever byte it is."""

import re
from pathlib import Path

import pytest

from rtl_plugin.errors import DamagedFile
from rtl_plugin.tickets import TicketSet
from tests.files.signed import container, sign, small_set


@pytest.fixture
def good(tmp_path: Path) -> bytes:
    small_set().save(tmp_path / "good")
    return (tmp_path / "good").read_bytes()


def refused(folder: Path, contents: dict[str, bytes]) -> int:
    """How many contents were refused by name; anything but DamagedFile is a failure."""
    for label, content in contents.items():
        path = folder / label
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match=re.escape(str(path))):
            TicketSet.load(path)
        path.unlink()
    return len(contents)


def test_the_files_made_here_are_good_before_they_are_damaged(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "again").write_bytes(good)
    assert TicketSet.load(tmp_path / "again").names == ("in/door", "straße")
    assert TicketSet.load(sign(tmp_path / "signed")).names == ("x",)


def test_truncated_at_any_length(tmp_path: Path, good: bytes) -> None:
    cuts = {f"first {n} bytes": good[:n] for n in range(len(good))}
    assert refused(tmp_path, cuts) == len(good)


@pytest.mark.parametrize("flip", [0xFF, 0x01, 0x20, 0x80])
def test_a_flipped_byte_at_any_position(flip: int, tmp_path: Path, good: bytes) -> None:
    # 0x20 turns \u00df into \u00DF in the header: another spelling of the same name.
    flipped = {
        f"byte {k} ^ {flip:#x}": good[:k] + bytes([good[k] ^ flip]) + good[k + 1 :]
        for k in range(len(good))
    }
    assert refused(tmp_path, flipped) == len(good)


def test_whitespace_where_the_padding_was(tmp_path: Path) -> None:
    small_set().save(tmp_path / "t")
    good = (tmp_path / "t").read_bytes()
    size = int.from_bytes(good[:8], "little")
    padded = good[8 : 8 + size].rstrip(b" ") + b" " * 8
    other = {hex(c[0]): container(padded[:-1] + c, good[8 + size :]) for c in (b"\t", b"\n", b"\r")}
    assert refused(tmp_path, other) == 3
    (tmp_path / "spaces").write_bytes(container(padded, good[8 + size :]))
    assert len(TicketSet.load(tmp_path / "spaces")) == 2


def test_appended_and_inserted_bytes(tmp_path: Path, good: bytes) -> None:
    more = {"appended": good + b"\0", "prepended": b"\0" + good, "twice": good + good}
    more |= {f"inserted at {k}": good[:k] + b"0" + good[k:] for k in range(0, len(good), 7)}
    assert refused(tmp_path, more) > len(good) // 7


def test_a_file_put_together_from_two(tmp_path: Path, good: bytes) -> None:
    other = small_set()
    other["straße"].state["mean"].add_(1)
    other.save(tmp_path / "other")
    theirs = (tmp_path / "other").read_bytes()
    assert len(theirs) == len(good)
    size = 8 + int.from_bytes(good[:8], "little")
    (tmp_path / "mixed").write_bytes(good[:size] + theirs[size:])
    with pytest.raises(DamagedFile, match="altered or damaged: its SHA-256 does not match"):
        TicketSet.load(tmp_path / "mixed")
