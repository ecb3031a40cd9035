"""Gradient conflict between tickets on shared weights: who hurts whom."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from tabulate import tabulate
from torch import nn

from rtl_plugin.arguments import whole_number
from rtl_plugin.data_groups import DataGroups
from rtl_plugin.diagnostics.interference_gradients import (
    MeanGradient,
    Sampling,
    mean_gradients,
)
from rtl_plugin.diagnostics.interference_pairs import (
    PairFigures,
    PairSums,
    layer_sums,
    pair_figures,
    sums_by_layer,
)
from rtl_plugin.errors import InvalidArgument, InvalidGroups
from rtl_plugin.tickets import TicketSet
from rtl_plugin.training_step import Loss

Split: TypeAlias = Literal["train", "validation", "test"]
Part: TypeAlias = Literal["masked", "dense", "together"]


@dataclass(frozen=True)
class Pair:
    """What a step of one ticket does to the group of another.

    Args:
        stepping: the ticket that takes a step on its own loss.
        affected: the group whose loss changes.
        effect: by how much, a unit of the step's length; positive hurts.
        cosine: of their gradients on the weights that both keep.
        conflict: share of those weights where the signs differ.
        overlap: how many those weights are.
    """

    stepping: str
    affected: str
    effect: float
    cosine: float
    conflict: float
    overlap: int


@dataclass(frozen=True, eq=False)
class Interference:
    """How tickets' gradients meet on shared weights; rows step, columns are affected.

    Args:
        names: the K tickets.
        masked: over all masked weights.
        layers: masked parameter name -> the same over it alone.
        dense: over parameters that no ticket masks and all share whole; None without any.
        together: over both: all that a step of one ticket moves of what others use.
        losses: mean loss of every group, float [K] by name.
        batches: over how many batches each was averaged, by name.
        split: of the groups that the batches came from.
    """

    names: tuple[str, ...]
    masked: PairFigures
    layers: Mapping[str, PairFigures]
    dense: PairFigures | None
    together: PairFigures
    losses: Mapping[str, float]
    batches: Mapping[str, int]
    split: str

    def worst_pairs(self, count: int = 10, part: Part = "masked") -> list[Pair]:
        """The ordered pairs where a step of one hurts the other most.

        Args:
            count: how many at most, at least 1.
            part: ``"masked"``, ``"dense"`` or ``"together"``.

        Returns:
            Pairs of different tickets by falling effect. A pair that shares nothing, or whose
            stepping ticket has no gradient, is left out.

        Raises:
            InvalidArgument: an argument is out of range, or there are no dense parameters.
        """
        whole_number("count", count, 1)
        figures = self._figures(part)
        order = np.argsort(-figures.effect, axis=None, kind="stable")
        places = (np.unravel_index(int(place), figures.effect.shape) for place in order)
        pairs = [
            self._pair(figures, int(j), int(k))
            for j, k in places
            if j != k and figures.overlap[j, k] and not np.isnan(figures.effect[j, k])
        ]
        return pairs[:count]

    def table(self, count: int = 20, part: Part = "masked") -> str:
        """The worst pairs as text, one line each.

        Args:
            count: as for :meth:`worst_pairs`.
            part: likewise.

        Returns:
            The table, with a line that says how many ordered pairs there are.
        """
        pairs = self.worst_pairs(count, part)
        if not pairs:
            return f"no two of {len(self.names)} tickets share weights with gradients ({part})"
        rows = [_cells(pair) for pair in pairs]
        headers = ["step of", "changes loss of", "by", "cosine", "signs differ", "shared weights"]
        text = tabulate(
            rows,
            headers,
            disable_numparse=True,
            colalign=("left", "left", "right", "right", "right", "right"),
        )
        total = len(self.names) * (len(self.names) - 1)
        return f"{text}\n{len(pairs)} of {total} ordered pairs; by: a unit of the step's length"

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON-able data; None for NaN."""
        return {
            "names": list(self.names),
            "split": self.split,
            "batches": dict(self.batches),
            "losses": dict(self.losses),
            "masked": self.masked.to_json(),
            "dense": None if self.dense is None else self.dense.to_json(),
            "together": self.together.to_json(),
            "layers": {name: figures.to_json() for name, figures in self.layers.items()},
        }

    def _figures(self, part: str) -> PairFigures:
        if part not in get_args(Part):
            raise InvalidArgument(f"part must be one of {list(get_args(Part))}, got {part!r}")
        figures: PairFigures | None = getattr(self, part)
        if figures is None:
            raise InvalidArgument(
                "part='dense': the tickets share no unmasked parameter; use part='masked'"
            )
        return figures

    def _pair(self, figures: PairFigures, j: int, k: int) -> Pair:
        return Pair(
            self.names[j],
            self.names[k],
            float(figures.effect[j, k]),
            float(figures.cosine[j, k]),
            float(figures.conflict[j, k]),
            int(figures.overlap[j, k]),
        )


