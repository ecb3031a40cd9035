"""FGSM and PGD in the maximum norm, and what an attacker of a random ensemble would maximise.

Sources: Goodfellow et al., arXiv 1412.6572 (FGSM); Madry et al., arXiv 1706.06083 (PGD); Athalye et
al., arXiv 1802.00420 (expectation over a defence's random draws).
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch

from rtl_plugin.arguments import whole_number
from rtl_plugin.errors import InvalidArgument

Scores = Callable[[torch.Tensor], torch.Tensor]
# What an attacker maximises: (images, labels) -> a scalar, summed over the images.
Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
STEP = 2.5  # PGD walks up to 2.5 times eps in all, so it can cross the box and still turn


def cross_entropy_of(scores: Scores) -> Objective:
    """The attacker's objective against one network: the sum of cross-entropies.

    Args:
        scores: images [B, ...] -> [B, C], with gradients to the images.

    Returns:
        ``(images, labels [B]) -> scalar``.
    """

    def objective(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(scores(images), labels, reduction="sum")

    return objective


def expectation_over_draws(members: Sequence[Scores], n: int) -> Objective:
    """The objective against a random draw of n members, averaged: its exact expectation.

    With few members all draws can be listed, so the attacker need not sample any: no number of
    sampled draws would give a better gradient. n = len(members) is the deterministic ensemble.

    Args:
        members: networks, each images [B, ...] -> [B, C].
        n: members a draw, all different, in 1..len(members).

    Returns:
        ``(images, labels [B]) -> scalar``.

    Raises:
        InvalidArgument: n is out of range.
    """
    if whole_number("n", n, least=1) > len(members):
        raise InvalidArgument(f"n = {n} different members a draw, there are {len(members)}")
    draws = torch.tensor(list(itertools.combinations(range(len(members)), n)))

    def objective(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        each = torch.stack([scores(images) for scores in members])
        drawn = each[draws].mean(dim=1)  # [draws, B, C]
        losses = torch.nn.functional.cross_entropy(
            drawn.flatten(0, 1), labels.repeat(len(draws)), reduction="sum"
        )
        return losses / len(draws)

    return objective


def fgsm(
    objective: Objective, images: torch.Tensor, labels: torch.Tensor, eps: float
) -> torch.Tensor:
    """One step of eps along the sign of the gradient.

    Args:
        objective: what to maximise.
        images: float [B, ...] in [0, 1].
        labels: int64 [B].
        eps: the largest change of a pixel, in units of [0, 1]; 0 changes nothing.

    Returns:
        Images of the same shape, in [0, 1], at most eps away in every pixel.

    Raises:
        InvalidArgument: images outside [0, 1], or eps negative or not finite.
    """
    _check(images, eps)
    return projected(images + eps * _direction(objective, images, labels), images, eps)


def pgd(
    objective: Objective,
    images: torch.Tensor,
    labels: torch.Tensor,
    eps: float,
    *,
    steps: int = 10,
    seed: int = 0,
) -> torch.Tensor:
    """Steps of 2.5 eps / steps along the sign of the gradient, from a random start in the box.

    Args:
        objective: what to maximise.
        images: float [B, ...] in [0, 1].
        labels: int64 [B].
        eps: the largest change of a pixel, in units of [0, 1]; 0 changes nothing.
        steps: gradients taken.
        seed: of the random start.

    Returns:
        Images of the same shape, in [0, 1], at most eps away in every pixel.

    Raises:
        InvalidArgument: images outside [0, 1], eps negative or not finite, steps below 1.
    """
    _check(images, eps)
    whole_number("steps", steps, least=1)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(images.shape, generator=generator, dtype=images.dtype) * 2 - 1
    reached = projected(images + eps * noise, images, eps)
    for _ in range(steps):
        direction = _direction(objective, reached, labels)
        reached = projected(reached + STEP * eps / steps * direction, images, eps)
    return reached


def projected(candidate: torch.Tensor, images: torch.Tensor, eps: float) -> torch.Tensor:
    """The nearest point that is in [0, 1] and at most eps from the images in every pixel.

    Args:
        candidate: float [B, ...].
        images: the same shape, in [0, 1].
        eps: the radius, at least 0.

    Returns:
        A tensor of the same shape.
    """
    return candidate.clamp((images - eps).clamp(min=0), (images + eps).clamp(max=1))


def _direction(objective: Objective, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The sign of the objective's gradient to the images."""
    images = images.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(images, labels), images)
    if not gradient.isfinite().all():
        raise InvalidArgument(
            "the objective's gradient to the images is not finite: attack a network that is "
            "trained and whose scores are finite"
        )
    return gradient.sign()


def _check(images: torch.Tensor, eps: float) -> None:
    if not (math.isfinite(eps) and eps >= 0):
        raise InvalidArgument(f"eps must be a finite number of at least 0, got {eps}")
    if not (images.is_floating_point() and (images >= 0).all() and (images <= 1).all()):
        raise InvalidArgument(
            f"images must be floats in [0, 1], got {images.dtype} from {images.min().item()} to "
            f"{images.max().item()}: scale them, eps is in these units"
        )
