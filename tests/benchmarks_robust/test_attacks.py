"""The attacks, against objectives whose maximum is known."""

import itertools

import pytest
import torch

import rtl_plugin as rtl
from benchmarks.robust_attacks import (
    Objective,
    cross_entropy_of,
    expectation_over_draws,
    fgsm,
    pgd,
    projected,
)
from rtl_plugin.errors import InvalidArgument
from tests.benchmarks_robust.small import images_and_labels, networks

EPS = 0.1


def linear(weights: torch.Tensor) -> Objective:
    """Larger where the images follow the weights' signs."""
    return lambda images, labels: (images * weights).sum()


def weights_and_images() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(1, 1, 6, 6, generator=generator)
    images = torch.rand(5, 1, 6, 6, generator=generator)
    images[0], images[1] = 0.0, 1.0  # where [0, 1] cuts the box
    return weights, images, torch.zeros(5, dtype=torch.int64)


def test_both_attacks_reach_the_best_corner_of_a_linear_objective() -> None:
    weights, images, labels = weights_and_images()
    corner = (images + EPS * weights.sign()).clamp(0, 1)
    torch.testing.assert_close(fgsm(linear(weights), images, labels, EPS), corner)
    torch.testing.assert_close(pgd(linear(weights), images, labels, EPS), corner)


def test_fgsm_on_a_classifier_moves_away_from_the_label() -> None:
    scores = torch.nn.Linear(2, 2, bias=False)
    scores.weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    image = torch.tensor([[0.5, 0.5]])
    away = fgsm(cross_entropy_of(scores), image, torch.tensor([0]), EPS)
    torch.testing.assert_close(away, torch.tensor([[0.4, 0.6]]))
    towards = fgsm(cross_entropy_of(scores), image, torch.tensor([1]), EPS)
    torch.testing.assert_close(towards, torch.tensor([[0.6, 0.4]]))
    assert scores.weight.grad is None


