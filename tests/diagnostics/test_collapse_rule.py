"""The collapse rule on curves computed by hand."""

import math

import pytest
import torch

from rtl_plugin.diagnostics.collapse import CollapseMonitor
from rtl_plugin.diagnostics.collapse_rule import (
    FALL,
    RISE,
    CollapseRule,
    curve_of,
    sampling_variance,
)
from rtl_plugin.errors import InvalidArgument

HALVING = [0.5, 0.25, 0.125, 0.0625, 0.03125]


def powers(exponents: list[float]) -> list[float]:
    """Overlaps whose elasticity over each halving of the density is as given."""
    overlap, result = 1.0, []
    for exponent in exponents:
        overlap *= 0.5**exponent
        result.append(overlap)
    return result


def found(exponents: list[float], rule: CollapseRule | None = None, prunable: float = math.inf):
    curve = curve_of(HALVING[: len(exponents)], powers(exponents), prunable)
    return (rule or CollapseRule()).departure(curve)


def test_elasticity_by_hand() -> None:
    # 1/2 -> 1/4 of the weights while overlap goes 0.8 -> 0.4: it halves with them.
    curve = curve_of([0.5, 0.25], [0.8, 0.4])
    assert CollapseRule().elasticity(curve) == (pytest.approx(1.0), 0.0, 1)
    # 0.8 of what was all, at half the weights: ln 0.8 / ln 0.5.
    assert CollapseRule().elasticity(curve[:1]) == (pytest.approx(0.3219281), 0.0, 0)


def test_independent_masks_have_elasticity_one() -> None:
    curve = curve_of(HALVING, HALVING)
    spans = [CollapseRule().elasticity(curve[: end + 1]) for end in range(5)]
    assert [span and span[0] for span in spans] == [pytest.approx(1.0)] * 5


def test_identical_masks_have_elasticity_zero_and_never_ring() -> None:
    assert found([0.0] * 5) is None
    assert CollapseRule().elasticity(curve_of(HALVING, [1.0] * 5)) == (0.0, 0.0, 4)


def test_a_steady_curve_does_not_ring() -> None:
    assert found([0.3] * 5) is None
    assert found([0.9, 0.6, 0.4, 0.2, 0.1]) is None, "agreement that grows is not abrupt"


def test_fall_by_hand() -> None:
    assert found([0.3, 0.3, 0.64]) is None
    departure = found([0.3, 0.3, 0.66])
    assert departure is not None
    assert (departure.direction, departure.last_good_round) == (FALL, 2)
    assert departure.elasticity == pytest.approx(0.66)
    assert departure.reference == pytest.approx(0.3)
    assert departure.limit == pytest.approx(0.65)


def test_the_reference_is_the_smallest_of_all_earlier_rounds() -> None:
    # Limit 0.45, though the round just before was at 0.4.
    departure = found([0.5, 0.1, 0.4, 0.46])
    assert departure is not None
    assert departure.reference == pytest.approx(0.1)


def test_rise_by_hand() -> None:
    assert found([0.3, 0.3, -0.24]) is None
    departure = found([0.3, 0.3, -0.26])
    assert departure is not None
    assert (departure.direction, departure.limit) == (RISE, -0.25)
    assert departure.last_good_round == 2


def test_nothing_rings_in_the_warm_up() -> None:
    assert found([0.1, 0.9]) is None
    assert found([0.1, 0.9], CollapseRule(warm_up=1)) is not None
    assert found([0.3, -0.3]) is None
    assert found([], CollapseRule(warm_up=1)) is None


def test_noise_must_be_exceeded() -> None:
    exponents = [0.3, 0.3, 0.7]
    overlaps = powers(exponents)
    # 800 prunable weights, one peer: survivors 400, 200, 100; two prunings a round.
    errors = [
        math.sqrt(2 * (1 - o) * 0.5 / (o * n)) / math.log(2)
        for o, n in ((overlaps[0], 400), (overlaps[2], 100))
    ]
    doubt = (0.7 - 0.3) / math.hypot(*errors)
    assert found(exponents, CollapseRule(noise=0.99 * doubt), prunable=800) is not None
    assert found(exponents, CollapseRule(noise=1.01 * doubt), prunable=800) is None


