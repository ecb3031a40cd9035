"""A server in a process of its own, for as long as a block runs."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Running(NamedTuple):
    """A server that listens."""

    url: str
    process: "subprocess.Popen[bytes]"


@contextmanager
def running_server(arguments: Sequence[str], seconds: float = 60.0) -> Iterator[Running]:
    """Start ``examples.serving.server`` on a free port, and end it whatever happens.

    Args:
        arguments: of its command line, besides the port.
        seconds: for it to come up.

    Yields:
        Its address and process.

    Raises:
        RuntimeError: it ended, or did not listen in time; the message holds what it printed.
    """
    command = [sys.executable, "-m", "examples.serving.server", "--port", "0", *arguments]
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=printed,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield Running(_address(process, printed.fileno(), seconds), process)
        finally:
            _end(process)


def _address(process: "subprocess.Popen[bytes]", printed: int, seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while True:
        text = os.pread(printed, 100_000, 0).decode(errors="replace")
        for line in text.splitlines(keepends=True):
            if line.startswith("listening on ") and line.endswith("\n"):
                return line.removeprefix("listening on ").strip()
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(
                f"the server (exit code {process.poll()}) did not listen within {seconds:g} "
                f"seconds; it printed:\n{text}"
            )
        time.sleep(0.05)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
