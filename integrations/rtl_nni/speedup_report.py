"""What a speedup cut, what it left whole and why, and how far the outputs moved."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

_SHOWN = 3  # norms in the line about the difference


@dataclass(frozen=True)
class LeftWhole:
    """Masked channels that were not cut.

    Args:
        group: the layer that stands for the group.
        channels: its numbers of them.
        reason: why.

    Example:
        >>> LeftWhole("fc", (0, 1), "they are outputs of the network").channels
        (0, 1)
    """

    group: str
    channels: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class SpeedupReport:
    """The small network, and how it was made.

    Args:
        network: the small network, in eval mode.
        parameters: how many it has.
        dense_parameters: how many the given one has.
        cut: layer -> the numbers of its output channels that were removed.
        widths: the same layers -> (channels now, channels before).
        completed: norm -> its channels that were masked to make the cut exact.
        left_whole: masked channels that stayed, with the reasons; they keep their zeros.
        difference: largest difference between outputs of the small network and the completed masked
            one, in float64 where the model runs in that.
        from_given: the same against the network with the masks as they were given, which moves by
            what ``completed`` names.
        largest_output: what both are to be compared with.

    Example:
        >>> made = {"cut": {"fc": (1,)}, "widths": {"fc": (3, 4)}, "completed": {}}
        >>> numbers = {"difference": 0.0, "from_given": 0.0, "largest_output": 2.0}
        >>> print(SpeedupReport(nn.Identity(), 6, 8, **made, left_whole=(), **numbers))
        parameters 8 -> 6 (75.0%)
        difference from the completed masked network: 0.0e+00
        difference from the masks as given: 0.0e+00
        largest output: 2.0e+00
        layer  before    now
        fc          4      3
    """

    network: nn.Module
    parameters: int
    dense_parameters: int
    cut: Mapping[str, tuple[int, ...]]
    widths: Mapping[str, tuple[int, int]]
    completed: Mapping[str, tuple[int, ...]]
    left_whole: tuple[LeftWhole, ...]
    difference: float
    from_given: float
    largest_output: float

    def __str__(self) -> str:
        share = self.parameters / self.dense_parameters
        wide = max(map(len, ("layer", *self.widths)))
        moved = f"{self.from_given:.1e}{self._responsible()}"
        lines = [
            f"parameters {self.dense_parameters:,} -> {self.parameters:,} ({share:.1%})",
            f"difference from the completed masked network: {self.difference:.1e}",
            f"difference from the masks as given: {moved}",
            f"largest output: {self.largest_output:.1e}",
            f"{'layer':<{wide}}  before    now",
        ]
        for name, (now, before) in self.widths.items():
            lines.append(f"{name:<{wide}}  {before:6d} {now:6d}")
        if self.left_whole:
            lines.append("masked, but left whole:")
        for left in self.left_whole:
            lines.append(f"  {len(left.channels)} channels of {left.group}: {left.reason}")
        return "\n".join(lines)

    def _responsible(self) -> str:
        if not self.completed:
            return ""
        names = list(self.completed)
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f" (now masked too: {', '.join(names[:_SHOWN])}{more})"
