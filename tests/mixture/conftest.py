import pytest

# What every property of a mixture is held under.
STRATEGIES = ("auto", "reference", "slices", "grouped", "scratch")
# On a CPU these run the layers in the same ways as others do; the first contract holds them too.
MORE_STRATEGIES = ("dense", "cached", "bitmask")


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    return request.param
