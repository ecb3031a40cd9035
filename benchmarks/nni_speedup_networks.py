"""Networks with real NNI masks for benchmarks/nni_speedup.py, and NNI's own speedup of them."""

import contextlib
import copy
import gc
import io
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torchvision
from nni.compression.pruning import L1NormPruner
from torch import nn

from rtl_nni.dependency_config import add_dependency_ids
from rtl_nni.host import imported
from rtl_nni.host_speedup import model_speedup

RATIO = 0.5
OUTPUTS = {"squeezenet1_1": ["classifier.1"]}  # convolutions that make the classes
Masks = Mapping[str, Mapping[str, Any]]


class Concatenating(nn.Module):
    """Branches of different widths that are concatenated, normed, and concatenated again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU())
        self.wide = nn.Conv2d(24, 40, 3, 2, 1)
        self.narrow = nn.Conv2d(24, 16, 1, 2)
        self.norm = nn.BatchNorm2d(56)
        self.next = nn.Sequential(nn.Conv2d(56, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32))
        self.head = nn.Linear(32 + 24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.norm(torch.cat([self.wide(x), self.narrow(x)], 1)).relu()
        y = self.next(y).relu()
        return self.head(torch.cat([y.mean((2, 3)), x.mean((2, 3))], 1))


ARCHITECTURES = (
    *("resnet18", "resnet34", "resnet50", "mobilenet_v2", "mobilenet_v3_small"),
    *("mobilenet_v3_large", "vgg11_bn", "densenet121", "squeezenet1_1", "efficientnet_b0"),
    "concatenating",
)


def build(name: str) -> nn.Module:
    """Random weights, drawn affine parameters of the norms, and statistics of drawn images."""
    torch.manual_seed(0)
    made = Concatenating() if name == "concatenating" else None
    model = made or torchvision.models.get_model(name, weights=None)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        norm.momentum = None  # statistics of all batches alike
    model.train()
    with torch.no_grad():
        for _ in range(2 if norms else 0):
            model(torch.randn(4, 3, 96, 96))
    return model.eval()


def config_of(name: str, model: nn.Module, x: torch.Tensor, ids: bool) -> list[dict[str, Any]]:
    """Half of the channels of every convolution; coupled layers alike where asked."""
    layers = {"op_types": ["Conv2d"], "exclude_op_names": OUTPUTS.get(name, [])}
    config = [{**{key: value for key, value in layers.items() if value}, "sparse_ratio": RATIO}]
    return add_dependency_ids(config, model, x) if ids else config


def masks_of(model: nn.Module, config: list[dict[str, Any]]) -> Masks:
    """What NNI's L1NormPruner makes of it."""
    pruner = L1NormPruner(copy.deepcopy(model), config)
    return dict(pruner.compress()[1])


def masked(model: nn.Module, masks: Masks, completed: Mapping[str, Any]) -> nn.Module:
    """The dense network with masked weights, and with completed channels of norms put to zero."""
    network = copy.deepcopy(model)
    with torch.no_grad():
        for module, targets in masks.items():
            for target, mask in targets.items():
                if mask is not None:
                    network.get_submodule(module).get_parameter(target).mul_(mask)
        for module, channels in completed.items():
            for parameter in network.get_submodule(module).parameters():
                parameter[list(channels)] = 0
    return network


@torch.no_grad()
def difference(one: nn.Module, other: nn.Module, x: torch.Tensor) -> tuple[float, float]:
    """Largest difference of two networks' answers in float64, and the largest answer."""
    answers = [copy.deepcopy(network).double().eval()(x.double()) for network in (one, other)]
    return float((answers[0] - answers[1]).abs().max()), float(answers[0].abs().max())


def host_speedup(
    run: Callable[..., nn.Module], model: nn.Module, masks: Masks, x: torch.Tensor,
    references: Mapping[str, nn.Module], unseen: torch.Tensor, limit: int,
) -> dict[str, Any]:  # fmt: skip
    """NNI's ModelSpeedup: whether it runs, and how far its network is from the references."""
    row: dict[str, Any] = {"error": "", "seconds": None, "parameters": None}
    row |= dict.fromkeys(references)
    gc.collect()  # what NNI keeps of a run is gigabytes, in cycles
    began = time.thread_time()
    try:
        with silenced(), cpu_limit(limit):
            small = run(copy.deepcopy(model), masks, x)
        row["seconds"] = time.thread_time() - began
        row["parameters"] = sum(p.numel() for p in small.parameters())
        for name, reference in references.items():
            row[name] = difference(reference, small, unseen)[0]
    except Exception as error:  # noqa: BLE001 - whatever the host raises is the finding
        row["error"] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    return row


def unpatched(model: nn.Module, masks: Masks, x: torch.Tensor) -> nn.Module:
    """As NNI's documentation calls it."""
    speedup = imported("nni.compression.speedup").ModelSpeedup
    small: nn.Module = speedup(model, x, masks).speedup_model()
    return small


def host_ways(
    model: nn.Module, masks: Masks, x: torch.Tensor, references: Mapping[str, nn.Module],
    unseen: torch.Tensor, limit: int,
) -> dict[str, Any]:  # fmt: skip
    """As documented, and as we reach it."""
    ways = {"unpatched": unpatched, "model_speedup": model_speedup}
    return {
        name: host_speedup(run, model, masks, x, references, unseen, limit)
        for name, run in ways.items()
    }


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Without what NNI prints and logs."""
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def cpu_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError after so many seconds of CPU time."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s of CPU time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
