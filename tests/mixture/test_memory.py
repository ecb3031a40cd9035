"""What a mixture holds, counted by hand."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from rtl_plugin import MixtureOfMasks, Ticket, TicketSet
from rtl_plugin.packed_masks import PackedMasks
from rtl_plugin.structure import persistent_buffers
from tests.mixture.plain_loop import random_tickets


def mlp() -> nn.Module:
    layers = nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 10)
    return nn.Sequential(*layers)


def ten_tickets(model: nn.Module) -> TicketSet:
    return random_tickets(model, [f"t{k}" for k in range(10)], keep=0.3)


def test_parts_are_what_a_hand_count_gives() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 16), nn.Linear(16, 2))
    mixture = MixtureOfMasks(model, random_tickets(model), strategy="slices")
    weights = 4 * (8 * 16 + 16 + 16 + 16 + 16 * 16 + 16 + 16 * 2 + 2)
    statistics = 4 * 16 + 4 * 16 + 8
    masks = (8 * 16 + 16 * 16) // 8
    before = mixture.memory()
    assert before.parts["weights"] == weights + statistics
    assert before.parts["masks"] == 4 * masks
    assert before.parts["own state"] >= 4 * statistics
    assert before.parts["masked copies"] == 0
    assert before.copies == 4 * (weights + statistics)
    with torch.no_grad():
        mixture(torch.randn(4, 8), tickets=list("abcd"))
    assert mixture.memory().parts["masked copies"] == 4 * 4 * (8 * 16 + 16 * 16)
    assert str(mixture.memory()).splitlines()[-1].split()[:2] == ["K", "masked"]


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 7.4), (torch.bfloat16, 6.0)])
@pytest.mark.parametrize("build", [mlp, lambda: resnet18(num_classes=10)], ids=["mlp", "resnet18"])
def test_ten_lean_tickets_take_little_more_than_one_network(
    build: type[nn.Module], dtype: torch.dtype, least: float
) -> None:
    model = build().to(dtype)
    shape = (1024,) if isinstance(model, nn.Sequential) else (3, 32, 32)
    mixture = MixtureOfMasks(model, ten_tickets(model), budget=0)
    with torch.no_grad():
        mixture(torch.randn(4, *shape, dtype=dtype), tickets=[0, 3, 9, 3])
    assert mixture.memory().ratio >= least


def test_bool_masks_are_let_go_with_the_callers_ticket_set() -> None:
    model = nn.Linear(64, 64, bias=False)
    tickets = TicketSet([Ticket("a", {"weight": torch.rand(64, 64) < 0.5})])
    kept = tickets["a"].masks["weight"].clone()
    mask = weakref.ref(tickets["a"].masks["weight"])
    mixture = MixtureOfMasks(model, tickets)
    del tickets
    gc.collect()
    assert mask() is None
    assert torch.equal(mixture.tickets["a"].masks["weight"], kept)


def test_the_state_of_packed_tickets_is_the_callers(strategy: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    tickets = random_tickets(model, ["a"])
    mixture = MixtureOfMasks(model, tickets, strategy=strategy)
    x = torch.randn(3, 4, dtype=torch.float64)
    before = mixture(x, tickets="a")
    tickets["a"].state["1.running_mean"] = torch.ones(4, dtype=torch.float64)
    assert not torch.allclose(mixture(x, tickets="a"), before)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (64,), (65,), (3, 5, 7), (0, 4)])
def test_packed_masks_read_as_what_was_packed(shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape) < 0.5
    packed = PackedMasks({"w": mask})
    assert torch.equal(packed["w"], mask)
    assert packed["w"].dtype == torch.bool
    assert packed.nbytes == -(-mask.numel() // 64) * 8
    bits = packed.words("w")
    for position, kept in enumerate(mask.flatten().tolist()):
        assert bool(int(bits[position // 64]) >> (position % 64) & 1) == kept


def test_rows_of_packed_masks() -> None:
    mask = torch.rand(24, 5, 3) < 0.5
    packed = PackedMasks({"w": mask})
    assert torch.equal(packed.unpacked_rows("w", 8, 21).bool(), mask[8:21])


def test_a_packed_ticket_saves_as_the_one_it_was_made_of(tmp_path: object) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    tickets = random_tickets(model)
    tickets.save(f"{tmp_path}/bools")
    tickets.packed().save(f"{tmp_path}/bits")
    with open(f"{tmp_path}/bools", "rb") as bools, open(f"{tmp_path}/bits", "rb") as bits:
        assert bools.read() == bits.read()
    assert tickets.packed()["a"].state is tickets["a"].state
    assert tickets.packed().packed()["a"].masks is not tickets["a"].masks
    assert set(persistent_buffers(model)) == set(tickets["a"].state)
