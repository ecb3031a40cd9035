"""The strategies on kernels, in a process of their own: Triton is told at import to interpret."""

import re

import pytest

from tests.kernels.processes import python
from tests.kernels.test_kernels_interpreted import NEW_NUMPY, OLD_CONVERSION

pytest.importorskip("triton", reason="Triton is not installed")


def test_strategies_on_kernels_in_the_interpreter() -> None:
    path = "tests/mixture/interpreted/check_kernel_ways.py"
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", OLD_CONVERSION]
    done = python(["-m", "pytest", *options, path], TRITON_INTERPRET="1")
    if done.returncode and NEW_NUMPY in done.stdout:
        pytest.skip("the interpreter of this Triton does not run with a NumPy as new as this")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) >= 17
    assert "skipped" not in done.stdout
