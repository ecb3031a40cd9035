"""The contract of every strategy: changes it sees, modes it runs in, threads that share it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from tests.mixture.plain_loop import close, sample_by_sample, served
from tests.models import ZOO, Network


@pytest.fixture(params=ZOO, ids=str)
def network(request: pytest.FixtureRequest) -> Network:
    return request.param


def test_later_changes_of_weights_and_tickets_are_seen(network: Network, strategy: str) -> None:
    model, mixture, _ = served(network, strategy)
    x = network.inputs(4).double()
    names = list("abca")

    def changed_and_right(before: torch.Tensor) -> torch.Tensor:
        after = mixture(x, tickets=names)
        close(after, sample_by_sample(model, mixture.tickets, x, names))
        assert (after - before).abs().max() > 1e-4
        return after.detach()

    outputs = mixture(x, tickets=names).detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)  # in place, as an optimizer does
    outputs = changed_and_right(outputs)
    model.load_state_dict({n: v * 1.1 for n, v in model.state_dict().items()})
    outputs = changed_and_right(outputs)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.detach() * 0.9))  # another tensor
    outputs = changed_and_right(outputs)
    if network.has_norm_statistics:
        state = mixture.tickets["a"].state
        name = next(n for n in state if n.endswith("running_mean"))
        state[name] = state[name] + 0.5  # replaced, as retrain does
        outputs = changed_and_right(outputs)
        state[name].add_(0.5)
        changed_and_right(outputs)


def test_a_ticket_without_state_uses_the_models_own_buffers(strategy: str) -> None:
    network = ZOO[0]
    model, mixture, _ = served(network, strategy)
    for ticket in mixture.tickets.values():
        ticket.state.clear()
    x = network.inputs(4).double()
    before = mixture(x, tickets=list("abcd"))
    model.train()(network.inputs(4).double())  # moves the model's running statistics
    after = mixture(x, tickets=list("abcd"))
    close(after, sample_by_sample(model, mixture.tickets, x, "abcd"))
    assert (after - before).abs().max() > 1e-4


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_under_no_grad_and_inference_mode(
    network: Network, strategy: str, context: Callable[[], torch.no_grad]
) -> None:
    model, mixture, _ = served(network, strategy)
    x = network.inputs(4).double()
    with context():
        outputs = mixture(x, tickets=list("dabc"))
        assert not outputs.requires_grad
        close(outputs, sample_by_sample(model, mixture.tickets, x, "dabc"))
    # The mode does not stick.
    assert mixture(x.clone().requires_grad_(), tickets="a").requires_grad


def test_a_mixture_made_in_inference_mode_serves_outside(network: Network, strategy: str) -> None:
    with torch.inference_mode():
        model, mixture, _ = served(network, strategy)
    x = network.inputs(3).double()
    with torch.no_grad():
        outputs = mixture(x, tickets=list("cab"))
        close(outputs, sample_by_sample(model, mixture.tickets, x, "cab"))


def test_under_autocast_in_bfloat16(network: Network, strategy: str) -> None:
    model, mixture, _ = served(network, strategy, torch.float32)
    x = network.inputs(4)
    with torch.no_grad():
        exact = sample_by_sample(model, mixture.tickets, x, "dabc")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = mixture(x, tickets=list("dabc"))
            again = mixture(x, tickets=list("dabc"))
            expected = sample_by_sample(model, mixture.tickets, x, "dabc")
    assert outputs.dtype == torch.bfloat16
    assert torch.equal(outputs, again)
    close(outputs, expected)
    assert (outputs.float() - exact).abs().max() > 0  # it did compute in bfloat16


def test_half_precision_models(network: Network, strategy: str) -> None:
    model, mixture, _ = served(network, strategy, torch.bfloat16)
    x = network.inputs(4).bfloat16()
    with torch.no_grad():
        outputs = mixture(x, tickets=list("dabc"))
        close(outputs, sample_by_sample(model, mixture.tickets, x, "dabc"))


def test_gradients_of_the_reference_reach_the_kept_weights_only(network: Network) -> None:
    model, mixture, _ = served(network, "reference")
    x = network.inputs(4).double()
    mixture(x, tickets="b").square().sum().backward()
    masks = mixture.tickets["b"].masks
    assert masks
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name in masks:
            assert not parameter.grad[~masks[name]].any()
            assert parameter.grad[masks[name]].any()


def test_two_threads_and_the_users_own_calls(network: Network, strategy: str) -> None:
    model, mixture, _ = served(network, strategy)
    model.eval()
    x = network.inputs(4).double()
    with torch.no_grad():
        work = {
            "a": lambda: mixture(x, tickets="a"),
            "dbca": lambda: mixture(x, tickets=list("dbca")),
            "model": lambda: model(x),
        }
        alone = {name: call() for name, call in work.items()}
    finished = threading.Event()
    rounds = dict.fromkeys(work, 0)

    def hammer(name: str) -> None:
        try:
            with torch.no_grad():
                while not finished.is_set():
                    assert torch.equal(work[name](), alone[name]), name
                    rounds[name] += 1
                    if min(rounds.values()) >= 50:
                        finished.set()
        finally:
            finished.set()

    with ThreadPoolExecutor(len(work)) as pool:
        for running in [pool.submit(hammer, name) for name in work]:
            running.result()
    assert min(rounds.values()) >= 50
