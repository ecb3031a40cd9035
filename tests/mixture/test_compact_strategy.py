"""What is the compact strategy's own: which tickets it takes, when it cuts again, its exports."""

import copy
import pickle
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

import rtl_plugin.mixture.compact as compact_module
from rtl_plugin import (
    KnownGroupRouter,
    MixtureOfMasks,
    Ticket,
    TicketSet,
    compact,
    recalibrate,
)
from rtl_plugin.channel_plan import ChannelPlan
from rtl_plugin.errors import CompactOnly, DamagedFile, InvalidArgument
from rtl_plugin.index_map import IndexMap
from tests.channels.zoo import (
    CHANNEL_ZOO,
    CONV_BN,
    LAYER_NORM,
    MASKABLE,
    RESIDUAL,
    ChannelNet,
    channel_tickets,
    made,
    masked,
)
from tests.discovery.setups import named_groups, same_bits, tensors_of
from tests.joint_training.setups import trained
from tests.mixture.plain_loop import close, plain_copy, sample_by_sample


@pytest.fixture(params=CHANNEL_ZOO, ids=str)
def net(request: pytest.FixtureRequest) -> ChannelNet:
    return request.param


def mixed(net: ChannelNet, strategy: str = "auto") -> tuple[nn.Module, MixtureOfMasks]:
    model = made(net)
    return model, MixtureOfMasks(model, channel_tickets(net, model), strategy=strategy)


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the tickets that small networks are made of."""
    names: list[str] = []

    def counting(model: nn.Module, ticket: compact_module.TicketSet) -> nn.Module:
        names.append(ticket.name)
        return compact(model, ticket)

    monkeypatch.setattr(compact_module, "compact", counting)
    return names


def test_auto_is_compact_for_channel_tickets_alone(net: ChannelNet) -> None:
    model, mixture = mixed(net)
    assert "with 2 tickets, strategy compact: one pass of a small network" in mixture.explain()
    bare = masked(mixture.tickets)
    assert "strategy auto" in MixtureOfMasks(model, bare).explain()
    with pytest.raises(InvalidArgument, match="ticket 'a' has no channel plan, so there is no sm"):
        MixtureOfMasks(model, bare, strategy="compact")


def test_what_masks_cannot_do_is_refused_by_layer(net: ChannelNet) -> None:
    model, mixture = mixed(net)
    if net in MASKABLE:
        assert MixtureOfMasks(model, mixture.tickets, strategy="reference").export("a")
        return
    message = 'strategy="reference" would compute something else .* because of layer .1. .LayerNorm'
    with pytest.raises(CompactOnly, match=message):
        MixtureOfMasks(model, mixture.tickets, strategy="reference")


def test_networks_are_made_once_and_again_for_what_changed(cuts: list[str]) -> None:
    model, mixture = mixed(RESIDUAL)
    x = RESIDUAL.inputs(4).double()
    assert cuts == [], "not before they are asked for"
    for _ in range(3):
        mixture(x, tickets=list("abba"))
    assert sorted(cuts) == ["a", "b"]
    mixture.tickets["a"].state["inner.running_mean"].add_(1)
    mixture(x, tickets=list("abba"))
    assert sorted(cuts) == ["a", "a", "b"], "the other ticket's state is the same"
    with torch.no_grad():
        model.fc.bias.add_(1)
    mixture(x, tickets="b")
    assert sorted(cuts) == ["a", "a", "b", "b"]
    mixture(x, tickets="b")
    model.inner.num_batches_tracked.add_(1)
    model.to(torch.float64).requires_grad_(False).train()  # nothing of which changes a value
    mixture(x, tickets="b")
    assert cuts.count("b") == 3, "a buffer of the model may be a ticket's"


def test_conversions_are_seen_even_there_and_back(net: ChannelNet) -> None:
    """The second time the memory may be the first one's again."""
    model, mixture = mixed(net)
    x = net.inputs(4).double()
    exact = mixture(x, tickets=list("abba"))
    for _ in range(3):
        mixture.half()
        mixture.double()
        outputs = mixture(x, tickets=list("abba"))
        close(outputs, sample_by_sample(model, mixture.tickets, x, "abba"))
        assert (outputs - exact).abs().max() > 1e-7
    mixture.to(torch.float32)
    assert mixture(x.float(), tickets="a").dtype == torch.float32


def test_new_values_at_the_old_address_are_seen() -> None:
    """One tensor alone, which the allocator puts where it lay before."""
    model = nn.Linear(64, 64, bias=False).double()
    index_map = IndexMap((64, 64), (torch.arange(0, 64, 2), None))
    plan = ChannelPlan({"weight": index_map}, {"": {"out_features": 32}})
    tickets = TicketSet([Ticket("a", {"weight": index_map.mask()}, {}, plan)])
    mixture, x = MixtureOfMasks(model, tickets), torch.randn(3, 64).double()
    for _ in range(5):
        with torch.no_grad():
            model.weight.add_(torch.randn(64, 64))
        mixture(x, tickets="a")
        model.half()
        model.double()
        assert torch.equal(mixture(x, tickets="a"), compact(model, tickets["a"])(x))


