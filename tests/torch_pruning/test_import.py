"""Importing the integration: what it needs, what it leaves alone; each in a fresh process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch_pruning":
            raise ModuleNotFoundError("No module named 'torch_pruning'", name="torch_pruning")

sys.meta_path.insert(0, Blocker())
"""

EXPECTED = """
import rtl_plugin.errors
try:
    import rtl_torch_pruning
except rtl_plugin.errors.MissingExtra as error:
    print(error)
"""

LEAVES_ALONE = """
import json, sys, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import rtl_torch_pruning
loaded = {name.partition(".")[0] for name in sys.modules}
ours = [str(w.message) for w in caught if "rtl_" in w.filename]
print(json.dumps([sorted(loaded & {"nni", "torchvision", "onnx"}), ours]))
"""


def output(program: str) -> str:
    path = os.pathsep.join([str(ROOT), str(ROOT / "integrations")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_torch_pruning() -> None:
    message = output(BLOCKER + EXPECTED)
    assert "rtl_torch_pruning" in message
    assert "pip install 'rtl-plugin[torch-pruning]'" in message


def test_the_core_does_without_torch_pruning() -> None:
    assert output(BLOCKER + "import rtl_plugin; print('fine')") == "fine"


def test_the_blocker_blocks() -> None:
    with pytest.raises(AssertionError, match="No module named 'torch_pruning'"):
        output(BLOCKER + "import torch_pruning")


def test_importing_leaves_others_alone() -> None:
    assert output(LEAVES_ALONE) == "[[], []]"
