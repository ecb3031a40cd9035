"""Rank correlation of two similarity matrices, tested by permuting the labels of one."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from rtl_plugin.arguments import whole_number
from rtl_plugin.diagnostics.name_similarity import real_array
from rtl_plugin.diagnostics.similarity import Matrix
from rtl_plugin.errors import InvalidArgument

Alternative: TypeAlias = Literal["greater", "two-sided"]

_SYMMETRY = 1e-6  # what float32 similarities may differ by across the diagonal
_DIGITS = 12  # similarities that agree to here are ties: rounding is no order


@dataclass(frozen=True)
class PermutationTest:
    """How alignment is tested; one object serves a whole table.

    Args:
        permutations: how many random relabellings are drawn, at least 1. Where all K! of them are
            no more than these and the given one, all are taken instead, and p is exact.
        seed: of the draws, a whole number.
        alternative: ``"greater"`` asks for positive correlation, ``"two-sided"`` for any.

    Raises:
        InvalidArgument: a value is out of range.

    Example:
        >>> PermutationTest().permutations
        9999
    """

    permutations: int = 9999
    seed: int = 0
    alternative: Alternative = "greater"

    def __post_init__(self) -> None:
        whole_number("permutations", self.permutations, 1)
        whole_number("seed", self.seed, 0)
        if self.alternative not in get_args(Alternative):
            raise InvalidArgument(
                f"alternative must be one of {list(get_args(Alternative))}, got "
                f"{self.alternative!r}"
            )

    def is_exact(self, groups: int) -> bool:
        """Whether all relabellings of so many groups are taken."""
        return math.factorial(groups) <= self.permutations + 1


def checked_similarity(values: Any, what: str, groups: int | None = None) -> Matrix:
    """A similarity matrix of groups, checked; its diagonal is not looked at.

    Args:
        values: real array, tensor or nested sequence [K, K], symmetric, finite off the diagonal.
        what: what to call it in an error.
        groups: the number of groups it must have; None takes its own.

    Returns:
        float64 array [K, K].

    Raises:
        InvalidArgument: not real numbers, not square, of another size, not finite, not symmetric.

    Example:
        >>> checked_similarity([[1, 0.5], [0.5, 1]], "names").shape
        (2, 2)
    """
    matrix = real_array(values, what)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InvalidArgument(f"{what} must be a square matrix [K, K], got shape {matrix.shape}")
    if groups is not None and matrix.shape[0] != groups:
        raise InvalidArgument(
            f"{what} has {matrix.shape[0]} rows, expected {groups}, one a group: give both "
            "similarities the same groups in the same order"
        )
    off_diagonal = matrix[~np.eye(len(matrix), dtype=bool)]
    if not np.isfinite(off_diagonal).all():
        i, j = np.argwhere(~np.isfinite(matrix) & ~np.eye(len(matrix), dtype=bool))[0]
        raise InvalidArgument(
            f"{what} holds {matrix[i, j]} for groups {i} and {j}: every pair needs a finite "
            "similarity; leave out groups that have none"
        )
    with np.errstate(invalid="ignore"):  # a diagonal may be infinite
        apart = np.abs(matrix - matrix.T)
    np.fill_diagonal(apart, 0.0)
    if off_diagonal.size and apart.max() > _SYMMETRY * max(1.0, float(np.abs(off_diagonal).max())):
        i, j = np.unravel_index(int(apart.argmax()), apart.shape)
        raise InvalidArgument(
            f"{what} is not symmetric: {matrix[i, j]:.6g} for groups {i} and {j}, "
            f"{matrix[j, i]:.6g} for {j} and {i}: for a mean of both, pass (m + m.T) / 2"
        )
    result: Matrix = (matrix + matrix.T) / 2
    return result


def average_ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs.

    Args:
        values: float array [n]; differences beyond 12 decimals count as none.

    Returns:
        float64 array [n] of multiples of one half.

    Example:
        >>> average_ranks(np.array([0.3, 0.1, 0.3]))
        array([2.5, 1. , 2.5])
    """
    _, place, counts = np.unique(np.round(values, _DIGITS), return_inverse=True, return_counts=True)
    ranks: npt.NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place.reshape(-1)]
    return ranks


def rank_correlation(first: Matrix, second: Matrix, test: PermutationTest) -> tuple[float, float]:
    """Spearman's rho of two similarity matrices over all pairs, and its p by Mantel's test.

    Rows and columns of one matrix are permuted together, because pairs that share a group are not
    independent.

    Args:
        first: float64 array [K, K], symmetric, K >= 3.
        second: another.
        test: how many relabellings, and against what.

    Returns:
        rho in [-1, 1] and p in (0, 1]; both NaN where one matrix has the same value everywhere.

    Example:
        >>> path = np.array([[0.0, 3.0, 2.0], [3.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
        >>> rho, p = rank_correlation(path, path, PermutationTest())
        >>> rho, round(p, 3)
        (1.0, 0.167)

    Source:
        Mantel, The detection of disease clustering and a generalized regression approach, Cancer
        Research 27, 1967; Spearman, The proof and measurement of association, 1904.
    """
    rows, columns = np.triu_indices(len(first), k=1)
    # Ranks and their mean are multiples of 1/2, so every sum of products below is exact in float64
    # and relabellings that tie with the given one are counted as such.
    ranks = [average_ranks(m[rows, columns]) - (len(rows) + 1) / 2 for m in (first, second)]
    length = math.sqrt(float(ranks[0] @ ranks[0]) * float(ranks[1] @ ranks[1]))
    if length == 0:
        return math.nan, math.nan
    observed = float(ranks[0] @ ranks[1])
    ours, theirs = (np.zeros(first.shape) for _ in ranks)
    ours[rows, columns] = ours[columns, rows] = ranks[0]
    theirs[rows, columns] = theirs[columns, rows] = ranks[1]
    products = _products(ours, theirs, test)
    if test.alternative == "greater":
        count = int((products >= observed).sum())
    else:
        count = int((np.abs(products) >= abs(observed)).sum())
    given = 0 if test.is_exact(len(first)) else 1  # all relabellings hold the given one already
    return observed / length, (count + given) / (len(products) + given)


def _products(ours: Matrix, theirs: Matrix, test: PermutationTest) -> Matrix:
    """Sum of products over the pairs, for every relabelling of one matrix."""
    flat = theirs.reshape(-1)
    # Every pair is there twice, and the diagonals are zero. Taking rows, then columns, is many
    # times faster than taking the pairs.
    relabelled = (ours[labels].take(labels, axis=1) for labels in _relabellings(len(ours), test))
    return np.array([float(matrix.reshape(-1) @ flat) / 2 for matrix in relabelled])


def _relabellings(groups: int, test: PermutationTest) -> Iterator[npt.NDArray[np.intp]]:
    if test.is_exact(groups):
        yield from (np.array(labels) for labels in itertools.permutations(range(groups)))
        return
    generator = np.random.default_rng(test.seed)
    for _ in range(test.permutations):
        yield generator.permutation(groups)


def holm(p_values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Holm's correction for several tests at once, valid however they depend on each other.

    Args:
        p_values: float array [n], in [0, 1]; NaN where there was no test, which then does not
            count.

    Returns:
        float64 array [n] of corrected values, NaN where there was none.

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).round(3)
        array([0.03, 0.06, 0.06])

    Source:
        Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6, 1979.
    """
    corrected = np.full(len(p_values), np.nan)
    order = [int(i) for i in np.argsort(p_values, kind="stable") if not np.isnan(p_values[i])]
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, float(p_values[i]) * (len(order) - rank)))
        corrected[i] = highest
    return corrected
