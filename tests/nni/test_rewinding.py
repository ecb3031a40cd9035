"""Rounds start alike, masks only lose weights, and late rewind points are kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.compression.pruning import FPGMPruner, LinearPruner, MovementPruner
from torch import nn
from torch.nn import functional as F

import rtl_plugin as rtl
from rtl_nni.group_evaluators import train_on
from rtl_plugin.errors import InvalidArgument, PruningFailed, StructureMismatch
from rtl_plugin.fingerprint import bit_equal
from tests.nni.networks import (
    AGP,
    CNN,
    FPGM,
    KINDS,
    L1,
    LEVEL,
    LINEAR,
    MLP,
    MOVEMENT,
    TAYLOR,
    Kind,
    Network,
    batches,
    cross_entropy,
    evaluators_of,
    pruner_of,
    same_masks,
    sgd,
)
from tests.nni.traits import Before, used

ROUNDS = 3


class Twin(nn.Module):
    """Two layers that are added, so that their outputs may be pruned together."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(6, 12)
        self.middle = nn.Linear(12, 10)
        self.head = nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.relu(self.first(x) + self.second(x))
        return self.head(torch.relu(self.middle(joined)))


TWIN = Network("twin", Twin, (6,), {"op_names": ["first", "second"]})


class Recorder:
    """A training step that notes the masks that every step of every training sees."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def __call__(self, batch: Any, model: nn.Module) -> torch.Tensor:
        self.seen.append({n: b.clone() for n, b in model.named_buffers() if n.endswith("_mask")})
        return cross_entropy(batch, model)

    def densities(self) -> list[float]:
        return [
            sum(float(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
            for masks in self.seen
        ]


def recorded(
    kind: Kind, network: Network, config: Any = None, steps: int = 6
) -> tuple[Recorder, Any]:
    model, recorder = network.build(), Recorder()
    evaluators = evaluators_of(network, model, ["a"], training_step=recorder)
    schedule = rtl.GeometricSchedule(0.75, rounds=ROUNDS)
    pruner = pruner_of(
        network,
        model,
        kind,
        steps,
        evaluators=evaluators,
        schedule=schedule,
        config=config or network.config(0.75),
    )
    _, masks = pruner.compress()
    return recorder, masks["a"]


CONFIGS: dict[str, tuple[Network, list[dict[str, Any]]]] = {
    "ratio": (MLP, MLP.config(0.75)),
    "channels of convolutions": (CNN, CNN.config(0.75)),
    "global group": (TWIN, TWIN.config(0.75, global_group_id=1)),
    "dependency group": (TWIN, TWIN.config(0.75, dependency_group_id="sum")),
    "threshold": (MLP, [{"op_names": ["0", "2"], "sparse_threshold": 2.0}]),
    "internal blocks": (TWIN, TWIN.config(0.75, dependency_group_id=1, internal_metric_block=4)),
    "blocks": (MLP, [{"op_names": ["2"], "sparse_ratio": 0.75, "granularity": [2, 4]}]),
}


THRESHOLDS = {"l1": 2.0, "fpgm": 11.0, "taylor": 1e-4, "linear_l1": 2.0}  # scores differ in size


def check_only_losing(recorder: Recorder, masks: Any) -> None:
    final = {f"{m}._nni_wrapper.{t}_mask": v for m, ts in masks.items() for t, v in ts.items()}
    for earlier, later in zip(recorder.seen, [*recorder.seen[1:], final], strict=True):
        assert set(earlier) == set(later)
        for name, mask in later.items():
            assert not bool((mask.bool() & ~earlier[name].bool()).any()), name


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", [L1, FPGM, TAYLOR, LINEAR], ids=lambda k: k.name)
def test_masks_only_lose_weights(kind: Kind, name: str) -> None:
    """Also where a scheduled pruner's own path starts at zero again in every round."""
    network, config = CONFIGS[name]
    if name == "threshold":
        config = [{**config[0], "sparse_threshold": THRESHOLDS[kind.name]}]
    recorder, masks = recorded(kind, network, config)
    check_only_losing(recorder, masks)
    assert any(bool((mask == 0).any()) for targets in masks.values() for mask in targets.values())


