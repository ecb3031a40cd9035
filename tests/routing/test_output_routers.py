"""Routers that look at the outputs of all tickets, soft mixing, and random ensembles."""

import math
from collections import Counter
from typing import Any

import pytest
import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.routing import (
    ConfidenceRouter,
    KnownGroupRouter,
    NearestCentroidRouter,
    OneVsRestRouter,
    RoutingDecision,
    StochasticEnsembleRouter,
    TopNRouter,
)
from tests.routing.router_cases import NAMES, centroids

# Probabilities (1/2, 1/4, 1/4) and uniform, up to a constant.
LOGITS = torch.tensor([[[math.log(2), 0.0, 0.0], [5.0, 5.0, 5.0]]])


def test_entropy_by_hand() -> None:
    router = ConfidenceRouter("entropy")
    entropies = torch.tensor([[1.5 * math.log(2), math.log(3)]])
    torch.testing.assert_close(router.scores(LOGITS), -entropies)
    decision = router.decide(LOGITS)
    assert decision.indices.tolist() == [0]  # type: ignore[union-attr]
    expected = torch.tensor([1 - 1.5 * math.log(2) / math.log(3)])
    torch.testing.assert_close(decision.confidence, expected)


def test_energy_by_hand() -> None:
    router = ConfidenceRouter("energy")
    torch.testing.assert_close(
        router.scores(LOGITS), torch.tensor([[math.log(4), 5 + math.log(3)]])
    )
    decision = router.decide(LOGITS)
    assert decision.indices.tolist() == [1]  # type: ignore[union-attr]
    torch.testing.assert_close(decision.confidence, torch.tensor([5 + math.log(3)]))


def test_certain_and_impossible_classes_have_entropy_zero() -> None:
    outputs = torch.tensor([[[0.0, float("-inf")], [1e4, -1e4], [0.0, 0.0]]])
    scores = ConfidenceRouter().scores(outputs)
    torch.testing.assert_close(scores, torch.tensor([[0.0, 0.0, -math.log(2)]]))
    assert ConfidenceRouter().decide(outputs).confidence.tolist() == [1.0]  # type: ignore[union-attr]


def test_confidence_stays_in_its_range() -> None:
    for classes in range(2, 200):
        confidence = ConfidenceRouter().decide(torch.full((1, 1, classes), 0.1)).confidence
        assert confidence is not None
        assert 0 <= float(confidence) < 1e-6, f"uniform over {classes} classes"


def test_half_precision_is_scored_in_single() -> None:
    scores = ConfidenceRouter().scores(LOGITS.bfloat16())
    assert scores.dtype == torch.float32
    assert ConfidenceRouter().scores(LOGITS.double()).dtype == torch.float64


def test_a_score_of_the_users_own() -> None:
    router = ConfidenceRouter(lambda outputs: -outputs.flatten(2).var(dim=2))
    outputs = torch.tensor([[[1.0, 9.0], [4.0, 5.0]]]).unsqueeze(3)
    decision = router.decide(outputs)
    assert decision.indices.tolist() == [1]  # type: ignore[union-attr]
    torch.testing.assert_close(decision.confidence, torch.tensor([-0.5]))


