"""What holds for every pair (pruner, network) that NNI supports; the table is in networks.py."""

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from nni.compression.pruning import LevelPruner
from torch import nn

from rtl_nni import IdenticalTickets, RTLPruner
from rtl_nni.group_evaluators import train_on
from rtl_plugin import GeometricSchedule
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.fingerprint import bit_equal
from rtl_plugin.randomness import forked
from tests.nni.networks import (
    CNN,
    ENCODER,
    GROUPS,
    KINDS,
    L1,
    LEVEL,
    MLP,
    MOBILENET,
    MOVEMENT,
    RESNET,
    SLIM,
    SUPPORTED,
    TAYLOR,
    Kind,
    Network,
    batches,
    config_of,
    evaluators_of,
    pruner_of,
    same_masks,
)
from tests.nni.traits import Before, used

RATIO, ROUNDS, STEPS = 0.5, 2, 2
PAIRS = [
    *((kind, CNN) for kind in KINDS),
    (L1, RESNET),
    (LEVEL, MOBILENET),
    (TAYLOR, MLP),
    (MOVEMENT, ENCODER),
]


def bare(name: str) -> str:
    return name.replace("_nni_wrapper.", "")


@dataclass
class Finished:
    """A finished run, and what there was before it."""

    kind: Kind
    network: Network
    model: nn.Module
    pruner: RTLPruner
    result: Any
    before: Before
    starts: list[dict[str, torch.Tensor]]


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: f"{pair[0].name}-{pair[1].name}")
def finished(request: pytest.FixtureRequest) -> Finished:
    kind, network = request.param
    model = used(network)
    starts: list[dict[str, torch.Tensor]] = []

    def spying(wrapped: nn.Module, *arguments: Any, **keywords: Any) -> None:
        own = {**dict(wrapped.named_parameters()), **dict(wrapped.named_buffers())}
        starts.append({bare(name): value.detach().clone() for name, value in own.items()})
        train_on(wrapped, *arguments, **keywords)

    loaders = {name: batches(network, name, count=2, size=4) for name in GROUPS}
    evaluators = evaluators_of(network, model, loaders=loaders, training_func=spying)
    pruner = pruner_of(
        network,
        model,
        kind,
        STEPS,
        config=config_of(kind, network, RATIO),
        evaluators=evaluators,
        schedule=GeometricSchedule(RATIO, rounds=ROUNDS),
    )
    before = Before(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdenticalTickets)  # two steps may well be too few
        result = pruner.compress()
    return Finished(kind, network, model, pruner, result, before, starts)


def test_the_pair_is_in_the_table(finished: Finished) -> None:
    assert SUPPORTED[finished.kind.name, finished.network.name]


def test_one_mask_dictionary_a_group(finished: Finished) -> None:
    model, masks = finished.result
    assert model is finished.model
    assert tuple(masks) == GROUPS == finished.pruner.tickets.names


def test_ratios_as_configured(finished: Finished) -> None:
    fine = finished.kind is LEVEL
    for masks in finished.result[1].values():
        for targets in masks.values():
            weight = targets["weight"]
            blocks = weight if fine else weight.flatten(1).amax(1) if weight.dim() > 1 else weight
            assert int((blocks == 0).sum()) == int(blocks.numel() * RATIO)
            if not fine and weight.dim() > 1:  # whole channels
                assert torch.equal(weight.flatten(1).amin(1), blocks)


def test_masks_are_zeros_and_ones_of_full_shape(finished: Finished) -> None:
    modules = dict(finished.model.named_modules())
    for masks in finished.result[1].values():
        for name, targets in masks.items():
            for target, mask in targets.items():
                parameter = getattr(modules[name], target)
                assert (mask is None) == (parameter is None)
                if mask is not None:
                    assert mask.shape == parameter.shape
                    assert mask.dtype == torch.float32
                    assert set(mask.unique().tolist()) <= {0.0, 1.0}


def test_masks_are_in_the_models_order(finished: Finished) -> None:
    order = [name for name, _ in finished.model.named_modules()]
    for masks in finished.result[1].values():
        assert list(masks) == sorted(masks, key=order.index)


def test_every_training_starts_from_the_same_weights(finished: Finished) -> None:
    assert len(finished.starts) == ROUNDS * len(GROUPS)
    for start in finished.starts:
        for name, value in finished.before.values.items():
            if not name.endswith(".grad"):
                assert bit_equal(start[name], value), name


