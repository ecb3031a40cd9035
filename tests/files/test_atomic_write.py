"""A write that fails leaves the old file and no litter."""

import os
import threading
from pathlib import Path

import pytest

from rtl_plugin import checkpoint
from rtl_plugin.checkpoint import write_atomically
from rtl_plugin.tickets import TicketSet
from tests.files.signed import small_set


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"a long old content")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_parent_folders_are_made(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "file", b"x")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"x"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_no_litter(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.safetensors"
    small_set().save(path)
    before = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, step, full)
        with pytest.raises(OSError, match="No space left on device"):
            TicketSet(list(small_set().values())[:1]).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["t.safetensors"]
    assert TicketSet.load(path).names == ("in/door", "straße")


def test_content_is_on_disk_before_the_name_points_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        events.append(f"fsync {os.fstat(descriptor).st_size}")
        fsync(descriptor)

    def noted_replace(source: str, target: str) -> None:
        events.append("replace")
        replace(source, target)

    monkeypatch.setattr(checkpoint.os, "fsync", noted_fsync)
    monkeypatch.setattr(checkpoint.os, "replace", noted_replace)
    write_atomically(tmp_path / "file", b"12345")
    assert events == ["fsync 5", "replace"]


def test_a_folder_in_the_way_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        small_set().save(tmp_path / "taken")
    assert os.listdir(tmp_path) == ["taken"]
    assert os.listdir(tmp_path / "taken") == []


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OSError, match="file"):
        small_set().save(tmp_path / "file" / "t.safetensors")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_two_threads_that_write_one_file_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([65 + k]) * 200_000 for k in range(2)]
    failures: list[BaseException] = []
    barrier = threading.Barrier(2)

    def write(content: bytes) -> None:
        try:
            for _ in range(15):
                barrier.wait(timeout=30)
                write_atomically(path, content)
                assert path.read_bytes() in contents
        except BaseException as error:  # noqa: BLE001 - the main thread shows it
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert os.listdir(tmp_path) == ["file"]