@pytest.mark.parametrize(
    ("score", "outputs", "message"),
    [
        ("entropy", torch.zeros(2, 3, 1), r"outputs \[B, K, C\] with C >= 2, got \(2, 3, 1\)"),
        ("entropy", torch.zeros(2, 3), r"with C >= 2, got \(2, 3\)"),
        ("energy", torch.zeros(2, 3, 4, 5), r"got \(2, 3, 4, 5\)"),
        ("energy", torch.zeros(2, 0, 4), r"got \(2, 0, 4\)"),
        ("energy", torch.zeros(2, 3, 4).long(), "floating tensor .* got torch.int64"),
        ("entropy", [torch.zeros(2, 4)], "floating tensor .* got list"),
        ("entropy", torch.full((2, 3, 4), float("nan")), "outputs with NaN, which rank no ticket"),
        ("entropy", torch.full((2, 3, 4), float("inf")), "the entropy of some outputs is not def"),
        (lambda o: o.sum(), torch.zeros(2, 3, 4), r"score must give .* \(2, 3\) without NaN, got"),
        (lambda o: o.sum(dim=2).long(), torch.zeros(2, 3, 4), "score must give .* torch.int64"),
        (lambda o: o.sum(dim=2) * math.nan, torch.zeros(2, 3, 4), "score must give a floating"),
        (lambda o: 3, torch.zeros(2, 3, 4), "score must give .* got 3"),
    ],
)
def test_outputs_that_cannot_be_scored(score: Any, outputs: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        ConfidenceRouter(score).decide(outputs)


def test_an_unknown_score() -> None:
    with pytest.raises(InvalidArgument, match="score must be one of entropy, energy, or a functi"):
        ConfidenceRouter("margin")


def test_one_vs_rest_by_hand() -> None:
    outputs = torch.tensor([[[-1.0], [0.0], [-3.0]], [[4.0], [5.0], [math.log(9)]]])
    decision = OneVsRestRouter().decide(outputs)
    assert decision.indices.tolist() == [1, 1]  # type: ignore[union-attr]
    torch.testing.assert_close(decision.confidence, torch.tensor([0.5, 1 / (1 + math.exp(-5.0))]))
    with pytest.raises(InvalidArgument, match=r"with C = 1, got \(2, 3, 2\): OneVsRestRouter is"):
        OneVsRestRouter().decide(outputs.expand(2, 3, 2))


class Scores:
    """Scores that were given."""

    def __init__(self, scores: Any) -> None:
        self.given = scores

    def route(self, x: Any, context: Any = None) -> RoutingDecision:
        raise AssertionError("soft mixing asks for scores")

    def scores(self, x: Any) -> Any:
        return self.given


X = torch.zeros(2, 1)
PRIOR = torch.tensor([[0.5, 0.125, 0.25, 0.125], [0.1, 0.2, 0.3, 0.4]]).log()


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, [[1.0, 0, 0, 0], [0, 0, 0, 1.0]]),
        (2, [[2 / 3, 0, 1 / 3, 0], [0, 0, 3 / 7, 4 / 7]]),
        (3, [[4 / 7, 1 / 7, 2 / 7, 0], [0, 2 / 9, 3 / 9, 4 / 9]]),  # of equal ones the first
        (4, [[0.5, 0.125, 0.25, 0.125], [0.1, 0.2, 0.3, 0.4]]),
    ],
)
def test_the_n_largest_weights_renormalised(n: int, expected: list[list[float]]) -> None:
    decision = TopNRouter(Scores(PRIOR), n).route(X)
    torch.testing.assert_close(decision.weights, torch.tensor(expected))
    torch.testing.assert_close(decision.confidence, torch.tensor([0.5, 0.4]))


def test_temperature_by_hand() -> None:
    # p ** (1 / T), renormalised: T = 1/2 squares the odds.
    weights = TopNRouter(Scores(PRIOR), 2, temperature=0.5).route(X).weights
    assert weights is not None
    torch.testing.assert_close(weights[0], torch.tensor([4 / 5, 0, 1 / 5, 0]))
    # Shifting by the row's maximum changes nothing, and keeps quotients finite.
    coldest = TopNRouter(Scores(PRIOR + 1e9 * torch.eye(2, 4)), 1, temperature=1e-30).route(X)
    assert coldest.weights is not None
    assert coldest.weights.tolist() == [[1.0, 0, 0, 0], [0, 1.0, 0, 0]]
    cold = TopNRouter(Scores(PRIOR), 4, temperature=1e-3).route(X).weights
    assert cold is not None
    torch.testing.assert_close(cold, torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]))


def test_distances_are_weighed_by_nearness() -> None:
    inner = NearestCentroidRouter(["a", "b"]).fit(torch.tensor([[0.0], [3.0]]), ["a", "b"])
    weights = TopNRouter(inner, 2).route(torch.tensor([[1.0]])).weights
    assert weights is not None
    odds = math.exp(-1.0) / (math.exp(-1.0) + math.exp(-2.0))
    torch.testing.assert_close(weights, torch.tensor([[odds, 1 - odds]]))


