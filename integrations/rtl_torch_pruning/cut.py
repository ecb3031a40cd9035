"""What a round cut of one ticket, for the report and for the check that it cut anything."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from rtl_plugin.integration_api import PruningFailed
from rtl_torch_pruning.cutting import Cutter
from rtl_torch_pruning.group_training import Ranked
from rtl_torch_pruning.round_report import GroupRow
from rtl_torch_pruning.working_network import Shape


@dataclass(frozen=True)
class Cut:
    """A ticket's widths after a round, against what was asked.

    Args:
        shape: of the ticket after the round.
        changed: the round removed something.
        asked: fraction of channels to be removed after the round.
        widths: layer name -> (channels now, channels of the dense network).
        left_whole: layers that the host left whole because one would have vanished.
    """

    shape: Shape
    changed: bool
    asked: float
    widths: Mapping[str, tuple[int, int]]
    left_whole: tuple[str, ...]

    @staticmethod
    def between(before: Shape, after: Shape, cutter: Cutter, round: int) -> "Cut":
        """What happened between two shapes, the later of which the cutter has at present."""
        changed = _sizes(before) != _sizes(after)
        return Cut(after, changed, cutter.asked(round), cutter.widths(), cutter.left_whole)

    @property
    def achieved(self) -> float:
        """Fraction of the prunable channels that is removed."""
        now = sum(width for width, _ in self.widths.values())
        return 1 - now / sum(dense for _, dense in self.widths.values())

    def check(self, where: object) -> None:
        """Refuse a round without effect; but rounding may have removed as much before.

        Args:
            where: for the message.

        Raises:
            PruningFailed: nothing was cut, and less is removed than was asked for.
        """
        if self.changed or self.asked == 0:
            return
        if self.shape.maps and (self.left_whole or self.achieved >= self.asked):
            return
        because = f"; left whole: {', '.join(self.left_whole)}" if self.left_whole else ""
        raise PruningFailed(
            f"{where}: nothing was cut, {self.achieved:.1%} of the channels are removed and "
            f"{self.asked:.1%} were asked for{because}: look at max_pruning_ratio, round_to, "
            "pruning_ratio_dict and ignored_layers"
        )

    def _note(self) -> str:
        if self.changed:
            return ""
        if self.asked == 0:
            return "nothing cut: nothing was asked for yet"
        whole = self.achieved < self.asked
        return "nothing cut: " + ("layers left whole" if whole else "as much was removed before")

    def row(
        self,
        group: str,
        dense: Mapping[str, torch.Tensor],
        ranked: Ranked,
        seconds: Mapping[str, float],
    ) -> GroupRow:
        """The report's row.

        Args:
            group: its name.
            dense: parameters of the shared network by name.
            ranked: what the ranking looked at.
            seconds: part of the work -> seconds.
        """
        total = sum(parameter.numel() for parameter in dense.values())
        lost = sum(
            dense[name].numel() - math.prod(index_map.small_shape)
            for name, index_map in self.shape.maps.items()
            if name in dense
        )
        return GroupRow(
            group=group,
            asked=self.asked,
            achieved=self.achieved,
            widths=self.widths,
            parameters=total - lost,
            dense_parameters=total,
            loss=ranked.loss,
            batches=ranked.batches,
            left_whole=self.left_whole,
            note=self._note(),
            seconds=seconds,
        )


def _sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    return {name: index_map.small_shape for name, index_map in shape.maps.items()}
