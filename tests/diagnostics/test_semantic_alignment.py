"""Spearman over pairs and Mantel's test against slow references, ties, and hostile input."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from rtl_plugin import Ticket, TicketSet
from rtl_plugin.diagnostics.label_permutation import PermutationTest, average_ranks, holm
from rtl_plugin.diagnostics.semantic_alignment import Alignment, semantic_alignment
from rtl_plugin.errors import InvalidArgument


def symmetric(groups: int, seed: int, levels: int | None = None) -> np.ndarray:
    """Random similarities; with few levels there are many ties."""
    values = np.random.default_rng(seed).random((groups, groups))
    values = np.round(values * levels) / levels if levels else values
    matrix = np.triu(values, 1)
    return matrix + matrix.T + np.eye(groups)


def upper(matrix: np.ndarray) -> list[float]:
    return [matrix[i, j] for i in range(len(matrix)) for j in range(i + 1, len(matrix))]


def slow_rho(first: np.ndarray, other: np.ndarray) -> float:
    return float(scipy.stats.spearmanr(upper(first), upper(other)).statistic)


def slow_p(first: np.ndarray, other: np.ndarray, two_sided: bool) -> float:
    """All relabellings, with rows and columns exchanged one entry at a time."""
    groups = range(len(first))
    observed, as_good, total = slow_rho(first, other), 0, 0
    for labels in itertools.permutations(groups):
        moved = np.array([[first[labels[i], labels[j]] for j in groups] for i in groups])
        rho = slow_rho(moved, other)
        rho, given = (abs(rho), abs(observed)) if two_sided else (rho, observed)
        as_good += rho >= given - 1e-9
        total += 1
    return as_good / total


@pytest.mark.parametrize("levels", [None, 3], ids=["distinct", "ties"])
@pytest.mark.parametrize("groups", [3, 4, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_against_the_slow_reference(groups: int, levels: int | None, seed: int) -> None:
    masks, names = symmetric(groups, seed, levels), symmetric(groups, 100 + seed, levels)
    for alternative in ("greater", "two-sided"):
        found = semantic_alignment(masks, names, alternative=alternative)  # type: ignore[arg-type]
        assert found.rho == pytest.approx(slow_rho(masks, names), abs=1e-12)
        assert found.p_value == pytest.approx(slow_p(masks, names, alternative == "two-sided"))
        assert (found.exact, found.permutations) == (True, math.factorial(groups))
        assert found.pairs == groups * (groups - 1) // 2


def test_three_groups_by_hand() -> None:
    masks = [[1, 0.9, 0.5], [0.9, 1, 0.1], [0.5, 0.1, 1]]
    names = [[1, 0.7, 0.6], [0.7, 1, 0.2], [0.6, 0.2, 1]]
    found = semantic_alignment(masks, names)
    assert (found.rho, found.pairs, found.permutations) == (1.0, 3, 6)
    assert found.p_value == found.smallest_p == pytest.approx(1 / 6)
    assert found.note == "3 groups: p cannot be below 0.167"
    other = [[1, 0.2, 0.6], [0.2, 1, 0.7], [0.6, 0.7, 1]]  # ranks 3 2 1 against 1 2 3
    assert semantic_alignment(masks, other).rho == -1.0
    assert semantic_alignment(masks, other).p_value == 1.0
    assert semantic_alignment(masks, other, alternative="two-sided").p_value == pytest.approx(2 / 6)


def test_random_relabellings_come_close_to_all_of_them() -> None:
    masks = symmetric(6, 3)
    names = masks + 2 * symmetric(6, 4)
    exact = semantic_alignment(masks, names)
    drawn = semantic_alignment(masks, names, permutations=700)
    assert exact.exact
    assert not drawn.exact
    assert drawn.permutations == 700
    assert 0.01 < exact.p_value < 0.2
    assert drawn.p_value == pytest.approx(exact.p_value, abs=0.03)
    assert drawn.rho == exact.rho


def test_the_given_labelling_counts_as_one() -> None:
    matrix = symmetric(9, 5)
    found = semantic_alignment(matrix, matrix, permutations=99)
    assert found.rho == pytest.approx(1.0)
    assert found.p_value == found.smallest_p == 1 / 100


def test_the_seed_decides_what_is_drawn() -> None:
    masks, names = symmetric(9, 6), symmetric(9, 7)
    first, again, other = (
        semantic_alignment(masks, names, permutations=200, seed=seed).p_value for seed in (1, 1, 2)
    )
    assert first == again != other


def test_labels_are_permuted_not_pairs() -> None:
    """One odd group makes half of the pairs alike: as pairs that looks significant."""
    masks = np.ones((6, 6))
    masks[0, 1:] = masks[1:, 0] = 0.0
    found = semantic_alignment(masks, masks)
    # Only which of the six groups is odd can be exchanged.
    assert found.p_value == pytest.approx(1 / 6)
    over_pairs = 1 / math.comb(15, 5)
    assert over_pairs < 0.001


def test_the_exact_test_holds_its_level() -> None:
    masks, names = symmetric(5, 8), symmetric(5, 9, levels=4)
    p_values = []
    for labels in itertools.permutations(range(5)):
        p_values.append(semantic_alignment(masks, names[np.ix_(labels, labels)]).p_value)
    for level in (0.02, 0.05, 0.1, 0.5):
        assert np.mean(np.array(p_values) <= level) <= level
    assert min(p_values) < 0.05  # it does not hold it by never rejecting


@pytest.mark.parametrize("constant", ["tickets", "names"])
def test_equal_similarities_have_no_order(constant: str) -> None:
    flat, other = np.full((4, 4), 0.1 + 0.2), symmetric(4, 1)
    flat[0, 1] = flat[1, 0] = 0.3  # another float, but no other similarity
    found = semantic_alignment(*((flat, other) if constant == "tickets" else (other, flat)))
    assert math.isnan(found.rho)
    assert math.isnan(found.p_value)
    assert found.note == f"every pair of {constant} is equally alike: no order to correlate"


def test_identical_tickets() -> None:
    tickets = TicketSet([Ticket(name, {"w": torch.eye(3).bool()}) for name in "abcd"])
    assert math.isnan(semantic_alignment(tickets, symmetric(4, 0)).rho)


def test_a_ticket_set_raw_and_in_excess() -> None:
    torch.manual_seed(0)
    densities = {"a": 0.2, "b": 0.3, "c": 0.6, "d": 0.9}
    tickets = TicketSet([Ticket(n, {"w": torch.rand(500) < d}) for n, d in densities.items()])
    names = symmetric(4, 2)
    raw, excess = (semantic_alignment(tickets, names, excess=flag) for flag in (False, True))
    assert raw == semantic_alignment(tickets.similarity(), names)
    assert excess == semantic_alignment(tickets.similarity(excess=True), names)
    assert raw.rho != excess.rho


def test_what_may_stand_on_the_diagonal_and_in_the_last_digits() -> None:
    masks, names = symmetric(5, 1), symmetric(5, 2)
    expected = semantic_alignment(masks, names)
    strange = names.copy()
    np.fill_diagonal(strange, [math.nan, math.inf, -7, 0, 1])
    assert semantic_alignment(masks, strange) == expected
    rounded = torch.tensor(masks).float()
    rounded[0, 1] += 1e-7
    assert semantic_alignment(rounded, names.tolist()).rho == expected.rho


def test_a_diagonal_that_is_no_number_hides_no_asymmetry() -> None:
    lopsided = with_entry(0, 2, 9.0)
    np.fill_diagonal(lopsided, math.nan)
    with pytest.raises(InvalidArgument, match="not symmetric"):
        semantic_alignment(lopsided, symmetric(4, 0))


def with_entry(i: int, j: int, value: float) -> np.ndarray:
    matrix = symmetric(4, 0)
    matrix[i, j] = value
    return matrix


@pytest.mark.parametrize(
    ("masks", "names", "message"),
    [
        (np.eye(2), np.eye(2), "at least 3 groups"),
        (np.ones((3, 4)), np.eye(3), "tickets must be a square matrix"),
        (np.ones(3), np.eye(3), "tickets must be a square matrix"),
        (symmetric(4, 0), symmetric(3, 0), "name_similarity has 3 rows, expected 4"),
        (symmetric(4, 0), with_entry(1, 2, math.nan), "holds nan for groups 1 and 2"),
        (with_entry(3, 0, math.inf), symmetric(4, 0), "holds inf for groups 3 and 0"),
        (with_entry(0, 2, 9.0), symmetric(4, 0), r"not symmetric: 9 for groups 0 and 2"),
        (symmetric(4, 0), [["a"] * 4] * 4, "expected real numbers"),
        (symmetric(4, 0), [[1.0, 2.0], [1.0]], "rows of one length"),
    ],
)
def test_bad_similarities(masks: Any, names: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        semantic_alignment(masks, names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"permutations": 0}, "permutations must be"),
        ({"seed": 0.5}, "seed must be"),
        ({"alternative": "less"}, "alternative must be one of"),
        ({"excess": True}, "excess=True goes with a TicketSet"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        semantic_alignment(symmetric(4, 0), symmetric(4, 1), **arguments)


def test_three_hundred_groups() -> None:
    matrix = symmetric(300, 0)
    noisy = matrix + 2 * symmetric(300, 1)
    found = semantic_alignment(matrix, noisy, permutations=50)
    assert found.pairs == 44850
    assert found.rho == pytest.approx(slow_rho(matrix, noisy), abs=1e-10)
    assert found.p_value == 1 / 51


def test_ranks_agree_with_scipy() -> None:
    values = np.random.default_rng(0).integers(0, 20, 200) / 7
    np.testing.assert_array_equal(average_ranks(values), scipy.stats.rankdata(values))


def test_holm_by_hand() -> None:
    found = holm(np.array([0.04, np.nan, 0.01, 0.03, 0.5]))
    np.testing.assert_allclose(found, [0.09, np.nan, 0.04, 0.09, 0.5])
    np.testing.assert_array_equal(holm(np.array([0.9, 0.8])), [1.0, 1.0])
    assert holm(np.array([])).size == 0


def test_exactness_depends_on_how_many_are_drawn() -> None:
    assert PermutationTest(permutations=5039).is_exact(7)
    assert not PermutationTest(permutations=5038).is_exact(7)
    assert not PermutationTest(permutations=10**9).is_exact(300)


def test_an_alignment_says_how_small_p_can_get() -> None:
    drawn = Alignment(0.5, 0.1, 28, 9999, False, "greater")
    assert drawn.smallest_p == 1 / 10000
