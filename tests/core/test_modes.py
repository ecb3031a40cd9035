"""A user's training flags and gradients are put back, also after an exception."""

import pytest
import torch
from torch import nn

from rtl_plugin.modes import set_aside_gradients, train_mode
from tests.models import conv_net


def flags(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_every_module_s_own_flag_is_restored() -> None:
    model = conv_net().train()
    model[1].eval()
    model[4].eval()
    before = flags(model)
    assert sorted(set(before)) == [False, True]
    with train_mode(model):
        assert flags(model) == [True] * len(before)
    assert flags(model) == before


def test_flags_are_restored_after_an_exception() -> None:
    model = conv_net().eval()
    with pytest.raises(RuntimeError, match="stop"), train_mode(model):
        raise RuntimeError("stop")
    assert flags(model) == [False] * len(flags(model))


class FrozenNorm(nn.Module):
    """Keeps its norm in eval mode, as fine-tuning code does."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.calls: list[bool] = []

    def train(self, mode: bool = True) -> "FrozenNorm":
        self.calls.append(mode)
        super().train(mode)
        self.norm.eval()
        return self


def test_a_model_that_overrides_train_is_asked_and_restored() -> None:
    model = FrozenNorm()
    model.training = False
    with train_mode(model):
        assert flags(model) == [True, False]
    assert flags(model) == [False, True]
    assert model.calls == [True]  # flags are put back one by one, not by more calls


class Failing(nn.Module):
    def train(self, mode: bool = True) -> "Failing":
        super().train(mode)
        raise RuntimeError("half way")


def test_flags_are_restored_when_train_itself_fails() -> None:
    model = Failing()
    model.training = False
    with pytest.raises(RuntimeError, match="half way"), train_mode(model):
        pass
    assert model.training is False


def test_gradients_are_set_aside_and_put_back() -> None:
    model = nn.Linear(2, 1)
    own = torch.full((1, 2), 7.0)
    model.weight.grad = own
    with set_aside_gradients(model):
        assert model.weight.grad is None
        model(torch.ones(1, 2)).sum().backward()
        torch.testing.assert_close(model.weight.grad, torch.ones(1, 2))
    assert model.weight.grad is own
    torch.testing.assert_close(own, torch.full((1, 2), 7.0))
    assert model.bias.grad is None


def test_gradients_are_put_back_after_an_exception() -> None:
    model = nn.Linear(2, 1)
    model.bias.grad = torch.ones(1)
    with pytest.raises(RuntimeError, match="stop"), set_aside_gradients(model):
        raise RuntimeError("stop")
    torch.testing.assert_close(model.bias.grad, torch.ones(1))
