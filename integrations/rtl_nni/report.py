"""What every round did for every group, and whether the tickets differ."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from tabulate import tabulate

from rtl_nni.target_row import TargetRow

Masks = Mapping[str, Mapping[str, Any]]


_GLOBAL_SLACK = 0.05


class IdenticalTickets(UserWarning):
    """All groups have the same ticket: most often they did not train on their own data."""


@dataclass(frozen=True)
class RoundRow:
    """One group's part of a round.

    Args:
        round: counted from 1.
        group: its name.
        asked: mean ratio asked of the weights under a ratio, None where thresholds decide.
        achieved: fraction of the weights under a ratio or threshold that is masked.
        layers: parameter name -> fraction masked, of everything the configuration matches.
        seconds: for training and pruning.

    Example:
        >>> RoundRow(1, "a", 0.5, 0.5, {"fc.weight": 0.5}, 0.1).history()["achieved"]
        0.5
    """

    round: int
    group: str
    asked: float | None
    achieved: float
    layers: Mapping[str, float]
    seconds: float

    def history(self) -> dict[str, Any]:
        """The row as JSON-able data without times, for a ticket file."""
        return {key: value for key, value in asdict(self).items() if key != "seconds"}


@dataclass
class Report:
    """Every finished (round, group) and what is unusual; prints as a table.

    Args:
        rows: in the order in which they were run.
        notes: one sentence each.

    Example:
        >>> print(Report([RoundRow(1, "a", 0.5, 0.5, {"fc.weight": 0.5}, 0.25)]))
          round  group      asked    achieved    seconds
        -------  -------  -------  ----------  ---------
              1  a          0.500       0.500      0.250
    """

    rows: list[RoundRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        headers = ["round", "group", "asked", "achieved", "seconds"]
        table = [[r.round, r.group, r.asked, r.achieved, r.seconds] for r in self.rows]
        shown = tabulate(table, headers=headers, floatfmt=".3f", missingval="threshold")
        return "\n\n".join([shown, *self.notes])


def round_row(
    round: int, group: str, rows: Sequence[TargetRow], masks: Masks, seconds: float
) -> RoundRow:
    """Sum up one group's masks of a round.

    Args:
        round: counted from 1.
        group: its name.
        rows: what the round's configuration asks of each target.
        masks: what came.
        seconds: what it took.
    """
    present = [row for row in rows if row.shape is not None]
    kept = {row.name: _zeros(masks[row.layer][row.target]) for row in present}
    ranked = [row for row in present if row.ranked]
    total = sum(row.numel for row in ranked)
    ratios = [(row.settings.get("sparse_ratio"), row.numel) for row in ranked]
    known = [(ratio, numel) for ratio, numel in ratios if ratio is not None]
    return RoundRow(
        round=round,
        group=group,
        asked=sum(r * n for r, n in known) / total if len(known) == len(ratios) else None,
        achieved=sum(kept[row.name] for row in ranked) / total,
        layers={row.name: kept[row.name] / row.numel for row in present},
        seconds=seconds,
    )


def global_notes(group: str, rows: Sequence[TargetRow], masks: Masks) -> list[str]:
    """Sentences where a global group of NNI misses its ratio by far.

    Args:
        group: the data group.
        rows: what the last round's configuration asks of each target.
        masks: what came.
    """
    members: dict[Any, list[TargetRow]] = {}
    for row in rows:
        if row.ranked and row.settings.get("global_group_id") is not None:
            members.setdefault(row.settings["global_group_id"], []).append(row)
    notes = []
    for identity, each in members.items():
        asked = next((row.settings["sparse_ratio"] for row in each), None)
        gone = sum(_zeros(masks[row.layer][row.target]) for row in each)
        achieved = gone / sum(row.numel for row in each)
        if asked is not None and abs(achieved - asked) > _GLOBAL_SLACK:
            notes.append(
                f"{group}: global_group_id {identity!r} asks for {asked:.1%} and {achieved:.1%} "
                "are masked: NNI's global ranking counts blocks, not weights, so blocks of "
                "different sizes miss the ratio; use single weights or ratios a layer"
            )
    return notes


def identical_note(masks: Mapping[str, Masks], trained: bool) -> str:
    """A sentence where all groups have the same masks, otherwise nothing.

    Args:
        masks: group -> masks.
        trained: whether the groups trained before they were pruned.
    """
    first, *others = masks.values()
    if not others or not all(_same(first, other) for other in others):
        return ""
    names = ", ".join(map(repr, masks))
    if not trained:
        return f"the tickets of {names} are identical: with steps=0 all rank the same weights"
    return (
        f"the tickets of {names} are identical. Likely causes: the evaluators read the same data "
        "(do they share a loader, or a training function that holds one?); the training function "
        "ignores the optimizers or the model it is given; the learning rate or the number of steps "
        "is so small that the order of the scores is that of the initial weights (whole channels "
        "change places more slowly than single weights, so for them this may be an honest result "
        "of few steps)"
    )


def _same(first: Masks, other: Masks) -> bool:
    return all(
        mask is None or torch.equal(mask, other[module][target])
        for module, targets in first.items()
        for target, mask in targets.items()
    )


def _zeros(mask: torch.Tensor | None) -> int:
    return 0 if mask is None else int((mask == 0).sum())
