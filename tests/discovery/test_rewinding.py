"""Every round starts from theta_0, bit for bit, and whoever prevents that is found out."""

from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import OneShotSchedule, discover
from rtl_plugin.discovery import rewinding
from rtl_plugin.discovery.rewinding import RewindPoint, Untouched, verify_rewind
from rtl_plugin.errors import RewindFailed, RtlError
from rtl_plugin.fingerprint import bit_equal
from tests.discovery.setups import (
    MLP,
    built,
    copied,
    cross_entropy,
    draw_from_all,
    found,
    named_groups,
    same_bits,
    tensors_of,
)
from tests.models import ZOO, Network


class Watching:
    """Notes what the loss sees at the first step of every (round, group)."""

    def __init__(self, steps: int) -> None:
        self.starts: list[tuple[str, dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []
        self._steps, self._calls = steps, 0

    def __call__(self, model: Any, batch: Any) -> torch.Tensor:
        if self._calls % self._steps == 0:
            parameters = copied(dict(model.named_parameters()))
            self.starts.append((batch[2], parameters, copied(dict(model.named_buffers()))))
        self._calls += 1
        return cross_entropy(model, batch)


@pytest.mark.parametrize("network", ZOO, ids=str)
def test_survivors_are_theta_0_at_the_start_of_every_round(network: Network) -> None:
    model, watching = built(network), Watching(steps=3)
    theta_0, buffers = copied(dict(model.named_parameters())), copied(dict(model.named_buffers()))
    tickets = found(model, named_groups(network), watching, steps=3)
    assert [group for group, _, _ in watching.starts] == ["a", "b", "a", "b"]
    masked = tickets["a"].masks
    for k, (group, seen, seen_buffers) in enumerate(watching.starts):
        assert same_bits(seen_buffers, buffers), "statistics start afresh in every round"
        for name, value in seen.items():
            if name not in masked or k < 2:  # dense, or the first round
                assert bit_equal(value, theta_0[name]), name
                continue
            kept = value != 0
            assert bit_equal(value[kept], theta_0[name][kept]), name
            final = tickets[group].masks[name]
            assert bit_equal(value[final], theta_0[name][final]), name
    pruned = sum(int((watching.starts[2][1][n] == 0).sum()) for n in masked)
    assert pruned > 0, "the second round must see masks, or this test sees nothing"


def test_training_really_moved_the_weights_between_two_rewinds() -> None:
    model, seen = built(MLP), []

    def loss(view: Any, batch: Any) -> torch.Tensor:
        seen.append(copied(dict(view.named_parameters())))
        return cross_entropy(view, batch)

    found(model, named_groups(MLP), loss, steps=3)
    assert not same_bits(seen[0], seen[1])
    assert not same_bits(seen[1], seen[2])


@pytest.mark.parametrize("rewind_to", [0, 2])
@pytest.mark.parametrize("victim", ["0.weight", "0.bias", "4.weight"])
def test_a_loss_that_writes_to_the_model_is_found_out(victim: str, rewind_to: int) -> None:
    model = built(MLP)
    before, written = tensors_of(model), model.get_parameter(victim)
    calls = 0

    def loss(view: Any, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 5 + rewind_to:  # round 2, group 'a'
            written.data.flatten()[0] += 1e-7
        return cross_entropy(view, batch)

    with pytest.raises(RewindFailed, match=f"discover, group 'a', round 2: .*'{victim}'") as caught:
        found(model, named_groups(MLP), loss, rewind_to=rewind_to)
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, RtlError)
    assert same_bits(tensors_of(model), before)


def test_a_write_in_the_very_last_step_is_found_out() -> None:
    model = built(MLP)
    before, calls = tensors_of(model), 0

    def loss(view: Any, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            model[0].weight.data.mul_(2)
        return cross_entropy(view, batch)

    with pytest.raises(RewindFailed, match=r"group 'a', round 1: .*'0\.weight'"):
        found(model, named_groups(MLP, a=2), loss, schedule=OneShotSchedule(0.5))
    assert same_bits(tensors_of(model), before)


def test_a_hook_that_updates_buffers_behind_our_back_is_found_out() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    before, own = tensors_of(model), model[1].running_mean

    def hook(*_: Any) -> None:
        own.add_(1.0)  # the model's buffer, not the ticket's

    model[0].register_forward_hook(hook)
    with pytest.raises(RewindFailed, match=r"the loss, or a hook, wrote to .*'1\.running_mean'"):
        found(model, named_groups(MLP))
    assert same_bits(tensors_of(model), before)


def test_a_write_while_training_to_a_late_rewind_point_is_found_out() -> None:
    model = built(MLP)

    def loss(view: Any, batch: Any) -> torch.Tensor:
        model[0].weight.data.mul_(2)
        return cross_entropy(view, batch)

    with pytest.raises(RewindFailed, match=r"late rewinding: .*'0\.weight'"):
        found(model, named_groups(MLP), loss, rewind_to=1)


def test_a_write_to_the_rewind_point_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    points: list[RewindPoint] = []
    capture = RewindPoint.capture

    def remembered(model: nn.Module) -> RewindPoint:
        points.append(capture(model))
        return points[-1]

    monkeypatch.setattr(rewinding.RewindPoint, "capture", staticmethod(remembered))

    def loss(view: Any, batch: Any) -> torch.Tensor:
        points[0].parameters["2.bias"][0] += 1
        return cross_entropy(view, batch)

    # The model is compared with the same snapshot, so that check must not be what speaks.
    monkeypatch.setattr(Untouched, "check", lambda *_: None)
    with pytest.raises(RewindFailed, match=r"group 'b', round 1: .*written to since it was taken"):
        found(built(MLP), named_groups(MLP), loss)


@pytest.mark.parametrize("name", ["0.weight", "0.bias"])
def test_a_rewind_that_does_nothing_is_found_out(name: str, monkeypatch: Any) -> None:
    leaves = RewindPoint.leaves

    def stale(point: RewindPoint) -> dict[str, torch.Tensor]:
        result = leaves(point)
        with torch.no_grad():
            result[name].flatten()[-1] += 1e-6
        return result

    monkeypatch.setattr(RewindPoint, "leaves", stale)
    with pytest.raises(RewindFailed, match=f"after the rewind '{name}' differs"):
        found(built(MLP), named_groups(MLP))


def test_verification_looks_at_survivors_only_and_at_bits() -> None:
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 1.0]]))
    point = RewindPoint.capture(model)
    theta_0 = dict(model.named_parameters())
    mask = {"weight": torch.tensor([[False, True]])}
    verify_rewind(point, {"weight": torch.tensor([[9.0, 1.0]])}, mask, theta_0, "here")
    with pytest.raises(RewindFailed, match="here: after the rewind 'weight' differs"):
        verify_rewind(point, {"weight": torch.tensor([[0.0, 1.5]])}, mask, theta_0, "here")
    with pytest.raises(RewindFailed, match="'weight' differs"):  # -0.0 equals 0.0, but not in bits
        verify_rewind(point, {"weight": torch.tensor([[-0.0, 1.0]])}, {}, theta_0, "here")
    elsewhere = {"weight": torch.tensor([[0.0, 2.0]])}
    with pytest.raises(RewindFailed, match="'weight' differs"):
        verify_rewind(point, point.leaves(), mask, elsewhere, "here")


