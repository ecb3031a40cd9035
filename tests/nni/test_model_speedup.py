"""NNI's own ModelSpeedup runs on today's torch and leaves nothing patched behind."""

import copy
import logging
from typing import Any

import pytest
import torch
import torchvision
from torch import fx, nn

from rtl_nni.dependency_config import add_dependency_ids, add_norm_alignment
from rtl_nni.exact_speedup import speedup
from rtl_nni.host import imported
from rtl_nni.host_speedup import _PROXY, _TRACER, model_speedup, traceable
from rtl_plugin.errors import InvalidArgument, PruningFailed
from rtl_plugin.fingerprint import bit_equal
from rtl_plugin.randomness import forked
from tests.nni.coupled_networks import (
    CNN,
    completed_by_loops,
    masked_by_loops,
    masked_layer,
    random_masks,
)


def patched() -> list[Any]:
    tracer, proxy = imported(_TRACER), imported(_PROXY)
    return [
        tracer.ConcreteTracer.default_autowrap_leaf_function, tracer.node_is_impure_wrapper,
        tracer._create_wrapped_leaf_class, tracer._create_wrapped_leaf_iterable_class,
        proxy.dis, proxy.ConcreteProxy.jump_opcodes,
    ]  # fmt: skip


def full_masks(model: nn.Module) -> Any:
    masks = random_masks(CNN, model)
    for name, channels in completed_by_loops(CNN, model, masks).items():
        gone = torch.zeros_like(model.get_submodule(name).weight, dtype=torch.bool)
        gone[list(channels)] = True
        masks[name] = masked_layer(model.get_submodule(name), gone)
    return masks


def test_it_cuts_a_copy(capsys: pytest.CaptureFixture[str]) -> None:
    model, inputs = CNN.build().train(), torch.randn(8, 2, 5, 5)
    before = copy.deepcopy(model.state_dict())
    masks = full_masks(model)
    small = model_speedup(model, masks, inputs)
    assert all(bit_equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert small.parts[0].out_channels < 8
    reference = masked_by_loops(model, masks, {})
    torch.testing.assert_close(small(inputs), reference(inputs), rtol=1e-4, atol=1e-5)
    ours = speedup(model, masks, inputs)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in small.parameters()]
    assert capsys.readouterr() == ("", "")


def test_a_users_own_trace_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)), None
    inputs, before = torch.rand(8, 2, 3, 3), copy.deepcopy(model.state_dict())
    trace = fx.symbolic_trace(model)
    monkeypatch.setattr(fx, "symbolic_trace", None)
    masks = {"0": masked_layer(model[0], torch.arange(4) < 2)}
    small = model_speedup(model, masks, inputs, trace)
    assert (small[0].out_channels, model[0].out_channels) == (2, 4)
    assert all(bit_equal(before[name], value) for name, value in model.state_dict().items())
    other = {"0": masked_layer(nn.Linear(2, 3), torch.arange(3) < 1)}
    with pytest.raises(PruningFailed, match="NNI's ModelSpeedup failed on Sequential"):
        model_speedup(nn.Sequential(nn.Linear(2, 3)), other, torch.rand(8, 2), trace)


def test_a_failure_halfway_leaves_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """NNI fills the layers of its graph with random numbers, and forgets them when it fails."""
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    before, trace = copy.deepcopy(model.state_dict()), fx.symbolic_trace(model)
    host = imported("nni.compression.speedup").ModelSpeedup
    monkeypatch.setattr(host, "update_indirect_sparsity", None)
    masks = {"0": masked_layer(model[0], torch.arange(4) < 2)}
    with pytest.raises(PruningFailed, match="NNI's ModelSpeedup failed"):
        model_speedup(model, masks, torch.rand(8, 2, 3, 3), trace)
    assert all(bit_equal(before[name], value) for name, value in model.state_dict().items())


