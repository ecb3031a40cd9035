"""Outputs over all batches, and the accuracy that is counted from them."""

import pytest
import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.masked_forward import MaskedModel, TensorSlots, mask_parameters
from rtl_plugin.tasks.digits import accuracy
from rtl_plugin.tasks.predictions import outputs_and_targets


class Same(nn.Module):
    """Gives back what it gets, and has a device."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


def test_all_batches_in_order_without_gradients() -> None:
    first = (torch.tensor([[1.0], [2.0]]), torch.tensor([3, 4]))
    batches = [first, (torch.tensor([[5.0]]), torch.tensor([6]))]
    model, recording = Same(), []
    model.register_forward_hook(lambda *_: recording.append(torch.is_grad_enabled()))
    outputs, targets = outputs_and_targets(model, batches)
    assert recording == [False, False]
    assert outputs.tolist() == [[1.0], [2.0], [5.0]]
    assert outputs.dtype == torch.float64
    assert targets.tolist() == [3, 4, 6]
    assert targets.dtype == torch.int64


def test_a_masked_view_runs_under_its_ticket() -> None:
    model = nn.Linear(2, 2, bias=False)
    nn.init.eye_(model.weight)
    batch = (torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([1, 0]))
    assert accuracy(model, [batch]) == 0.5
    masks = {"weight": torch.tensor([[True, True], [False, False]])}
    masked = mask_parameters(dict(model.named_parameters()), masks)
    view = MaskedModel(model, TensorSlots(model), masked, {})
    outputs, _ = outputs_and_targets(view, [batch])
    assert outputs.tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert accuracy(view, [(batch[0], torch.tensor([0, 0]))]) == 1.0


@pytest.mark.gpu
def test_batches_come_to_the_model_and_results_go_back() -> None:
    outputs, targets = outputs_and_targets(Same().cuda(), [(torch.ones(2, 1), torch.ones(2))])
    assert outputs.device.type == targets.device.type == "cpu"


def test_no_batches() -> None:
    with pytest.raises(InvalidArgument, match="batches: expected at least one batch, got none"):
        outputs_and_targets(Same(), [])


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(2),
        (torch.zeros(2),),
        (torch.zeros(2), [0, 1]),
        (torch.zeros(2), torch.zeros(())),
    ],
)
def test_a_batch_that_is_no_pair(bad: object) -> None:
    good = (torch.zeros(2, 1), torch.zeros(2))
    with pytest.raises(InvalidArgument, match=r"batch 1: expected a pair \(x, y\) with a tensor y"):
        outputs_and_targets(Same(), [good, bad])


def test_rows_that_do_not_fit() -> None:
    with pytest.raises(InvalidArgument, match=r"output tensor of 3 rows, .*got \(2, 1\)"):
        outputs_and_targets(Same(), [(torch.zeros(2, 1), torch.zeros(3))])


def test_an_output_that_is_no_tensor() -> None:
    class Pair(Same):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:  # type: ignore[override]
            return (x,)

    with pytest.raises(InvalidArgument, match="output tensor of 2 rows, one a target, got tuple"):
        outputs_and_targets(Pair(), [(torch.zeros(2, 1), torch.zeros(2))])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_outputs_of_a_network_that_diverged(bad: float) -> None:
    x = torch.tensor([[0.0], [bad]])
    with pytest.raises(InvalidArgument, match="batch 0: expected finite outputs, got 1 that are"):
        outputs_and_targets(Same(), [(x, torch.zeros(2))])


def test_accuracy_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 1.0], [2.0, 2.0, 0.0], [0.0, 5.0, 1.0]])
    labels = torch.tensor([0, 1, 0, 1])  # right, wrong, right (equal logits: the lowest), right
    assert accuracy(Same(), [(logits, labels)]) == 0.75
    # Over samples, not over batches: a last batch of one must not weigh as much as one of three.
    assert accuracy(Same(), list(zip(logits.split(3), labels.split(3), strict=True))) == 0.75


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (torch.zeros(2), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 3), torch.zeros(2)),
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64)),
        (torch.zeros(2, 3), torch.tensor([0, 3])),
        (torch.zeros(2, 3), torch.tensor([0, -1])),
    ],
)
def test_accuracy_of_what_is_no_classification(logits: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(InvalidArgument, match=r"expected logits \[B, C\] and integer labels \[B\]"):
        accuracy(Same(), [(logits, labels)])
