"""The contract of every strategy: it gives what a plain loop over multiplied copies gives."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from rtl_plugin import MixtureOfMasks
from tests.mixture.plain_loop import (
    NAMES,
    TOLERANCES,
    plain_copy,
    random_tickets,
    sample_by_sample,
)
from tests.models import ZOO, Network

# Which ticket each sample of a batch goes through.
ARRANGEMENTS = {
    "shuffled": "dbacabdc",
    "grouped": "aabbccdd",
    "reversed groups": "ddccbbaa",
    "two empty groups": "cacaacca",
    "one-sample groups": "cadb",
    "one large, one single": "aaaabaaa",
    "all one ticket": "bbbb",
    "one sample": "d",
}

Setup = tuple[nn.Module, MixtureOfMasks, Network]


@pytest.fixture(params=ZOO, ids=str)
def network(request: pytest.FixtureRequest) -> Network:
    return request.param


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=["grad", "no_grad"])
def mode(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch.no_grad() if request.param == "no_grad" else nullcontext():
        yield


def served(network: Network, strategy: str, dtype: torch.dtype = torch.float64) -> Setup:
    torch.manual_seed(3)
    model = network.build().to(dtype)
    return model, MixtureOfMasks(model, random_tickets(model), strategy=strategy), network


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, **TOLERANCES[expected.dtype])


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("arrangement", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
def test_mixed_batch_equals_the_plain_loop(
    network: Network, strategy: str, dtype: torch.dtype, arrangement: str
) -> None:
    model, mixture, _ = served(network, strategy, dtype)
    x = network.inputs(len(arrangement)).to(dtype)
    outputs = mixture(x, tickets=list(arrangement))
    close(outputs, sample_by_sample(model, mixture.tickets, x, arrangement))


@pytest.mark.parametrize("arrangement", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
def test_mixed_batch_equals_its_own_single_calls(
    network: Network, strategy: str, dtype: torch.dtype, arrangement: str
) -> None:
    _, mixture, _ = served(network, strategy, dtype)
    x = network.inputs(len(arrangement)).to(dtype)
    outputs = mixture(x, tickets=list(arrangement))
    for i, name in enumerate(arrangement):
        close(outputs[i : i + 1], mixture(x[i : i + 1], tickets=name))


def test_tickets_differ_so_that_mixing_them_up_would_show(network: Network, strategy: str) -> None:
    _, mixture, _ = served(network, strategy)
    x = network.inputs(2).double()
    outputs = [mixture(x, tickets=name) for name in NAMES]
    for i, first in enumerate(outputs):
        for second in outputs[:i]:
            assert (first - second).abs().max() > 1e-3


def test_many_random_orders(network: Network, strategy: str) -> None:
    model, mixture, _ = served(network, strategy)
    generator = torch.Generator().manual_seed(0)
    x = network.inputs(16).double()
    alone = {name: plain_copy(model, mixture.tickets[name])(x) for name in NAMES}
    for _ in range(10):
        rows = torch.randperm(16, generator=generator)
        choice = torch.randint(len(NAMES), (16,), generator=generator)
        outputs = mixture(x[rows], tickets=choice)
        expected = [alone[NAMES[k]][row] for k, row in zip(choice, rows, strict=True)]
        close(outputs, torch.stack(expected))


def test_an_empty_batch_gives_an_empty_output(network: Network, strategy: str) -> None:
    _, mixture, _ = served(network, strategy)
    x = network.inputs(2).double()[:0]
    like = mixture(network.inputs(2).double(), tickets="a")
    for tickets in ([], torch.tensor([], dtype=torch.long), "a"):
        assert mixture(x, tickets=tickets).shape == (0, *like.shape[1:])


@pytest.mark.parametrize(
    "choose",
    [
        lambda names: names,
        tuple,
        lambda names: [NAMES.index(name) for name in names],
        lambda names: torch.tensor([NAMES.index(name) for name in names]),
        lambda names: torch.tensor([NAMES.index(name) for name in names], dtype=torch.int32),
        lambda names: torch.tensor([NAMES.index(name) for name in names], dtype=torch.uint8),
        lambda names: torch.tensor([NAMES.index(name) for name in names]).numpy(),
    ],
    ids=["names", "tuple", "positions", "int64", "int32", "uint8", "numpy"],
)
def test_every_way_to_name_the_tickets(
    strategy: str, choose: Callable[[list[str]], object]
) -> None:
    model, mixture, network = served(ZOO[0], strategy)
    names = list("cadbbd")
    x = network.inputs(6).double()
    outputs = mixture(x, tickets=choose(names))
    close(outputs, sample_by_sample(model, mixture.tickets, x, names))


@pytest.mark.parametrize("choice", ["c", 2, torch.tensor([2, 2, 2])[0].numpy()[()]])
def test_one_ticket_for_the_batch(network: Network, strategy: str, choice: object) -> None:
    model, mixture, _ = served(network, strategy)
    x = network.inputs(3).double()
    close(mixture(x, tickets=choice), plain_copy(model, mixture.tickets["c"])(x))


def test_one_vs_rest_has_a_column_for_every_ticket(strategy: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    mixture = MixtureOfMasks(model, random_tickets(model), strategy=strategy)
    x = torch.randn(6, 5).double()
    scores = mixture.one_vs_rest(x)
    expected = [plain_copy(model, ticket)(x) for ticket in mixture.tickets.values()]
    close(scores, torch.cat(expected, dim=1))
    assert mixture.one_vs_rest(x[:0]).shape == (0, len(NAMES))


PRIVATE = {
    "conv_net": ("1.weight", "1.bias", "8.weight", "8.bias"),  # norm affine and head
    "mlp": ("4.weight", "4.bias"),
    "resnet": ("bn.weight", "fc.weight", "fc.bias"),
    "transformer": ("encoder.norm1.weight", "encoder.norm1.bias", "fc.weight"),
}


def test_private_parameters_of_a_ticket_are_its_own(network: Network, strategy: str) -> None:
    torch.manual_seed(3)
    model = network.build().double()
    tickets = random_tickets(model, private=PRIVATE[network.name])
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    x = network.inputs(6).double()
    outputs = mixture(x, tickets=list("cadbbd"))
    close(outputs, sample_by_sample(model, tickets, x, "cadbbd"))
    shared = random_tickets(model)  # the same masks, the shared norm affine and head
    others = MixtureOfMasks(model, shared, strategy=strategy)(x, tickets=list("cadbbd"))
    assert (outputs - others).abs().max() > 1e-3


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
    assert mixture(x, tickets="a").requires_grad  # the mode does not stick


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


def test_gradients_reach_the_kept_weights_only(network: Network, strategy: str) -> None:
    model, mixture, _ = served(network, strategy)
    x = network.inputs(4).double()
    mixture(x, tickets="b").square().sum().backward()
    masks = mixture.tickets["b"].masks
    assert masks
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name in masks:
            assert not parameter.grad[~masks[name]].any()
            assert parameter.grad[masks[name]].any()


def test_tied_weights_are_masked_at_every_use(strategy: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 2)).double()
    model[2].weight = model[0].weight
    tickets = random_tickets(model)
    assert list(tickets.shapes) == ["0.weight"]
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    x = torch.randn(5, 4).double()
    close(
        mixture(x, tickets=list("abcda")),
        sample_by_sample(model, tickets, x, "abcda"),
    )


def test_recurrent_layers(strategy: str) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 5, batch_first=True)
            self.fc = nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.lstm(x)[0][:, -1])

    torch.manual_seed(0)
    model = Recurrent().double()
    tickets = random_tickets(model, prunable=["lstm.weight_*"])
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    x = torch.randn(4, 6, 3).double()
    close(
        mixture(x, tickets=list("abca")),
        sample_by_sample(model, tickets, x, "abca"),
    )


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
