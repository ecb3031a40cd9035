import os
import sys

import pytest
import torch

os.environ.setdefault("MPLBACKEND", "Agg")  # plots are drawn on machines without a display

if sys.version_info >= (3, 14):  # NNI cannot be imported there
    collect_ignore_glob = ["nni/*"]

# Sums are split between threads, so exact comparisons need one; so do two workers on two cores.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device, and torch finds none here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)