def test_masks_of_a_movement_pruner_stay_within_those_of_the_round_before() -> None:
    """Within a round its masks may come and go from step to step; that is NNI's algorithm."""
    steps = 6
    recorder, masks = recorded(MOVEMENT, MLP, steps=steps)
    final = {f"{m}._nni_wrapper.{t}_mask": v for m, ts in masks.items() for t, v in ts.items()}
    states = [*recorder.seen, final]
    for number, later in enumerate(states):
        start = states[min(number, len(states) - 2) // steps * steps]
        for name, mask in later.items():
            assert not bool((mask.bool() & ~start[name].bool()).any()), name
    densities = recorder.densities()[::steps]
    assert densities[0] == 1.0 > densities[1] > densities[2]


@pytest.mark.parametrize("kind", [LEVEL, AGP], ids=lambda k: k.name)
def test_masks_of_other_pruners_only_lose_weights(kind: Kind) -> None:
    recorder, masks = recorded(kind, MLP)
    check_only_losing(recorder, masks)


def test_dependent_layers_lose_the_same_channels() -> None:
    _, masks = recorded(L1, *CONFIGS["dependency group"])
    assert torch.equal(masks["first"]["weight"], masks["second"]["weight"])
    assert int((masks["first"]["weight"].sum(1) == 0).sum()) == 9


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k not in (LINEAR, AGP, MOVEMENT)], ids=lambda k: k.name
)
def test_every_round_is_as_sparse_as_the_schedule_says(kind: Kind) -> None:
    schedule = rtl.GeometricSchedule(0.75, rounds=ROUNDS)
    pruner = pruner_of(MLP, MLP.build(), kind, 4, config=MLP.config(0.75), schedule=schedule)
    pruner.compress()
    for row in pruner.report.rows:
        ratio = schedule.sparsity(row.round)
        assert row.asked == pytest.approx(ratio)
        for name, rows, size in (("0.weight", 16, 96), ("2.weight", 12, 192)):
            blocks = size if kind is LEVEL else rows
            assert row.layers[name] == pytest.approx(int(blocks * ratio) / blocks), name


def test_a_pruner_that_sets_masks_behind_our_back_is_refused() -> None:
    """Otherwise a weight could come back in a later round."""

    class Forgetful(FPGMPruner):  # type: ignore[misc]
        def get_masks(self) -> Any:
            masks = super().get_masks()
            for targets in masks.values():
                targets["weight"] = targets["weight"].flip(0)
            return masks

    kind = Kind("forgetful", Forgetful)
    with pytest.raises(PruningFailed, match=r"round 2: 2\.weight regained weights"):
        recorded(kind, MLP)


def test_masks_are_not_shared_between_rounds() -> None:
    """NNI copies masks in place, which must not change those of the round before."""
    model = MLP.build()
    schedule = rtl.GeometricSchedule(0.75, rounds=2)
    pruner = pruner_of(MLP, model, LEVEL, 4, config=MLP.config(0.75), schedule=schedule)
    pruner.compress()
    first, last = pruner.report.rows[0], pruner.report.rows[3]
    assert (first.achieved, last.achieved) == (pytest.approx(0.5, abs=0.01), 0.75)


def spied(rewind_to: int, **others: Any) -> tuple[nn.Module, Any, list[Any]]:
    model, starts = used(CNN), []

    def spying(wrapped: nn.Module, *arguments: Any, **keywords: Any) -> None:
        starts.append(
            {
                n.replace("_nni_wrapper.", ""): v.detach().clone()
                for n, v in [*wrapped.named_parameters(), *wrapped.named_buffers()]
            }
        )
        train_on(wrapped, *arguments, **keywords)

    evaluators = evaluators_of(CNN, model, training_func=spying)
    schedule = rtl.GeometricSchedule(0.5, rounds=2)
    pruner = pruner_of(
        CNN, model, L1, evaluators=evaluators, schedule=schedule, rewind_to=rewind_to, **others
    )
    return model, pruner, starts


@pytest.fixture(scope="module")
def late() -> tuple[nn.Module, Any, list[Any], Before]:
    model, pruner, starts = spied(rewind_to=7)
    before = Before(model)
    pruner.compress()
    return model, pruner, starts, before


def test_a_late_rewind_point_is_where_all_rounds_start(late: Any) -> None:
    _, pruner, starts, before = late
    assert len(starts) == 3 + 6
    point = pruner.tickets.rewind_state
    for start in starts[3:]:
        assert all(bit_equal(start[name], value) for name, value in point.items())
    assert not bit_equal(point["0.weight"], before.values["0.weight"])
    assert set(point) == set(before.model.state_dict())


def test_the_groups_take_turns_to_a_late_rewind_point(late: Any) -> None:
    """Seven steps are three, two and two, each from where the group before stopped."""
    _, _, starts, before = late
    assert bit_equal(starts[0]["0.weight"], before.values["0.weight"])
    assert not bit_equal(starts[1]["0.weight"], starts[0]["0.weight"])
    assert not bit_equal(starts[2]["0.weight"], starts[1]["0.weight"])
    batches = [int(start["1.num_batches_tracked"]) for start in starts]
    first = int(before.values["1.num_batches_tracked"])
    assert [count - first for count in batches] == [0, 3, 5, *[7] * 6]


