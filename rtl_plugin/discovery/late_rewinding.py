"""Dense training before the rewind point, common to all tickets."""

import dataclasses

import torch

from rtl_plugin.data_groups.cycling import cycled
from rtl_plugin.discovery.plan import DiscoveryPlan
from rtl_plugin.discovery.rewinding import RewindPoint
from rtl_plugin.fingerprint import values_fingerprint
from rtl_plugin.masked_forward import MaskedModel, TensorSlots, masked_backward
from rtl_plugin.nested import to_device
from rtl_plugin.optimizers import build_optimizer
from rtl_plugin.progress import Progress
from rtl_plugin.randomness import derived_seed, forked
from rtl_plugin.training_step import (
    LossLog,
    Where,
    check_finite,
    check_gradients,
    check_model_unused,
    checked_loss,
)


def train_to_rewind_point(
    plan: DiscoveryPlan, start: RewindPoint, progress: Progress
) -> RewindPoint:
    """Train the dense network on the groups' batches in turn and take the rewind point there.

    Args:
        plan: the checked discovery; ``rewind_to`` is the number of steps.
        start: the initialisation.
        progress: shows the steps.

    Returns:
        The rewind point after ``rewind_to`` steps.

    Raises:
        TrainingDiverged: a loss is NaN or infinite.
        InvalidLoss: the loss cannot be trained on.

    Source:
        Frankle et al., Linear Mode Connectivity and the Lottery Ticket Hypothesis,
        arXiv 1912.05671 (late rewinding).
    """
    with forked(derived_seed(plan.seed, "rewind", plan.rewind_to)):
        leaves, buffers = start.leaves(), start.own_buffers()
        trainable = [leaf for leaf in leaves.values() if leaf.requires_grad]
        required = {name: leaves[name] for name in plan.masked}
        optimizer, scheduler = build_optimizer(plan.optimizer, trainable, required)
        view = MaskedModel(plan.model, TensorSlots(plan.model), leaves, buffers)
        batches = {
            name: cycled(group.train, derived_seed(plan.seed, "rewind", name))
            for name, group in plan.groups.items()
        }
        names = list(batches)
        # Round 0: all of it lies before round 1.
        wheres = {name: Where("late rewinding", name, "round", 0) for name in names}
        logs = {name: LossLog(where) for name, where in wheres.items()}
        everything = {n: torch.ones_like(leaf, dtype=torch.bool) for n, leaf in required.items()}
        for step in progress.track(range(plan.rewind_to), "late rewinding"):
            name = names[step % len(names)]
            batch = to_device(next(batches[name]), plan.device)
            loss = checked_loss(plan.loss, view, batch, wheres[name])
            logs[name].record(loss)
            masked_backward(view, loss)
            if step < len(names):
                check_model_unused(plan.model, wheres[name])
                check_gradients(leaves, everything, wheres[name])
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            optimizer.zero_grad(set_to_none=True)
        for log in logs.values():
            log.mean()
        check_finite(
            {n: leaf for n, leaf in leaves.items() if leaf.requires_grad}, "late rewinding"
        )
    return _point(start, leaves, buffers, plan.rewind_to)


def _point(
    start: RewindPoint,
    leaves: dict[str, torch.Tensor],
    buffers: dict[str, torch.Tensor],
    step: int,
) -> RewindPoint:
    parameters = {name: leaf.detach() for name, leaf in leaves.items()}
    return dataclasses.replace(
        start,
        parameters=parameters,
        buffers=buffers,
        fingerprint=values_fingerprint(parameters),
        step=step,
    )


def restored_rewind_point(
    start: RewindPoint, state: dict[str, torch.Tensor], step: int
) -> RewindPoint:
    """A late rewind point read back from a run folder.

    Args:
        start: the initialisation, for names and devices.
        state: parameters and buffers by name.
        step: its step.

    Returns:
        The rewind point.
    """
    parameters = {name: state[name].to(value.device) for name, value in start.parameters.items()}
    buffers = {name: state[name].to(value.device) for name, value in start.buffers.items()}
    return _point(start, parameters, buffers, step)
