"""The kernels in Triton's interpreter, each file of `interpreted/` in a process of its own."""

import re

import pytest

from tests.kernels.processes import ROOT, python

pytest.importorskip("triton", reason="Triton is not installed")

# The interpreter of Triton 3.6 turns arrays of one element into numbers, which NumPy 2.4 refuses.
OLD_CONVERSION = "ignore:Conversion of an array with ndim:DeprecationWarning"
NEW_NUMPY = "only 0-dimensional arrays can be converted to Python scalars"

FILES = {"check_linear.py": 150, "check_convolution.py": 40}  # at least this many tests in it


def test_every_file_is_run() -> None:
    folder = ROOT / "tests/kernels/interpreted"
    assert {path.name for path in folder.glob("*.py")} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_in_the_interpreter(name: str) -> None:
    path = f"tests/kernels/interpreted/{name}"
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", OLD_CONVERSION]
    done = python(["-m", "pytest", *options, path], TRITON_INTERPRET="1")
    if done.returncode and NEW_NUMPY in done.stdout:
        pytest.skip("the interpreter of this Triton does not run with a NumPy as new as this")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) >= FILES[name]
    assert "skipped" not in done.stdout
