"""Own state, random streams, a model left as it was, and what is refused."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rtl_plugin import DataGroups
from rtl_plugin.diagnostics.interference import interference
from rtl_plugin.errors import (
    InvalidArgument,
    InvalidGroups,
    InvalidLoss,
    MaskBypassed,
    StructureMismatch,
    TrainingDiverged,
)
from tests.diagnostics.interference_cases import (
    Batches,
    Scaled,
    assert_same,
    everything,
    scaled_case,
    summed,
)


def test_every_ticket_runs_with_its_own_state_and_keeps_it() -> None:
    model, tickets, groups = scaled_case(scale=torch.tensor(-2.0), calls=torch.tensor(7))
    found = interference(model, tickets, groups, summed)
    assert found.dense is not None
    # The bias's gradients are scale * rows.
    assert found.dense.norm.tolist() == [8.0, 4.0]
    assert found.dense.cosine[0, 1] == -1.0
    assert tickets["b"].state == {"scale": -2.0, "calls": 7}
    assert "calls" not in tickets["a"].state


def test_private_parameters_are_used_and_are_nobody_elses() -> None:
    model, tickets, groups = scaled_case(**{"fc.bias": torch.tensor([100.0])})
    found = interference(model, tickets, groups, summed)
    assert found.dense is None
    assert found.losses["b"] > 100
    assert found.losses["a"] < 100
    np.testing.assert_array_equal(found.together.effect, found.masked.effect)


def failing(model: Any, batch: torch.Tensor) -> torch.Tensor:
    np.random.rand()
    random.random()
    if batch.shape[0] == 2:
        raise RuntimeError("the second group fails")
    return summed(model, batch)


@pytest.mark.parametrize("loss", [summed, failing], ids=["ends", "raises"])
def test_the_model_is_left_as_it_was(loss: Callable[..., torch.Tensor]) -> None:
    model, tickets, groups = scaled_case()
    model.fc.weight.grad = torch.ones(1, 2)
    model.eval()
    model.drop.train()
    before = everything(model)
    if loss is failing:
        with pytest.raises(RuntimeError, match="second group"):
            interference(model, tickets, groups, loss)
    else:
        interference(model, tickets, groups, loss)
    assert_same(before, everything(model))


def test_the_seed_decides_what_is_drawn() -> None:
    model, tickets, groups = scaled_case()
    first, again, other = (
        interference(model, tickets, groups, summed, seed=seed).masked.effect for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_loaders_with_generators_of_their_own_are_put_back() -> None:
    model, tickets, _ = scaled_case()
    generator = torch.Generator().manual_seed(11)
    loader = torch.utils.data.DataLoader(
        torch.randn(6, 2), batch_size=2, shuffle=True, generator=generator
    )
    before = generator.get_state()
    groups = DataGroups.from_loaders({"a": loader, "b": [torch.ones(1, 2)]})
    found = interference(model, tickets, groups, summed, batches=2)
    assert torch.equal(before, generator.get_state())
    assert found.batches == {"a": 2, "b": 1}


def test_another_split() -> None:
    model, tickets, _ = scaled_case()
    batches: Batches = {"a": [torch.ones(1, 2)], "b": [torch.ones(1, 2)]}
    groups = DataGroups.from_loaders(batches, validation={**batches, "b": [torch.ones(5, 2)]})
    found = interference(model, tickets, groups, summed, split="validation")
    assert found.dense is not None
    assert found.dense.norm.tolist() == [1.0, 5.0]
    assert found.split == "validation"
    with pytest.raises(InvalidGroups, match="'a' has no test batches"):
        interference(model, tickets, groups, summed, split="test")


class Nothing:
    """Batches that nobody can count beforehand, and that are none."""

    def __iter__(self) -> Any:
        return iter(())


def test_a_group_without_batches_is_refused() -> None:
    model, tickets, _ = scaled_case()
    groups = DataGroups.from_loaders({"a": [torch.ones(1, 2)], "b": Nothing()})
    with pytest.raises(InvalidGroups, match="group 'b' has no batch in its train split"):
        interference(model, tickets, groups, summed)


def around(model: Scaled) -> Callable[..., torch.Tensor]:
    return lambda view, batch: (batch @ model.fc.weight.T).sum() + view(batch).sum()


def test_bad_losses_are_refused() -> None:
    model, tickets, groups = scaled_case()
    with pytest.raises(InvalidLoss, match="interference, group 'a'"):
        interference(model, tickets, groups, lambda model, batch: model(batch))
    with pytest.raises(InvalidLoss, match=r"fc\.weight"):
        interference(model, tickets, groups, lambda model, batch: model.fc.bias.sum())
    with pytest.raises(MaskBypassed, match="model's own"):
        interference(model, tickets, groups, around(model))
    with pytest.raises(TrainingDiverged, match="loss is nan"):
        interference(model, tickets, groups, lambda model, batch: summed(model, batch) * math.nan)
    with pytest.raises(TrainingDiverged, match=r"gradient for 'fc\.bias' is not"):
        interference(
            model,
            tickets,
            groups,
            lambda model, batch: summed(model, batch) + (model.fc.bias * 0).sqrt().sum(),
        )


def test_a_loss_that_writes_to_the_model_is_refused_and_undone() -> None:
    model, tickets, groups = scaled_case()
    before = everything(model)

    def loss(view: Any, batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            model.fc.weight += 1
        return summed(view, batch)

    with pytest.raises(MaskBypassed, match="wrote to the model's own"):
        interference(model, tickets, groups, loss)
    assert_same(before, everything(model))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": 0}, "batches must be a whole number of at least 1"),
        ({"seed": -1}, "seed must be"),
        ({"split": "dev"}, "split must be one of"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    model, tickets, groups = scaled_case()
    with pytest.raises(InvalidArgument, match=message):
        interference(model, tickets, groups, summed, **arguments)


def test_what_does_not_fit_is_refused() -> None:
    model, tickets, groups = scaled_case()
    with pytest.raises(InvalidArgument, match="in this order"):
        interference(model, groups, tickets, summed)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="loss must be callable"):
        interference(model, tickets, groups, None)  # type: ignore[arg-type]
    with pytest.raises(InvalidGroups, match="tickets a, b; groups a"):
        interference(model, tickets, groups.only("a"), summed)
    with pytest.raises(StructureMismatch):
        interference(nn.Linear(2, 2), tickets, groups, summed)
    model.fc.weight.requires_grad_(False)
    with pytest.raises(InvalidArgument, match=r"unfreeze fc\.weight"):
        interference(model, tickets, groups, summed)
