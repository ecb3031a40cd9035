"""What can be done with a compact network, and with tickets after pruning."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_pruning as tp
from torch import nn

import rtl_plugin as rtl
from rtl_plugin.errors import StructureMismatch, UnknownTicket
from tests.discovery.setups import adam, same_bits, tensors_of
from tests.torch_pruning.setups import (
    assert_same_network,
    batches,
    cross_entropy,
    example,
    groups_of,
    run_all,
    trained_pruner,
)
from tests.torch_pruning.zoo import CONV_BN, FLATTEN, SEPARATE, SPLIT, ZOO, Net


def pruned(net: Net, **others: Any) -> Any:
    """A pruner after two rounds whose groups a and b have other tickets."""
    chance, rounds = tp.importance.RandomImportance(), 1 if net is SPLIT else 2
    return run_all(trained_pruner(net, net.build(), chance, iterative_steps=rounds, **others))


@pytest.mark.parametrize("net", ZOO, ids=str)
def test_scatter_back_is_the_inverse(net: Net) -> None:
    pruner = pruned(net)
    model, before = pruner.model, tensors_of(pruner.model)
    small = pruner.compact("a")
    pruner.scatter_back(small, "a")
    assert same_bits(tensors_of(model), before)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(1)
    pruner.scatter_back(small, "a")
    assert_same_network(pruner.compact("a"), small)
    masks = pruner.tickets["a"].masks
    for name, parameter in model.named_parameters():
        moved = parameter.detach() != before[name]
        assert torch.equal(moved, masks.get(name, torch.ones_like(moved))), name


@pytest.mark.parametrize("net", ZOO, ids=str)
def test_channels_name_what_is_left(net: Net) -> None:
    pruner = pruned(net)
    model, small = pruner.model, pruner.compact("b")
    modules, kept = dict(model.named_modules()), pruner.channels("b")
    assert kept
    for name, channels in kept.items():
        dim = int(getattr(modules[name], "transposed", False) or isinstance(modules[name],
                  nn.Embedding))  # fmt: skip
        weight = small.get_submodule(name).weight
        assert weight.shape[dim] == len(channels) < modules[name].weight.shape[dim]
        assert channels == sorted(channels)
    for name, (width, dense) in pruner.reports[-1]["b"].widths.items():
        assert len(kept.get(name, range(dense))) == width


def test_names_that_are_no_group() -> None:
    pruner = pruned(CONV_BN)
    for call in (pruner.compact, pruner.channels, lambda n: pruner.scatter_back(pruner.model, n)):
        with pytest.raises(UnknownTicket, match=r"'c'.*'a', 'b'"):
            call("c")


def test_networks_of_others_are_not_scattered() -> None:
    pruner, other = pruned(CONV_BN), pruned(CONV_BN, pruning_ratio=0.75)
    before = tensors_of(pruner.model)
    for small in (other.compact("a"), pruner.model, FLATTEN.build()):
        with pytest.raises(StructureMismatch, match="not a small network of ticket 'a'"):
            pruner.scatter_back(small, "a")
    assert same_bits(tensors_of(pruner.model), before)


@pytest.mark.parametrize("net", ZOO, ids=str)
def test_copies_and_saved_states(net: Net) -> None:
    pruner = pruned(net)
    small, inputs = pruner.compact("a"), example(net)
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    file.seek(0)
    other = pruner.compact("a")
    nn.init.zeros_(other.head.weight)
    other.load_state_dict(torch.load(file, weights_only=True))
    copied = copy.deepcopy(small)
    for same in (other, copied):
        assert_same_network(same, small)
        assert torch.equal(same(inputs), small(inputs))


@pytest.mark.parametrize("net", [n for n in ZOO if n.name != "embedded"], ids=str)
def test_the_host_counts_operations(net: Net) -> None:
    pruner = pruned(net)
    operations, parameters = tp.utils.count_ops_and_params(pruner.compact("a"), example(net))
    dense, _ = tp.utils.count_ops_and_params(copy.deepcopy(pruner.model).eval(), example(net))
    assert parameters == pruner.reports[-1]["a"].parameters
    assert 0 < operations < dense


@pytest.mark.filterwarnings(
    # torch's exporter calls functions that torch and Python have deprecated.
    "ignore::DeprecationWarning:torch.*",
    "ignore::FutureWarning:torch.*",
    "ignore:.*isinstance.treespec.*:FutureWarning",
)
def test_onnx(tmp_path: Path) -> None:
    small, inputs = pruned(CONV_BN).compact("a"), example(CONV_BN)
    program = torch.onnx.export(small, (inputs,), dynamo=True, verbose=False)
    path = tmp_path / "small.onnx"
    program.save(str(path))
    import onnx

    widths = {tuple(tensor.dims) for tensor in onnx.load(str(path)).graph.initializer}
    assert {(4, 2, 3, 3), (6, 4, 3, 3), (3, 6)} <= widths


@pytest.mark.parametrize("net", [CONV_BN, SEPARATE], ids=str)
def test_torch_compile(net: Net) -> None:
    small, inputs = pruned(net).compact("a"), example(net)
    compiled = torch.compile(small, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), small(inputs))


@pytest.mark.parametrize("net", ZOO, ids=str)
def test_ticket_files(net: Net, tmp_path: Path) -> None:
    pruner = pruned(net)
    pruner.tickets.save(tmp_path / "tickets.safetensors")
    loaded = rtl.TicketSet.load(tmp_path / "tickets.safetensors")
    fresh = net.build(seed=0)
    assert loaded.compact_only == pruner.tickets.compact_only
    assert loaded.history == pruner.tickets.history
    for name in "ab":
        assert_same_network(rtl.compact(fresh, loaded[name]), pruner.compact(name))


def test_ticket_files_for_another_network(tmp_path: Path) -> None:
    pruned(CONV_BN).tickets.save(tmp_path / "tickets.safetensors")
    loaded = rtl.TicketSet.load(tmp_path / "tickets.safetensors")
    wider = CONV_BN.build()
    wider.parts[0] = nn.Conv2d(2, 9, 3, padding=1)
    for model in (FLATTEN.build(), wider):
        with pytest.raises(StructureMismatch, match="parts"):
            rtl.compact(model, loaded["a"])


@pytest.mark.parametrize("net", ZOO, ids=str)
def test_a_mixture_of_small_networks(net: Net) -> None:
    pruner = pruned(net)
    mixture = rtl.MixtureOfMasks(pruner.model, pruner.tickets, strategy="compact")
    inputs = batches(net, "a")[0][0]
    names = ["a", "b", "b", "a"]
    with torch.no_grad():
        mixed = mixture(inputs, tickets=names)
        for row, name in enumerate(names):
            alone = pruner.compact(name)(inputs[row : row + 1])
            torch.testing.assert_close(mixed[row : row + 1], alone)
        assert not torch.allclose(pruner.compact("a")(inputs), pruner.compact("b")(inputs))


@pytest.mark.parametrize("net", ZOO, ids=str)
def test_retraining(net: Net) -> None:
    pruner, groups = pruned(net), groups_of(net)
    before = tensors_of(pruner.model)
    rtl.retrain(
        pruner.model,
        pruner.tickets,
        groups,
        cross_entropy,
        epochs=25,
        optimizer=adam,
        progress=False,
    )
    after = tensors_of(pruner.model)
    kept = [pruner.tickets[n].masks for n in "ab"]
    assert not same_bits(before, after)
    for name in kept[0]:
        outside = ~(kept[0][name] | kept[1][name])
        assert torch.equal(after[name][outside], before[name][outside])


def test_compact_has_the_models_present_weights() -> None:
    pruner = pruned(CONV_BN)
    with torch.no_grad():
        pruner.model.head.bias.fill_(5)
    assert pruner.compact("a").head.bias.tolist() == [5, 5, 5]
    assert not pruner.compact("a").training
