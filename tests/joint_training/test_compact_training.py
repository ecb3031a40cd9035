"""Retraining channel tickets through small networks is retraining them under their masks."""

from typing import Any

import pytest
import torch

from rtl_plugin import Ticket, TicketSet, compact, scatter_back
from rtl_plugin.errors import InvalidArgument
from tests.channels.zoo import (
    BN_NETS,
    CHANNEL_ZOO,
    CONV_BN,
    MASKABLE,
    RESIDUAL,
    ChannelNet,
    channel_tickets,
    disjoint_channels,
    made,
    masked,
)
from tests.discovery.setups import (
    copied,
    cross_entropy,
    named_groups,
    same_bits,
    tensors_of,
    ticket_tensors,
)
from tests.joint_training.setups import (
    MAIN,
    OPTIMIZERS,
    Observed,
    clipped,
    masked_weights,
    trained,
    with_scheduler,
)

F64 = torch.float64
FOUR = (*MAIN, "RMSprop")


class Run:
    """One retraining in float64 with everything that it leaves."""

    def __init__(self, net: ChannelNet, small: bool, factory: Any, **others: Any) -> None:
        self.model = made(net)
        channels = channel_tickets(net, self.model)
        self.tickets = channels if small else masked(channels)
        self._factory = factory
        groups = named_groups(net, F64)
        self.report = trained(
            self.model, self.tickets, groups, optimizer=self._build, **{"epochs": 3, **others}
        )

    def _build(self, parameters: Any) -> Any:
        built = self._factory(parameters)
        self.optimizer = built[0] if isinstance(built, tuple) else built
        return built

    def shared(self) -> dict[str, torch.Tensor]:
        """Weights and moments."""
        found = dict(self.model.named_parameters())
        for name, leaf in self.model.named_parameters():
            state = self.optimizer.state[leaf].items()
            found |= {f"{name}|{key}": v for key, v in state if isinstance(v, torch.Tensor)}
        return copied(found)

    def own(self, plans: TicketSet) -> dict[str, torch.Tensor]:
        """Every ticket's own tensors, of those that are cut the kept part."""
        found = {}
        for name, ticket in self.tickets.items():
            plan = plans[name].channels
            assert plan is not None
            for key, value in ticket.state.items():
                index_map = plan.maps.get(key)
                found[f"{name}/{key}"] = value if index_map is None else value[index_map.mask()]
        return found


def close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], atol=1e-10, rtol=1e-10, msg=key)


