"""Two steps of training on copies: what loss and optimizer do, where their code does not tell."""

import torch

from rtl_plugin.data_groups.cycling import cycled
from rtl_plugin.discovery.plan import DiscoveryPlan
from rtl_plugin.discovery.rewinding import RewindPoint
from rtl_plugin.fingerprint import values_fingerprint
from rtl_plugin.masked_forward import MaskedModel, TensorSlots, mask_parameters, masked_backward
from rtl_plugin.nested import to_device
from rtl_plugin.optimizers import build_optimizer
from rtl_plugin.randomness import derived_seed, forked
from rtl_plugin.training_step import Where, checked_loss

STEPS = 2


def rehearsed_training(plan: DiscoveryPlan, start: RewindPoint) -> dict[str, str]:
    """Train the first group as round 1 begins, from the initialisation.

    Args:
        plan: the checked discovery.
        start: the model as it is given; neither it nor the model is written to.

    Returns:
        JSON-able: the losses, digests of the weights and of the buffers after the last step.

    Raises:
        InvalidLoss: the loss cannot be trained on.
    """
    group = next(iter(plan.groups))
    where = Where("warm start", group, "round", 0)
    with forked(derived_seed(plan.seed, "discover", 1, group)):
        leaves, buffers = start.leaves(), start.own_buffers()
        trainable = [leaf for leaf in leaves.values() if leaf.requires_grad]
        required = {name: leaves[name] for name in plan.masked}
        optimizer, scheduler = build_optimizer(plan.optimizer, trainable, required)
        masks = {n: torch.ones_like(leaf, dtype=torch.bool) for n, leaf in required.items()}
        slots, losses = TensorSlots(plan.model), []
        batches = cycled(plan.groups[group].train, derived_seed(plan.seed, "loader", 1, group))
        for _ in range(min(STEPS, plan.steps[group])):
            batch = to_device(next(batches), plan.device)
            masked = mask_parameters(leaves, masks)
            view = MaskedModel(plan.model, slots, masked, buffers)
            loss = checked_loss(plan.loss, view, batch, where)
            masked_backward(view, loss)
            losses.append(float(loss.detach()).hex())
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            optimizer.zero_grad(set_to_none=True)
        weights = {name: leaf.detach() for name, leaf in leaves.items()}
    return {
        "losses": " ".join(losses),
        "weights": values_fingerprint(weights),
        "buffers": values_fingerprint(buffers),
    }
