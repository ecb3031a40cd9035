"""Everything runs where the model lives; files are read on the CPU and go back there."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import TicketSet
from rtl_plugin.joint_training.optimizer_rules import placed
from tests.discovery.setups import (
    MLP,
    Interrupting,
    cross_entropy,
    files_of,
    found,
    named_groups,
    same_bits,
    tensors_of,
)
from tests.joint_training.setups import OPTIMIZERS, trained

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.head = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.inner(x)))) + torch.rand((), device=x.device)


def network(device: str) -> nn.Module:
    torch.manual_seed(0)
    return Normed().to(device)


def run(folder: Path, device: str, loss: Any, optimizer: Any) -> nn.Module:
    model, groups = network(device), named_groups(MLP)
    found(model, groups, loss, run_folder=folder, rewind_to=2)
    tickets = TicketSet.load(folder / "discover" / "tickets.safetensors")  # on the CPU
    trained(model, tickets, groups, loss, run_folder=folder, epochs=3, optimizer=optimizer,
            private_parameters=["norm.*"])  # fmt: skip
    for ticket in tickets.values():
        assert {value.device.type for value in ticket.state.values()} == {device}
    return model


@pytest.mark.parametrize("optimizer", ["SGD momentum", "AdamW", "AdamW foreach", "AdamW fused"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_run_and_its_resume(device: str, optimizer: str, tmp_path: Path) -> None:
    factory = OPTIMIZERS[optimizer]
    model = run(tmp_path / "whole", device, Interrupting(), factory)
    assert next(model.parameters()).device.type == device
    for at in (1, 7, 11, 16, 20):  # rewinding, both rounds, the second and third epoch
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / f"cut-{at}", device, Interrupting(at), factory)
        resumed = run(tmp_path / f"cut-{at}", device, Interrupting(), factory)
        assert same_bits(tensors_of(resumed), tensors_of(model))
        assert files_of(tmp_path / f"cut-{at}") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("device", DEVICES)
def test_discovered_tickets_lie_with_the_model(device: str) -> None:
    model = network(device)
    before = tensors_of(model)
    tickets = found(model, named_groups(MLP), importance="random")
    assert same_bits(tensors_of(model), before)
    for ticket in tickets.values():
        tensors = [*ticket.masks.values(), *ticket.state.values()]
        assert {tensor.device.type for tensor in tensors} == {device}


@pytest.mark.parametrize("device", DEVICES)
def test_the_devices_random_state_is_restored(device: str) -> None:
    model = network(device)
    torch.rand(3, device=device)
    expected = torch.get_rng_state() if device == "cpu" else torch.cuda.get_rng_state()
    found(model, named_groups(MLP), cross_entropy)
    trained(model, found(model, named_groups(MLP)), named_groups(MLP), cross_entropy)
    after = torch.get_rng_state() if device == "cpu" else torch.cuda.get_rng_state()
    assert torch.equal(after, expected)


def test_loaded_state_goes_where_the_state_was_that_it_replaces() -> None:
    here, elsewhere = torch.zeros(2), torch.zeros(2, device="meta")
    assert placed(here, elsewhere).device.type == "meta"
    assert placed(here, None) is here
    assert placed(3, elsewhere) == 3
