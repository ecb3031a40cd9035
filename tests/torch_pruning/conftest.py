"""Filters for warnings of the host that are not about us."""

import pytest

# The host guesses a dimension for parameters outside of layers and says so; networks with such
# parameters are pruned on purpose here.
UNWRAPPED = "ignore:Unwrapped parameters detected:UserWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "torch_pruning" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings(UNWRAPPED))
