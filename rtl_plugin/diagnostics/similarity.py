"""Jaccard similarity of masks, raw and in excess of chance."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from rtl_plugin.diagnostics.mask_counts import (
    LayerCounts,
    MaskCounts,
    Masks,
    layer_counts,
)

Matrix = npt.NDArray[np.float64]


def similarity_matrix(tickets: Sequence[Masks] | MaskCounts, *, excess: bool = False) -> Matrix:
    """Jaccard similarity of every pair of tickets over all their masks together.

    Args:
        tickets: one mapping parameter name -> bool mask each, all with the same names and shapes;
            packed masks are read as they lie, and masks on a GPU are packed on the host. Or what
            ``count_masks`` counted of them, where several similarities are wanted.
        excess: subtract the value expected of two random masks of the same densities,
            ``ab / (a + b - ab)``.

    Returns:
        float64 array [K, K], in [0, 1] (or in [-1, 1] in excess of chance). Two empty masks are
        alike: 1.

    Raises:
        InvalidTicket: tickets that disagree about names or shapes, or a mask that is not bool.

    Example:
        >>> import torch
        >>> masks = [{"w": torch.tensor([True, True])}, {"w": torch.tensor([True, False])}]
        >>> similarity_matrix(masks)
        array([[1. , 0.5],
               [0.5, 1. ]])

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, similarity diagnostics.
    """
    count, layers = counted(tickets)
    return joint_similarity(layers, count, excess=excess)


def layer_similarity(
    tickets: Sequence[Masks] | MaskCounts, *, excess: bool = False
) -> dict[str, Matrix]:
    """Jaccard similarity of every pair of tickets, one matrix a masked parameter.

    Args:
        tickets: as in :func:`similarity_matrix`.
        excess: as in :func:`similarity_matrix`, with the layer's own densities.

    Returns:
        Parameter name -> float64 array [K, K].

    Raises:
        InvalidTicket: as in :func:`similarity_matrix`.

    Example:
        >>> import torch
        >>> layer_similarity([{"w": torch.tensor([True])}])["w"]
        array([[1.]])
    """
    count, layers = counted(tickets)
    return {layer.name: joint_similarity([layer], count, excess=excess) for layer in layers}


def mean_similarity(matrix: Matrix) -> npt.NDArray[np.float64]:
    """Each ticket's mean similarity with the others.

    Args:
        matrix: float array [K, K] of :func:`similarity_matrix`.

    Returns:
        float64 array [K]; NaN for a single ticket, which has no others.

    Example:
        >>> mean_similarity(np.array([[1.0, 0.5], [0.5, 1.0]]))
        array([0.5, 0.5])
    """
    others = matrix.shape[0] - 1
    if others == 0:
        return np.full(1, np.nan)
    result: npt.NDArray[np.float64] = (matrix.sum(axis=1) - np.diag(matrix)) / others
    return result


def joint_similarity(
    layers: Iterable[LayerCounts], tickets: int, *, excess: bool = False
) -> Matrix:
    """Jaccard similarity of every pair of tickets over some layers together.

    Args:
        layers: what the tickets share in each of them.
        tickets: K.
        excess: as in :func:`similarity_matrix`, with the densities over these layers.

    Returns:
        float64 array [K, K]; without any layer every two tickets are alike: 1.

    Example:
        >>> layer = LayerCounts("w", 4, np.array([[2, 1], [1, 2]]))
        >>> joint_similarity([layer], 2)[0, 1].round(3)
        np.float64(0.333)
    """
    shared, size = np.zeros((tickets, tickets)), 0
    for layer in layers:
        shared += layer.shared
        size += layer.size
    kept = np.diag(shared)
    union = kept[:, None] + kept[None, :] - shared
    similarity = np.divide(shared, union, out=np.ones_like(shared), where=union > 0)
    if not excess:
        return similarity
    density = kept / max(size, 1)
    both = density[:, None] * density[None, :]
    either = density[:, None] + density[None, :] - both
    chance = np.divide(both, either, out=np.ones_like(both), where=either > 0)
    result: Matrix = similarity - chance
    return result


def counted(tickets: Sequence[Masks] | MaskCounts) -> tuple[int, Iterable[LayerCounts]]:
    """How many tickets there are, and what they share layer by layer, counted where it is not.

    Args:
        tickets: as in :func:`similarity_matrix`.

    Returns:
        K and the layers' counts; those of tickets are made as they are taken.

    Raises:
        InvalidTicket: as in :func:`similarity_matrix`, when they are taken.

    Example:
        >>> counted([])[0]
        0
    """
    if isinstance(tickets, MaskCounts):
        return tickets.tickets, tickets
    return len(tickets), layer_counts(tickets)
