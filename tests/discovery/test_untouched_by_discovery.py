"""discover leaves no trace: model, gradients, training flags, random streams, generators."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import TicketSet
from rtl_plugin.fingerprint import bit_equal
from tests.discovery.setups import (
    CONV,
    MLP,
    Interrupting,
    built,
    cross_entropy,
    draw_from_all,
    found,
    named_groups,
    random_states,
    same_bits,
    shuffled_groups,
    tensors_of,
)
from tests.models import ZOO, Network


class Traces:
    """Everything of a model and of the process that discovery might leave changed."""

    def __init__(self, model: nn.Module, groups: Any) -> None:
        self._model, self._groups = model, groups
        self._flags = [module.training for module in model.modules()]
        self._tensors = tensors_of(model)
        self._objects = [id(t) for t in (*model.parameters(), *model.buffers())]
        self._gradients = [copy.deepcopy(p.grad) for p in model.parameters()]
        self._generators = self._generator_states()
        self._random = random_states()

    def _generator_states(self) -> list[bytes]:
        loaders = [group.train for group in self._groups.values()]
        return [x.generator.get_state().numpy().tobytes() for x in loaders if x.generator]

    def check(self) -> None:
        model = self._model
        assert random_states() == self._random
        assert [module.training for module in model.modules()] == self._flags
        assert same_bits(tensors_of(model), self._tensors)
        assert [id(t) for t in (*model.parameters(), *model.buffers())] == self._objects
        for parameter, gradient in zip(model.parameters(), self._gradients, strict=True):
            if gradient is None:
                assert parameter.grad is None
            else:
                assert parameter.grad is not None
                assert bit_equal(parameter.grad, gradient)
        assert self._generator_states() == self._generators


def prepared(network: Network) -> nn.Module:
    """A model with mixed training flags, a gradient, and a buffer outside its state_dict."""
    model = built(network)
    model.register_buffer("scratch", torch.full((2,), 7.0), persistent=False)
    next(iter(model.children())).eval()
    next(iter(model.parameters())).grad = torch.ones_like(next(iter(model.parameters())))
    return model


class Careless:
    """A loss that draws from every stream and may raise at a call."""

    def __init__(self, at: int | None = None, error: type[BaseException] = KeyError) -> None:
        self._interrupting = Interrupting(at, error)

    def __call__(self, model: Any, batch: Any) -> torch.Tensor:
        draw_from_all()
        assert model.training
        model.named_buffers()
        return self._interrupting(model, batch)


@pytest.mark.parametrize("own_generators", [False, True], ids=["global", "own generators"])
@pytest.mark.parametrize("network", ZOO, ids=str)
def test_after_a_good_run(network: Network, own_generators: bool) -> None:
    model, groups = prepared(network), shuffled_groups(network, own_generators)
    traces = Traces(model, groups)
    found(model, groups, Careless(), importance="random")
    traces.check()


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("at", [1, 2, 6, 10])  # late rewinding, then both rounds
@pytest.mark.parametrize("network", [CONV, MLP], ids=str)
def test_after_an_exception_in_the_loss(
    network: Network, at: int, error: type[BaseException]
) -> None:
    model, groups = prepared(network), shuffled_groups(network, own_generators=True)
    traces = Traces(model, groups)
    with pytest.raises(error, match="interrupted by the test"):
        found(model, groups, Careless(at, error), rewind_to=2)
    traces.check()


def test_after_an_exception_within_the_forward_pass() -> None:
    model, groups = prepared(CONV), shuffled_groups(CONV)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    model[4].register_forward_hook(fail)
    traces = Traces(model, groups)
    with pytest.raises(KeyboardInterrupt):
        found(model, groups)
    traces.check()


def test_after_a_round_that_could_not_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    model, groups = prepared(CONV), shuffled_groups(CONV, own_generators=True)
    traces = Traces(model, groups)
    monkeypatch.setattr(TicketSet, "save", full)
    with pytest.raises(OSError, match="no space left"):
        found(model, groups, run_folder=tmp_path)
    traces.check()


def test_a_write_to_the_model_is_undone_when_something_else_goes_wrong() -> None:
    model = built(MLP)
    before = tensors_of(model)

    def loss(view: Any, batch: Any) -> torch.Tensor:
        model[0].weight.data.zero_()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found(model, named_groups(MLP), loss)
    assert same_bits(tensors_of(model), before)


def test_the_importance_pass_leaves_no_trace_either() -> None:
    model, groups = prepared(CONV), shuffled_groups(CONV, own_generators=True)
    traces = Traces(model, groups)
    found(model, groups, Careless(), importance="weight_gradient")
    traces.check()


def test_masks_do_not_hang_on_the_model() -> None:
    model = built(MLP)
    tickets = found(model, named_groups(MLP))
    assert list(model.state_dict()) == list(built(MLP).state_dict())
    assert type(model) is nn.Sequential
    before = {name: mask.clone() for name, mask in tickets["a"].masks.items()}
    cross_entropy(model, next(iter(named_groups(MLP)["a"].train))).backward()
    torch.optim.SGD(model.parameters(), 1.0).step()
    assert same_bits(tickets["a"].masks, before)