def test_it_writes_no_commentary() -> None:
    heard: list[logging.LogRecord] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record)

    model, listener = CNN.build(), Listener()
    loggers = [logging.getLogger(n) for n in list(logging.root.manager.loggerDict) if "nni" in n]
    for logger in loggers:
        logger.addHandler(listener)
    try:
        model_speedup(model, full_masks(model), torch.randn(8, 2, 5, 5))
    finally:
        for logger in loggers:
            logger.removeHandler(listener)
    assert heard == []
    assert logging.root.manager.disable == 0


class Branching(nn.Module):
    """Its path depends on values, and it unpacks, so torch.fx cannot trace it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.after, self.head = nn.Conv2d(8, 6, 1), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, _, height, width = x.shape
        x = torch.relu(self.bn(self.conv(x)))
        if x.sum() > -1 and height == width:
            x = torch.nn.functional.max_pool2d(x, 2)
        for _ in range(2):
            x = torch.relu(x)
        return self.head(torch.relu(self.after(x)).mean(dim=(2, 3)))


def test_what_fx_cannot_trace_goes_through_the_shim() -> None:
    model, inputs, before = Branching().eval(), torch.randn(8, 2, 6, 6), patched()
    with pytest.raises(fx.proxy.TraceError):
        fx.symbolic_trace(model)
    gone = torch.arange(8) < 4
    masks = {"conv": masked_layer(model.conv, gone), "bn": masked_layer(model.bn, gone)}
    small = model_speedup(model, masks, inputs)
    assert small.conv.out_channels == small.after.in_channels == 4
    reference = masked_by_loops(model, masks, {})
    torch.testing.assert_close(small(inputs), reference(inputs), rtol=1e-4, atol=1e-5)
    assert all(now is then for now, then in zip(patched(), before, strict=True))


def test_the_shim_is_taken_down_after_an_error() -> None:
    before = patched()
    with traceable():
        assert not any(now is then for now, then in zip(patched(), before, strict=True))
    with pytest.raises(ZeroDivisionError), traceable():
        raise ZeroDivisionError
    assert all(now is then for now, then in zip(patched(), before, strict=True))


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v3_small"])
def test_the_shim_traces_exactly(name: str) -> None:
    with forked(0):
        model = getattr(torchvision.models, name)(weights=None, num_classes=8).eval()
        inputs = torch.randn(1, 3, 32, 32)
    with traceable():
        trace = imported(_TRACER).concrete_trace(model, (inputs,))
    assert torch.equal(trace(inputs), model(inputs))


def test_outputs_that_would_be_cut_are_an_error() -> None:
    model = CNN.build()
    masks = {"head": masked_layer(model.head, torch.tensor([True, False, False]))}
    with pytest.raises(PruningFailed, match=r"changed the outputs from shapes \[\(8, 3\)\]"):
        model_speedup(model, masks, torch.randn(8, 2, 5, 5))


def test_a_wrapped_model_is_refused() -> None:
    model = CNN.build()
    pruner = imported("nni.compression.pruning").L1NormPruner(
        model, [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]
    )
    _, masks = pruner.compress()
    with pytest.raises(InvalidArgument, match="unwrap_model"):
        model_speedup(model, masks, torch.randn(8, 2, 5, 5))
    pruner.unwrap_model()


def test_it_agrees_with_ours_on_resnet18() -> None:
    with forked(0):
        model = torchvision.models.resnet18(weights=None, num_classes=8).eval()
        inputs = torch.randn(2, 3, 32, 32)
    config = add_dependency_ids([{"op_types": ["Conv2d"], "sparse_ratio": 0.5}], model, inputs)
    config = add_norm_alignment(config, model, inputs)
    masks = imported("nni.compression.pruning").L1NormPruner(copy.deepcopy(model), config)
    masks = masks.compress()[1]
    theirs, ours = model_speedup(model, masks, inputs), speedup(model, masks, inputs)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
    torch.testing.assert_close(ours(inputs), theirs(inputs), rtol=1e-4, atol=1e-5)