def test_sampling_variance_by_hand() -> None:
    # 0.5 * 0.25 / (0.5 * 100) = 0.0025 for one pruning against one peer.
    assert sampling_variance(0.5, 0.75, 100, 1, 1) == 0.005
    assert sampling_variance(0.5, 0.75, 100, 4, 4) == 0.00125
    assert sampling_variance(0.5, 0.75, 100, 4, 1) == 0.003125
    assert sampling_variance(1.0, 0.5, 10, 1, 1) == 0.0


@pytest.mark.parametrize(("peers", "alike"), [(1, False), (9, False), (9, True), (30, True)])
def test_the_sampling_error_is_that_of_random_pruning(peers: int, alike: bool) -> None:
    """Elasticities of one random round, against the error that is stated for them."""
    generator = torch.Generator().manual_seed(peers + alike)
    size, kept, survive, rounds = 2000, 600, 450, 300
    values, stated = [], []
    for _ in range(rounds):
        first = {
            name: torch.randperm(size, generator=generator)[:kept] for name in range(peers + 1)
        }
        if alike:
            first = {name: first[min(name, 1)] for name in first}
        second = {
            n: m[torch.randperm(kept, generator=generator)[:survive]] for n, m in first.items()
        }
        monitor = CollapseMonitor(CollapseRule(window=0.01))
        for number, masks in enumerate((first, second), start=1):
            flat = {str(n): torch.zeros(size, dtype=torch.bool) for n in masks}
            for name, mask in masks.items():
                flat[str(name)][mask] = True
            monitor.observe(number, {name: {"w": mask} for name, mask in flat.items()})
        change = monitor.curves["0"][-1]
        values.append(change.agreement)
        stated.append(change.variance)
    ratio = float(torch.tensor(values).std()) / math.sqrt(sum(stated) / rounds)
    assert 0.75 < ratio < 1.25


def test_small_steps_are_taken_together() -> None:
    # 10 % a round: two rounds make ln(1 / 0.81) = 0.21 >= 0.2.
    densities = [0.9**k for k in range(1, 7)]
    overlaps = [0.9 ** (0.3 * k) for k in range(1, 7)]
    curve = curve_of(densities, overlaps)
    rule = CollapseRule()
    assert rule.elasticity(curve[:1]) is None
    assert rule.elasticity(curve[:2]) == (pytest.approx(0.3), 0.0, 0)
    assert rule.elasticity(curve) == (pytest.approx(0.3), 0.0, 4)
    assert CollapseRule(window=0.4).elasticity(curve) == (pytest.approx(0.3), 0.0, 2)


def test_first_round_that_can_ring() -> None:
    rule = CollapseRule()
    assert rule.first_round(HALVING) == 3
    assert rule.first_round([0.9**k for k in range(1, 7)]) == 4
    assert rule.first_round(HALVING[:2]) is None
    assert CollapseRule(warm_up=1).first_round(HALVING[:2]) == 2


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("fall", 0), ("fall", 1.0), ("fall", "0.2"), ("fall", True), ("rise", -0.1),
        ("rise", math.nan), ("noise", -1), ("window", 0), ("window", math.inf), ("warm_up", 0),
        ("warm_up", 1.5), ("warm_up", True), ("noise", math.inf),
    ],
)  # fmt: skip
def test_parameters_out_of_range(argument: str, value: object) -> None:
    with pytest.raises(InvalidArgument, match=argument):
        CollapseRule(**{argument: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("densities", "overlaps"),
    [
        ([0.5, 0.5], [0.5, 0.5]),
        ([0.5, 0.6], [0.5, 0.5]),
        ([0.5], [0.0]),
        ([0.5], [1.1]),
        ([0], [1]),
    ],
)
def test_curves_that_are_none(densities: list[float], overlaps: list[float]) -> None:
    with pytest.raises(InvalidArgument, match="densities must fall"):
        curve_of(densities, overlaps)
