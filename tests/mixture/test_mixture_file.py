"""save and load of a mixture: one file, no pickle, everything checked."""

import itertools
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from rtl_plugin import KnownGroupRouter, MixtureOfMasks, TicketSet
from rtl_plugin.errors import DamagedFile, InvalidArgument, StructureMismatch
from tests.mixture.plain_loop import NAMES, PRIVATE, close, random_tickets
from tests.models import ZOO, Network


@pytest.fixture(params=ZOO, ids=str)
def network(request: pytest.FixtureRequest) -> Network:
    return request.param


def made(network: Network) -> MixtureOfMasks:
    torch.manual_seed(2)
    model = network.build()
    return MixtureOfMasks(model, random_tickets(model, private=PRIVATE[network.name]))


def test_a_round_trip_gives_identical_outputs(
    network: Network, tmp_path: Path, strategy: str
) -> None:
    mixture = made(network)
    path = tmp_path / "folder" / "mixture.safetensors"
    mixture.save(path)
    torch.manual_seed(99)
    other = network.build()  # other weights, same structure
    weights = {name: value.clone() for name, value in other.state_dict().items()}
    router = KnownGroupRouter(mixture.tickets)
    loaded = MixtureOfMasks.load(path, other, router, strategy)
    x = network.inputs(6)
    served = MixtureOfMasks(mixture.model, mixture.tickets, strategy=strategy)
    close(loaded(x, tickets=list("cadbbd")), served(x, tickets=list("cadbbd")))
    close(loaded(x, context="c"), served(x, tickets="c"))
    assert loaded.tickets.names == NAMES
    assert loaded.model is not other
    assert type(loaded.model) is type(other)
    for name, value in other.state_dict().items():
        assert torch.equal(value, weights[name]), f"load changed {name} of the model it was given"


def test_loading_keeps_the_mode_and_detaches_the_copy(tmp_path: Path) -> None:
    mixture = made(ZOO[0])
    mixture.save(tmp_path / "m")
    other = ZOO[0].build().train()
    loaded = MixtureOfMasks.load(tmp_path / "m", other)
    x = ZOO[0].inputs(4)
    expected = loaded(x, tickets="a")
    assert other.training
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(loaded(x, tickets="a"), expected)


def test_the_same_mixture_gives_the_same_bytes(network: Network, tmp_path: Path) -> None:
    made(network).save(tmp_path / "first")
    made(network).save(tmp_path / "second")
    loaded = MixtureOfMasks.load(tmp_path / "first", network.build())
    loaded.save(tmp_path / "third")
    first = (tmp_path / "first").read_bytes()
    assert (tmp_path / "second").read_bytes() == first
    assert (tmp_path / "third").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second", "third"]
    assert b"pickle" not in first


def test_later_weights_are_what_is_saved(tmp_path: Path) -> None:
    mixture = made(ZOO[1])
    with torch.no_grad():
        mixture.model[0].weight.add_(1.0)
    mixture.save(tmp_path / "m")
    loaded = MixtureOfMasks.load(tmp_path / "m", ZOO[1].build())
    assert torch.equal(loaded.model[0].weight, mixture.model[0].weight)


def linear(*sizes: int, bias: bool = True) -> nn.Sequential:
    layers = [nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (linear(5, 4, 2), r"'0.weight' has shape \(4, 3\), in the model it is \(4, 5\)"),
        (linear(3, 4), r"'1.weight' is not in the model"),
        (linear(3, 4, 2, bias=False), r"of '0.bias' the model has none"),
        (linear(3, 4, 2, 2), r"of '2.bias' the file has none"),
        (linear(3, 4, 5), r"'1.weight' has shape \(2, 4\), in the model it is \(5, 4\)"),
    ],
    ids=["shape", "missing layer", "missing bias", "extra layer", "masked head"],
)
def test_another_structure_is_refused(model: nn.Module, message: str, tmp_path: Path) -> None:
    saved = linear(3, 4, 2)
    path = tmp_path / "m.safetensors"
    MixtureOfMasks(saved, random_tickets(saved, prunable="*.weight")).save(path)
    with pytest.raises(StructureMismatch, match=rf"m\.safetensors: .*{message}"):
        MixtureOfMasks.load(path, model)


def test_an_unmasked_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    saved, other = linear(3, 4, 2), linear(3, 4, 5)
    MixtureOfMasks(saved, random_tickets(saved)).save(tmp_path / "m")
    with pytest.raises(StructureMismatch, match=r"'1.weight' has shape \(2, 4\) in the file and"):
        MixtureOfMasks.load(tmp_path / "m", other)


def test_a_ticket_file_is_refused_and_a_mixture_is_no_ticket_file(tmp_path: Path) -> None:
    mixture = made(ZOO[1])
    mixture.tickets.save(tmp_path / "tickets")
    with pytest.raises(DamagedFile, match=r"format 'rtl-plugin tickets', expected .* mixture'"):
        MixtureOfMasks.load(tmp_path / "tickets", ZOO[1].build())
    mixture.save(tmp_path / "mixture")
    with pytest.raises(DamagedFile, match=r"format 'rtl-plugin mixture', expected .* tickets'"):
        TicketSet.load(tmp_path / "mixture")


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    mixture, path = made(ZOO[0]), tmp_path / "m"
    mixture.save(path)
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    broken = {"empty": b"", "text": b"not a safetensors file", "doubled": whole + whole}
    for length in (1, 8, 100, len(whole) // 2, len(whole) - 1):
        broken[f"cut to {length}"] = whole[:length]
    for place in torch.randint(len(whole), (60,), generator=generator).tolist():
        flipped = bytearray(whole)
        flipped[place] ^= 0x10
        broken[f"bit flipped at {place}"] = bytes(flipped)
    model = ZOO[0].build()
    for what, content in broken.items():
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match=r"m( |:)") as caught:
            MixtureOfMasks.load(path, model)
        assert str(path) in str(caught.value), what
    safetensors.torch.save_file({"w": torch.zeros(1)}, path)
    with pytest.raises(DamagedFile, match="not one of rtl-plugin"):
        MixtureOfMasks.load(path, model)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        MixtureOfMasks.load(tmp_path / "nowhere", model)


def test_load_checks_router_and_strategy(tmp_path: Path) -> None:
    made(ZOO[1]).save(tmp_path / "m")
    with pytest.raises(InvalidArgument, match="unknown strategy 'fast': one of auto, reference"):
        MixtureOfMasks.load(tmp_path / "m", ZOO[1].build(), strategy="fast")
    with pytest.raises(InvalidArgument, match="router must have route"):
        MixtureOfMasks.load(tmp_path / "m", ZOO[1].build(), router=len)


def test_the_models_own_buffers_travel_for_tickets_without_state(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    tickets = random_tickets(model)
    for ticket in tickets.values():
        ticket.state.clear()
    model(torch.randn(8, 3))  # moves the running statistics
    mixture = MixtureOfMasks(model, tickets)
    mixture.save(tmp_path / "m")
    fresh = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    loaded = MixtureOfMasks.load(tmp_path / "m", fresh)
    x = torch.randn(4, 3)
    assert torch.equal(loaded(x, tickets=list("abcd")), mixture(x, tickets=list("abcd")))
