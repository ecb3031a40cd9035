"""Samples that no router can rank: the fallback takes them, and their batch goes on."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import MixtureOfMasks, Ticket, TicketSet
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.routing import (
    ClassifierRouter,
    ConfidenceRouter,
    ConfidenceThreshold,
    NearestCentroidRouter,
    OneVsRestRouter,
)
from tests.routing.router_cases import NAMES, centroids, classifier, clusters, estimator

ROWS = 5
OTHERS = torch.tensor([0, 1, 3, 4])


ROUTERS: dict[str, Any] = {
    "centroid": centroids,
    "cosine": lambda: centroids(metric="cosine"),
    "one centroid without scatter": lambda: NearestCentroidRouter(["only"]).fit(
        clusters(3)[0][:1], ["only"]
    ),
    "module": classifier,
    "estimator": estimator,
}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("make", ROUTERS.values(), ids=ROUTERS)
def test_one_bad_input_goes_to_the_fallback_alone(make: Any, bad: float) -> None:
    inner = make()
    router = ConfidenceThreshold(inner, -1.0)
    x = clusters(ROWS, 4)[0]
    healthy = inner.route(x)
    x[2, 1] = bad
    decision = router.route(x)
    assert decision.fallback is not None
    assert decision.fallback.tolist() == [False, False, True, False, False]
    assert decision.confidence is not None
    assert decision.confidence.isnan().tolist() == decision.fallback.tolist()
    assert 0 <= int(decision.indices[2]) < len(inner.tickets)  # type: ignore[index]
    for name in ("indices", "confidence"):
        rows = getattr(decision, name)[OTHERS]
        torch.testing.assert_close(rows, getattr(healthy, name)[OTHERS])


OUTPUT_ROUTERS: dict[str, tuple[Any, int]] = {
    "entropy": (ConfidenceRouter(), 4),
    "energy": (ConfidenceRouter("energy"), 4),
    "own score": (ConfidenceRouter(lambda outputs: outputs.sum(dim=2)), 4),
    "one vs rest": (OneVsRestRouter(), 1),
}


@pytest.mark.parametrize("case", OUTPUT_ROUTERS.values(), ids=OUTPUT_ROUTERS)
def test_one_bad_output_goes_to_the_fallback_alone(case: tuple[Any, int]) -> None:
    inner, classes = case
    outputs = torch.randn(ROWS, 3, classes, generator=torch.Generator().manual_seed(0))
    healthy = inner.decide(outputs)
    outputs[2, 1, 0] = math.nan
    decision = ConfidenceThreshold(inner, -1e9).decide(outputs)
    assert decision.fallback is not None
    assert decision.fallback.tolist() == [False, False, True, False, False]
    assert 0 <= int(decision.indices[2]) < 3  # type: ignore[index]
    for name in ("indices", "confidence"):
        rows = getattr(decision, name)[OTHERS]
        torch.testing.assert_close(rows, getattr(healthy, name)[OTHERS])
    with pytest.raises(InvalidArgument, match="NaN"):
        inner.decide(outputs)  # nobody asked for a fallback


def test_without_a_fallback_a_bad_sample_is_refused() -> None:
    x = clusters(ROWS)[0]
    x[2, 1] = math.nan
    for router, message in (
        (centroids(), "features of sample 2 of the batch hold NaN or infinity"),
        (classifier(), "gave logits with NaN"),
        (estimator(), "features of sample 2 of the batch hold NaN or infinity"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            router.route(x)
        with pytest.raises(InvalidArgument, match=message):
            ConfidenceThreshold(router).fit(x)  # and no threshold comes from one


def test_probabilities_that_are_nan_are_a_sample_of_their_own() -> None:
    class Told:
        classes_ = NAMES

        def fit(self, x: Any, y: Any) -> Any:
            return self

        def predict(self, x: Any) -> Any:
            raise AssertionError("it has probabilities")

        def predict_proba(self, x: Any) -> Any:
            return [[0.2, 0.7, 0.1], [math.nan] * 3]

    router = ClassifierRouter(Told(), NAMES)
    decision = ConfidenceThreshold(router, 0.5).route(torch.zeros(2, 1))
    assert decision.fallback is not None
    assert decision.fallback.tolist() == [False, True]
    with pytest.raises(InvalidArgument, match="values without NaN"):
        router.route(torch.zeros(2, 1))


@pytest.mark.parametrize("make", [centroids, classifier, estimator, ConfidenceRouter])
def test_a_mixture_serves_the_others(make: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    tickets = TicketSet([Ticket(n, {"0.weight": torch.rand(8, 4) < 0.5}) for n in NAMES])
    router = make()
    x = clusters(ROWS)[0]
    expected = MixtureOfMasks(model, tickets, router)(x)
    x[2, 1] = math.nan
    served = MixtureOfMasks(model, tickets, ConfidenceThreshold(router, -1.0), fallback="dense")(x)
    assert served.isnan().any(dim=1).tolist() == [False, False, True, False, False]
    torch.testing.assert_close(served[OTHERS], expected[OTHERS])
