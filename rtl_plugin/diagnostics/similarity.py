"""Jaccard similarity of masks, raw and in excess of chance."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

Masks = Mapping[str, torch.Tensor]
Matrix = npt.NDArray[np.float64]


def similarity_matrix(tickets: Sequence[Masks], *, excess: bool = False) -> Matrix:
    """Jaccard similarity of every pair of tickets over all their masks together.

    Args:
        tickets: one mapping parameter name -> bool mask each, all with the same names and shapes.
        excess: subtract the value expected of two random masks of the same densities,
            ``ab / (a + b - ab)``.

    Returns:
        float64 array [K, K], in [0, 1] (or in [-1, 1] in excess of chance). Two empty masks are
        alike: 1.

    Example:
        >>> masks = [{"w": torch.tensor([True, True])}, {"w": torch.tensor([True, False])}]
        >>> similarity_matrix(masks)
        array([[1. , 0.5],
               [0.5, 1. ]])

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, similarity diagnostics.
    """
    names = list(tickets[0]) if tickets else []
    shared = sum((_intersections(tickets, name) for name in names), _zeros(len(tickets)))
    total = sum(mask.numel() for mask in tickets[0].values()) if tickets else 0
    return _jaccard(shared, total, excess)


def layer_similarity(tickets: Sequence[Masks], *, excess: bool = False) -> dict[str, Matrix]:
    """Jaccard similarity of every pair of tickets, one matrix a masked parameter.

    Args:
        tickets: as in :func:`similarity_matrix`.
        excess: as in :func:`similarity_matrix`, with the layer's own densities.

    Returns:
        Parameter name -> float64 array [K, K].

    Example:
        >>> layer_similarity([{"w": torch.tensor([True])}])["w"]
        array([[1.]])
    """
    names = list(tickets[0]) if tickets else []
    return {
        name: _jaccard(_intersections(tickets, name), tickets[0][name].numel(), excess)
        for name in names
    }


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


def _zeros(count: int) -> Matrix:
    return np.zeros((count, count))


def _intersections(tickets: Sequence[Masks], name: str) -> Matrix:
    packed = [np.packbits(ticket[name].detach().cpu().numpy().reshape(-1)) for ticket in tickets]
    result = _zeros(len(packed))
    for i, first in enumerate(packed):
        for j in range(i, len(packed)):
            result[i, j] = result[j, i] = _set_bits(first & packed[j])
    return result


_BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)


def _set_bits(packed: npt.NDArray[np.uint8]) -> int:
    return int(np.bincount(packed, minlength=256) @ _BITS_OF_BYTE)


def _jaccard(shared: Matrix, total: int, excess: bool) -> Matrix:
    kept = np.diag(shared)
    union = kept[:, None] + kept[None, :] - shared
    similarity = np.divide(shared, union, out=np.ones_like(shared), where=union > 0)
    if not excess:
        return similarity
    density = kept / max(total, 1)
    both = density[:, None] * density[None, :]
    either = density[:, None] + density[None, :] - both
    chance = np.divide(both, either, out=np.ones_like(both), where=either > 0)
    result: Matrix = similarity - chance
    return result
