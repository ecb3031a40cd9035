"""step(interactive=True): the host's groups one by one, in the user's hands."""

from typing import Any

import pytest
import torch

from rtl_plugin.errors import InvalidArgument, PruningFailed, StructureMismatch
from rtl_torch_pruning import RTLPruner
from tests.discovery.setups import same_bits, tensors_of
from tests.torch_pruning.setups import assert_same_network, pruner_of, run_all, trained_pruner
from tests.torch_pruning.zoo import CONV_BN, DENSE, FUSED, ZOO, Net


def root(group: Any) -> int:
    return int(group[0].dep.target.module.weight.shape[0])


@pytest.mark.parametrize("net", ZOO, ids=str)
def test_pruning_every_group_is_a_plain_step(net: Net) -> None:
    settings: dict[str, Any] = {"iterative_steps": 2, "pruning_ratio": 0.4}
    plain = run_all(trained_pruner(net, net.build(), **settings))
    by_hand = trained_pruner(net, net.build(), **settings)
    for round in (1, 2):
        names = []
        for group in by_hand.step(interactive=True):
            names.append(group.ticket)
            group.prune()
        assert names == sorted(names)
        assert set(names) == {"a", "b"}
        assert by_hand.reports[-1].round == round
    for name in "ab":
        assert_same_network(by_hand.compact(name), plain.compact(name))
        assert by_hand.reports[-1][name].widths == plain.reports[-1][name].widths


def test_groups_that_are_skipped_stay_whole() -> None:
    pruner = pruner_of(CONV_BN, CONV_BN.build())
    for group in pruner.step(interactive=True):
        if (group.ticket, root(group)) != ("a", 8):
            group.prune()
    assert pruner.reports[-1]["a"].widths == {"parts.0": (8, 8), "parts.3": (6, 12)}
    assert pruner.reports[-1]["b"].widths == {"parts.0": (4, 8), "parts.3": (6, 12)}
    assert "parts.0" not in pruner.channels("a")


def test_other_channels_by_the_users_choice() -> None:
    model = DENSE.build()
    pruner = pruner_of(DENSE, model)
    for group in pruner.step(interactive=True):
        if root(group) == 6:
            group.prune(idxs=[0, 5] if group.ticket == "a" else [1])
    assert pruner.channels("a")["stem"] == [1, 2, 3, 4]
    assert pruner.channels("b")["stem"] == [0, 2, 3, 4, 5]
    small = pruner.compact("a")
    assert torch.equal(small.stem.weight, model.stem.weight[1:5])
    assert small.two.in_channels == 12
    kept = [1, 2, 3, 4, *range(6, 14)]
    assert torch.equal(small.two.weight, model.two.weight[:, kept])


def test_nothing_pruned_is_an_error() -> None:
    pruner = pruner_of(CONV_BN, CONV_BN.build())
    with pytest.raises(PruningFailed, match="group 'a', round 1: nothing was cut"):
        list(pruner.step(interactive=True))


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_stopping_half_way(stop: int) -> None:
    model = CONV_BN.build()
    model.parts[0].eval()
    before, flags = tensors_of(model), [m.training for m in model.modules()]
    pruner = trained_pruner(CONV_BN, model)
    generator = pruner.step(interactive=True)
    for _ in range(stop):
        next(generator).prune()
    generator.close()
    assert same_bits(tensors_of(model), before)
    assert [m.training for m in model.modules()] == flags
    assert (pruner.current_step, pruner.reports) == (0, [])
    with pytest.raises(InvalidArgument, match="there are no tickets yet"):
        _ = pruner.tickets
    pruner.step()
    plain = run_all(trained_pruner(CONV_BN, CONV_BN.build()))
    for name in "ab":
        assert_same_network(pruner.compact(name), plain.compact(name))


def write_to(layer_tensor: str, pruner: RTLPruner) -> None:
    for group in pruner.step(interactive=True):
        group.prune()
        layers = [dep.target.module for dep, _ in group]
        held = [getattr(layer, layer_tensor, None) for layer in layers]
        next(t for t in held if isinstance(t, torch.Tensor)).data.mul_(0.5)


@pytest.mark.parametrize("tensor", ["weight", "bias", "running_mean"])
def test_writing_to_the_working_network_is_refused(tensor: str) -> None:
    """Between the groups its tensors hold positions, so weights cannot be looked at either."""
    pruner = pruner_of(CONV_BN, CONV_BN.build())
    message = r"does not hold its positions .* group\.prune\(\) only"
    with pytest.raises(PruningFailed, match=message):
        write_to(tensor, pruner)
    pruner.step()
    assert pruner.compact("a").parts[0].out_channels == 4


def test_writing_to_the_model_is_refused() -> None:
    model = CONV_BN.build()
    groups = pruner_of(CONV_BN, model).step(interactive=True)
    next(groups).prune()
    model.head.weight.data.add_(1)
    with pytest.raises(StructureMismatch, match=r"'head\.weight' changed since the first round"):
        [group.prune() for group in groups]


def test_the_caller_has_its_own_model_between_groups() -> None:
    model = CONV_BN.build().eval()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    for group in pruner_of(CONV_BN, model).step(interactive=True):
        assert not any(module.training for module in model.modules())
        assert model.head.weight.grad is not None
        group.prune()


def test_one_round_at_a_time() -> None:
    pruner = pruner_of(CONV_BN, CONV_BN.build(), iterative_steps=1)
    first, second = pruner.step(interactive=True), pruner.step(interactive=True)
    next(first).prune()
    with pytest.raises(InvalidArgument, match="a round is open"):
        next(second)
    [group.prune() for group in first]
    with pytest.raises(InvalidArgument, match="all 1 rounds are done"):
        next(pruner.step(interactive=True))


def test_heads_of_a_layer_that_is_left_whole() -> None:
    model = FUSED.build()
    keywords = {"prune_num_heads": True, "head_pruning_ratio": 0.5}
    pruner = pruner_of(FUSED, model, **keywords)
    for group in pruner.step(interactive=True):
        if pruner._cutter._host.root_name(group) not in ("qkv", "proj"):
            group.prune()
    small = pruner.compact("a")
    assert small.stem.out_features < model.stem.out_features
    assert (small.num_heads, small.head_dim) == (model.num_heads, model.head_dim)


def test_the_round_counts_when_the_generator_has_ended() -> None:
    pruner = pruner_of(CONV_BN, CONV_BN.build(), iterative_steps=2)
    generator = pruner.step(interactive=True)
    assert pruner.current_step == 0
    for group in generator:
        group.prune()
        assert pruner.current_step == 0
    assert pruner.current_step == 1


def test_changed_weights_are_refused_before_the_first_group() -> None:
    model = CONV_BN.build()
    pruner = pruner_of(CONV_BN, model, iterative_steps=2)
    pruner.step()
    model.head.weight.data.add_(1)
    with pytest.raises(StructureMismatch, match=r"'head\.weight' changed"):
        next(pruner.step(interactive=True))