def test_parameters_without_dimensions_are_verified_too() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))
            self.inner, self.head = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.inner(x))) * self.scale

    torch.manual_seed(0)
    tickets = found(Scaled(), named_groups(MLP))
    assert tickets["a"].kept == 16


def test_every_group_and_round_has_random_streams_of_its_own() -> None:
    drawn: dict[str, list[float]] = {"a": [], "b": []}

    def loss(view: Any, batch: Any) -> torch.Tensor:
        drawn[batch[2]].append(torch.rand(()).item())
        draw_from_all()
        return cross_entropy(view, batch)

    found(built(MLP), named_groups(MLP), loss)
    assert len({*drawn["a"], *drawn["b"]}) == 8
    alone, drawn = drawn["b"], {"a": [], "b": []}
    found(built(MLP), named_groups(MLP, b=2), loss)
    assert drawn["b"] == alone, "what group a draws must not shift what group b sees"


def test_groups_never_see_each_other() -> None:
    together = found(built(MLP), named_groups(MLP))
    alone = found(built(MLP), named_groups(MLP, b=2))
    assert same_bits(together["b"].masks, alone["b"].masks)
    assert not same_bits(together["a"].masks, together["b"].masks)


def test_the_same_call_gives_the_same_tickets_and_another_seed_others() -> None:
    def masks(seed: int) -> dict[str, torch.Tensor]:
        tickets = discover(
            built(MLP), named_groups(MLP), cross_entropy, schedule=OneShotSchedule(0.5),
            optimizer=sgd_with_noise, steps=2, seed=seed, progress=False,
        )  # fmt: skip
        return dict(tickets["a"].masks)

    def sgd_with_noise(parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(parameters, 0.1)
        optimizer.register_step_pre_hook(
            lambda *_: [p.grad.add_(torch.randn_like(p)) for p in parameters] and None
        )
        return optimizer

    assert same_bits(masks(0), masks(0))
    assert not same_bits(masks(0), masks(1))
