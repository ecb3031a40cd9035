"""A step leaves no trace in the model, starts from theta_0, reports, and can fail half-way."""

import contextlib
import copy
from typing import Any

import pytest
import torch
import torch_pruning as tp
from torch import nn

from rtl_plugin import DataGroups
from rtl_plugin.errors import InvalidArgument, RewindFailed, StructureMismatch
from rtl_plugin.fingerprint import bit_equal
from rtl_torch_pruning import RTLPruner
from tests.discovery.setups import draw_from_all, random_states, same_bits, tensors_of
from tests.torch_pruning.setups import (
    assert_same_network,
    cross_entropy,
    groups_of,
    pruner_of,
    run_all,
    trained_pruner,
)
from tests.torch_pruning.zoo import CONV_BN, DENSE, SPLIT, ZOO, Net


class Traces:
    """Everything of a model and of the process that a step might leave changed."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._flags = [module.training for module in model.modules()]
        self._attributes = repr(model)
        self._tensors = tensors_of(model)
        self._objects = [id(t) for t in (*model.parameters(), *model.buffers())]
        self._required = [p.requires_grad for p in model.parameters()]
        self._gradients = [copy.deepcopy(p.grad) for p in model.parameters()]
        self._random = random_states()

    def check(self) -> None:
        model = self._model
        assert random_states() == self._random
        assert [module.training for module in model.modules()] == self._flags
        assert repr(model) == self._attributes
        assert same_bits(tensors_of(model), self._tensors)
        assert [id(t) for t in (*model.parameters(), *model.buffers())] == self._objects
        assert [p.requires_grad for p in model.parameters()] == self._required
        for parameter, gradient in zip(model.parameters(), self._gradients, strict=True):
            assert (parameter.grad is None) == (gradient is None)
            assert gradient is None or bit_equal(parameter.grad, gradient)


def prepared(net: Net) -> Any:
    """A model with mixed training flags, a gradient, and a buffer outside its state_dict."""
    model = net.build()
    model.register_buffer("scratch", torch.full((2,), 7.0), persistent=False)
    next(iter(model.children())).eval()
    first = next(iter(model.parameters()))
    first.grad = torch.ones_like(first)
    model.head.bias.requires_grad_(False)
    return model


def careless(model: Any, batch: Any) -> torch.Tensor:
    draw_from_all()
    assert model.training
    return cross_entropy(model, batch)


@pytest.mark.parametrize("net", ZOO, ids=str)
def test_the_model_is_untouched(net: Net) -> None:
    model = prepared(net)
    traces = Traces(model)
    pruner = trained_pruner(net, model, loss=careless, iterative_steps=2)
    traces.check()
    for _ in range(2):
        pruner.step()
        traces.check()
    small = pruner.compact("a")
    assert pruner.tickets["b"].kept
    with torch.no_grad():
        small.head.weight.add_(1)
    traces.check()


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_the_model_is_untouched_after_an_exception(error: type[BaseException]) -> None:
    model = prepared(CONV_BN)

    def failing(network: Any, batch: Any) -> torch.Tensor:
        draw_from_all()
        if batch[2] == "b":
            network.head.weight.data.zero_()
            raise error("by the test")
        return cross_entropy(network, batch)

    pruner = trained_pruner(CONV_BN, model, loss=failing)
    traces = Traces(model)
    with pytest.raises(error, match="by the test"):
        pruner.step()
    traces.check()


@pytest.mark.parametrize("error", [None, KeyError])
def test_a_loss_that_switches_the_model_to_eval(error: type[Exception] | None) -> None:
    model = prepared(CONV_BN)

    def switching(network: Any, batch: Any) -> torch.Tensor:
        model.eval()
        if error is not None:
            raise error
        return cross_entropy(network, batch)

    pruner = trained_pruner(CONV_BN, model, loss=switching)
    traces = Traces(model)
    with contextlib.nullcontext() if error is None else pytest.raises(error):
        pruner.step()
    traces.check()


@pytest.mark.parametrize("what", ["head.weight", "parts.1.running_mean", "scratch"])
def test_a_loss_that_writes_to_the_model(what: str) -> None:
    model = prepared(CONV_BN)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())

    def writing(network: Any, batch: Any) -> torch.Tensor:
        tensors[what].data.add_(1)
        return cross_entropy(network, batch)

    pruner = trained_pruner(CONV_BN, model, loss=writing)
    traces = Traces(model)
    with pytest.raises(RewindFailed, match=f"wrote to the model's own '{what}'.*was put back"):
        pruner.step()
    traces.check()


@pytest.mark.parametrize("net", [net for net in ZOO if net is not SPLIT], ids=str)
def test_every_training_starts_from_theta_0(net: Net) -> None:
    model, starts = net.build(), {}

    def train(network: Any, group: Any, round: int) -> None:
        assert type(network) is type(model)
        assert network.training
        starts[group.name, round] = tensors_of(network)
        with torch.no_grad():
            for number, parameter in enumerate(network.parameters()):
                parameter.add_(torch.rand_like(parameter), alpha=1 + number)

    pruner = pruner_of(net, model, train=train, iterative_steps=2, pruning_ratio=0.4)
    pruner.step()
    kept = {name: tensors_of(pruner.compact(name)) for name in "ab"}
    pruner.step()
    for name in "ab":
        assert same_bits(starts[name, 1], tensors_of(model))
        assert same_bits(starts[name, 2], kept[name])


def test_a_failed_step_keeps_what_was_finished() -> None:
    calls: list[str] = []
    broken = True

    def loss(network: Any, batch: Any) -> torch.Tensor:
        calls.append(batch[2])
        if broken and batch[2] == "b":
            raise KeyError("by the test")
        return cross_entropy(network, batch)

    model, groups = CONV_BN.build(), groups_of(CONV_BN, "abc")
    settings: dict[str, Any] = {"groups": groups, "iterative_steps": 2}
    pruner = trained_pruner(CONV_BN, model, loss=loss, **settings)
    with pytest.raises(KeyError):
        pruner.step()
    assert calls == ["a"] * 3 + ["b"]
    assert (pruner.current_step, pruner.reports) == (0, [])
    broken = False
    calls.clear()
    assert [row.group for row in pruner.step().rows] == list("abc")
    assert calls == ["b"] * 3 + ["c"] * 3
    other = run_all(trained_pruner(CONV_BN, CONV_BN.build(), **settings))
    run_all(pruner)
    for name in "abc":
        assert_same_network(pruner.compact(name), other.compact(name))


def test_too_many_steps() -> None:
    pruner = run_all(pruner_of(CONV_BN, CONV_BN.build(), iterative_steps=2))
    with pytest.raises(InvalidArgument, match=r"all 2 rounds are done .*pruner\.tickets"):
        pruner.step()
    with pytest.raises(InvalidArgument, match="all 2 rounds are done"):
        pruner.step(interactive=True)


def test_changed_weights_are_refused() -> None:
    model = CONV_BN.build()
    pruner = pruner_of(CONV_BN, model, iterative_steps=2)
    pruner.step()
    with torch.no_grad():
        model.head.weight[0, 0] += 1
    with pytest.raises(StructureMismatch, match=r"'head.weight' changed since .* load or train"):
        pruner.step()


def test_weights_may_change_before_the_first_step() -> None:
    """What is loaded late is theta_0, as if the pruner had been built afterwards."""
    late = CONV_BN.build(seed=0)
    pruner = pruner_of(CONV_BN, late, iterative_steps=2)
    late.load_state_dict(CONV_BN.build(seed=1).state_dict())
    run_all(pruner)
    other = run_all(pruner_of(CONV_BN, CONV_BN.build(seed=1), iterative_steps=2))
    assert_same_network(pruner.compact("a"), other.compact("a"))
    assert pruner.tickets.theta_0 == other.tickets.theta_0


def random_importance() -> Any:
    return tp.importance.RandomImportance()


def trained_twice(seed: int, net: Net = DENSE) -> RTLPruner:
    pruner = trained_pruner(net, net.build(), random_importance(), seed=seed, iterative_steps=2)
    return run_all(pruner)


def test_the_seed_decides() -> None:
    first, again, other = trained_twice(0), trained_twice(0), trained_twice(1)
    for name in "ab":
        assert_same_network(first.compact(name), again.compact(name))
        assert first.channels(name) == again.channels(name)
        assert first.channels(name) != other.channels(name)
    assert first.channels("a") != first.channels("b")


def test_magnitudes_are_those_after_training() -> None:
    """Groups with other data get other tickets, and so does a pruner that does not train."""
    trained = run_all(trained_pruner(DENSE, DENSE.build(), steps=30))
    still = run_all(pruner_of(DENSE, DENSE.build()))
    assert still.channels("a") == still.channels("b")
    assert trained.channels("a") != trained.channels("b")


def test_pruners_share_nothing() -> None:
    """The host's default tables are shared by all its pruners and filled by each."""
    defaults = tp.pruner.BasePruner.__init__.__defaults__ or ()
    before = [dict(d) for d in defaults if isinstance(d, dict)]
    for net in ZOO:
        model = net.build()
        given = {k: v for k, v in net.keywords(model).items() if isinstance(v, dict)}
        sizes = {key: len(value) for key, value in given.items()}
        run_all(pruner_of(net, model, **given))
        assert {key: len(value) for key, value in given.items()} == sizes
    assert [dict(d) for d in defaults if isinstance(d, dict)] == before


def test_pruners_by_turns_on_one_model() -> None:
    model = DENSE.build()
    alone = run_all(pruner_of(DENSE, model, iterative_steps=2))
    one, two = (pruner_of(DENSE, model, iterative_steps=2) for _ in range(2))
    for pruner in (one, two, one, two):
        pruner.step()
    for pruner in (one, two):
        assert_same_network(pruner.compact("a"), alone.compact("a"))


def test_one_group_alone_is_trained_as_among_others() -> None:
    together = run_all(trained_pruner(CONV_BN, CONV_BN.build(), iterative_steps=2))
    only = DataGroups.from_loaders({"b": groups_of(CONV_BN)["b"].train})
    alone = run_all(trained_pruner(CONV_BN, CONV_BN.build(), groups=only, iterative_steps=2))
    assert_same_network(alone.compact("b"), together.compact("b"))
