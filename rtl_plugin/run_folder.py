"""Every file name of a run; what is done; what it was done with."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rtl_plugin.checkpoint import TEMPORARY, write_atomically
from rtl_plugin.errors import DamagedFile, RunFolderMismatch


class RunFolder:
    """The files of one stage of a run, under one folder.

    Results and checkpoints depend on the arguments alone; times and dates go to ``log.jsonl``.

    Args:
        path: the run's folder; made when missing.
        stage: ``"discover"`` or ``"retrain"``; two stages may share a folder.

    Example:
        >>> import tempfile
        >>> folder = RunFolder(tempfile.mkdtemp(), "discover")
        >>> folder.open({"seed": 0}); folder.open({"seed": 1})
        Traceback (most recent call last):
        rtl_plugin.errors.RunFolderMismatch: ... made with seed=0, this call has seed=1: ...
    """

    def __init__(self, path: str | os.PathLike[str], stage: str) -> None:
        self.root = Path(path)
        self.stage = stage

    @property
    def arguments(self) -> Path:
        """What the stage was called with."""
        return self.root / self.stage / "arguments.json"

    @property
    def log_file(self) -> Path:
        """Events with times, one JSON object a line."""
        return self.root / "log.jsonl"

    @property
    def tickets(self) -> Path:
        """The stage's finished tickets."""
        return self.root / self.stage / "tickets.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The last finished epoch of a retraining."""
        return self.root / self.stage / "checkpoint.safetensors"

    @property
    def identity(self) -> Path:
        """What decides a discovery's rounds beside its arguments; only with ``warm_start``."""
        return self.root / self.stage / "identity.json"

    @property
    def rewind_point(self) -> Path:
        """The common rewind point of a late rewind."""
        return self.root / self.stage / "rewind.safetensors"

    def round_ticket(self, round: int, group: int) -> Path:
        """One group's masks after one round (rounds counted from 1, groups from 0)."""
        return self.root / self.stage / f"round-{round:04d}-group-{group:04d}.safetensors"

    def result(self, name: str) -> Path:
        """A named JSON result of the stage."""
        return self.root / self.stage / f"{name}.json"

    def open(self, arguments: Mapping[str, Any]) -> None:
        """Start the stage here, or check that it was started with the same arguments.

        What a killed run was in the middle of writing is removed: one run at a time uses a stage.

        Args:
            arguments: JSON-able; compared entry by entry, in order, so put what others follow
                from first.

        Raises:
            RunFolderMismatch: the folder was made with other arguments, naming the first.
            DamagedFile: the folder's arguments cannot be read.
        """
        for half_written in (self.root / self.stage).glob(f".*{TEMPORARY}"):
            half_written.unlink(missing_ok=True)
        given = json.loads(json.dumps(arguments))
        if not self.arguments.exists():
            write_atomically(self.arguments, _json(given))
            return
        made = self.read_json(self.arguments)
        self.check_same(made, given)

    def check_same(self, made: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Refuse a call that differs from the one that the folder was made with.

        Args:
            made: what the folder remembers, as JSON gives it back.
            given: the same of this call.

        Raises:
            RunFolderMismatch: they differ, naming the first entry that does.
        """
        difference = first_difference(made, given)
        if difference is not None:
            name, before, now = difference
            raise RunFolderMismatch(
                f"run folder {self.root} was made with {name}={_short(before)}, this call has "
                f"{name}={_short(now)}: use another run_folder, or the same arguments to resume"
            )

    def read_json(self, path: Path) -> dict[str, Any]:
        """Read a JSON object.

        Raises:
            DamagedFile: it is missing, or not a JSON object.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DamagedFile(
                f"{path} is missing although {path.parent} holds results: without it they cannot "
                "be trusted; delete that folder to start again"
            ) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DamagedFile(f"{path} is not JSON ({error}): delete it to redo it") from error
        if not isinstance(content, dict):
            raise DamagedFile(f"{path} does not hold a JSON object: delete it to redo it")
        return content

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        """Write a JSON object atomically, the same content as the same bytes."""
        write_atomically(path, _json(content))

    def events(self) -> Iterator[dict[str, Any]]:
        """The stage's events in ``log.jsonl``, in order, past lines that a kill cut off."""
        lines = self.log_file.read_bytes().splitlines() if self.log_file.exists() else []
        for line in lines:
            try:
                event = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError):
                continue  # half a line; whoever resumed has logged again what was done again
            if isinstance(event, dict) and event.get("stage") == self.stage:
                yield event

    def log(self, event: str, **fields: Any) -> None:
        """Append an event with the time to ``log.jsonl``, on a line of its own."""
        line = json.dumps({"time": time.time(), "stage": self.stage, "event": event, **fields})
        self.root.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            # A killed run may have left half a line.
            cut = file.read(1) not in (b"", b"\n")
            file.write(b"\n" * cut + line.encode() + b"\n")


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def first_difference(
    made: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[str, Any, Any] | None:
    """Where two JSON objects differ first.

    Args:
        made: one; an entry that is missing counts as None.
        given: the other, whose order counts.

    Returns:
        Dotted name of the innermost entry, its value in the one and in the other; None where they
        are equal.

    Example:
        >>> first_difference({"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "y": 3}})
        ('a.y', 2, 3)
    """
    for key in {**given, **made}:
        if made.get(key) != given.get(key):
            return _difference(key, made.get(key), given.get(key))
    return None


def _difference(name: str, made: Any, given: Any) -> tuple[str, Any, Any]:
    """The innermost entry at which two arguments differ: its dotted name and both values."""
    while True:
        if isinstance(made, list) and isinstance(given, list) and len(made) == len(given):
            made, given = dict(enumerate(made)), dict(enumerate(given))
        if not (isinstance(made, dict) and isinstance(given, dict)):
            return name, made, given
        key = next(key for key in {**given, **made} if made.get(key) != given.get(key))
        name, made, given = f"{name}.{key}", made.get(key), given.get(key)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
