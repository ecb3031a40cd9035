"""What is attacked: tickets that all solve the same ten-way task, a dense network, a surrogate."""

from dataclasses import dataclass

import torch
from torch import nn

import rtl_plugin as rtl
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.tasks import digits

BATCH = 64
SURROGATE = 1000  # added to a seed: other initial weights and another order of the batches
Labelled = tuple[torch.Tensor, torch.Tensor]
SUBSETS = ("all digits", "all but one fold", "one fold")


@dataclass(frozen=True)
class Recipe:
    """How the tickets are found and trained.

    Args:
        tickets: K.
        sparsity: of every ticket.
        subsets: one of ``SUBSETS``: every ticket sees all training digits (in another order), all
            but its own random fold, or its own fold alone; there are as many folds as tickets.
        rounds: of pruning.
        steps: a round.
        epochs: of joint retraining, each of as many batches a ticket as all digits make.
    """

    tickets: int = 5
    sparsity: float = 0.7
    subsets: str = "one fold"
    rounds: int = 3
    steps: int = 50
    epochs: int = 3


@dataclass(frozen=True)
class Networks:
    """Everything that one seed trains.

    Args:
        model: the shared network after joint retraining.
        tickets: its K tickets.
        dense: a network of the same initial weights and number of batches, unpruned.
        surrogate: like ``dense`` from other initial weights: what an attacker trains at home.
    """

    model: nn.Module
    tickets: rtl.TicketSet
    dense: nn.Module
    surrogate: nn.Module


def digits_of(split: str) -> Labelled:
    """Images and labels of one split of the 5,000 digits.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``.

    Returns:
        float32 [N, 1, 28, 28] in [0, 1], and int64 [N].
    """
    images, labels = digits.load_digits()
    rows = digits.split_digits(labels)[split]
    return images[rows], labels[rows]


def subset_rows(size: int, recipe: Recipe, seed: int) -> list[torch.Tensor]:
    """Which training digits each ticket sees.

    Args:
        size: number of training digits.
        recipe: K and the kind of subsets.
        seed: of the random folds.

    Returns:
        K tensors of indices.

    Raises:
        InvalidArgument: there is no such kind.
    """
    if recipe.subsets not in SUBSETS:
        raise InvalidArgument(f"subsets must be one of {SUBSETS}, got {recipe.subsets!r}")
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    folds = order.tensor_split(recipe.tickets)
    if recipe.subsets == "one fold":
        return list(folds)
    if recipe.subsets == "all digits":
        return [order] * recipe.tickets
    return [
        torch.cat([fold for other, fold in enumerate(folds) if other != own])
        for own in range(recipe.tickets)
    ]


def train_networks(train: Labelled, recipe: Recipe, seed: int) -> Networks:
    """Train everything of one seed.

    Args:
        train: images and labels.
        recipe: how.
        seed: of every random stream.

    Returns:
        The trained networks, plain ones in eval mode.
    """
    model, tickets = trained_tickets(train, recipe, seed)
    return Networks(
        model,
        tickets,
        _trained_dense(train, recipe, seed),
        _trained_dense(train, recipe, SURROGATE + seed),
    )


def trained_tickets(train: Labelled, recipe: Recipe, seed: int) -> tuple[nn.Module, rtl.TicketSet]:
    """K tickets of one network, found and retrained by ``rtl.discover`` and ``rtl.retrain``.

    Args:
        train: images and labels.
        recipe: how.
        seed: of every random stream.

    Returns:
        The shared network and its tickets.
    """
    images, labels = train
    loaders = {
        f"ticket {number}": digits.TensorBatches(images[rows], labels[rows], BATCH, shuffle=True)
        for number, rows in enumerate(subset_rows(len(labels), recipe, seed))
    }
    groups = rtl.DataGroups.from_loaders(loaders)
    model = digits.small_conv_net(seed)
    tickets = rtl.discover(
        model,
        groups,
        digits.cross_entropy,
        schedule=rtl.GeometricSchedule(recipe.sparsity, rounds=recipe.rounds),
        steps=recipe.steps,
        optimizer=digits.adam,
        seed=seed,
        progress=False,
    )
    rtl.retrain(
        model,
        tickets,
        groups,
        digits.cross_entropy,
        epochs=recipe.epochs,
        optimizer=digits.adam,
        batches_per_epoch=_batches(labels),
        seed=seed,
        progress=False,
    )
    return model, tickets


def _trained_dense(train: Labelled, recipe: Recipe, seed: int) -> nn.Module:
    """An unpruned network, trained on as many batches as all tickets together."""
    images, labels = train
    model = digits.small_conv_net(seed)
    whole = {
        name: torch.ones_like(parameter, dtype=torch.bool)
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1
    }
    tickets = rtl.TicketSet([rtl.Ticket("all", whole)])
    discovery = recipe.tickets * recipe.rounds * recipe.steps
    rtl.retrain(
        model,
        tickets,
        rtl.DataGroups.from_loaders(
            {"all": digits.TensorBatches(images, labels, BATCH, shuffle=True)}
        ),
        digits.cross_entropy,
        epochs=1,
        optimizer=digits.adam,
        batches_per_epoch=discovery + recipe.tickets * recipe.epochs * _batches(labels),
        seed=seed,
        progress=False,
    )
    return rtl.MixtureOfMasks(model, tickets).export("all")


def _batches(labels: torch.Tensor) -> int:
    return -(-len(labels) // BATCH)