def test_outputs_are_weighed_by_confidence() -> None:
    weights = TopNRouter(ConfidenceRouter("energy"), 2).decide(LOGITS).weights
    assert weights is not None
    expected = torch.tensor([[math.log(4), 5 + math.log(3)]]).softmax(dim=1)
    torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (torch.zeros(2), r"floating tensor \[B, K\], got \(2,\)"),
        (torch.zeros(2, 3).long(), r"floating tensor \[B, K\], got \(2, 3\)"),
        ([[0.0]], "floating tensor .* got <class 'list'>"),
        (torch.full((2, 3), float("nan")), "gave NaN, infinity, or no finite score"),
        (torch.full((2, 3), float("-inf")), "gave NaN, infinity, or no finite score"),
        (torch.zeros(2, 1), "n = 2 tickets to be mixed, there are 1"),
    ],
)
def test_scores_that_cannot_be_weighed(scores: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        TopNRouter(Scores(scores), 2).route(X)


def test_what_soft_mixing_refuses() -> None:
    with pytest.raises(InvalidArgument, match="KnownGroupRouter has none: NearestCentroidRouter,"):
        TopNRouter(KnownGroupRouter(["a"]), 1)
    with pytest.raises(InvalidArgument, match="n = 4 tickets to be mixed, there are 3"):
        TopNRouter(centroids(), 4)
    for n in (0, 1.0, True):
        with pytest.raises(InvalidArgument, match="n must be a whole number of at least 1"):
            TopNRouter(centroids(), n)  # type: ignore[arg-type]
    for temperature in (0, -1.0, float("nan")):
        with pytest.raises(InvalidArgument, match="temperature must be a number"):
            TopNRouter(centroids(), 1, temperature)


def drawn(router: StochasticEnsembleRouter, rows: int) -> list[tuple[int, ...]]:
    weights = router.route(torch.zeros(rows, 1)).weights
    assert weights is not None
    return [tuple(row.nonzero().flatten().tolist()) for row in weights]


def test_draws_a_request_and_a_sample() -> None:
    a_request = StochasticEnsembleRouter(list("abcde"), n=3, seed=1)
    requests = [drawn(a_request, 8) for _ in range(20)]
    assert all(len(set(rows)) == 1 for rows in requests)
    assert len({rows[0] for rows in requests}) > 3
    a_sample = StochasticEnsembleRouter(list("abcde"), n=3, seed=1, per="sample")
    assert len(set(drawn(a_sample, 50))) > 3
    for router in (a_request, a_sample):
        weights = router.route(torch.zeros(30, 1)).weights
        assert weights is not None
        assert set(weights.flatten().tolist()) == {0.0, 1 / 3}
        assert ((weights > 0).sum(dim=1) == 3).all()


def test_every_subset_is_drawn_equally_often() -> None:
    router = StochasticEnsembleRouter(list("abcd"), n=2, seed=0, per="sample")
    counts = Counter(drawn(router, 6000))
    assert len(counts) == 6
    # Chi-squared with 5 degrees of freedom exceeds 20.5 in one of a thousand runs.
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 20.5


def test_seeds_are_reproducible_and_differ() -> None:
    made = [StochasticEnsembleRouter(list("abcdef"), 3, seed, "sample") for seed in (4, 4, 5)]
    first, again, other = (drawn(router, 40) for router in made)
    assert first == again
    assert first != other
    unseeded = [StochasticEnsembleRouter(list("abcdef"), 3, per="sample") for _ in range(2)]
    assert drawn(unseeded[0], 40) != drawn(unseeded[1], 40)


def test_all_tickets_are_the_plain_average() -> None:
    weights = StochasticEnsembleRouter(NAMES, n=3).route(torch.zeros(2, 1)).weights
    assert weights is not None
    assert weights.tolist() == [[1 / 3] * 3] * 2, "1/n is not exact to float64"


def test_what_the_ensemble_refuses() -> None:
    with pytest.raises(InvalidArgument, match="n = 4 different tickets a draw, there are 3"):
        StochasticEnsembleRouter(NAMES, 4)
    with pytest.raises(InvalidArgument, match="n must be a whole number of at least 1, got 0"):
        StochasticEnsembleRouter(NAMES, 0)
    with pytest.raises(InvalidArgument, match="per must be one of request, sample, got 'batch'"):
        StochasticEnsembleRouter(NAMES, 1, per="batch")
    for seed in (-1, 0.5, "x"):
        with pytest.raises(InvalidArgument, match="seed must be a whole number of at least 0"):
            StochasticEnsembleRouter(NAMES, 1, seed)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="whose first dimension is B"):
        StochasticEnsembleRouter(NAMES, 1).route(torch.tensor(1.0))
