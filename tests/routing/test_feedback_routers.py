"""Routers that learn from outcomes: formulas, statistics, drift, and what is refused."""

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.routing import (
    EpsilonGreedyRouter,
    OnlineRouter,
    Outcome,
    RoutingDecision,
    ThompsonSamplingRouter,
)
from rtl_plugin.routing.feedback import (
    BOTH,
    LATENCY_ONLY,
    NEITHER,
    QUALITY_ONLY,
    FeedbackRouter,
    Targets,
)
from rtl_plugin.routing.online import expected_free_energy

ARMS = ("tiny", "small", "large")
GOOD, SLOW, WORSE, BAD = Outcome(0.5, 0.9), Outcome(2.0, 0.9), Outcome(0.5, 0.1), Outcome(2.0, 0.1)
X = torch.zeros(1, 1)
Maker = Callable[..., FeedbackRouter]
MAKERS: dict[str, Maker] = {
    "online": OnlineRouter,
    "epsilon greedy": EpsilonGreedyRouter,
    "thompson": ThompsonSamplingRouter,
}


@pytest.fixture(params=MAKERS.values(), ids=MAKERS)
def make(request: pytest.FixtureRequest) -> Maker:
    return request.param


def arm_of(router: FeedbackRouter) -> int:
    indices = router.route(X).indices
    assert indices is not None
    return int(indices[0])


def chose(arm: int) -> RoutingDecision:
    return RoutingDecision(indices=torch.tensor([arm, arm]))


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (GOOD, BOTH),
        (SLOW, QUALITY_ONLY),
        (WORSE, LATENCY_ONLY),
        (BAD, NEITHER),
        (Outcome(1.0, 0.5), BOTH),  # on the targets is met
        (Outcome(1.0 + 1e-9, 0.5), QUALITY_ONLY),
        (Outcome(1.0, 0.5 - 1e-9), LATENCY_ONLY),
    ],
)
def test_kinds_of_outcome(outcome: Outcome, kind: int) -> None:
    assert Targets(1.0, 0.5).kind(outcome) == kind


def test_counts_are_discounted_at_every_observation(make: Maker) -> None:
    router = make(ARMS, 1.0, 0.5, discount=0.5)
    for arm, outcome in ((0, GOOD), (2, SLOW), (0, BAD)):
        router.observe(chose(arm), outcome)
    expected = torch.zeros(3, 4, dtype=torch.float64)
    expected[0, BOTH], expected[2, QUALITY_ONLY], expected[0, NEITHER] = 0.25, 0.5, 1.0
    assert torch.equal(router.counts(), expected)


def test_expected_free_energy_by_hand() -> None:
    counts = torch.tensor([[3.0, 1.0, 0.0, 2.0]], dtype=torch.float64)
    alpha = [4.0, 4 / 3, 1 / 3, 7 / 3]
    total = sum(alpha)
    mean = [a / total for a in alpha]
    normaliser = math.log(sum(math.exp(2.0 * worth) for worth in (1, 0.25, 0.25, 0)))
    wish = [2.0 * worth - normaliser for worth in (1, 0.25, 0.25, 0)]
    cost = -sum(m * w for m, w in zip(mean, wish, strict=True))
    # E[H] of a Dirichlet by sampling, so that the closed form is not checked against itself.
    torch.manual_seed(0)
    sampled = torch.distributions.Dirichlet(torch.tensor(alpha).double()).sample((200_000,))
    entropies = -torch.special.xlogy(sampled, sampled).sum(dim=1)
    entropy = -sum(m * math.log(m) for m in mean)
    expected = cost - (entropy - float(entropies.mean()))
    assert float(expected_free_energy(counts, 2.0)) == pytest.approx(expected, abs=3e-3)


def test_information_drives_exploration_and_wears_off() -> None:
    seen = torch.tensor([[1.0, 1, 1, 1], [100.0, 100, 100, 100]], dtype=torch.float64)
    fresh = expected_free_energy(seen, 1e-6)
    assert fresh[0] < fresh[1], "of equally good tickets the less known one is worth more"
    known = torch.tensor([[0.0, 0, 0, 0], [60.0, 0, 0, 0]], dtype=torch.float64)
    greedy = expected_free_energy(known, 50.0)
    assert greedy[1] < greedy[0], "a strong wish prefers what is known to be good"


