"""The contract of every strategy again, with channel tickets: reference beside compact."""

import pytest
import torch

from rtl_plugin import MixtureOfMasks
from tests.channels.zoo import CHANNEL_ZOO, CONV_BN, GROUPED, LAYER_NORM, ChannelNet
from tests.mixture import test_strategy_at_work as at_work
from tests.mixture import test_strategy_contract as contract
from tests.mixture.plain_loop import close, plain_copy, sample_by_sample, served

CASES = [
    *((net, "compact") for net in CHANNEL_ZOO),
    *((net, "reference") for net in (CONV_BN, GROUPED)),
    *((net, "auto") for net in (CONV_BN, LAYER_NORM)),
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest) -> tuple[ChannelNet, str]:
    return request.param


@pytest.fixture
def network(case: tuple[ChannelNet, str]) -> ChannelNet:
    return case[0]


@pytest.fixture
def strategy(case: tuple[ChannelNet, str]) -> str:
    return case[1]


dtype, mode = contract.dtype, contract.mode
test_mixed_batch_equals_the_plain_loop = contract.test_mixed_batch_equals_the_plain_loop
test_mixed_batch_equals_its_own_single_calls = contract.test_mixed_batch_equals_its_own_single_calls
test_tickets_differ = contract.test_tickets_differ_so_that_mixing_them_up_would_show
test_many_random_orders = contract.test_many_random_orders
test_an_empty_batch_gives_an_empty_output = contract.test_an_empty_batch_gives_an_empty_output
test_one_ticket_for_the_batch = contract.test_one_ticket_for_the_batch
test_later_changes_are_seen = at_work.test_later_changes_of_weights_and_tickets_are_seen
test_a_mixture_made_in_inference_mode = at_work.test_a_mixture_made_in_inference_mode_serves_outside
test_under_autocast_in_bfloat16 = at_work.test_under_autocast_in_bfloat16
test_half_precision_models = at_work.test_half_precision_models
test_two_threads_and_the_users_own_calls = at_work.test_two_threads_and_the_users_own_calls


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_mode_does_not_stick(
    network: ChannelNet, strategy: str, context: type[torch.no_grad]
) -> None:
    model, mixture, _ = served(network, strategy)
    x = network.inputs(4).double()
    with context():
        outputs = mixture(x, tickets=list("dabc"))
        assert not outputs.requires_grad
        close(outputs, sample_by_sample(model, mixture.tickets, x, "dabc"))
    x.requires_grad_()
    mixture(x, tickets="a").square().sum().backward()
    assert x.grad is not None
    again = x.detach().clone().requires_grad_()
    plain_copy(model, mixture.tickets["a"])(again).square().sum().backward()
    close(x.grad, again.grad)


def test_gradients_to_weights_are_right_or_refused(network: ChannelNet, strategy: str) -> None:
    """A small network's weights are copies: a gradient there would be lost without a word."""
    model, mixture, _ = served(network, strategy)
    outputs = mixture(network.inputs(4).double(), tickets="b").square().sum()
    if strategy == "reference":
        outputs.backward()
        for name, mask in mixture.tickets["b"].masks.items():
            gradient = model.get_parameter(name).grad
            assert gradient is not None
            assert gradient[mask].any()
            assert not gradient[~mask].any()
        return
    with pytest.raises(RuntimeError, match="does not require grad"):
        outputs.backward()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_private_parameters_of_a_ticket_are_its_own(network: ChannelNet, strategy: str) -> None:
    model, mixture, _ = served(network, strategy)
    x = network.inputs(6).double()
    shared = mixture(x, tickets=list("cadbbd"))
    name = [n for n, _ in model.named_parameters()][-1]  # the head's bias, which nothing cuts
    for k, ticket in enumerate(mixture.tickets.values()):
        ticket.state[name] = torch.full((3,), float(k + 1), dtype=torch.float64)
    outputs = mixture(x, tickets=list("cadbbd"))
    close(outputs, sample_by_sample(model, mixture.tickets, x, "cadbbd"))
    assert (outputs - shared).abs().max() > 0.5


def test_strategies_agree(network: ChannelNet) -> None:
    if network is LAYER_NORM:
        return  # no other strategy may run it
    model, mixture, _ = served(network, "reference")
    x = network.inputs(8).double()
    small = MixtureOfMasks(model, mixture.tickets, strategy="compact")
    close(small(x, tickets=list("dbacabdc")), mixture(x, tickets=list("dbacabdc")))


def test_one_vs_rest_and_a_single_logit() -> None:
    _, mixture, network = served(CONV_BN, "compact")
    x = network.inputs(6).double()
    scores = torch.stack([mixture(x[:1], tickets=n)[0] for n in mixture.tickets])
    assert scores.shape == (4, 3)
    with pytest.raises(ValueError, match=r"one logit a sample; ticket 'a' gave \(6, 3\)"):
        mixture.one_vs_rest(x)
