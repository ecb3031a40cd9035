"""Whether tickets of groups with like names are alike: Spearman, tested by permuting labels."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rtl_plugin.diagnostics.label_permutation import (
    Alternative,
    PermutationTest,
    checked_similarity,
    rank_correlation,
)
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.tickets import TicketSet


@dataclass(frozen=True)
class Alignment:
    """How far the similarity of masks follows the similarity of names.

    Args:
        rho: Spearman's correlation over the pairs of groups, in [-1, 1]; NaN where one similarity
            is the same for every pair.
        p_value: of Mantel's permutation test; NaN with rho.
        pairs: K (K - 1) / 2.
        permutations: relabellings that were counted; all K! where ``exact``.
        exact: whether all relabellings were taken.
        alternative: ``"greater"`` or ``"two-sided"``.
        note: what to know before reading it, or empty.
    """

    rho: float
    p_value: float
    pairs: int
    permutations: int
    exact: bool
    alternative: str
    note: str = ""

    @property
    def smallest_p(self) -> float:
        """The least p that the test can give; ties among similarities make it greater."""
        return 1 / (self.permutations if self.exact else self.permutations + 1)


def semantic_alignment(
    tickets_or_similarity: Any,
    name_similarity: Any,
    *,
    excess: bool = False,
    permutations: int = 9999,
    seed: int = 0,
    alternative: Alternative = "greater",
) -> Alignment:
    """Correlate the similarity of tickets with the similarity of their groups' names.

    Spearman's rho over the K (K - 1) / 2 pairs. Pairs that share a group are not independent, so
    p comes from Mantel's test: the groups' labels are permuted, rows and columns together, and
    ``p = (1 + as good) / (1 + permutations)``. By default it is one-sided: like names, like masks.

    Args:
        tickets_or_similarity: a ``TicketSet``, or its similarity as an array [K, K].
        name_similarity: array, tensor or nested sequence [K, K] in the order of the tickets, for
            example ``wordnet_path_similarity(tickets.names)``. Diagonals are not looked at.
        excess: with a ``TicketSet``: use its similarity in excess of chance.
        permutations: random relabellings, at least 1. Where K! is no more (K <= 7 by default) all
            are taken instead, and p is exact.
        seed: of the relabellings, a whole number.
        alternative: ``"greater"``, or ``"two-sided"`` for a correlation of either sign.

    Returns:
        The correlation and its p. With K = 3 there are 3 pairs and p cannot be below 1/6, which
        the note says.

    Raises:
        InvalidArgument: fewer than 3 groups, similarities of different sizes, not symmetric, not
            finite, or another argument is out of range.

    Example:
        >>> masks = [[1, 1, 0.2, 0.1], [1, 1, 0.3, 0.2], [0.2, 0.3, 1, 0.9], [0.1, 0.2, 0.9, 1]]
        >>> names = [[1, 0.5, 0.1, 0.1], [0.5, 1, 0.1, 0.1], [0.1, 0.1, 1, 0.5], [0.1, 0.1, 0.5, 1]]
        >>> found = semantic_alignment(masks, names)
        >>> round(found.rho, 3), round(found.p_value, 3), found.pairs, found.permutations
        (0.84, 0.333, 6, 24)

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, semantic alignment;
        Mantel, Cancer Research 27, 1967.
    """
    test = PermutationTest(permutations, seed, alternative)
    return aligned(_similarity(tickets_or_similarity, excess), name_similarity, test)


def _similarity(given: Any, excess: bool) -> Any:
    if isinstance(given, TicketSet):
        return given.similarity(excess=excess)
    if excess:
        raise InvalidArgument(
            "excess=True goes with a TicketSet: take chance off a similarity that you pass "
            "yourself (tickets.similarity(excess=True))"
        )
    return given


def aligned(similarity: Any, names: Any, test: PermutationTest) -> Alignment:
    """:func:`semantic_alignment` of one similarity, under a test that serves several.

    Args:
        similarity: of tickets, [K, K].
        names: similarity of their names, [K, K].
        test: how p is found.

    Returns:
        The correlation and its p.

    Raises:
        InvalidArgument: as for :func:`semantic_alignment`.

    Example:
        >>> names = [[1, 0.5, 0.2], [0.5, 1, 0.3], [0.2, 0.3, 1]]
        >>> aligned(names, names, PermutationTest()).rho
        1.0
    """
    ours = checked_similarity(similarity, "the similarity of tickets")
    theirs = checked_similarity(names, "name_similarity", len(ours))
    groups = len(ours)
    if groups < 3:
        raise InvalidArgument(
            f"alignment needs at least 3 groups (3 pairs to rank), got {groups}: "
            "there is no correlation over a single pair"
        )
    rho, p_value = rank_correlation(ours, theirs, test)
    exact = test.is_exact(groups)
    counted = math.factorial(groups) if exact else test.permutations
    off_diagonal = ~np.eye(groups, dtype=bool)
    found = Alignment(rho, p_value, groups * (groups - 1) // 2, counted, exact, test.alternative)
    return replace(found, note=_note(found, groups, np.ptp(ours[off_diagonal])))


def _note(found: Alignment, groups: int, spread: float) -> str:
    if math.isnan(found.rho):
        what = "tickets" if spread < 1e-12 else "names"
        return f"every pair of {what} is equally alike: no order to correlate"
    if groups < 5:
        return f"{groups} groups: p cannot be below {found.smallest_p:.3g}"
    return ""
