"""export: a ticket as an ordinary module of the user's class."""

import pytest
import torch
from torch import nn

from rtl_plugin import MixtureOfMasks, TicketSet
from rtl_plugin.errors import UnknownTicket
from rtl_plugin.mixture.replica import storage_sharing_replica
from tests.mixture.plain_loop import NAMES, PRIVATE, TOLERANCES, random_tickets
from tests.models import ZOO, Network


@pytest.fixture(params=ZOO, ids=str)
def network(request: pytest.FixtureRequest) -> Network:
    return request.param


def made(network: Network, strategy: str = "auto") -> tuple[nn.Module, MixtureOfMasks]:
    torch.manual_seed(1)
    model = network.build().double()
    tickets = random_tickets(model, private=PRIVATE[network.name])
    return model, MixtureOfMasks(model, tickets, strategy=strategy)


def test_it_computes_what_the_mixture_computes(network: Network, strategy: str) -> None:
    _, mixture = made(network, strategy)
    x = network.inputs(5).double()
    for name in NAMES:
        plain = mixture.export(name)
        assert not any(module.training for module in plain.modules())
        torch.testing.assert_close(plain(x), mixture(x, tickets=name), **TOLERANCES[torch.float64])


def test_it_is_the_users_class_and_loads_strictly(network: Network) -> None:
    model, mixture = made(network)
    plain = mixture.export("b")
    assert type(plain) is type(model)
    assert [*plain.state_dict()] == [*model.state_dict()]
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert all(p.requires_grad for p in plain.parameters())
    bare = network.build().double()
    bare.load_state_dict(plain.state_dict(), strict=True)
    x = network.inputs(3).double()
    assert torch.equal(bare.eval()(x), plain(x))


def test_masks_and_own_state_are_folded_in(network: Network) -> None:
    model, mixture = made(network)
    ticket = mixture.tickets["c"]
    exported = mixture.export("c").state_dict()
    for name, value in model.state_dict().items():
        expected = ticket.state.get(name, value)
        if name in ticket.masks:
            expected = value * ticket.masks[name]
            assert not exported[name][~ticket.masks[name]].any()
        assert torch.equal(exported[name], expected), name


def test_it_shares_no_storage(network: Network) -> None:
    model, mixture = made(network)
    plain = mixture.export("a")
    tensors = [*model.state_dict().values()]
    for ticket in mixture.tickets.values():
        tensors += [*ticket.state.values(), *ticket.masks.values()]
    held = {tensor.data_ptr() for tensor in tensors}
    assert held.isdisjoint(tensor.data_ptr() for tensor in plain.state_dict().values())
    x = network.inputs(3).double()
    before = plain(x)
    with torch.no_grad():
        for tensor in tensors:
            tensor.zero_()
    assert torch.equal(plain(x), before)


def test_it_trains_like_any_module(network: Network) -> None:
    model, mixture = made(network)
    weights = [p.detach().clone() for p in model.parameters()]
    plain = mixture.export("a").train()
    optimizer = torch.optim.SGD(plain.parameters(), 0.1)
    plain(network.inputs(4).double()).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_tied_parameters_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    model[1].weight = model[0].weight
    plain = MixtureOfMasks(model, random_tickets(model)).export("a")
    assert plain[1].weight is plain[0].weight
    assert plain[0].weight is not model[0].weight


def test_non_persistent_buffers_and_index() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    model.register_buffer("offset", torch.ones(1), persistent=False)
    mixture = MixtureOfMasks(model, random_tickets(model))
    model.offset.fill_(5.0)
    plain = mixture.export(1)
    assert plain.offset.item() == 5.0
    assert torch.equal(plain[0].weight, model[0].weight * mixture.tickets["b"].masks["0.weight"])


def test_an_unknown_name_is_refused() -> None:
    _, mixture = made(ZOO[1])
    with pytest.raises(UnknownTicket, match=r"unknown ticket 'z'; this set has 'a', 'b', 'c', 'd'"):
        mixture.export("z")


class Stubborn(nn.Module):
    """Overrides train() without returning self, as code that freezes its norms often does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9), nn.Linear(3, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)


def test_a_model_whose_train_returns_nothing() -> None:
    model = Stubborn()
    mixture = MixtureOfMasks(model, random_tickets(model))
    plain = mixture.export("a")
    x = torch.randn(4, 3)
    assert type(plain) is Stubborn
    assert not plain.body.training
    torch.testing.assert_close(mixture(x, tickets="a"), plain(x))


def test_the_replica_shares_every_tensor_and_no_module(network: Network) -> None:
    model = network.build()
    replica = storage_sharing_replica(model)
    pairs = zip(model.modules(), replica.modules(), strict=True)
    assert all(type(a) is type(b) and a is not b for a, b in pairs)
    mine, theirs = (
        [*model.parameters(), *model.buffers()],
        [
            *replica.parameters(),
            *replica.buffers(),
        ],
    )
    assert all(a is b for a, b in zip(mine, theirs, strict=True))


def test_exports_of_a_set_from_elsewhere() -> None:
    """Hand-made tickets have no fingerprint and no state."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1))
    tickets = random_tickets(model, names=["only"])
    assert isinstance(tickets, TicketSet)
    assert tickets.structure is None
    plain = MixtureOfMasks(model, tickets).export("only")
    assert torch.equal(plain[1].weight, model[1].weight)
