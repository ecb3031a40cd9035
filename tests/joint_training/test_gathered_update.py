"""A gathered step is the masked step: same weights and moments inside, same bits outside."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from rtl_plugin.errors import UnsupportedOptimizer
from rtl_plugin.index_map import IndexMap
from rtl_plugin.joint_training.gathered_update import GatheredUpdate
from rtl_plugin.joint_training.masked_update import MaskedUpdate
from tests.discovery.setups import copied, same_bits
from tests.joint_training.setups import OPTIMIZERS, clipped

SHAPES = {"conv": (4, 3, 2), "flat": (3, 4), "bias": (4,), "whole": (3,), "scalar": ()}


def maps_of(seed: int) -> dict[str, IndexMap]:
    generator = torch.Generator().manual_seed(seed)

    def some(size: int, count: int) -> torch.Tensor:
        return torch.randperm(size, generator=generator)[:count].sort().values

    return {
        "conv": IndexMap((4, 3, 2), (some(4, 2), some(3, 2), None)),
        "flat": IndexMap((3, 4), entries=torch.randperm(12, generator=generator)[:6].view(2, 3)),
        "bias": IndexMap((4,), (some(4, 2),)),
    }


MAPS = {name: maps_of(seed) for seed, name in enumerate("abc")}
MASKS = {
    ticket: {n: maps[n].mask() if n in maps else torch.ones(s).bool() for n, s in SHAPES.items()}
    for ticket, maps in MAPS.items()
}


def smalls(
    leaves: dict[str, torch.Tensor], maps: dict[str, IndexMap], gradients: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The small tensors as a backward pass leaves them, from gradients of the whole size."""
    found = {}
    for name, gradient in gradients.items():
        values = (leaves[name].detach(), gradient)
        value, own = (maps[name].gather(v) if name in maps else v.clone() for v in values)
        found[name] = value if name in maps else leaves[name].detach()
        found[name].grad = own
    return found


