"""Every router of the package, fitted, with batches to ask it about."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rtl_plugin.routing import (
    ClassifierRouter,
    ConfidenceRouter,
    ConfidenceThreshold,
    EpsilonGreedyRouter,
    KnownGroupRouter,
    NearestCentroidRouter,
    OneVsRestRouter,
    OnlineRouter,
    Outcome,
    RoutingDecision,
    StochasticEnsembleRouter,
    ThompsonSamplingRouter,
    TopNRouter,
)
from rtl_plugin.routing.contract import needs_outputs

NAMES = ("indoor", "street", "field")
WIDTH = 4


def clusters(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples around three points, and whose they are; every group has some from 3 rows on."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.arange(rows) % len(NAMES)
    centres = torch.tensor([[3.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 3.0, 0]])
    return centres[groups] + 0.8 * torch.randn(rows, WIDTH, generator=generator), groups


class Normed(nn.Module):
    """Batch norm and dropout: its answer tells the mode it runs in."""

    def __init__(self, outputs: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.norm, self.head = nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, outputs)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.norm(x)))


def adam(params: list[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=0.05)


def centroids(**options: Any) -> NearestCentroidRouter:
    return NearestCentroidRouter(NAMES, **options).fit(*clusters(60))


def classifier() -> ClassifierRouter:
    return ClassifierRouter(Normed(3), NAMES).fit(*clusters(60), optimizer=adam, epochs=3)


def estimator() -> ClassifierRouter:
    from sklearn.linear_model import LogisticRegression

    return ClassifierRouter(LogisticRegression(), NAMES).fit(*clusters(60))


def taught(router: Any) -> Any:
    for _ in range(10):
        decision = router.route(torch.zeros(1, 1))
        slow = int(decision.indices[0]) == 0
        router.observe(decision, Outcome(latency_s=2.0 if slow else 0.5, quality=0.9))
    return router


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], Any]
    random: bool = False  # another call may decide otherwise
    skeleton: Callable[[], Any] | None = None  # what load needs beside the file
    saves: bool = True
    classes: int = 5  # of the outputs, for a router that looks at them

    def batch(self, rows: int, seed: int = 1) -> torch.Tensor:
        if needs_outputs(self.build()):
            generator = torch.Generator().manual_seed(seed)
            return torch.randn(rows, len(NAMES), self.classes, generator=generator)
        return clusters(rows, seed)[0]

    def ask(self, router: Any, x: torch.Tensor) -> RoutingDecision:
        if needs_outputs(router):
            return router.decide(x)  # type: ignore[no-any-return]
        context = "street" if isinstance(router, KnownGroupRouter) else None
        return router.route(x, context)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return self.name


CASES = (
    Case("known group", lambda: KnownGroupRouter(NAMES)),
    Case("centroid", centroids),
    Case("centroid cosine", lambda: centroids(metric="cosine")),
    Case(
        "centroid in a space",
        lambda: centroids(feature_space=Normed(6)),
        skeleton=lambda: NearestCentroidRouter(NAMES, Normed(6, seed=9)),
    ),
    Case("module", classifier, skeleton=lambda: ClassifierRouter(Normed(3, seed=9), NAMES)),
    Case("estimator", estimator, saves=False),
    Case("entropy", ConfidenceRouter),
    Case("energy", lambda: ConfidenceRouter("energy")),
    Case("own score", lambda: ConfidenceRouter(lambda o: o.amax(dim=2)), saves=False),
    Case("one vs rest", OneVsRestRouter, classes=1),
    Case("threshold", lambda: ConfidenceThreshold(centroids()).fit(clusters(60, 2)[0], 0.1)),
    Case("threshold on outputs", lambda: ConfidenceThreshold(ConfidenceRouter(), 0.3)),
    Case("top 2", lambda: TopNRouter(centroids(), n=2, temperature=0.5)),
    Case("top 2 of outputs", lambda: TopNRouter(ConfidenceRouter("energy"), n=2)),
    Case(
        "threshold on top 2 of a module",
        lambda: ConfidenceThreshold(TopNRouter(classifier(), n=2), 0.5),
        skeleton=lambda: ConfidenceThreshold(
            TopNRouter(ClassifierRouter(Normed(3, seed=9), NAMES), 1)
        ),
    ),
    Case("ensemble", lambda: StochasticEnsembleRouter(NAMES, n=2, seed=0), random=True),
    Case(
        "ensemble a sample",
        lambda: StochasticEnsembleRouter(NAMES, n=2, seed=0, per="sample"),
        random=True,
    ),
    Case("online", lambda: taught(OnlineRouter(NAMES, 1.0, 0.5, seed=0)), random=True),
    Case("epsilon greedy", lambda: taught(EpsilonGreedyRouter(NAMES, 1.0, 0.5, 0.5, seed=0)), True),
    Case("thompson", lambda: taught(ThompsonSamplingRouter(NAMES, 1.0, 0.5, seed=0)), random=True),
)


def same(first: RoutingDecision, second: RoutingDecision) -> None:
    for name in ("indices", "weights", "confidence", "fallback"):
        a, b = getattr(first, name), getattr(second, name)
        assert (a is None) == (b is None), name
        if a is not None:
            torch.testing.assert_close(a, b, msg=lambda text, n=name: f"{n}: {text}")