def interference(
    model: nn.Module,
    tickets: TicketSet,
    groups: DataGroups,
    loss: Loss,
    *,
    batches: int = 8,
    seed: int = 0,
    split: Split = "train",
) -> Interference:
    """Compare every two tickets' gradients where their masks overlap.

    Masks that overlap do not tell whether their groups pull the shared weights the same way. The
    gradient of every group's loss under its own ticket does: at the model's present weights, in
    train mode with the ticket's own state, as ``retrain`` computes it, averaged over some batches.
    The model, its gradients and modes, and the random state are left as they were.

    The effect is a first-order figure of a plain gradient step; Adam and momentum step in other
    directions. Channel tickets are run as their small networks.

    Args:
        model: the network, at the weights to look at: after ``retrain``, or the initial ones.
        tickets: K tickets over it. K gradients are held, of the weights that each keeps.
        groups: the data groups, one a ticket, by name.
        loss: ``loss(model, batch) -> scalar tensor``, as for ``retrain``.
        batches: of every group, at least 1; the gradient of a few is noisy, and noise pulls
            cosines to zero. A loader that has fewer gives all of its own.
        seed: of every random stream, a whole number.
        split: ``"train"``, ``"validation"`` or ``"test"``.

    Returns:
        Cosine, conflicting signs, effect and norms over all masked weights, per layer, and over
        the parameters that all tickets share unmasked. Private and frozen parameters are nobody
        else's and are left out.

    Raises:
        InvalidArgument: an argument is out of range or of the wrong kind, or all masked parameters
            are frozen.
        InvalidGroups: groups and tickets have different names, or a group has no such split.
        StructureMismatch: the tickets do not fit the model.
        InvalidLoss: the loss is not a scalar, or does not depend on the masked weights.
        TrainingDiverged: a loss or a gradient is not finite.
        MaskBypassed: the forward pass reads a weight around its mask.

    Example:
        >>> from rtl_plugin import Ticket
        >>> model = nn.Linear(2, 1, bias=False)
        >>> mask = {"weight": torch.tensor([[True, True]])}
        >>> found = interference(
        ...     model,
        ...     TicketSet([Ticket("up", mask), Ticket("down", mask)]),
        ...     DataGroups.from_loaders({"up": [torch.ones(1, 2)], "down": [-torch.ones(1, 2)]}),
        ...     lambda model, batch: model(batch).sum(),
        ... )
        >>> found.masked.cosine.round(6), found.masked.conflict[0, 1]
        (array([[ 1., -1.],
               [-1.,  1.]]), np.float64(1.0))

    Source:
        Yu et al., Gradient Surgery for Multi-Task Learning, arXiv 2001.06782 (conflicting
        gradients); Fifty et al., Efficiently Identifying Task Groupings, arXiv 2109.04617 (the
        effect of one task's step on another's loss).
    """
    _check(tickets, groups, loss, split)
    sampling = Sampling(whole_number("batches", batches, 1), whole_number("seed", seed, 0), split)
    found = mean_gradients(model, tickets, groups, loss, sampling)
    gradients = list(found.values())
    layers = sums_by_layer([t.masks for t in tickets.values()], [g.masked for g in gradients])
    masked = reduce(PairSums.__add__, layers.values())
    dense = _dense_sums(gradients)
    return Interference(
        tickets.names,
        pair_figures(masked),
        {name: pair_figures(sums) for name, sums in layers.items()},
        None if dense is None else pair_figures(dense),
        pair_figures(masked if dense is None else masked + dense),
        {name: gradient.loss for name, gradient in found.items()},
        {name: gradient.batches for name, gradient in found.items()},
        split,
    )


def _dense_sums(gradients: list[MeanGradient]) -> PairSums | None:
    """Over the unmasked parameters; None where no ticket has a gradient for one."""
    shapes = {name: value.shape for own in gradients for name, value in own.dense.items()}
    sums = None
    for name, shape in shapes.items():
        # A group whose loss does not depend on a parameter has the gradient zero there.
        values = [own.dense.get(name, torch.zeros(shape)) for own in gradients]
        layer = layer_sums([None] * len(values), values)
        sums = layer if sums is None else sums + layer
    return sums


def _check(tickets: Any, groups: Any, loss: Any, split: Any) -> None:
    if not isinstance(tickets, TicketSet) or not isinstance(groups, DataGroups):
        raise InvalidArgument("interference takes a TicketSet and DataGroups, in this order")
    if not callable(loss):
        raise InvalidArgument(f"loss must be callable as loss(model, batch), got {loss!r}")
    if split not in get_args(Split):
        raise InvalidArgument(f"split must be one of {list(get_args(Split))}, got {split!r}")
    if set(groups) != set(tickets):
        raise InvalidGroups(
            f"every ticket needs the group of its name: tickets {', '.join(tickets)}; groups "
            f"{', '.join(groups)}"
        )


def _cells(pair: Pair) -> list[str]:
    shares = (_shown(pair.cosine), _shown(pair.conflict))
    return [pair.stepping, pair.affected, f"{pair.effect:+.3g}", *shares, f"{pair.overlap:,}"]


def _shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"
