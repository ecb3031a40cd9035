"""Other processes for what cannot run here: Triton reads TRITON_INTERPRET when it is imported."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter in the repository, with the environment changed."""
    inherited = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    # A worker of pytest-xdist must not make the inner pytest believe it is one.
    inherited = {k: v for k, v in inherited.items() if not k.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**inherited, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