def test_the_online_router_takes_the_least_energy() -> None:
    router = OnlineRouter(ARMS, 1.0, 0.5, seed=0)
    for arm, outcome in ((0, WORSE), (1, GOOD), (2, SLOW), (0, BAD), (2, BAD)):
        router.observe(chose(arm), outcome)
    energy = expected_free_energy(router.counts(), router.precision)
    assert arm_of(router) == int(energy.argmin()) == 1


def test_epsilon_greedy_by_hand() -> None:
    greedy = EpsilonGreedyRouter(ARMS, 1.0, 0.5, epsilon=0.0, seed=0)
    for arm, outcome in ((0, GOOD), (0, BAD), (1, GOOD), (1, GOOD), (1, SLOW)):
        greedy.observe(chose(arm), outcome)
    shares = greedy.preferences(greedy.counts())
    assert shares.tolist() == pytest.approx([0.5, 2 / 3, 1.0])  # never tried counts as good
    assert arm_of(greedy) == 2
    greedy.observe(chose(2), BAD)
    assert arm_of(greedy) == 1
    random = EpsilonGreedyRouter(ARMS, 1.0, 0.5, epsilon=1.0, seed=0)
    random.observe(chose(1), GOOD)
    counts = torch.tensor([arm_of(random) for _ in range(900)]).bincount(minlength=3)
    assert ((counts - 300).square() / 300).sum() < 13.8  # chi-squared, 1 in 1,000


def test_epsilon_is_the_share_of_random_choices() -> None:
    router = EpsilonGreedyRouter(ARMS, 1.0, 0.5, epsilon=0.3, seed=0)
    for arm, outcome in ((0, GOOD), (1, BAD), (2, BAD)):
        router.observe(chose(arm), outcome)
    others = sum(arm_of(router) != 0 for _ in range(2000)) / 2000
    assert others == pytest.approx(0.3 * 2 / 3, abs=0.03)


def test_thompson_chooses_as_often_as_it_believes() -> None:
    router = ThompsonSamplingRouter(("a", "b"), 1.0, 0.5, seed=0)
    for arm, outcome in ((0, GOOD), (0, GOOD), (0, SLOW), (1, GOOD), (1, WORSE)):
        router.observe(chose(arm), outcome)
    # P[Beta(3, 2) > Beta(2, 2)] = 1 - 13 / 35 exactly.
    share = sum(arm_of(router) == 0 for _ in range(6000)) / 6000
    torch.manual_seed(1)
    first = torch.distributions.Beta(3.0, 2.0).sample((400_000,))
    second = torch.distributions.Beta(2.0, 2.0).sample((400_000,))
    assert share == pytest.approx(float((first > second).float().mean()), abs=0.025)


class Device:
    """Tickets with known chances; seeded, so a test fails or passes for good."""

    def __init__(self, chances: tuple[float, ...], seed: int) -> None:
        self.chances = chances
        self.generator = torch.Generator().manual_seed(seed)

    def outcome(self, arm: int) -> Outcome:
        lucky = float(torch.rand(1, generator=self.generator)) < self.chances[arm]
        return GOOD if lucky else SLOW


def played(router: FeedbackRouter, device: Device, requests: int) -> list[int]:
    arms = []
    for _ in range(requests):
        decision = router.route(X)
        assert decision.indices is not None
        arms.append(int(decision.indices[0]))
        router.observe(decision, device.outcome(arms[-1]))
    return arms


def test_the_best_ticket_is_found(make: Maker) -> None:
    shares = []
    for seed in range(6):
        for best in range(3):
            chances = tuple(0.95 if arm == best else 0.3 for arm in range(3))
            arms = played(make(ARMS, 1.0, 0.5, seed=seed), Device(chances, seed), 300)
            shares.append(arms[100:].count(best) / 200)
    assert sum(shares) / len(shares) > 0.85
    assert min(shares) > 0.5


def test_the_online_router_adapts_when_the_device_becomes_slow() -> None:
    late = []
    for seed in range(8):
        router = OnlineRouter(ARMS, 1.0, 0.5, seed=seed)
        device = Device((0.3, 0.6, 0.95), seed)
        assert played(router, device, 300)[100:].count(2) > 140
        device.chances = (0.95, 0.2, 0.0)
        late.append(played(router, device, 300)[100:].count(0) / 200)
    assert sum(late) / len(late) > 0.85
    assert min(late) > 0.6


