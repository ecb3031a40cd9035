"""A comparison that is killed at random moments and resumed ends with the same files.

Four kills by default; ``RTL_KILLS=20`` for the acceptance test.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

KILLS = int(os.environ.get("RTL_KILLS", "4"))
ROOT = Path(__file__).parents[2]


def started(folder: Path) -> "subprocess.Popen[bytes]":
    """A process that has imported everything and begins its comparison now."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.baselines.compare_in_folder", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
    return process


def uninterrupted(folder: Path) -> float:
    """Seconds from its beginning to its end."""
    process = started(folder)
    began = time.monotonic()
    assert process.wait(timeout=300) == 0
    return time.monotonic() - began


def survives(process: "subprocess.Popen[bytes]", seconds: float | None) -> bool:
    """Kill a process, unless it ends by itself within some seconds."""
    try:
        code = process.wait(timeout=300 if seconds is None else seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    assert code == 0, f"a resumed comparison ended with code {code}"
    return True


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "log.jsonl"
    }


def test_killed_comparisons_end_with_the_same_bytes(tmp_path: Path) -> None:
    seconds = uninterrupted(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    assert "compare/results.json" in expected
    moments = random.Random(0)
    kills = runs = 0
    while kills < KILLS:
        folder = tmp_path / f"killed-{runs}"
        runs += 1
        while not survives(started(folder), moments.uniform(0, seconds / 2)):
            kills += 1
            if kills == KILLS:
                assert survives(started(folder), None)
                break
        found = contents(folder)
        differing = [n for n in {**expected, **found} if expected.get(n) != found.get(n)]
        assert differing == [], f"after {kills} kills in {runs} runs"
