"""What the masks of a run say, as plain arrays."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rtl_plugin.diagnostics.depth import depth_labels, depth_similarity
from rtl_plugin.diagnostics.layer_overlap import LayerOverlap
from rtl_plugin.diagnostics.mask_counts import count_masks
from rtl_plugin.diagnostics.overlap import overlap_of
from rtl_plugin.diagnostics.similarity import Matrix, similarity_matrix
from rtl_plugin.extras import require
from rtl_plugin.tickets import TicketSet

Counts = npt.NDArray[np.int64]
WHOLE = "all layers"
_WEIGHT_BYTES = 4


@dataclass(frozen=True)
class Likeness:
    """How alike tickets are over some layers: Jaccard similarity [K, K], and its excess."""

    layers: tuple[str, ...]
    raw: Matrix
    excess: Matrix


@dataclass(frozen=True)
class MaskFacts:
    """What K masks over L layers have in common.

    Args:
        names: of the tickets, in the run's order.
        order: places of the tickets such that alike ones are neighbours.
        layers: names of the masked parameters, in the model's order.
        sizes: int64 [L].
        kept: int64 [L, K].
        union: int64 [L], weights that at least one ticket keeps.
        shared_by: K + 1 counts: weights that exactly n tickets keep.
        exclusive: int64 [K], weights that this ticket alone keeps.
        dead: int64 [L, K], rows (of most layers output channels) of which nothing is kept.
        vectors: whether a parameter has one dimension, and so no rows.
        floors: weights that discovery leaves in each layer at least; None where it has no floor
            that is known.
        near_floor: how many tickets keep at most twice the floor; None likewise.
        likeness: "all layers" and the thirds of depth -> similarity; no third that holds all.
        state_bytes: of all tickets' own state.
    """

    names: tuple[str, ...]
    order: tuple[int, ...]
    layers: tuple[str, ...]
    sizes: Counts
    kept: Counts
    union: Counts
    shared_by: tuple[int, ...]
    exclusive: Counts
    dead: Counts
    vectors: tuple[bool, ...]
    floors: tuple[int | None, ...]
    near_floor: tuple[int | None, ...]
    likeness: Mapping[str, Likeness]
    state_bytes: int

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        return int(self.sizes.sum())

    @property
    def sparsities(self) -> npt.NDArray[np.float64]:
        """Each ticket's sparsity, [K]."""
        result: npt.NDArray[np.float64] = 1 - self.kept.sum(axis=0) / self.prunable
        return result

    @property
    def mask_bytes(self) -> int:
        """Bytes of all masks at one bit a weight."""
        return len(self.names) * int(((self.sizes + 7) // 8).sum())

    def weight_bytes(self, weights: int) -> int:
        """Bytes of so many weights in float32."""
        return _WEIGHT_BYTES * weights


def clustered_order(similarity: Matrix) -> tuple[int, ...]:
    """An order in which alike tickets are neighbours.

    Args:
        similarity: float64 array [K, K], symmetric.

    Returns:
        The K places: leaves of an average-linkage tree of ``1 - similarity``, turned so that
        neighbours are as alike as the tree allows.

    Raises:
        MissingExtra: scipy is not installed.

    Example:
        >>> clustered_order(np.array([[1, 0.1, 0.9], [0.1, 1, 0.2], [0.9, 0.2, 1]]))
        (0, 2, 1)

    Source:
        Bar-Joseph, Gifford, Jaakkola, Fast optimal leaf ordering for hierarchical clustering,
        Bioinformatics 17 (2001), through scipy.
    """
    count = len(similarity)
    if count < 3:
        return tuple(range(count))
    hierarchy = require("scipy.cluster.hierarchy", "report", "ordering tickets by likeness")
    pairs = np.triu_indices(count, 1)
    tree = hierarchy.linkage(1 - similarity[pairs], "average", optimal_ordering=True)
    order = [int(k) for k in hierarchy.leaves_list(tree)]
    # A tree has no left or right: begin at the end where the earlier ticket stands.
    return tuple(order if order[0] < order[-1] else reversed(order))


def mask_facts(tickets: TicketSet, floors: Any = None) -> MaskFacts:
    """Look at the masks of all tickets.

    Args:
        tickets: at least one.
        floors: parameter name -> fewest weights kept, as the run recorded it; where it did not,
            the floors that ``discover`` has by default; {} says that there were none.

    Returns:
        The facts.

    Raises:
        MissingExtra: scipy is not installed.

    Example:
        >>> import torch
        >>> from rtl_plugin.tickets import Ticket
        >>> a = Ticket("a", {"w": torch.tensor([True, True, False, False])})
        >>> b = Ticket("b", {"w": torch.tensor([False, True, True, False])})
        >>> facts = mask_facts(TicketSet([a, b]))
        >>> facts.shared_by, facts.exclusive.tolist(), facts.union.tolist()
        ((1, 2, 1), [1, 1], [3])
    """
    masks = [ticket.masks for ticket in tickets.values()]
    counts = count_masks(masks)
    likeness = {
        WHOLE: Likeness(
            tuple(tickets.shapes),
            similarity_matrix(counts),
            similarity_matrix(counts, excess=True),
        )
    }
    deep = depth_similarity(counts, excess=True)
    labels = depth_labels(tickets.shapes)
    for label, raw in depth_similarity(counts).items():
        inside = tuple(name for name in labels if labels[name] == label)
        if len(inside) == len(labels):
            continue
        likeness[label] = Likeness(inside, raw, deep[label])
    overlap = overlap_of(tickets)
    layers = [_with_floor(layer, floors) for layer in overlap.layers]
    floored = not (isinstance(floors, Mapping) and not floors)
    return MaskFacts(
        names=tickets.names,
        order=clustered_order(likeness[WHOLE].raw),
        layers=tuple(layer.name for layer in layers),
        sizes=np.array([layer.size for layer in layers], dtype=np.int64),
        kept=overlap.kept,
        union=np.array([layer.size - layer.shared_by[0] for layer in layers], dtype=np.int64),
        shared_by=tuple(overlap.shared_by.tolist()),
        exclusive=overlap.exclusive,
        dead=np.array([[len(rows) for rows in layer.dead_rows] for layer in layers]),
        vectors=tuple(len(layer.shape) < 2 for layer in layers),
        floors=tuple(layer.floor if floored else None for layer in layers),
        near_floor=tuple(
            len(layer.near_floor(overlap.near)) if floored else None for layer in layers
        ),
        likeness=likeness,
        state_bytes=sum(v.nbytes for t in tickets.values() for v in t.state.values()),
    )


def _with_floor(layer: LayerOverlap, floors: Any) -> LayerOverlap:
    """The layer with the floor that the run recorded, where it did."""
    recorded = floors.get(layer.name) if isinstance(floors, Mapping) else None
    if type(recorded) is not int:
        return layer
    return dataclasses.replace(layer, floor=recorded)
