"""Similarity of tickets by depth: shallow, middle and deep layers apart."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rtl_plugin.diagnostics.mask_counts import LayerCounts, MaskCounts, Masks
from rtl_plugin.diagnostics.similarity import Matrix, counted, joint_similarity
from rtl_plugin.errors import InvalidArgument

THIRDS = ("shallow", "middle", "deep")


def depth_labels(names: Iterable[str]) -> dict[str, str]:
    """Which third of the masked layers each parameter lies in.

    A layer is a module: parameters whose names agree up to the last dot belong to one (its weight
    and its bias); a name without a dot is a layer of its own. Of L layers, layer i (from 0) takes
    the stretch from ``i / L`` to ``(i + 1) / L`` of the depth and belongs to the third in which
    the middle of its stretch lies, which is never on a border. So the split is symmetric: one
    layer is the middle; two are shallow and deep, and nothing is in the middle; three are one
    each; four split 1, 2, 1; five split 2, 1, 2; six split 2, 2, 2.

    Args:
        names: of the masked parameters, in the model's order.

    Returns:
        Parameter name -> "shallow", "middle" or "deep".

    Example:
        >>> depth_labels(["stem.weight", "stem.bias", "body.weight", "head.weight"])
        {'stem.weight': 'shallow', 'stem.bias': 'shallow', 'body.weight': 'middle',
         'head.weight': 'deep'}
    """
    owners = {name: name.rpartition(".")[0] or name for name in names}
    layers = list(dict.fromkeys(owners.values()))
    third = {layer: (2 * i + 1) * 3 // (2 * len(layers)) for i, layer in enumerate(layers)}
    return {name: THIRDS[third[owner]] for name, owner in owners.items()}


def depth_similarity(
    tickets: Sequence[Masks] | MaskCounts,
    *,
    excess: bool = False,
    depths: Mapping[str, str] | None = None,
) -> dict[str, Matrix]:
    """Jaccard similarity of every pair of tickets over the layers of each depth together.

    Args:
        tickets: as in ``similarity_matrix``; their masks lie in the model's order, as ``discover``
            makes them.
        excess: as in ``similarity_matrix``, with the densities within the depth.
        depths: parameter name -> a label of yours, for every masked parameter; thirds of the
            layers by default, see :func:`depth_labels`.

    Returns:
        Label -> float64 array [K, K]; "shallow", "middle", "deep" in this order, or labels in the
        order in which the layers come to them. A third without layers (there are fewer than
        three) is left out: nothing was measured there.

    Raises:
        InvalidTicket: as in ``similarity_matrix``.
        InvalidArgument: ``depths`` lacks a masked parameter, names one that is not masked, or has
            a label that is not a non-empty string.

    Example:
        >>> import torch
        >>> first = {"a": torch.tensor([True, True]), "b": torch.tensor([True, False])}
        >>> other = {"a": torch.tensor([True, True]), "b": torch.tensor([False, True])}
        >>> {label: m[0, 1].item() for label, m in depth_similarity([first, other]).items()}
        {'shallow': 1.0, 'deep': 0.0}

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, semantic alignment by
        depth; the paper does not say where its depths begin and end.
    """
    names = _names(tickets)
    labels = depth_labels(names) if depths is None else _checked(depths, names)
    count, layers = counted(tickets)
    totals: dict[str, LayerCounts] = {}
    for layer in layers:
        label = labels[layer.name]
        before = totals.get(label, LayerCounts(label, 0, np.zeros((count, count), np.int64)))
        totals[label] = LayerCounts(label, before.size + layer.size, before.shared + layer.shared)
    return {label: joint_similarity([totals[label]], count, excess=excess) for label in totals}


def _names(tickets: Sequence[Masks] | MaskCounts) -> list[str]:
    if isinstance(tickets, MaskCounts):
        return [layer.name for layer in tickets]
    return list(tickets[0]) if tickets else []


def _checked(depths: Mapping[str, str], names: Sequence[str]) -> Mapping[str, str]:
    if not isinstance(depths, Mapping):
        raise InvalidArgument(
            f"depths must map parameter names to labels, got {type(depths).__name__}"
        )
    for problem, wrong in (
        ("has no label for the masked", [name for name in names if name not in depths]),
        ("has a label for the unmasked", [name for name in depths if name not in set(names)]),
    ):
        if wrong:
            raise InvalidArgument(
                f"depths {problem} parameter {wrong[0]!r} ({len(wrong)} of these in all): give "
                "every parameter that the tickets mask a label, and no other"
            )
    for name, label in depths.items():
        if not isinstance(label, str) or not label:
            raise InvalidArgument(
                f"depths: the label of {name!r} must be a non-empty string, got {label!r}"
            )
    return depths
