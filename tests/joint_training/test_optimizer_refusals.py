"""Optimizers that cannot be isolated are refused by name, before a weight has moved."""

from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument, RtlError, UnsupportedOptimizer
from rtl_plugin.joint_training.optimizer_rules import check_elementwise, initial_state
from rtl_plugin.randomness import forked
from tests.discovery.setups import (
    MLP,
    Interrupting,
    built,
    named_groups,
    random_states,
    random_tickets,
    same_bits,
    sgd,
    tensors_of,
)
from tests.joint_training.setups import OPTIMIZERS, clipped, trained, with_scheduler


class Lars(torch.optim.Optimizer):
    """SGD with one trust ratio a tensor: every weight's step depends on all the others."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    ratio = parameter.norm() / (parameter.grad.norm() + 1e-6)
                    parameter.sub_(group["lr"] * ratio * parameter.grad)


class MatricesOnly(Lars):
    """Couples the weights of matrices, treats vectors element by element."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    row = parameter.dim() > 1
                    gradient = parameter.grad
                    scaled = gradient / (1 + gradient.abs().mean(-1, keepdim=True))
                    parameter.sub_(group["lr"] * (scaled if row else gradient))


class Later(Lars):
    """Element-wise at first; its state couples the weights from the second step on."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    scale = self.state[parameter].get("scale", torch.tensor(1.0))
                    parameter.sub_(group["lr"] * scale * parameter.grad)
                    self.state[parameter]["scale"] = parameter.grad.norm()


class RowState(Lars):
    """Keeps one value a row."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter].setdefault("rows", torch.zeros(len(parameter), 1, 1))
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] * parameter.grad)


class SlowWeights(Lars):
    """Starts its state from the weights themselves, as averaging optimizers do."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    slow = self.state[parameter].setdefault("slow", parameter.clone())
                    slow.sub_(group["lr"] * parameter.grad)
                    parameter.copy_((parameter + slow) / 2)


class GroupCount(Lars):
    """Counts its steps for the whole parameter group."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] / group["count"] * parameter.grad)


class AttributeCount(GroupCount):
    """Counts its steps in an attribute of its own."""

    count = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.count += 1


class GlobalState(GroupCount):
    """Counts its steps in its state, but not with a parameter."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.state["all"]["count"] = self.state["all"].get("count", 0) + 1


class Procrastinating(Lars):
    """Makes its state in the third step, when the trial is over."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    state["n"] = state.get("n", 0) + 1
                    if state["n"] > 2:
                        state["late"] = parameter.clone()
                    parameter.sub_(group["lr"] * parameter.grad)


def no_bias() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8, bias=False), nn.Tanh(), nn.Linear(8, 3, bias=False))


REFUSED: dict[str, tuple[Any, str]] = {
    "LBFGS": (torch.optim.LBFGS, "LBFGS mixes all weights in one update"),
    "Adafactor": (torch.optim.Adafactor, "Adafactor .* not element-wise"),
    "SparseAdam": (torch.optim.SparseAdam,
                   r"SparseAdam cannot be isolated: a plain step\(\) on dense gradients failed"),
    "dampening": (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, dampening=0.1),
                  "SGD with these settings treats its first step apart.*Set dampening=0"),
    "Lars": (Lars, "Lars updates a weight by other weights' gradients"),
    "MatricesOnly": (MatricesOnly, "MatricesOnly updates a weight by other weights' gradients"),
    "Later": (Later, "Later updates a weight by other weights' gradients"),
    "RowState": (RowState, r"RowState keeps 'rows' of shape \(4, 1, 1\) for a parameter of shape"),
    "GroupCount": (GroupCount, "GroupCount changes 'count' of parameter group 0 with every step"),
    "AttributeCount": (AttributeCount, "AttributeCount changes its attribute 'count' with every"),
    "GlobalState": (GlobalState, "GlobalState changes its state 'all' with every step"),
    "SlowWeights": (SlowWeights, "SlowWeights with these settings treats its first step apart"),
}  # fmt: skip
if hasattr(torch.optim, "Muon"):
    REFUSED["Muon"] = (torch.optim.Muon, "Muon updates a weight by other weights' gradients")


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    factory, message = REFUSED[name]
    model, loss = no_bias(), Interrupting()
    tickets, before, states = random_tickets(model), tensors_of(model), random_states()
    with pytest.raises(UnsupportedOptimizer, match=message) as caught:
        trained(model, tickets, named_groups(MLP), loss, optimizer=factory)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, RtlError)
    assert same_bits(tensors_of(model), before)
    assert random_states() == states
    assert loss.calls == 0


