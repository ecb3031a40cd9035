"""`import rtl_plugin` does nothing but define names; checked in a fresh process."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Host, plotting and ML libraries. One that `import torch` brings by itself is not held against us.
HEAVY = ["torch_pruning", "nni", "matplotlib", "sklearn", "scipy", "pandas", "triton", "mlxtend"]
HEAVY += ["nltk", "rich", "skimage", "tensorboard"]

PROBE = """
import json, logging, os, random, signal, sys, warnings
import numpy, torch

def loaded():
    return {name.partition(".")[0] for name in sys.modules}

def state():
    return {
        "torch's random state": torch.get_rng_state().tolist(),
        "numpy's random state": repr(numpy.random.get_state()),
        "Python's random state": repr(random.getstate()),
        "the default dtype": repr(torch.get_default_dtype()),
        "the number of threads": torch.get_num_threads(),
        "whether gradients are on": torch.is_grad_enabled(),
        "the warning filters": repr(warnings.filters),
        "the root logger": repr((logging.root.handlers, logging.root.level)),
        "the interrupt handler": repr(signal.getsignal(signal.SIGINT)),
        "the exception hook": repr(sys.excepthook),
        "the environment": dict(os.environ),
        "torch's tensor methods": sorted(vars(torch.Tensor)),
        "torch's module methods": sorted(vars(torch.nn.Module)),
    }

modules, before = loaded(), state()
exec(sys.argv[1])
after = state()
report = {
    "loaded": sorted(loaded() - modules),
    "changed": [name for name in before if before[name] != after[name]],
    "cuda": torch.cuda.is_initialized(),
}
with open(sys.argv[2], "w") as file:
    json.dump(report, file)
"""


def problems(statement: str, folder: Path) -> list[str]:
    """What a statement does, besides defining names, in a new process in an empty folder."""
    working, report_file = folder / "empty", folder / "report.json"
    working.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE, statement, str(report_file)],
        cwd=working,
        env={**os.environ, "PYTHONPATH": _folder_of_the_package()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = [f"it created {path.name}" for path in working.iterdir()]
    if done.stdout or done.stderr:
        found.append(f"it wrote {(done.stdout + done.stderr).strip()}")
    if done.returncode:
        return [*found, f"it ended with code {done.returncode}"]
    report = json.loads(report_file.read_text())
    found += [f"it imported {name}" for name in HEAVY if name in report["loaded"]]
    found += [f"it changed {name}" for name in report["changed"]]
    return [*found, *(["it initialised CUDA"] if report["cuda"] else [])]


def _folder_of_the_package() -> str:
    spec = importlib.util.find_spec("rtl_plugin")
    assert spec is not None
    assert spec.origin is not None, "rtl_plugin has no __init__.py"
    return str(Path(spec.origin).parents[1])


def test_importing_the_package_does_nothing_else(tmp_path: Path) -> None:
    assert problems("import rtl_plugin", tmp_path) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import matplotlib", "it imported matplotlib"),
        ("import numpy, torch\nprint('hello')", "it wrote hello"),
        ("open('left_behind', 'w').close()", "it created left_behind"),
        ("import warnings; warnings.warn('mind this')", "UserWarning: mind this"),
        ("torch.manual_seed(0)", "it changed torch's random state"),
        # What torch.cuda.is_initialized() reads, so that this runs where there is no GPU.
        ("torch.cuda._initialized = True", "it initialised CUDA"),
    ],
)
def test_the_check_can_fail(statement: str, expected: str, tmp_path: Path) -> None:
    found = problems(statement, tmp_path)
    assert any(expected in problem for problem in found), found
