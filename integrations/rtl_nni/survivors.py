"""What one round removed stays removed: the next ranks survivors only."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rtl_nni.host_types import FPGMPruner
from rtl_nni.pruner_parts import parts_of
from rtl_plugin.integration_api import PruningFailed

Masks = Mapping[str, Mapping[str, Any]]


def start_from(pruner: Any, masks: Masks) -> None:
    """Train and rank a fresh pruner under the masks of the round before.

    What is masked already scores below everything, so the pruner's own rule (ratio, threshold,
    global or dependency group) removes it first, and no mask that the pruner makes on its way can
    bring it back.

    Args:
        pruner: fresh and wrapped.
        masks: of the round before.
    """
    pruner.update_masks(masks)
    for part in parts_of(pruner):
        # On this object only, which lives for one round; classes of the host stay as they are.
        part._calculate_metrics = _removed_last(part, part._calculate_metrics, masks)
        part._generate_sparsity = _within(part._generate_sparsity, masks)


def _removed_last(
    part: Any, calculate: Callable[[Any], dict[str, dict[str, torch.Tensor]]], masks: Masks
) -> Callable[[Any], dict[str, dict[str, torch.Tensor]]]:
    def metrics_of_survivors(data: Any) -> dict[str, dict[str, torch.Tensor]]:
        metrics = calculate(data)
        if isinstance(part, FPGMPruner):
            metrics = _distances_among_survivors(part, calculate, data, metrics, masks)
        for module, targets in metrics.items():
            for target, metric in targets.items():
                gone = ~_surviving_blocks(part, module, target, masks).to(metric.device)
                gone = gone.reshape(metric.shape)
                targets[target] = metric.masked_fill(gone, -torch.inf)
        return metrics

    return metrics_of_survivors


def _surviving_blocks(part: Any, module: str, target: str, masks: Masks) -> torch.Tensor:
    mask: torch.Tensor = masks[module][target].float()
    scaler = part._target_spaces[module][target]._scaler
    return (mask if scaler is None else scaler.shrink(mask, keepdim=True)) != 0


def _distances_among_survivors(
    part: Any,
    calculate: Callable[[Any], dict[str, dict[str, torch.Tensor]]],
    data: Any,
    metrics: dict[str, dict[str, torch.Tensor]],
    masks: Masks,
) -> dict[str, dict[str, torch.Tensor]]:
    """A geometric median is one of what is left: removed channels are no neighbours."""
    for module, targets in metrics.items():
        for target, metric in targets.items():
            if part._target_spaces[module][target].granularity != "out_channel":
                continue
            kept = _surviving_blocks(part, module, target, masks).flatten().to(metric.device)
            left = calculate({module: {target: data[module][target][kept]}})[module][target]
            targets[target] = metric.clone()
            targets[target][kept] = left
    return metrics


def _within(
    generate: Callable[[Any], dict[str, dict[str, torch.Tensor]]], masks: Masks
) -> Callable[[Any], dict[str, dict[str, torch.Tensor]]]:
    def masks_of_survivors(metrics: Any) -> dict[str, dict[str, torch.Tensor]]:
        made = generate(metrics)
        for module, targets in made.items():
            for target, mask in targets.items():
                before = masks[module][target]
                if before is not None:
                    targets[target] = mask * before.to(mask)
        return made

    return masks_of_survivors


def check_nested(masks: Masks, before: Masks, where: object) -> None:
    """Refuse masks that keep what the round before removed.

    Args:
        masks: of this round.
        before: of the round before.
        where: for the message.

    Raises:
        PruningFailed: naming the target.
    """
    for module, targets in masks.items():
        for target, mask in targets.items():
            earlier = before[module][target]
            if mask is not None and bool((mask.bool() & ~earlier.bool()).any()):
                raise PruningFailed(
                    f"{where}: {module}.{target} regained weights that the round before removed: "
                    "does the pruner set masks around _generate_sparsity?"
                )
