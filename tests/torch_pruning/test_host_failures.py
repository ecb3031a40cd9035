"""What the host raises by itself reaches the user with the round, the group and a remedy."""

import pytest
import torch
from torch import nn

from rtl_plugin.errors import InvalidImportance, PruningFailed
from rtl_torch_pruning.probes import Probe
from tests.discovery.setups import same_bits, tensors_of
from tests.torch_pruning.setups import magnitude, pruner_of
from tests.torch_pruning.zoo import CONV_BN


class Stumbling:
    """An importance that fails in the middle of the ranking, as the host does on some networks."""

    def __call__(self, group: object) -> torch.Tensor:
        raise IndexError("list index out of range")


def test_a_failure_while_ranking() -> None:
    pruner = pruner_of(CONV_BN, CONV_BN.build(), Stumbling())
    before = tensors_of(pruner.model)
    message = r"Stumbling failed on the group of 'parts\.[03]' \(IndexError"
    with pytest.raises(InvalidImportance, match=message) as caught:
        pruner.step()
    assert isinstance(caught.value.__cause__, IndexError)
    assert same_bits(tensors_of(pruner.model), before)


def test_a_failure_while_cutting(monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = pruner_of(CONV_BN, CONV_BN.build(), magnitude())
    group = next(iter(pruner.step(interactive=True)))

    def broken(self: object, *_: object, **__: object) -> None:
        raise KeyError("parts.0")

    with monkeypatch.context() as patched:
        patched.setattr(type(group), "prune", broken)
        message = r"group 'a': Torch-Pruning cannot .* \(KeyError"
        with pytest.raises(PruningFailed, match=message) as caught:
            pruner.step()
    assert caught.value.__traceback__ is not None  # which holds the failed round
    assert [row.group for row in pruner.step().rows] == ["a", "b"]


def test_probes_of_kernels_cut_unevenly() -> None:
    probe = Probe((4, 2, 3, 3), torch.device("cpu"), whole_kernels=True)
    whole = probe.positions(None)
    left = torch.stack([whole[0, [0]], whole[1, [0]], whole[2, [1]], whole[3, [1]]])
    index_map = probe.read(left)
    assert index_map is not None
    at_the_border = probe.read(left, look_closely=False)
    assert at_the_border is not None
    assert at_the_border.entries is not None
    assert probe.read(whole, look_closely=False) is None
    assert torch.equal(probe.positions(index_map), left)
    weight = torch.arange(72.0).reshape(4, 2, 3, 3)
    expected = torch.stack([weight[k, [k // 2]] for k in range(4)])
    assert torch.equal(index_map.gather(weight), expected)


def test_frozen_layers_are_traced_and_stay_frozen() -> None:
    model = CONV_BN.build()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    pruner = pruner_of(CONV_BN, model, magnitude())
    pruner.step()
    small = pruner.compact("a")
    assert isinstance(small, nn.Module)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert not any(parameter.requires_grad for parameter in small.parameters())