def test_retraining_recalibrating_and_loading_are_seen(net: ChannelNet) -> None:
    model, mixture = mixed(net)
    tickets, x = mixture.tickets, net.inputs(4).double()
    seen = [mixture(x, tickets=list("abba"))]

    def check() -> None:
        seen.append(mixture(x, tickets=list("abba")))
        close(seen[-1], sample_by_sample(model, tickets, x, "abba"))
        assert (seen[-1] - seen[-2]).abs().max() > 1e-4

    start = {name: value.clone() for name, value in model.state_dict().items()}
    for optimizer in (torch.optim.SGD, torch.optim.AdamW):
        trained(model, tickets, named_groups(net, torch.float64), allow_other_weights=True,
                optimizer=lambda p, kind=optimizer: kind(p, 0.05), epochs=1)  # fmt: skip
        check()
    if net.has_norm_statistics:
        recalibrate(model, tickets["a"], [net.inputs(4).double() + 3])
        check()
    model.load_state_dict(start)
    check()


def test_exports_are_small_networks(net: ChannelNet) -> None:
    model, mixture = mixed(net)
    x = net.inputs(3).double()
    for name, ticket in mixture.tickets.items():
        plain = mixture.export(name)
        assert type(plain) is type(model)
        assert sum(p.numel() for p in plain.parameters()) < sum(
            p.numel() for p in model.parameters()
        )
        assert same_bits(tensors_of(plain), tensors_of(compact(model, ticket)))
        assert torch.equal(plain(x), mixture(x, tickets=name))
        assert all(p.requires_grad for p in plain.parameters())
        before = mixture(x, tickets=name)
        with torch.no_grad():
            for parameter in plain.parameters():
                parameter.zero_()
        assert torch.equal(mixture(x, tickets=name), before), "it shares nothing"
    if net in MASKABLE:
        whole = MixtureOfMasks(model, mixture.tickets, strategy="reference").export("a")
        assert [p.shape for p in whole.parameters()] == [p.shape for p in model.parameters()]
        close(whole(x), plain_copy(model, mixture.tickets["a"])(x))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_mixtures_of_their_own(copied: object) -> None:
    _, mixture = mixed(CONV_BN)
    x = CONV_BN.inputs(3).double()
    before = mixture(x, tickets="a")
    other = copied(mixture)  # type: ignore[operator]
    assert torch.equal(other(x, tickets="a"), before)
    with torch.no_grad():
        other.model[7].bias.add_(1)
    assert torch.equal(mixture(x, tickets="a"), before)
    assert not torch.equal(other(x, tickets="a"), before)
    assert "strategy compact" in other.explain()


def test_serving_leaves_the_model_untouched(net: ChannelNet) -> None:
    model, mixture = mixed(net)
    before, flags = tensors_of(model), [module.training for module in model.modules()]
    versions = [p._version for p in model.parameters()]
    mixture(net.inputs(4).double(), tickets=list("abba"))
    mixture.eval()
    mixture.export("b")
    assert same_bits(tensors_of(model), before)
    assert [module.training for module in model.modules()] == flags
    assert [p._version for p in model.parameters()] == versions
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_many_threads_that_ask_first_at_once(net: ChannelNet) -> None:
    model, mixture = mixed(net)
    x = net.inputs(4).double()
    expected = {n: plain_copy(model, t)(x).detach() for n, t in mixture.tickets.items()}
    with ThreadPoolExecutor(8) as pool:
        names = list("ab" * 40)
        for name, outputs in zip(
            names, pool.map(lambda n: mixture(x, tickets=n), names), strict=True
        ):
            close(outputs, expected[name])


def test_a_router_and_weights(net: ChannelNet) -> None:
    model, mixture = mixed(net)
    routed = MixtureOfMasks(model, mixture.tickets, KnownGroupRouter(mixture.tickets))
    x = net.inputs(4).double()
    assert torch.equal(routed(x, context=list("abba")), mixture(x, tickets=list("abba")))


def test_a_mixture_file_there_and_back(net: ChannelNet, tmp_path: Path) -> None:
    _, mixture = mixed(net)
    path = tmp_path / "mixture"
    mixture.save(path)
    other = made(net, seed=5)
    loaded = MixtureOfMasks.load(path, other)
    x = net.inputs(6).double()
    assert loaded.tickets.structured
    assert "strategy compact" in loaded.explain()
    assert torch.equal(loaded(x, tickets=list("abbaab")), mixture(x, tickets=list("abbaab")))
    assert same_bits(tensors_of(loaded.export("a")), tensors_of(mixture.export("a")))
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    if net is LAYER_NORM:
        with pytest.raises(CompactOnly, match="layer '1'"):
            MixtureOfMasks.load(path, other, strategy="reference")


def test_damaged_mixture_files(tmp_path: Path) -> None:
    model, mixture = mixed(CONV_BN)
    path = tmp_path / "mixture"
    mixture.save(path)
    whole = path.read_bytes()
    broken = [whole[:n] for n in range(0, len(whole), 997)]
    broken += [whole[:k] + bytes([whole[k] ^ 0x10]) + whole[k + 1 :]
               for k in range(0, len(whole), 131)]  # fmt: skip
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match=re.escape(str(path))):
            MixtureOfMasks.load(path, model)
