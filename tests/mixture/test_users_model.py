"""Serving leaves the user's model alone; what a mixture is as a module."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from rtl_plugin import KnownGroupRouter, MixtureOfMasks, Ticket, TicketSet
from rtl_plugin.errors import InvalidArgument
from tests.mixture.plain_loop import NAMES, TOLERANCES, plain_copy, random_tickets, sample_by_sample
from tests.models import ZOO, Network


@pytest.fixture(params=ZOO, ids=str)
def network(request: pytest.FixtureRequest) -> Network:
    return request.param


def made(network: Network, strategy: str = "auto") -> tuple[nn.Module, MixtureOfMasks]:
    torch.manual_seed(1)
    model = network.build().double()
    return model, MixtureOfMasks(model, random_tickets(model), strategy=strategy)


def everything(model: nn.Module) -> dict[str, object]:
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {
        "objects": {name: id(value) for name, value in tensors.items()},
        "values": {name: value.detach().clone() for name, value in tensors.items()},
        "versions": {name: value._version for name, value in tensors.items()},
        "gradients": [parameter.grad for parameter in model.parameters()],
        "flags": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
    }


def assert_untouched(model: nn.Module, before: dict[str, object]) -> None:
    after = everything(model)
    values, were = after.pop("values"), before["values"]
    assert after == {key: value for key, value in before.items() if key != "values"}
    assert isinstance(values, dict)
    assert isinstance(were, dict)
    assert all(torch.equal(values[name], were[name]) for name in were)


@pytest.mark.parametrize("training", [True, False])
def test_serving_leaves_the_model_untouched(
    network: Network, strategy: str, training: bool
) -> None:
    torch.manual_seed(1)
    model = network.build().double().train(training)
    next(iter(model.children())).train(not training)  # flags of parts are kept too
    before = everything(model)
    tickets = random_tickets(model)
    states = {n: {k: v.clone() for k, v in t.state.items()} for n, t in tickets.items()}
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    x = network.inputs(4).double()
    mixture(x, tickets=list("abcd"))
    mixture(x, tickets="a")
    mixture.export("b")
    mixture.eval()
    mixture.train(False)
    with pytest.raises(InvalidArgument, match=r"eval mode only: train tickets with .*retrain"):
        mixture.train()
    assert mixture.training is False
    assert_untouched(model, before)
    for name, state in states.items():
        assert all(torch.equal(tickets[name].state[k], value) for k, value in state.items())


def test_an_exception_in_the_forward_leaves_everything_usable(strategy: str) -> None:
    model, mixture = made(ZOO[0], strategy)
    before = everything(model)
    x = ZOO[0].inputs(4).double()
    expected = mixture(x, tickets=list("abcd"))
    with pytest.raises(RuntimeError, match="channels"):
        mixture(torch.zeros(4, 2, 6, 6).double(), tickets=list("abcd"))
    assert_untouched(model, before)
    assert torch.equal(mixture(x, tickets=list("abcd")), expected)


def test_the_output_does_not_depend_on_the_models_mode(strategy: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    mixture = MixtureOfMasks(model.train(), random_tickets(model), strategy=strategy)
    x = torch.randn(4, 4)
    in_train = mixture(x, tickets=list("abcd"))
    model.eval()
    torch.testing.assert_close(mixture(x, tickets=list("abcd")), in_train)
    torch.testing.assert_close(in_train, sample_by_sample(model, mixture.tickets, x, "abcd"))


def test_copies_and_files_of_the_users_model_still_work(network: Network) -> None:
    model, mixture = made(network)
    x = network.inputs(2).double()
    mixture(x, tickets=["a", "b"])
    twin = copy.deepcopy(model)
    assert [*twin.state_dict()] == [*model.state_dict()]
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    fresh = network.build().double()
    fresh.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    assert torch.equal(fresh.eval()(x), model.eval()(x))
    assert type(model)  # the class itself is the user's, not a generated one
    assert type(model).__module__ in ("tests.models", "torch.nn.modules.container")


def test_to_converts_the_served_model_and_its_tickets_follow(
    network: Network, strategy: str
) -> None:
    torch.manual_seed(1)
    model = network.build().train()
    mixture = MixtureOfMasks(model, random_tickets(model), strategy=strategy)
    x = network.inputs(4).double()
    assert mixture.to(torch.float64) is mixture
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert all(module.training for module in model.modules())
    outputs = mixture(x, tickets=list("dacb"))
    assert outputs.dtype == torch.float64
    expected = sample_by_sample(model, mixture.tickets, x, "dacb")
    torch.testing.assert_close(outputs, expected, **TOLERANCES[torch.float64])
    torch.testing.assert_close(mixture.export("a")(x), mixture(x, tickets="a"))


def test_private_parameters_follow_the_models_dtype(strategy: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    tickets = random_tickets(model, private=["1.weight", "1.bias"])
    mixture = MixtureOfMasks(model, tickets, strategy=strategy).double()
    x = torch.randn(4, 4).double()
    outputs = mixture(x, tickets=list("dacb"))
    torch.testing.assert_close(outputs, sample_by_sample(model, tickets, x, "dacb"))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_a_mixture_stands_on_its_own(copied: object) -> None:
    assert callable(copied)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    tickets = random_tickets(model)
    mixture = MixtureOfMasks(model, tickets, KnownGroupRouter(tickets), "reference")
    twin = copied(mixture)
    x = torch.randn(4, 4)
    expected = mixture(x, context=list("abcd"))
    assert torch.equal(twin(x, context=list("abcd")), expected)
    with torch.no_grad():
        model[0].weight.zero_()
        tickets["a"].state["1.running_mean"].add_(1.0)
    assert torch.equal(twin(x, context=list("abcd")), expected)


def test_a_mixture_in_a_larger_module(strategy: str) -> None:
    model, mixture = made(ZOO[1], strategy)
    whole = nn.ModuleDict({"mixture": mixture, "head": nn.Linear(3, 1)}).eval()
    assert [*whole.state_dict()] == ["head.weight", "head.bias"]
    x = ZOO[1].inputs(2).double()
    assert torch.equal(whole["mixture"](x, tickets="a"), mixture(x, tickets="a"))
    assert model.training  # eval() of the whole did not reach it


def test_explain_names_model_tickets_and_strategy(strategy: str) -> None:
    _, mixture = made(ZOO[2], strategy)
    text = mixture.explain(ZOO[2].inputs().double())
    assert f"SmallResNet with 4 tickets, strategy {strategy}: " in text


def test_one_ticket_and_masks_that_keep_nothing_of_a_tensor(strategy: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    masks = {"0.weight": torch.zeros(3, 3).bool(), "1.weight": torch.ones(3, 3).bool()}
    tickets = TicketSet([Ticket("only", masks)])
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    x = torch.randn(3, 3)
    outputs = mixture(x, tickets=["only"] * 3)
    torch.testing.assert_close(outputs, plain_copy(model, tickets["only"])(x))
    assert torch.equal(outputs[0], outputs[1])  # nothing of the input gets through


def test_frozen_parameters_are_served_too(strategy: str) -> None:
    model, mixture = made(ZOO[2], strategy)
    model.requires_grad_(False)
    x = ZOO[2].inputs(4).double()
    outputs = mixture(x, tickets=list(NAMES))
    assert not outputs.requires_grad
    expected = sample_by_sample(model, mixture.tickets, x, NAMES)
    torch.testing.assert_close(outputs, expected, **TOLERANCES[torch.float64])
