"""State goes into a model in place, and only a model on one real device is accepted."""

import pytest
import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.structure import device_of, install_state, persistent_buffers
from tests.models import conv_net, mlp


class Buffered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("saved", torch.zeros(1))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)
        self.register_buffer("absent", None)


def test_state_is_installed_in_place() -> None:
    model = conv_net()
    mean, bias = model[1].running_mean, model[8].bias
    state = {
        "1.running_mean": torch.full((4,), 2.0),
        "1.num_batches_tracked": torch.tensor(7),
        "8.bias": torch.full((3,), 5.0),
    }
    install_state(model, state)
    for value in state.values():
        value.zero_()  # the model has a copy
    assert model[1].running_mean is mean
    assert model[8].bias is bias
    torch.testing.assert_close(mean, torch.full((4,), 2.0))
    torch.testing.assert_close(model[1].num_batches_tracked, torch.tensor(7))
    torch.testing.assert_close(bias.detach(), torch.full((3,), 5.0))
    assert bias.requires_grad


def test_a_ticket_owns_what_the_state_dict_holds() -> None:
    model = Buffered()
    assert list(persistent_buffers(model)) == [
        "saved",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    ]
    assert persistent_buffers(model)["saved"] is model.saved
    assert persistent_buffers(mlp()) == {}


def test_one_device_is_found() -> None:
    assert device_of(conv_net()) == torch.device("cpu")


def test_several_devices_none_and_meta_are_refused() -> None:
    mixed = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1, device="meta"))
    with pytest.raises(InvalidArgument, match=r"Sequential lies on cpu, meta: move it with"):
        device_of(mixed)
    with pytest.raises(InvalidArgument, match=r"ReLU lies on none \(it has no tensors\)"):
        device_of(nn.ReLU())
    with pytest.raises(InvalidArgument, match="meta device and has no values: build it on a real"):
        device_of(nn.Linear(1, 1, device="meta"))
