"""What is trained, on what, for how long."""

from typing import Any

import pytest
import torch

from benchmarks import robust_networks
from benchmarks.robust_networks import Recipe, subset_rows, train_networks
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.tasks import digits
from tests.benchmarks_robust.small import TINY, images_and_labels, networks


def test_folds_share_no_digit_and_leave_none_out() -> None:
    one = subset_rows(50, Recipe(tickets=5, subsets="one fold"), seed=1)
    assert torch.cat(one).sort().values.tolist() == list(range(50))
    assert [len(rows) for rows in one] == [10] * 5
    rest = subset_rows(50, Recipe(tickets=5, subsets="all but one fold"), seed=1)
    for own, others in zip(one, rest, strict=True):
        assert sorted([*own.tolist(), *others.tolist()]) == list(range(50))
    every = subset_rows(50, Recipe(tickets=5, subsets="all digits"), seed=1)
    assert [sorted(rows.tolist()) for rows in every] == [list(range(50))] * 5
    assert subset_rows(50, TINY, seed=2)[0].tolist() != subset_rows(50, TINY, seed=1)[0].tolist()
    with pytest.raises(InvalidArgument, match="subsets must be one of"):
        subset_rows(50, Recipe(subsets="folds"), seed=1)


def test_all_train_for_as_many_batches_and_tickets_on_their_own_digits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[int] = []
    seen: list[torch.Tensor] = []

    def counted(params: Any) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(params, 0.01)
        optimizer.register_step_post_hook(lambda *arguments: steps.append(1))
        return optimizer

    def recorded(x: torch.Tensor, y: torch.Tensor, size: int, shuffle: bool) -> Any:
        seen.append(x)
        return batches(x, y, size, shuffle)

    batches = digits.TensorBatches
    monkeypatch.setattr(robust_networks.digits, "adam", counted)
    monkeypatch.setattr(robust_networks.digits, "TensorBatches", recorded)
    recipe = Recipe(tickets=3, rounds=2, steps=4, epochs=2)
    images, labels = images_and_labels(100)
    train_networks((images, labels), recipe, seed=0)
    of_tickets = 3 * (2 * 4 + 2 * 2)  # 100 digits are two batches
    assert len(steps) == 3 * of_tickets
    assert [len(x) for x in seen] == [34, 33, 33, 100, 100]
    order = torch.cat(subset_rows(100, recipe, seed=0))
    assert torch.equal(torch.cat(seen[:3]), images[order])


def test_the_surrogate_is_another_network() -> None:
    trained = networks()
    weights = [
        network.get_parameter("0.weight").detach() for network in (trained.dense, trained.surrogate)
    ]
    assert not torch.equal(*weights)
    start = digits.small_conv_net(0).get_parameter("0.weight").detach()
    nearer, further = (float((weight - start).norm()) for weight in weights)
    assert nearer < 0.5 * further  # the dense network began where the tickets did
    assert not trained.dense.training
    assert not trained.surrogate.training


def test_tickets_are_as_sparse_as_asked_and_differ() -> None:
    tickets = networks().tickets
    assert [round(tickets.density(name), 2) for name in tickets] == [0.3] * TINY.tickets
    masks = [torch.cat([m.flatten() for m in t.masks.values()]) for t in tickets.values()]
    assert not torch.equal(masks[0], masks[1])
