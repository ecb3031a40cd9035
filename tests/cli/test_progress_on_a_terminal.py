"""What a real terminal shows: a live table, or bars and report lines where it can show no more."""

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.core.terminal import Screen

pty = pytest.importorskip("pty", reason="pseudo-terminals exist on Unix only")
fcntl = pytest.importorskip("fcntl", reason="pseudo-terminals exist on Unix only")
termios = pytest.importorskip("termios", reason="pseudo-terminals exist on Unix only")

ROOT = Path(__file__).parents[2]
COMPARE = ["-m", "rtl_plugin.cli", "compare", "my_toys:task", "--sparsity", "0.5", "--steps", "2"]
SHORT = [*COMPARE, "--rounds", "1", "--seeds", "1", "--methods", "adaptive tickets", "dense"]
SIZE = (100, 24)

# A loss that prints, warns, logs and forks in its third step, and is interrupted in its 30th.
NOISY = """
import logging, os, signal, sys, warnings
import torch
import my_toys, rtl_plugin as rtl

# A test run in the background hands down that the signal is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
logging.basicConfig()
calls = []

def loss(model, batch):
    calls.append(1)
    if len(calls) == 3:
        print("printed by the loss")
        warnings.warn("warned by the loss", stacklevel=1)
        logging.warning("logged by the loss")
        if (child := os.fork()) == 0:
            print("from a worker", file=sys.stderr, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    if len(calls) == 30:
        os.kill(os.getpid(), 2)
    return my_toys.loss(model, batch)

task = my_toys.task()
rtl.discover(
    task.build_model(), task.groups, loss, schedule=rtl.GeometricSchedule(0.75, rounds=4),
    steps=5, optimizer=my_toys.adam,
)
"""


def on_a_terminal(
    command: Sequence[str], folder: Path, both: bool = False, **variables: str
) -> tuple[int, str, str]:
    """The exit status, standard output, and what a terminal saw of standard error, or of both."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE[::-1], 0, 0))
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=_environment(variables),
        stdin=theirs,
        stdout=theirs if both else subprocess.PIPE,
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
    return process.returncode, "" if output is None else output.decode(), shown.decode()


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    ours = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    paths = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    return {**kept, **paths, "TERM": "xterm-256color", **variables}


def test_bars_and_report_lines(working_folder: Path) -> None:
    status, output, shown = on_a_terminal(SHORT, working_folder, TERM="dumb")
    assert status == 0, shown
    for group in ("low", "high"):
        assert f"round 1/1 {group}: asked 50.00%, achieved 50.00%, loss " in shown
        assert f"{group}, 1: " in shown, "a bar named after group and round"
    assert "rewind verified" in shown
    assert "round 1/1: mean similarity " in shown
    assert "epoch 1/1: loss low " in shown
    assert "%|" in shown
    assert "adaptive tickets" in output
    assert "round" not in output, "progress goes to standard error alone"


def test_a_live_table(working_folder: Path) -> None:
    status, output, shown = on_a_terminal(SHORT, working_folder)
    assert status == 0, shown
    screen = Screen(*SIZE).feed(shown)
    lines = screen.text.splitlines()
    header = lines.index(next(line for line in lines if line.startswith("round 1/1, ")))
    assert "asked " in lines[header]
    assert lines[header + 1].split() == [
        "ticket",
        "sparsity",
        "loss",
        "similarity",
        "alarm",
        "state",
    ]
    low, high = (line.split() for line in lines[header + 2 : header + 4])
    assert (low[0], low[1], low[-1]) == ("low", "50.00%", "done")
    assert (high[0], high[1], high[-1]) == ("high", "50.00%", "done")
    assert low[3] == high[3] != "-", "two tickets are as like to each other"
    assert any(line.startswith("epoch 1/1: loss low ") for line in lines), "retraining's own line"
    assert "rewind verified" not in shown
    assert screen.cursor_visible
    assert "adaptive tickets" in output
    assert "round 1/1" not in output, "progress goes to standard error alone"


def test_other_output_and_control_c_leave_the_terminal_clean(working_folder: Path) -> None:
    (working_folder / "noisy.py").write_text(NOISY)
    status, _, shown = on_a_terminal(["noisy.py"], working_folder, both=True)
    assert status in {-signal.SIGINT, 128 + signal.SIGINT}, shown
    screen = Screen(*SIZE).feed(shown)
    lines = screen.text.splitlines()
    for text in ("printed by the loss", "WARNING:root:logged by the loss", "from a worker"):
        assert lines.count(text) == 1
    assert "".join(lines).count("UserWarning: warned by the loss") == 1, "it may be wrapped"
    assert screen.cursor_visible
    starts = [line.split()[:1] for line in lines]
    table = starts.index(["ticket"]) - 1
    assert lines[table].startswith("round 3/4, asked 64.64%, stopped after ")
    assert starts[table : table + 5] == [["round"], ["ticket"], ["low"], ["high"], ["Traceback"]]
    assert "stopped at 5/5" in lines[table + 3]
    assert starts.count(["ticket"]) == starts.count(["round"]) == 1, "no trail of tables"
    assert lines[-1] == "KeyboardInterrupt"