def test_a_late_rewind_point_leaves_the_model_as_it_was(late: Any) -> None:
    late[3].check()


def test_own_state_of_late_tickets_is_that_of_the_rewind_point(late: Any) -> None:
    tickets = late[1].tickets
    for ticket in tickets.values():
        assert all(bit_equal(v, tickets.rewind_state[n]) for n, v in ticket.state.items())


def test_a_late_rewind_point_is_saved_with_the_tickets(late: Any, tmp_path: Path) -> None:
    tickets = late[1].tickets
    tickets.save(tmp_path / "t.rtl")
    loaded = rtl.TicketSet.load(tmp_path / "t.rtl")
    assert loaded.rewind_state is not None
    assert set(loaded.rewind_state) == set(tickets.rewind_state)
    assert all(bit_equal(v, loaded.rewind_state[n]) for n, v in tickets.rewind_state.items())


def core_loss(model: Any, batch: Any) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def test_retraining_in_the_core_starts_from_the_late_rewind_point(late: Any) -> None:
    model, pruner, _, _ = late
    tickets, seen = pruner.tickets, []

    def loss(view: Any, batch: Any) -> torch.Tensor:
        if not seen:
            seen.append({n: p.detach().clone() for n, p in view.named_parameters()})
        return core_loss(view, batch)

    own = CNN.build()
    own.load_state_dict(model.state_dict())
    groups = rtl.DataGroups.from_loaders({name: batches(CNN, name) for name in "abc"})
    rtl.retrain(own, tickets, groups, loss, epochs=1, optimizer=sgd)
    for name, value in seen[0].items():
        mask = tickets["a"].masks.get(name)
        expected = tickets.rewind_state[name]
        assert bit_equal(value, expected if mask is None else expected * mask), name


def test_retraining_other_weights_than_those_of_the_tickets_is_refused(late: Any) -> None:
    pruner = late[1]
    groups = rtl.DataGroups.from_loaders({name: batches(CNN, name) for name in "abc"})
    with pytest.raises(StructureMismatch, match="weights"):
        rtl.retrain(CNN.build(9), pruner.tickets, groups, core_loss, epochs=1, optimizer=sgd)


def test_too_few_steps_to_a_late_rewind_point() -> None:
    _, pruner, _ = spied(rewind_to=2)
    with pytest.raises(InvalidArgument, match="rewind_to=2 is less than one step for each of 3"):
        pruner.compress()


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "2"])
def test_a_rewind_point_that_is_no_number(wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match="rewind_to"):
        spied(rewind_to=wrong)


def test_without_a_late_rewind_point_no_state_is_kept() -> None:
    _, pruner, _ = spied(rewind_to=0)
    pruner.compress()
    assert pruner.tickets.rewind_state is None


def movement_around(model: nn.Module, config: Any, evaluator: Any) -> Any:
    return MovementPruner(model, config, evaluator, warmup_step=1, cooldown_begin_step=4)


def too_long(model: nn.Module, config: Any, evaluator: Any) -> Any:
    return LinearPruner(L1.source(model, config, evaluator), 3, 2)


@pytest.mark.parametrize(
    ("factory", "steps", "message"),
    [
        (movement_around, 3, "MovementPruner makes its final masks after 4 steps"),
        (too_long, 5, r"LinearPruner makes its final masks after 6 steps \(interval_steps"),
        (too_long, 0, "LinearPruner makes its final masks after 6 steps"),
        (too_long, None, "LinearPruner trains while it prunes: give steps= or epochs="),
    ],
)
def test_a_training_that_ends_before_the_final_masks(
    factory: Callable[..., Any], steps: int | None, message: str
) -> None:
    model = used(CNN)
    before = Before(model)
    pruner = pruner_of(CNN, model, pruner=factory, pruner_options=None, steps=steps)
    with pytest.raises(InvalidArgument, match=message):
        pruner.compress()
    before.check()


def test_epochs_that_end_before_the_final_masks() -> None:
    """Steps of an epoch are not known beforehand; the masks tell."""
    model = used(CNN)
    before = Before(model)
    pruner = pruner_of(
        CNN, model, pruner=too_long, pruner_options=None, epochs=1, config=CNN.config()
    )
    with pytest.raises(PruningFailed, match="long enough for the pruner to make its final masks"):
        pruner.compress()
    before.check()


def test_the_same_masks_whatever_group_trains_first() -> None:
    model = CNN.build()
    one = pruner_of(CNN, model, LEVEL, names=("a", "b")).compress()[1]
    other = pruner_of(CNN, model, LEVEL, names=("b", "a")).compress()[1]
    assert same_masks(one["a"], other["a"])
    assert same_masks(one["b"], other["b"])