def test_pgd_turns_where_the_gradient_turns() -> None:
    images = torch.full((4, 3), 0.5)
    best = 0.5 + 0.03  # inside the box, so one step of eps goes too far

    def objective(shown: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return -(shown - best).square().sum()

    labels = torch.zeros(4, dtype=torch.int64)
    reached = pgd(objective, images, labels, EPS, steps=40)
    assert float((reached - best).abs().max()) <= 2.5 * EPS / 40 + 1e-6
    once = fgsm(objective, images, labels, EPS)
    torch.testing.assert_close(once, images + EPS)


def test_pgd_starts_anywhere_in_the_box() -> None:
    images = torch.full((50, 200), 0.5)
    labels = torch.zeros(50, dtype=torch.int64)

    def flat(shown: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (shown * 0).sum()

    start = pgd(flat, images, labels, EPS, seed=1) - images
    assert float(start.abs().max()) <= EPS + 1e-6
    assert abs(float(start.mean())) < 0.002
    assert float(start.std()) == pytest.approx(EPS / 3**0.5, rel=0.02)  # uniform
    again = pgd(flat, images, labels, EPS, seed=1) - images
    assert torch.equal(start, again)
    assert not torch.equal(start, pgd(flat, images, labels, EPS, seed=2) - images)


def test_projection_is_the_nearest_allowed_point() -> None:
    images = torch.tensor([0.5, 0.5, 0.5, 0.05, 0.95, 0.0])
    candidate = torch.tensor([0.9, 0.1, 0.55, -0.2, 1.3, 0.04])
    expected = torch.tensor([0.6, 0.4, 0.55, 0.0, 1.0, 0.04])
    torch.testing.assert_close(projected(candidate, images, EPS), expected)


def test_no_pixel_leaves_the_box_or_the_range() -> None:
    trained = networks()
    images, labels = images_and_labels()
    objective = cross_entropy_of(trained.dense)
    for eps in (0.01, 0.3, 2.0):
        for crafted in (fgsm(objective, images, labels, eps), pgd(objective, images, labels, eps)):
            assert float((crafted - images).abs().max()) <= eps + 1e-6
            assert 0 <= float(crafted.min()) <= float(crafted.max()) <= 1
            assert not torch.equal(crafted, images)


def test_eps_zero_changes_nothing_and_images_stay_as_they_were() -> None:
    weights, images, labels = weights_and_images()
    before = images.clone()
    assert torch.equal(fgsm(linear(weights), images, labels, 0.0), images)
    assert torch.equal(pgd(linear(weights), images, labels, 0.0), images)
    pgd(linear(weights), images, labels, EPS)
    assert torch.equal(images, before)
    assert not images.requires_grad


def test_pgd_finds_a_higher_loss_than_fgsm() -> None:
    trained = networks()
    images, labels = images_and_labels()
    objective = cross_entropy_of(trained.dense)
    once, often = (attack(objective, images, labels, EPS) for attack in (fgsm, pgd))
    with torch.no_grad():
        losses = [float(objective(shown, labels)) for shown in (images, once, often)]
    assert losses[0] < losses[1] < losses[2]


def test_the_expectation_is_that_of_every_draw() -> None:
    members = [torch.nn.Linear(3, 4) for _ in range(4)]
    images, labels = torch.rand(5, 3), torch.tensor([0, 1, 2, 3, 0])
    for n in (1, 2, 3, 4):
        draws = list(itertools.combinations(members, n))
        one_by_one = [
            torch.nn.functional.cross_entropy(
                sum(member(images) for member in draw) / n, labels, reduction="sum"
            )
            for draw in draws
        ]
        expected = sum(one_by_one) / len(draws)
        torch.testing.assert_close(expectation_over_draws(members, n)(images, labels), expected)


@pytest.mark.parametrize("n", [1, 2])
def test_gradients_of_served_draws_average_to_the_expectation(n: int) -> None:
    trained = networks()
    images, labels = images_and_labels(count=3)
    router = rtl.StochasticEnsembleRouter(trained.tickets, n, seed=0)
    served = rtl.MixtureOfMasks(trained.model, trained.tickets, router, strategy="slices")
    plain = rtl.MixtureOfMasks(trained.model, trained.tickets, strategy="slices")
    # Scores of tickets trained this little are flat: sharper ones tell expectations apart.
    members = [lambda x, name=name: 50 * plain(x, tickets=name) for name in trained.tickets]

    def gradient(objective: Objective) -> torch.Tensor:
        shown = images.clone().requires_grad_()
        return torch.autograd.grad(objective(shown, labels), shown)[0]

    exact = gradient(expectation_over_draws(members, n))
    sampled = [gradient(cross_entropy_of(lambda x: 50 * served(x))) for _ in range(300)]
    mean = torch.stack(sampled).mean(dim=0)
    off = float((mean - exact).norm())
    assert off < 0.1 * float(exact.norm())
    other = gradient(expectation_over_draws(members, 3))
    assert off < 0.5 * float((mean - other).norm())
    assert len({tuple(one.flatten()[:50].tolist()) for one in sampled}) == 3


@pytest.mark.parametrize(
    ("images", "eps", "steps", "match"),
    [
        (torch.full((1, 2), 0.5), -0.1, 1, "eps must be a finite number of at least 0, got -0.1"),
        (torch.full((1, 2), 0.5), float("nan"), 1, "eps must be"),
        (torch.full((1, 2), 0.5), float("inf"), 1, "eps must be"),
        (torch.full((1, 2), 1.5), 0.1, 1, r"floats in \[0, 1\]"),
        (torch.full((1, 2), -0.5), 0.1, 1, r"floats in \[0, 1\]"),
        (torch.full((1, 2), float("nan")), 0.1, 1, r"floats in \[0, 1\]"),
        (torch.ones((1, 2), dtype=torch.int64), 0.1, 1, r"floats in \[0, 1\]"),
        (torch.full((1, 2), 0.5), 0.1, 0, "steps must be a whole number of at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(
    images: torch.Tensor, eps: float, steps: int, match: str
) -> None:
    objective = linear(torch.ones(1, 2))
    with pytest.raises(InvalidArgument, match=match):
        pgd(objective, images, torch.tensor([0]), eps, steps=steps)
    if steps:
        with pytest.raises(InvalidArgument, match=match):
            fgsm(objective, images, torch.tensor([0]), eps)


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    objective = linear(torch.full((1, 2), float("inf")))
    with pytest.raises(InvalidArgument, match="not finite"):
        fgsm(objective, torch.full((1, 2), 0.5), torch.tensor([0]), EPS)


@pytest.mark.parametrize("n", [0, 4, 1.5])
def test_a_draw_has_at_least_one_and_at_most_all_members(n: int) -> None:
    with pytest.raises(InvalidArgument, match="n"):
        expectation_over_draws([torch.nn.Identity()] * 3, n)
