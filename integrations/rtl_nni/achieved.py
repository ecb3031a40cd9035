"""Whether a round trained and pruned what it was asked to."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rtl_nni.pruner_parts import spaces_of
from rtl_nni.target_row import TargetRow
from rtl_plugin.integration_api import PruningFailed, bit_equal, check_finite

Masks = Mapping[str, Mapping[str, Any]]


def check_trained(
    start: Mapping[str, torch.Tensor],
    model: nn.Module,
    names: Mapping[str, str],
    masks: Masks,
    where: object,
    ranked: Collection[str] = (),
) -> None:
    """Refuse a training that left a weight where it was.

    Args:
        start: parameter name -> value at the start of the round.
        model: after the training, wrapped.
        names: parameter name -> its name in the wrapped model.
        masks: under which it was trained.
        where: for the message.
        ranked: names of what is ranked next; of other parameters those of one dimension may stay.

    Raises:
        PruningFailed: a trainable weight did not move.
        TrainingDiverged: a parameter is not finite.
    """
    wrapped = dict(model.named_parameters())
    trained = {
        name: wrapped[names[name]].detach().to(value.device)
        for name, value in start.items()
        if name in names
    }
    check_finite(trained, where)
    still = [
        name
        for name, value in trained.items()
        # A bias before a normalisation may well get no gradient that float32 can hold.
        if (value.dim() > 1 or name in ranked)
        and wrapped[names[name]].requires_grad
        and _survivors(name, masks)
        and bit_equal(value, start[name])
    ]
    if still:
        shown = ", ".join(map(repr, still[:4])) + (", ..." if len(still) > 4 else "")
        raise PruningFailed(
            f"{where}: {len(still)} weights did not move in training ({shown}), so they would be "
            "ranked as they were. Does the training function step the optimizers it is given, and "
            "train the model it is given? Freeze what the forward does not use "
            "(requires_grad_(False)); a learning rate of 0 (warm-up) needs more steps"
            f"{_emptied(masks)}"
        )


def _emptied(masks: Masks) -> str:
    names = [
        f"{module}.{target}"
        for module, targets in masks.items()
        for target, mask in targets.items()
        if mask is not None and not bool(mask.any())
    ]
    if not names:
        return ""
    return (
        f". Nothing is left of {', '.join(names)}, so nothing flows through: lower the ratio or "
        "threshold, or take such layers out of their global group, whose scores know no layer sizes"
    )


def _survivors(name: str, masks: Masks) -> bool:
    module, _, target = name.rpartition(".")
    mask = masks.get(module, {}).get(target)
    return mask is None or bool(mask.any())


def check_reached(
    rows: Sequence[TargetRow], masks: Masks, pruner: Any, where: object, last: bool
) -> None:
    """Refuse masks that are denser than asked.

    Args:
        rows: what the round's configuration asks of each target.
        masks: what came.
        pruner: that made them, for its granularity.
        where: for the message.
        last: this is the last round; before it small layers may round down to nothing.

    Raises:
        PruningFailed: naming the target.
    """
    spaces = spaces_of(pruner)
    for row in rows:
        if not row.ranked or row.settings.get("global_group_id") is not None:
            continue
        mask = masks[row.layer][row.target]
        blocks = _blocks(mask, spaces[row.layer, row.target]._scaler)
        expected, gone = _expected(row, blocks.numel()), int((blocks == 0).sum())
        # Other members of a dependency group may make NNI round down further.
        alone = row.settings.get("dependency_group_id") is None
        if (expected and not gone) or (alone and gone < expected):
            raise PruningFailed(
                f"{where}: {row.name!r} lost {gone} of {blocks.numel()} blocks, and {expected} "
                f"were asked for ({row.asked}): did the training run long enough for the pruner to "
                "make its final masks?"
            )
    if last and not any(bool((m == 0).any()) for t in masks.values() for m in _present(t)):
        asked = ", ".join(f"{row.asked} of {row.name}" for row in rows if row.ranked)
        raise PruningFailed(
            f"{where}: nothing was pruned; asked for were {asked}. Ratios round down to whole "
            "blocks, and thresholds may lie below every score"
        )


def _expected(row: TargetRow, blocks: int) -> int:
    """Blocks that NNI takes away for a ratio; 0 where a threshold decides."""
    ratio = row.settings.get("sparse_ratio")
    if ratio is None:
        return 0
    low, high = row.settings.get("min_sparse_ratio"), row.settings.get("max_sparse_ratio")
    ratio = min(1.0 if high is None else high, max(0.0 if low is None else low, ratio))
    parts = row.settings.get("internal_metric_block") or 1
    return int(blocks // parts * ratio) * int(parts)


def _blocks(mask: torch.Tensor, scaler: Any) -> torch.Tensor:
    shrunk: torch.Tensor = mask if scaler is None else scaler.shrink(mask, keepdim=True)
    return shrunk


def _present(targets: Mapping[str, Any]) -> list[torch.Tensor]:
    return [mask for mask in targets.values() if mask is not None]