class Side:
    """Leaves under one of the two updates."""

    def __init__(self, factory: Any, gathered: bool, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(9)
        self.leaves = {
            name: torch.randn(shape, generator=generator, dtype=torch.float64)
            .to(dtype)
            .requires_grad_()
            for name, shape in SHAPES.items()
        }
        self.optimizer = factory(list(self.leaves.values()))
        self.gathered = gathered
        kind: Any = GatheredUpdate if gathered else MaskedUpdate
        self.update = kind(self.optimizer, self.leaves, MAPS if gathered else MASKS)

    def step(self, ticket: str, gradients: dict[str, torch.Tensor]) -> None:
        if self.gathered:
            self.update.step(ticket, smalls(self.leaves, MAPS[ticket], gradients))
            return
        for name, leaf in self.leaves.items():
            gradient = gradients.get(name)
            leaf.grad = None if gradient is None else gradient * MASKS[ticket][name]
        self.update.step(ticket)

    def tensors(self) -> dict[str, torch.Tensor]:
        found = dict(self.leaves)
        for name, leaf in self.leaves.items():
            state = self.optimizer.state[leaf].items()
            found |= {f"{name}|{key}": v for key, v in state if isinstance(v, torch.Tensor)}
        return copied(found)

    def single(self) -> dict[str, torch.Tensor]:
        return {
            f"{ticket}/{name}/{key}": torch.as_tensor(value)
            for ticket, names in self.update.state()["per_ticket"].items()
            for name, values in names.items()
            for key, value in values.items()
        }


def random_gradients(steps: int, leave_out: str = "") -> Iterator[tuple[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    for step in range(steps):
        drawn = {n: torch.randn(s, generator=generator).double() for n, s in SHAPES.items()}
        if step % 3 == 1:
            drawn.pop(leave_out, None)
        yield "abcacb"[step % 6], drawn


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_equals_the_masked_update(optimizer: str) -> None:
    gathered, masked = (Side(OPTIMIZERS[optimizer], which) for which in (True, False))
    for ticket, gradients in random_gradients(12, leave_out="conv"):
        before = gathered.tensors()
        gathered.step(ticket, gradients)
        masked.step(ticket, gradients)
        now, expected = gathered.tensors(), masked.tensors()
        assert now.keys() == expected.keys()
        for key, value in now.items():
            torch.testing.assert_close(value, expected[key], atol=1e-12, rtol=1e-12)
            outside = ~MASKS[ticket][key.split("|")[0]]
            if key in before:
                assert torch.equal(value[outside], before[key][outside]), key
    assert not torch.equal(now["conv"], Side(OPTIMIZERS[optimizer], True).tensors()["conv"])
    assert gathered.single().keys() == masked.single().keys()
    for key, value in gathered.single().items():
        torch.testing.assert_close(value, masked.single()[key], rtol=1e-12, atol=0)


def test_a_clipping_hook_sees_the_tickets_own_gradients() -> None:
    norms: dict[bool, list[float]] = {True: [], False: []}
    sides = [Side(clipped(OPTIMIZERS["AdamW"], 0.7, norms[w]), w) for w in (True, False)]
    for ticket, gradients in random_gradients(9):
        for side in sides:
            side.step(ticket, gradients)
    assert norms[True] == pytest.approx(norms[False], rel=1e-12)
    assert min(norms[True]) > 0.7
    for key, value in sides[0].tensors().items():
        torch.testing.assert_close(value, sides[1].tensors()[key], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("optimizer", ["SGD momentum", "AdamW", "AdamW fused", "Adagrad"])
def test_another_tickets_parts_keep_their_bits_in_float32(optimizer: str) -> None:
    side = Side(OPTIMIZERS[optimizer], True, torch.float32)
    for ticket, gradients in random_gradients(8):
        before = side.tensors()
        side.step(ticket, {n: g.float() for n, g in gradients.items()})
        for key, value in side.tensors().items():
            mask = MASKS[ticket][key.split("|")[0]]
            assert torch.equal(value[~mask], before[key][~mask]), key
            if "|" not in key:
                assert not torch.equal(value[mask], before[key][mask]), key


def test_the_leaves_keep_their_memory_shape_and_layout() -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last).requires_grad_()
    turned = torch.randn(3, 4).t().requires_grad_()
    maps = {
        "weight": IndexMap((4, 3, 2, 2), (torch.tensor([0, 3]), None, None, None)),
        "turned": IndexMap((4, 3), entries=torch.tensor([[1, 2], [7, 11]])),
    }
    optimizer = torch.optim.AdamW([weight, turned], 0.1)
    update = GatheredUpdate(optimizer, {"weight": weight, "turned": turned}, {"a": maps})
    before = [(t.data_ptr(), t.stride(), t.detach().clone()) for t in (weight, turned)]
    leaves = {"weight": weight, "turned": turned}
    update.step("a", smalls(leaves, maps, {n: torch.ones_like(p) for n, p in leaves.items()}))
    for (pointer, stride, value), leaf, name in zip(
        before, (weight, turned), ("weight", "turned"), strict=True
    ):
        assert (leaf.data_ptr(), leaf.stride(), leaf.grad) == (pointer, stride, None)
        assert torch.equal(leaf != value, maps[name].mask())
        for state in optimizer.state[leaf].values():
            assert state.shape == leaf.shape


def test_a_hook_that_moves_all_weights_after_the_step_is_contained() -> None:
    side = Side(OPTIMIZERS["SGD momentum"], True)

    def shrink(*_: Any) -> None:
        with torch.no_grad():
            for leaf in side.leaves.values():
                leaf.mul_(0.5)

    side.optimizer.register_step_post_hook(shrink)
    before = side.tensors()
    side.step("a", next(random_gradients(1))[1])
    for name in MAPS["a"]:
        outside = ~MASKS["a"][name]
        assert torch.equal(side.leaves[name][outside], before[name][outside])
        assert not torch.equal(side.leaves[name], before[name])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_step_that_fails_leaves_whole_leaves_and_moments(error: type[BaseException]) -> None:
    side = Side(OPTIMIZERS["AdamW"], True)
    side.step("a", next(random_gradients(1))[1])
    before = side.tensors()

    def fail(*_: Any) -> None:
        raise error("in a hook")

    handle = side.optimizer.register_step_pre_hook(fail)
    with pytest.raises(error, match="in a hook"):
        side.step("b", next(random_gradients(1))[1])
    handle.remove()
    after = side.tensors()
    assert same_bits({k: after[k] for k in before}, before)
    assert all(leaf.grad is None for leaf in side.leaves.values())


def test_a_parameter_without_a_gradient_stays() -> None:
    side = Side(OPTIMIZERS["AdamW"], True)
    before = side.tensors()
    side.step("a", {"bias": torch.ones(4).double()})
    after = side.tensors()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"bias", "bias|exp_avg", "bias|exp_avg_sq"}


class Late(torch.optim.SGD):
    """Makes a moment in a later step than its first."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        for group in self.param_groups:
            for leaf in group["params"]:
                state = self.state[leaf]
                if leaf.grad is not None:
                    state["count"] = state.get("count", 0) + 1
                    if state["count"] > 2:
                        state["late"] = torch.zeros_like(leaf)


def test_state_that_comes_late_is_refused() -> None:
    side = Side(lambda p: Late(p, 0.1), True)
    side.step("a", next(random_gradients(1))[1])
    with pytest.raises(
        UnsupportedOptimizer, match=r"Late made its state 'late' of '.*' later than"
    ):
        side.step("a", next(random_gradients(1))[1])


def test_state_can_be_saved_and_loaded() -> None:
    whole, resumed = Side(OPTIMIZERS["Adam amsgrad"], True), Side(OPTIMIZERS["Adam amsgrad"], True)
    steps = list(random_gradients(10))
    for ticket, gradients in steps[:5]:
        whole.step(ticket, gradients)
    with torch.no_grad():
        for name, leaf in resumed.leaves.items():
            leaf.copy_(whole.leaves[name])
    state = whole.update.state()
    shared = {name: copied(entries) for name, entries in state["shared"].items()}
    single = {t: {n: copied(e) for n, e in of.items()} for t, of in state["per_ticket"].items()}
    resumed.update.load_state({"shared": shared, "per_ticket": single})
    for ticket, gradients in steps[5:]:
        for side in (whole, resumed):
            side.step(ticket, gradients)
    assert same_bits(resumed.tensors(), whole.tensors())