def check_equals_masked(net: ChannelNet, factory: Any, own: bool = True, **others: Any) -> Run:
    small, whole = (Run(net, which, factory, **others) for which in (True, False))
    close(small.shared(), whole.shared())
    if own:
        close(small.own(small.tickets), whole.own(small.tickets))
    losses = [[row["loss"] for row in run.report.rows] for run in (small, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    start = dict(made(net).named_parameters())
    for name, parameter in small.model.named_parameters():
        assert not torch.equal(parameter, start[name]), name
    return small


@pytest.mark.parametrize("optimizer", FOUR)
@pytest.mark.parametrize("net", MASKABLE, ids=str)
def test_it_equals_the_masked_training(net: ChannelNet, optimizer: str) -> None:
    check_equals_masked(net, OPTIMIZERS[optimizer])


def test_with_clipping_in_a_hook() -> None:
    norms: list[float] = []
    check_equals_masked(CONV_BN, clipped(OPTIMIZERS["AdamW"], 0.2, norms))
    half = len(norms) // 2
    assert half == 12
    assert norms[:half] == pytest.approx(norms[half:], rel=1e-9)
    assert max(norms) > 0.2


def test_with_a_learning_rate_schedule() -> None:
    factory = with_scheduler(
        OPTIMIZERS["SGD momentum"], lambda o: torch.optim.lr_scheduler.StepLR(o, 3, gamma=0.5)
    )
    run = check_equals_masked(RESIDUAL, factory)
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * 0.5**4), "12 steps"


def test_with_parameter_groups() -> None:
    def factory(parameters: Any) -> Any:
        weights = [p for p in parameters if p.dim() > 1]
        others = [p for p in parameters if p.dim() <= 1]
        return torch.optim.AdamW(
            [{"params": weights, "weight_decay": 0.5}, {"params": others, "weight_decay": 0.0}],
            0.01,
        )

    check_equals_masked(CONV_BN, factory)


@pytest.mark.parametrize("net", CHANNEL_ZOO, ids=str)
def test_with_private_parameters(net: ChannelNet) -> None:
    others = {"private_parameters": net.private, "epochs": 2}
    run = Run(net, True, OPTIMIZERS["AdamW"], **others)
    private = [n for n in run.tickets["a"].state if n in dict(run.model.named_parameters())]
    assert private
    start = dict(made(net).named_parameters())
    for name in private:
        assert torch.equal(run.model.get_parameter(name), start[name])
        own = [ticket.state[name] for ticket in run.tickets.values()]
        assert not torch.equal(own[0], own[1])
    if net in MASKABLE:
        whole = Run(net, False, OPTIMIZERS["AdamW"], **others)
        close(run.shared(), whole.shared())
        close(run.own(run.tickets), whole.own(run.tickets))


def test_a_cut_parameter_cannot_be_private() -> None:
    with pytest.raises(InvalidArgument, match=r"'1\.\w+' is masked and cannot be private too"):
        Run(CONV_BN, True, OPTIMIZERS["SGD"], private_parameters=["1.*"])


def test_shared_statistics_move_at_the_kept_channels() -> None:
    """In train mode weights do not see them; outside its channels a ticket leaves them alone."""
    small = Run(CONV_BN, True, lambda p: torch.optim.SGD(p, 0.0), own_statistics=False, epochs=2)
    model = made(CONV_BN)
    tickets = channel_tickets(CONV_BN, model)
    shared = tickets["a"].state
    batches = {name: list(group.train) for name, group in named_groups(CONV_BN, F64).items()}
    for index in (0, 1, 0, 1):
        for name, ticket in tickets.items():
            own = Ticket(name, ticket.masks, shared, ticket.channels)
            network = compact(model, own).train()
            network(batches[name][index][0])
            scatter_back(network, model, own)
            shared = own.state
    for ticket in small.tickets.values():
        close(ticket.state, shared)
    assert same_bits(small.tickets["a"].state, small.tickets["b"].state)
    assert int(shared["1.num_batches_tracked"]) == 8


@pytest.mark.parametrize("optimizer", ["SGD momentum", "AdamW"])
@pytest.mark.parametrize("net", BN_NETS, ids=str)
def test_weights_under_shared_statistics(net: ChannelNet, optimizer: str) -> None:
    check_equals_masked(net, OPTIMIZERS[optimizer], own=False, own_statistics=False)


@pytest.mark.parametrize("net", CHANNEL_ZOO, ids=str)
def test_one_ticket_trains_as_its_small_network_would_by_itself(net: ChannelNet) -> None:
    """Also where a norm looks across channels, which no masked network can do."""
    model = made(net)
    tickets = TicketSet([channel_tickets(net, model)["a"]])
    small = compact(model, tickets["a"]).train()
    optimizer = OPTIMIZERS["AdamW"](list(small.parameters()))
    for _ in range(2):
        for batch in named_groups(net, F64)["a"].train:
            optimizer.zero_grad()
            cross_entropy(small, batch).backward()
            optimizer.step()
    trained(model, tickets, named_groups(net, F64, a=2))
    assert same_bits(tensors_of(compact(model, tickets["a"])), tensors_of(small))
    assert not same_bits(tensors_of(small), tensors_of(compact(made(net), tickets["a"])))


class ObservedSmall(Observed):
    """Hooks see small gradients here, so they are held to the small shape."""

    def _check_gradients(self, *_: Any) -> None:
        for name, mask in self._tickets[self.current].masks.items():
            leaf = self._parameters[name]
            if leaf.requires_grad:
                assert leaf.grad is not None
                assert leaf.grad.shape == leaf.shape
                assert leaf.numel() == int(mask.sum())
                self.gradients_seen += int((leaf.grad != 0).sum())


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("optimizer", MAIN)
@pytest.mark.parametrize("net", CHANNEL_ZOO, ids=str)
def test_a_step_moves_nothing_outside_its_ticket(
    net: ChannelNet, optimizer: str, dtype: torch.dtype
) -> None:
    model = made(net, dtype)
    tickets = channel_tickets(net, model, "abc")
    plans = {name: ticket.channels for name, ticket in tickets.items()}
    before, own = tensors_of(model), ticket_tensors(tickets)
    observed = ObservedSmall(model, tickets, OPTIMIZERS[optimizer])
    groups = named_groups(net, dtype, a=2, b=2, c=2)
    trained(model, tickets, groups, observed.loss, optimizer=observed.factory)
    observed.check()
    assert "".join(observed.steps) == "abc" * 4
    assert min(observed.moved_inside, observed.filled_outside, observed.gradients_seen) > 0
    buffers = dict(model.named_buffers())
    assert same_bits(copied(buffers), {n: before[n] for n in buffers}), "the model's own stay"
    for name, plan in plans.items():
        assert plan is not None
        assert tickets[name].channels is plan
        for key, index_map in plan.maps.items():
            if key in tickets[name].state:
                value, earlier = tickets[name].state[key], own[f"{name}/state/{key}"]
                assert torch.equal(value != earlier, index_map.mask()), key


@pytest.mark.parametrize("optimizer", [*FOUR, "Adagrad"])
@pytest.mark.parametrize("net", [n for n in MASKABLE if n is not RESIDUAL], ids=str)
def test_disjoint_tickets_train_as_each_would_alone(net: ChannelNet, optimizer: str) -> None:
    model, groups = made(net), named_groups(net, F64)
    others = {"private_parameters": net.private, "optimizer": OPTIMIZERS[optimizer]}
    together = disjoint_channels(net, model)
    report = trained(model, together, groups, **others)
    for name in "ab":
        start = made(net)
        alone = TicketSet([disjoint_channels(net, start)[name]])
        own = trained(start, alone, groups.only(name), **others)
        masks = together[name].masks
        assert same_bits(masked_weights(model, masks), masked_weights(start, masks))
        assert same_bits(together[name].state, alone[name].state)
        losses = [row["loss"] for row in report.rows if row["group"] == name]
        assert losses == [row["loss"] for row in own.rows]
