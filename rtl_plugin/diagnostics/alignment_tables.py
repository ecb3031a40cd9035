"""Semantic alignment per depth and per round of discovery, as one table."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from tabulate import tabulate

from rtl_plugin.diagnostics.depth import depth_similarity
from rtl_plugin.diagnostics.label_permutation import PermutationTest, holm
from rtl_plugin.diagnostics.mask_counts import count_masks
from rtl_plugin.diagnostics.round_tickets import sparsity_of, tickets_by_round
from rtl_plugin.diagnostics.semantic_alignment import Alignment, aligned
from rtl_plugin.diagnostics.similarity import Matrix, similarity_matrix
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.tickets import TicketSet

GLOBAL = "all"  # the depth of a row that is over all layers together
_MANY = PermutationTest()


@dataclass(frozen=True)
class AlignmentRow:
    """One line of an :class:`AlignmentTable`.

    Args:
        depth: ``"all"``, or the label of a depth.
        excess: whether similarity in excess of chance was used.
        alignment: the correlation and its own p.
        p_holm: p corrected for the table's other rows with the same ``excess``.
        round: of discovery, counted from 1, or None.
        sparsity: the tickets' mean sparsity, in [0, 1), or None.
    """

    depth: str
    excess: bool
    alignment: Alignment
    p_holm: float = math.nan
    round: int | None = None
    sparsity: float | None = None


@dataclass(frozen=True)
class AlignmentTable:
    """Alignment per depth and sparsity.

    Every row is a test, and among twenty of them one is below .05 by chance. So ``p_holm`` is
    Holm's correction, which holds however the rows depend on each other. Raw rows and rows in
    excess of chance ask nearly the same question and are corrected apart; read one of the two.

    Args:
        rows: in the order of rounds, then depths, raw before excess.
    """

    rows: tuple[AlignmentRow, ...]

    def table(self) -> str:
        """The rows as text, one line each."""
        shown: dict[str, list[Any]] = {
            "round": [row.round for row in self.rows],
            "sparsity": [None if r.sparsity is None else f"{r.sparsity:.1%}" for r in self.rows],
            "depth": [row.depth for row in self.rows],
            "similarity": ["excess" if row.excess else "raw" for row in self.rows],
            "rho": [_shown(row.alignment.rho) for row in self.rows],
            "p": [_shown(row.alignment.p_value) for row in self.rows],
            "p (Holm)": [_shown(row.p_holm) for row in self.rows],
            "pairs": [row.alignment.pairs for row in self.rows],
            "note": [row.alignment.note for row in self.rows],
        }
        shown = {
            name: cells for name, cells in shown.items() if any(c not in (None, "") for c in cells)
        }
        return tabulate(shown, headers="keys", disable_numparse=True)

    def to_json(self) -> list[dict[str, Any]]:
        """One JSON-able object a row; None where a figure is NaN."""
        described = []
        for row in self.rows:
            fields = asdict(row)
            alignment = fields.pop("alignment")
            flat = {**fields, **alignment, "smallest_p": row.alignment.smallest_p}
            described.append({k: None if _is_nan(v) else v for k, v in flat.items()})
        return described


def alignment_by_depth(
    tickets_or_similarities: TicketSet | Mapping[str, Any],
    name_similarity: Any,
    *,
    depths: Mapping[str, str] | None = None,
    test: PermutationTest = _MANY,
) -> AlignmentTable:
    """Semantic alignment over all layers, and per depth, raw and in excess of chance.

    Args:
        tickets_or_similarities: a ``TicketSet``, or label -> similarity [K, K] for a raw row each.
        name_similarity: as for :func:`semantic_alignment`.
        depths: parameter name -> label of its depth; None makes thirds, see
            :func:`rtl_plugin.diagnostics.depth.depth_similarity`.
        test: how p is found.

    Returns:
        Two rows (raw, excess) a depth; first those over all layers.

    Raises:
        InvalidArgument: as for :func:`semantic_alignment`, or nothing was given.

    Example:
        >>> names = [[1, 0.5, 0.2], [0.5, 1, 0.3], [0.2, 0.3, 1]]
        >>> shallow, deep = [[1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1]], names
        >>> found = alignment_by_depth({"shallow": shallow, "deep": deep}, names)
        >>> [(row.depth, row.alignment.rho) for row in found.rows]
        [('shallow', nan), ('deep', 1.0)]
        >>> found.rows[0].alignment.note
        'every pair of tickets is equally alike: no order to correlate'

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, semantic alignment.
    """
    return _corrected(_rows(tickets_or_similarities, name_similarity, depths, test))


def alignment_by_round(
    run_folder_or_tickets: str | os.PathLike[str] | Mapping[int, Any],
    name_similarity: Any,
    *,
    depths: Mapping[str, str] | None = None,
    test: PermutationTest = _MANY,
) -> AlignmentTable:
    """Semantic alignment after every round of discovery: per sparsity and depth.

    Args:
        run_folder_or_tickets: a run folder that ``discover`` wrote, or round -> ``TicketSet`` or
            what else :func:`alignment_by_depth` takes. A ticket that left the rounds is in the
            later ones with the masks that it kept.
        name_similarity: as for :func:`semantic_alignment`, in the order of the groups.
        depths: as for :func:`alignment_by_depth`.
        test: how p is found.

    Returns:
        The rows of :func:`alignment_by_depth` for every round, in order.

    Raises:
        InvalidArgument: as for :func:`semantic_alignment`, or there is no round.
        MissingFile: the run folder holds no round of discovery.
        DamagedFile: one of its files cannot be read.

    Example:
        >>> names = [[1, 0.5, 0.2], [0.5, 1, 0.3], [0.2, 0.3, 1]]
        >>> found = alignment_by_round({1: {"all": names}, 2: {"all": names}}, names)
        >>> [(row.round, row.alignment.rho, round(row.p_holm, 3)) for row in found.rows]
        [(1, 1.0, 0.333), (2, 1.0, 0.333)]

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, semantic alignment.
    """
    if isinstance(run_folder_or_tickets, Mapping):
        rounds: Any = sorted(run_folder_or_tickets.items())
    else:
        rounds = tickets_by_round(run_folder_or_tickets)
    rows: list[AlignmentRow] = []
    for number, tickets in rounds:
        sparsity = sparsity_of(tickets) if isinstance(tickets, TicketSet) else None
        of_round = _rows(tickets, name_similarity, depths, test)
        rows += [replace(row, round=int(number), sparsity=sparsity) for row in of_round]
    return _corrected(rows)


def _rows(
    tickets: Any, names: Any, depths: Mapping[str, str] | None, test: PermutationTest
) -> list[AlignmentRow]:
    if isinstance(tickets, TicketSet):
        return [
            AlignmentRow(depth, excess, aligned(similarity, names, test))
            for depth, by_kind in _similarities(tickets, depths).items()
            for excess, similarity in by_kind.items()
        ]
    if not isinstance(tickets, Mapping):
        raise InvalidArgument(
            f"expected a TicketSet or a mapping label -> similarity, got {type(tickets).__name__}; "
            "semantic_alignment takes a single similarity"
        )
    if depths is not None:
        raise InvalidArgument("depths= goes with a TicketSet; given similarities have their labels")
    return [
        AlignmentRow(str(label), False, aligned(similarity, names, test))
        for label, similarity in tickets.items()
    ]


def _similarities(
    tickets: TicketSet, depths: Mapping[str, str] | None
) -> dict[str, dict[bool, Matrix]]:
    """Depth -> in excess of chance or not -> similarity."""
    counts = count_masks([ticket.masks for ticket in tickets.values()])
    found: dict[str, dict[bool, Matrix]] = {}
    for excess in (False, True):
        found.setdefault(GLOBAL, {})[excess] = similarity_matrix(counts, excess=excess)
        for depth, similarity in depth_similarity(counts, excess=excess, depths=depths).items():
            found.setdefault(depth, {})[excess] = similarity
    return found


def _corrected(rows: list[AlignmentRow]) -> AlignmentTable:
    if not rows:
        raise InvalidArgument("nothing to align: expected at least one similarity, got none")
    corrected = list(rows)
    for excess in (False, True):
        chosen = [k for k, row in enumerate(rows) if row.excess == excess]
        values = holm(np.array([rows[k].alignment.p_value for k in chosen]))
        for k, value in zip(chosen, values, strict=True):
            corrected[k] = replace(rows[k], p_holm=float(value))
    return AlignmentTable(tuple(corrected))


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