def test_forgetting_is_what_adapts() -> None:
    """The same router without a discount stays with what was once good for long."""
    shares: dict[float, float] = {}
    for discount in (0.95, 1.0):
        right = 0
        for seed in range(6):
            router = ThompsonSamplingRouter(ARMS, 1.0, 0.5, discount=discount, seed=seed)
            device = Device((0.6, 0.0, 0.95), seed)
            played(router, device, 400)
            device.chances = (0.6, 0.0, 0.3)
            right += played(router, device, 150).count(0)
        shares[discount] = right / (6 * 150)
    assert shares[0.95] > shares[1.0] + 0.15


def test_a_ticket_that_recovers_is_found_again() -> None:
    found = 0
    for seed in range(8):
        router = OnlineRouter(ARMS, 1.0, 0.5, seed=seed)
        device = Device((0.5, 0.0, 0.0), seed)
        played(router, device, 200)
        device.chances = (0.5, 0.95, 0.0)
        found += played(router, device, 300)[150:].count(1) > 75
    assert found >= 6


def test_all_rows_of_a_request_go_to_one_ticket(make: Maker) -> None:
    router = make(ARMS, 1.0, 0.5, seed=0)
    for _ in range(20):
        indices = router.route(torch.zeros(7, 1)).indices
        assert indices is not None
        assert indices.shape == (7,)
        assert len(indices.unique()) == 1


def test_ties_are_broken_at_random_and_seeds_reproduce(make: Maker) -> None:
    first = [arm_of(make(ARMS, 1.0, 0.5, seed=seed)) for seed in range(40)]
    assert set(first) == {0, 1, 2}
    assert first == [arm_of(make(ARMS, 1.0, 0.5, seed=seed)) for seed in range(40)]


def test_threads_lose_no_observation(make: Maker) -> None:
    router = make(ARMS, 1.0, 0.5, discount=1.0, seed=0)

    def work() -> None:
        for _ in range(300):
            router.observe(router.route(X), GOOD)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert float(router.counts().sum()) == 1200


@pytest.mark.parametrize(
    ("decision", "outcome", "message"),
    [
        (chose(0), 0.5, r"observe takes an Outcome\(latency_s, quality\), got a float"),
        (chose(3), GOOD, r"decision names ticket 3, the arms are 0\.\.2"),
        (RoutingDecision(torch.tensor([0, 1])), GOOD, "observe takes the decision that route"),
        (RoutingDecision(torch.zeros(0).long()), GOOD, "observe takes the decision that route"),
        (RoutingDecision(weights=torch.ones(1, 3)), GOOD, "observe takes the decision that"),
        (0, GOOD, "observe takes the decision that route gave"),
    ],
)
def test_what_cannot_be_learned_from(
    make: Maker, decision: Any, outcome: Any, message: str
) -> None:
    router = make(ARMS, 1.0, 0.5)
    with pytest.raises(InvalidArgument, match=message):
        router.observe(decision, outcome)
    assert float(router.counts().sum()) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latency_target": 0.0}, "latency_target must be a number of at least"),
        ({"latency_target": math.inf}, "latency_target must be a number"),
        ({"quality_target": math.nan}, "quality_target must be a number"),
        ({"discount": 0.0}, "discount must be a number of at least"),
        ({"discount": 1.1}, "discount must be a number of at least 1e-06 and at most 1"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"tickets": "tiny"}, "tickets= must be a ticket set or a list of ticket names"),
    ],
)
def test_arguments_out_of_range(make: Maker, options: dict[str, Any], message: str) -> None:
    arguments = {"tickets": ARMS, "latency_target": 1.0, "quality_target": 0.5} | options
    with pytest.raises(InvalidArgument, match=message):
        make(**arguments)


def test_options_of_one_router_alone() -> None:
    with pytest.raises(InvalidArgument, match="epsilon must be a number of at least 0 and at most"):
        EpsilonGreedyRouter(ARMS, 1.0, 0.5, epsilon=1.5)
    with pytest.raises(InvalidArgument, match="precision must be a number of at least 1e-06"):
        OnlineRouter(ARMS, 1.0, 0.5, precision=0)


@pytest.mark.parametrize("values", [(-1.0, 1.0), (math.nan, 1.0), (1.0, math.inf), (1.0, "good")])
def test_outcomes_that_are_none(values: Any) -> None:
    with pytest.raises(InvalidArgument, match="of an outcome"):
        Outcome(*values)