def test_later_rounds_train_under_the_masks_so_far(finished: Finished) -> None:
    later = finished.starts[len(GROUPS) :]
    for masks, start in zip(finished.result[1].values(), later, strict=True):
        for name, targets in masks.items():
            before = start[f"{name}.weight_mask"].bool()
            assert not bool((targets["weight"].bool() & ~before).any())
        assert any(not bool(v.all()) for n, v in start.items() if n.endswith("_mask"))


def test_first_rounds_train_dense(finished: Finished) -> None:
    for start in finished.starts[: len(GROUPS)]:
        masks = [value for name, value in start.items() if name.endswith("_mask")]
        assert masks
        assert all(bool(mask.all()) for mask in masks)


def test_the_model_is_left_as_it_was(finished: Finished) -> None:
    finished.before.check()


def test_nothing_of_nni_is_left(finished: Finished) -> None:
    for module in finished.model.modules():
        assert not hasattr(module, "_nni_wrapper")
        assert "forward" not in vars(module)
        assert type(module).__module__.partition(".")[0] != "nni"


def test_nni_accepts_the_masks(finished: Finished) -> None:
    """A wrapped forward under the masks is the forward of weights masked by hand."""
    with forked(4):
        inputs = finished.network.inputs(3)
    for name, masks in finished.result[1].items():
        by_hand = copy.deepcopy(finished.model).eval()
        with torch.no_grad():
            for parameter, mask in finished.pruner.tickets[name].masks.items():
                by_hand.get_parameter(parameter).mul_(mask)
        wrapped = copy.deepcopy(finished.model).eval()
        config = config_of(finished.kind, finished.network)
        LevelPruner(wrapped, config).update_masks(masks)
        assert torch.allclose(wrapped(inputs), by_hand(inputs), atol=1e-6)
        dense = copy.deepcopy(finished.model).eval()
        assert not torch.allclose(wrapped(inputs), dense(inputs), atol=1e-6)


def test_tickets_say_what_the_masks_say(finished: Finished) -> None:
    for name, masks in finished.result[1].items():
        ticket = finished.pruner.tickets[name]
        assert set(ticket.masks) == {
            f"{module}.{target}"
            for module, targets in masks.items()
            for target, mask in targets.items()
            if mask is not None
        }
        for module, targets in finished.pruner.tickets.to_nni(name).items():
            for target, mask in targets.items():
                assert torch.equal(mask, masks[module][target])


def test_tickets_own_the_batch_norm_statistics(finished: Finished) -> None:
    buffers = {name for name, _ in finished.model.named_buffers()}
    for ticket in finished.pruner.tickets.values():
        assert set(ticket.state) == buffers
        assert all(bit_equal(v, finished.before.values[n]) for n, v in ticket.state.items())


def test_every_round_of_every_group_is_reported(finished: Finished) -> None:
    rows = finished.pruner.report.rows
    assert [(row.round, row.group) for row in rows] == [(r, g) for r in (1, 2) for g in GROUPS]
    for row in rows[len(GROUPS) :]:
        assert row.asked == pytest.approx(RATIO)
        masks = finished.result[1][row.group]
        zeros = sum(int((targets["weight"] == 0).sum()) for targets in masks.values())
        assert row.achieved == zeros / sum(t["weight"].numel() for t in masks.values())


def test_masks_are_handed_out_as_copies(finished: Finished) -> None:
    own = finished.pruner.get_masks("a")
    first = next(iter(own))
    own[first]["weight"].zero_()
    assert not same_masks(own, finished.pruner.get_masks("a"))
    assert same_masks(finished.result[1]["a"], finished.pruner.get_masks("a"))


@pytest.mark.parametrize(("kind", "network"), [(SLIM, MLP), (SLIM, ENCODER)])
def test_an_unsupported_pair_raises(kind: Kind, network: Network) -> None:
    assert not SUPPORTED[kind.name, network.name]
    model = network.build()
    with pytest.raises(InvalidArgument, match="'BatchNorm2d' in op_types matches nothing"):
        pruner_of(network, model, kind, config=config_of(kind, network))


@pytest.mark.parametrize("kind", [k for k in KINDS if k is not SLIM], ids=lambda k: k.name)
@pytest.mark.parametrize("network", [CNN, MLP], ids=lambda n: n.name)
def test_tickets_of_different_data_differ(kind: Kind, network: Network) -> None:
    _, masks = pruner_of(network, network.build(), kind, steps=30).compress()
    assert not same_masks(masks["a"], masks["b"])
    assert not same_masks(masks["b"], masks["c"])
