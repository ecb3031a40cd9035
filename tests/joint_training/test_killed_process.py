"""A real SIGKILL, in discovery and in retraining, and a resume in another process."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.discovery.setups import (
    CONV,
    Interrupting,
    built,
    files_of,
    found,
    same_bits,
    shuffled_groups,
    tensors_of,
)
from tests.joint_training.setups import trained

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, signal, sys
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from tests.discovery.setups import Interrupting
from tests.joint_training.test_killed_process import run

class Killed(BaseException):
    def __init__(self, *_):
        os.kill(os.getpid(), signal.SIGKILL)

run({folder!r}, Interrupting({at}, Killed))
"""


def run(folder: str | Path, loss: Any) -> torch.nn.Module:
    model, groups = built(CONV), shuffled_groups(CONV)
    tickets = found(model, groups, loss, run_folder=folder)  # 8 steps
    trained(model, tickets, groups, loss, epochs=3, run_folder=folder)  # 12 steps
    return model


@pytest.mark.parametrize(("at", "left"), [(6, 4 + 12), (8 + 7, 8)])
def test_killed_without_warning(at: int, left: int, tmp_path: Path) -> None:
    expected = run(tmp_path / "whole", Interrupting())
    script = SCRIPT.format(root=str(ROOT), folder=str(tmp_path / "cut"), at=at)
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    unfinished = files_of(tmp_path / "cut")
    assert 0 < len(unfinished) < len(files_of(tmp_path / "whole"))
    loss = Interrupting()
    model = run(tmp_path / "cut", loss)
    assert loss.calls == left, "what the killed process had finished is kept"
    assert same_bits(tensors_of(model), tensors_of(expected))
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")
