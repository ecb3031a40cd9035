"""How the gradients of every two tickets meet on the weights that both keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rtl_plugin.diagnostics.similarity import Matrix

_BLOCK = 2**20  # entries of all tickets together that are unpacked at a time


@dataclass(frozen=True, eq=False)
class PairSums:
    """Sums over the weights of one layer, or of several.

    Args:
        overlap: float64 [K, K], weights that both keep.
        product: float64 [K, K], sum of ``g_j g_k``; a gradient is zero outside its own mask.
        square: float64 [K, K], sum of ``g_j^2`` over the weights that k keeps too.
        opposed: float64 [K, K], weights where the gradients have different signs.
    """

    overlap: Matrix
    product: Matrix
    square: Matrix
    opposed: Matrix

    def __add__(self, other: "PairSums") -> "PairSums":
        return PairSums(
            self.overlap + other.overlap,
            self.product + other.product,
            self.square + other.square,
            self.opposed + other.opposed,
        )

    @staticmethod
    def none(tickets: int) -> "PairSums":
        """The sums over no weights at all."""
        return PairSums(*(np.zeros((tickets, tickets)) for _ in range(4)))


@dataclass(frozen=True, eq=False)
class PairFigures:
    """How tickets' gradients meet on some of their shared weights.

    Args:
        overlap: int64 [K, K], weights that both tickets keep; what one keeps on the diagonal.
        cosine: float64 [K, K] in [-1, 1], of the two gradients over those weights; NaN where there
            are none or one gradient is zero on all of them: there is nothing to compare.
        conflict: float64 [K, K] in [0, 1], share of those weights where one gradient is positive
            and the other negative; NaN where there are none.
        effect: float64 [K, K], ``-<g_j, g_k> / |g_j|``: what a step of ticket j (row) against its
            own gradient adds to the loss of group k (column), a unit of the step's length, to
            first order. Positive hurts, negative helps; on the diagonal what j gains itself. 0
            without overlap, NaN where ``g_j`` is zero.
        norm: float64 [K], length of every ticket's gradient over all the weights that it keeps.
    """

    overlap: npt.NDArray[np.int64]
    cosine: Matrix
    conflict: Matrix
    effect: Matrix
    norm: npt.NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON-able lists; None for NaN."""
        return {
            "overlap": self.overlap.tolist(),
            "cosine": _listed(self.cosine),
            "conflict": _listed(self.conflict),
            "effect": _listed(self.effect),
            "norm": _listed(self.norm),
        }


def layer_sums(masks: Sequence[torch.Tensor | None], gradients: Sequence[torch.Tensor]) -> PairSums:
    """Sums of one layer over the weights that every two tickets share.

    Args:
        masks: K bool tensors of one shape; None keeps everything.
        gradients: K tensors, each the gradient at the kept weights in the order of their flat
            positions.

    Returns:
        The sums, in float64.

    Example:
        >>> keeps = [torch.tensor([True, True, False]), torch.tensor([True, True, True])]
        >>> sums = layer_sums(keeps, [torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0, 5.0])])
        >>> sums.product[0, 1], sums.square[1, 0], sums.opposed[0, 1]
        (np.float64(1.0), np.float64(10.0), np.float64(1.0))
    """
    values = [gradient.detach().cpu().reshape(-1).numpy() for gradient in gradients]
    kept = [
        np.ones(len(own), dtype=bool) if mask is None else mask.cpu().reshape(-1).numpy()
        for mask, own in zip(masks, values, strict=True)
    ]
    size = len(kept[0])
    step = max(1, _BLOCK // len(kept))
    used = [0] * len(kept)
    sums = PairSums.none(len(kept))
    for start in range(0, size, step):
        block = np.stack([mask[start : start + step] for mask in kept])
        unpacked = np.zeros(block.shape)
        for k, own in enumerate(values):
            count = int(block[k].sum())
            unpacked[k, block[k]] = own[used[k] : used[k] + count]
            used[k] += count
        sums += _block_sums(block.astype(np.float64), unpacked)
    return sums


def _block_sums(kept: Matrix, gradients: Matrix) -> PairSums:
    up, down = (gradients > 0).astype(np.float64), (gradients < 0).astype(np.float64)
    against = up @ down.T
    return PairSums(
        kept @ kept.T, gradients @ gradients.T, (gradients**2) @ kept.T, against + against.T
    )


def pair_figures(sums: PairSums) -> PairFigures:
    """Cosines, conflicts and effects from the sums.

    Args:
        sums: of one layer or of several together.

    Returns:
        The figures.

    Example:
        >>> sums = layer_sums([None, None], [torch.tensor([3.0, 4.0]), torch.tensor([-4.0, 3.0])])
        >>> figures = pair_figures(sums)
        >>> figures.cosine[0, 1], figures.conflict[0, 1], figures.norm
        (np.float64(0.0), np.float64(0.5), array([5., 5.]))
    """
    # Roots before the product: the square of a small gradient's square would underflow.
    length = np.sqrt(sums.square) * np.sqrt(sums.square.T)
    norm = np.sqrt(np.diag(sums.square))
    cosine = np.clip(_ratio(sums.product, length), -1.0, 1.0)
    effect = 0.0 - _ratio(sums.product, np.broadcast_to(norm[:, None], sums.product.shape))
    return PairFigures(
        np.rint(sums.overlap).astype(np.int64),
        cosine,
        _ratio(sums.opposed, sums.overlap),
        effect,
        norm,
    )


def _ratio(above: Matrix, below: Matrix) -> Matrix:
    result: Matrix = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return result


def sums_by_layer(
    masks: Sequence[Mapping[str, torch.Tensor]],
    gradients: Sequence[Mapping[str, torch.Tensor]],
) -> dict[str, PairSums]:
    """Sums of every masked layer.

    Args:
        masks: K mappings parameter name -> bool tensor.
        gradients: K mappings parameter name -> gradient at the kept weights; only these layers.

    Returns:
        Parameter name -> its sums.

    Example:
        >>> mask, gradient = {"w": torch.tensor([True])}, {"w": torch.tensor([2.0])}
        >>> sums_by_layer([mask], [gradient])["w"].product
        array([[4.]])
    """
    return {
        name: layer_sums([own[name] for own in masks], [own[name] for own in gradients])
        for name in gradients[0]
    }


def _listed(values: npt.NDArray[np.float64]) -> Any:
    objects = values.astype(object)
    objects[np.isnan(values)] = None
    return objects.tolist()
