"""Groups, pruners and comparisons that the tests of the Torch-Pruning integration share."""

import copy
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F

from rtl_plugin import DataGroups
from rtl_plugin.fingerprint import bit_equal
from rtl_plugin.randomness import forked
from rtl_torch_pruning import RTLPruner
from tests.models import CLASSES
from tests.torch_pruning.zoo import Net

Keywords = Callable[[Any], Mapping[str, Any]]


def magnitude() -> Any:
    return tp.importance.GroupMagnitudeImportance(p=2)


def batches(net: Net, name: str, count: int = 2, dtype: torch.dtype = torch.float32) -> list[Any]:
    """Batches of (inputs, labels, group name), always the same for a name."""
    with forked(zlib.crc32(name.encode())):
        made = []
        for _ in range(count):
            inputs = net.inputs(4)
            inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
            made.append((inputs, torch.randint(CLASSES, (4,)), name))
        return made


def groups_of(net: Net, names: Sequence[str] = "ab", count: int = 2) -> DataGroups:
    return DataGroups.from_loaders({name: batches(net, name, count) for name in names})


def example(net: Net) -> torch.Tensor:
    with forked(1):
        return net.inputs(2)


def cross_entropy(model: Any, batch: Any) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.1, momentum=0.9)


def pruner_of(net: Net, model: nn.Module, importance: Any = None, **others: Any) -> RTLPruner:
    """A pruner that ranks the weights as they are unless told to train."""
    settings = {**net.keywords(model), "progress": False, **others}
    if "train" not in settings:
        settings.setdefault("steps", 0)
    settings.setdefault("groups", groups_of(net))
    inputs = settings.pop("example_inputs", example(net))
    return RTLPruner(model, inputs, importance or magnitude(), **settings)


def trained_pruner(net: Net, model: nn.Module, importance: Any = None, **others: Any) -> RTLPruner:
    """A pruner that trains three steps before it ranks."""
    settings = {"loss": cross_entropy, "steps": 3, "optimizer": sgd, **others}
    return pruner_of(net, model, importance, **settings)


def run_all(pruner: RTLPruner) -> RTLPruner:
    while pruner.current_step < pruner.iterative_steps:
        pruner.step()
    return pruner


def host_of(
    model: nn.Module, inputs: Any, importance: Any, keywords: Mapping[str, Any]
) -> tp.pruner.BasePruner:
    """The host's own pruner; it would share its mutable defaults with others."""
    fresh: dict[str, Any] = {"num_heads": {}, "in_channel_groups": {}, "out_channel_groups": {}}
    given = {**fresh, **keywords}
    if isinstance(given.get("unwrapped_parameters"), Mapping):
        # The mapping that its documentation asks for, as the pairs that its code takes.
        given["unwrapped_parameters"] = list(given["unwrapped_parameters"].items())
    return tp.pruner.BasePruner(model, inputs, importance, **given)


def assert_same_network(ours: nn.Module, theirs: nn.Module) -> None:
    """Equal bit for bit, with the same keys in the same order and the same widths."""
    mine, other = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(other)
    for name, value in mine.items():
        assert tuple(value.shape) == tuple(other[name].shape), name
        assert bit_equal(value, other[name]), name
    assert repr(ours) == repr(theirs)


def assert_parity(
    model: nn.Module,
    inputs: Any,
    keywords: Keywords,
    rounds: int = 1,
    importance: Callable[[], Any] = magnitude,
) -> nn.Module:
    """One group whose weights are ranked as they are gets what the host alone gives."""
    model.eval()
    theirs = copy.deepcopy(model)
    host = host_of(theirs, inputs, importance(), {**keywords(theirs), "iterative_steps": rounds})
    for _ in range(rounds):
        host.step()
    pruner = RTLPruner(
        model, inputs, importance(), groups=DataGroups.from_loaders({"all": [inputs]}), steps=0,
        iterative_steps=rounds, progress=False, **keywords(model),
    )  # fmt: skip
    small = run_all(pruner).compact("all")
    assert_same_network(small, theirs)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    return small
