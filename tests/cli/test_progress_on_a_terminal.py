"""Bars and report lines where standard error is a terminal, silence where it is not."""

import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="pseudo-terminals exist on Unix only")
fcntl = pytest.importorskip("fcntl", reason="pseudo-terminals exist on Unix only")
termios = pytest.importorskip("termios", reason="pseudo-terminals exist on Unix only")

ROOT = Path(__file__).parents[2]
COMMAND = ["compare", "my_toys:task", "--sparsity", "0.5", "--rounds", "1", "--steps", "2"]
SHORT = [*COMMAND, "--seeds", "1", "--methods", "adaptive tickets", "dense"]


def on_a_terminal(words: Sequence[str], folder: Path) -> tuple[str, str]:
    """Standard output and what a terminal saw of standard error."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "rtl_plugin.cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            part = b""
        if not part:
            break
        shown += part
    os.close(ours)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, shown.decode()
    return output.decode(), shown.decode()


def test_bars_and_report_lines(working_folder: Path) -> None:
    output, shown = on_a_terminal(SHORT, working_folder)
    for group in ("low", "high"):
        assert f"round 1/1 {group}: asked 50.00%, achieved 50.00%, loss " in shown
        assert f"{group}, 1: " in shown, "a bar named after group and round"
    assert "rewind verified" in shown
    assert "epoch 1/1: loss low " in shown
    assert "%|" in shown
    assert "adaptive tickets" in output
    assert "round" not in output, "progress goes to standard error alone"
