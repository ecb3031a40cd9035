"""What auto returns while it times the ways is what the chosen way computes."""

import time
from typing import Any

import pytest
import torch

from rtl_plugin.mixture.layer_choice import _timed


@pytest.mark.parametrize("order", [("quick", "slow"), ("slow", "quick")])
def test_the_first_output_is_of_the_chosen_way(order: tuple[str, str]) -> None:
    def quick(given: Any) -> torch.Tensor:
        return given[0][0] + 1

    def slow(given: Any) -> torch.Tensor:
        time.sleep(0.02)
        return given[0][0] + 2

    ways = {name: {"quick": quick, "slow": slow}[name] for name in order}
    output, choice = _timed(ways, ((torch.zeros(1),), {}))
    assert choice.way == "quick"
    assert output.item() == 1