def test_state_that_comes_late_is_refused_when_it_comes() -> None:
    model = no_bias()
    before = tensors_of(model)
    with pytest.raises(UnsupportedOptimizer, match=r"Procrastinating made its state 'late' of '0"):
        trained(
            model, random_tickets(model), named_groups(MLP), optimizer=Procrastinating, epochs=1,
            batches_per_epoch=3,
        )  # fmt: skip
    assert same_bits(tensors_of(model), before)


def test_refused_behind_a_scheduler_and_hooks_too() -> None:
    factory = with_scheduler(
        clipped(Lars, 1.0), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)
    )
    with pytest.raises(UnsupportedOptimizer, match="Lars updates a weight"):
        trained(no_bias(), random_tickets(no_bias()), named_groups(MLP), optimizer=factory)


def test_refused_when_only_one_parameter_group_couples() -> None:
    class Mixed(Lars):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        scale = parameter.norm() if group["lr"] > 0.5 else 1.0
                        scale = scale * (parameter.grad.norm() if group["lr"] > 0.5 else 1.0)
                        parameter.sub_(scale * parameter.grad)

    weights = [torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)]
    check_elementwise(Mixed([{"params": weights, "lr": 0.1}]))
    groups = [{"params": [weights[0]], "lr": 0.1}, {"params": [weights[1]], "lr": 0.9}]
    with pytest.raises(UnsupportedOptimizer, match="Mixed updates a weight by other weights'"):
        check_elementwise(Mixed(groups))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_those_that_work_are_left_as_they_were_built(name: str) -> None:
    with forked(0):
        weights = [torch.randn(3, 2, requires_grad=True), torch.randn(2, requires_grad=True)]
    before = [weight.detach().clone() for weight in weights]
    calls: list[int] = []
    optimizer = OPTIMIZERS[name](weights)
    optimizer.register_step_pre_hook(lambda *_: calls.append(1))
    optimizer.register_step_post_hook(lambda *_: calls.append(2))
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    states = random_states()
    check_elementwise(optimizer)
    initial = initial_state(optimizer, weights)
    assert len(initial) == 2
    assert calls == []
    assert random_states() == states
    after = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    assert after == settings
    for weight, original in zip(weights, before, strict=True):
        assert torch.equal(weight, original)
        assert weight.grad is None


def test_a_scheduler_is_not_stepped_by_the_trial() -> None:
    weight = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.Adam([weight], 0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    check_elementwise(optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert scheduler.last_epoch == 0
    assert getattr(optimizer, "_opt_called", False) is False


def test_the_factory_is_called_once_on_what_is_trained() -> None:
    model = built(MLP)
    tickets = random_tickets(model)
    given: list[list[torch.Tensor]] = []

    def factory(parameters: list[torch.Tensor]) -> Any:
        given.append(parameters)
        return sgd(parameters)

    trained(model, tickets, named_groups(MLP), optimizer=factory, private_parameters=["4.bias"])
    assert len(given) == 1
    shared = {id(p) for n, p in model.named_parameters() if n != "4.bias"}
    assert {id(p) for p in given[0]} >= shared
    private = [p for p in given[0] if id(p) not in shared]
    assert [tuple(p.shape) for p in private] == [(3,), (3,)], "one for each ticket"


@pytest.mark.parametrize("frozen", ["all", "one"])
def test_a_frozen_model(frozen: str) -> None:
    model = built(MLP)
    tickets = random_tickets(model)
    (model if frozen == "all" else model[2]).requires_grad_(False)
    with pytest.raises(
        InvalidArgument, match=r"masked parameters are frozen .*: \[.*'2\.weight'\]"
    ):
        trained(model, tickets, named_groups(MLP))


def test_a_factory_that_closes_over_the_model() -> None:
    """With private parameters the model's own are not what is trained."""
    model = built(MLP)
    with pytest.raises(InvalidArgument, match=r"no others: .* not \.\.\. model\.parameters\(\)"):
        trained(
            model, random_tickets(model), named_groups(MLP), private_parameters=["4.*"],
            optimizer=lambda params: sgd(model.parameters()),
        )  # fmt: skip
    with pytest.raises(InvalidArgument, match=r"leaves prunable parameters out: \['0\.weight'\]"):
        trained(
            model,
            random_tickets(model),
            named_groups(MLP),
            optimizer=lambda params: sgd(params[1:]),
        )
