import pytest

# Every strategy that a mixture can be forced to; a later one gets its line here and nothing else.
STRATEGIES = ("auto", "reference", "slices", "grouped", "cached", "scratch", "dense")


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    return request.param
