"""A network that shows whose state it ran with, and what must be left as it was."""

import random
from typing import Any

import numpy as np
import torch
from torch import nn

from rtl_plugin import DataGroups, Ticket, TicketSet
from rtl_plugin.fingerprint import bit_equal

Batches = dict[str, list[Any]]


def summed(model: Any, batch: torch.Tensor) -> torch.Tensor:
    """Its gradient at a linear layer's weight is the sum of the batch's rows."""
    return model(batch).sum()


class Scaled(nn.Module):
    """Multiplies by a buffer, so that the gradient shows whose buffer it was; draws and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 1)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.scale * self.fc(self.drop(x)) + 0 * torch.rand(1)


def scaled_case(**state: torch.Tensor) -> tuple[Scaled, TicketSet, DataGroups]:
    model = Scaled()
    mask = {"fc.weight": torch.tensor([[True, True]])}
    tickets = TicketSet([Ticket("a", mask), Ticket("b", mask, state)])
    batches = {"a": [torch.ones(8, 2)] * 3, "b": [1 - torch.eye(2)] * 3}
    return model, tickets, DataGroups.from_loaders(batches)


def everything(model: nn.Module) -> dict[str, Any]:
    return {
        "tensors": [t.detach().clone() for t in (*model.parameters(), *model.buffers())],
        "gradients": [p.grad for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "random": (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert all(map(bit_equal, before["tensors"], after["tensors"]))
    assert all(a is b for a, b in zip(before["gradients"], after["gradients"], strict=True))
    assert before["modes"] == after["modes"]
    assert torch.equal(before["random"][0], after["random"][0])
    assert before["random"][1:] == after["random"][1:]
