"""What Torch-Pruning does with an architecture by itself, and how a network is tried out."""

import copy
import signal
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from benchmarks.prunability_recipes import CLASSES, Recipe, only_output_layers
from rtl_plugin.integration_api import tensors_in

RATIO = 0.4
PLAIN_SECONDS = 30  # the host needs less for any architecture that it does not search for ever
# Torch-Pruning fills its mutable default arguments and so shares them between pruners.
_FRESH = ("in_channel_groups", "out_channel_groups", "num_heads", "channel_groups")


class LayerScores:
    """Random scores that depend on the layer's name and the number of the ticket only.

    Args:
        ticket: number of the ticket that is ranked first; a layer that comes again starts the next.
    """

    def __init__(self, ticket: int = 0) -> None:
        self._ticket, self._seen = ticket, set[str]()

    def __call__(self, group: Any) -> torch.Tensor:
        name = group._DG._module2name[group[0].dep.target.module]
        if name in self._seen:
            self._ticket, self._seen = self._ticket + 1, set()
        self._seen.add(name)
        seed = zlib.crc32(f"{self._ticket} {name}".encode())
        return torch.rand(len(group[0].idxs), generator=torch.Generator().manual_seed(seed))


class Failed(Exception):
    """A check did not hold."""


def host_alone(
    model: nn.Module, inputs: torch.Tensor, recipe: Recipe
) -> tuple[dict[str, Any], nn.Module | None]:
    """Whether the host prunes the architecture and what is left runs; and what is left."""
    result: dict[str, Any] = {"prunes": False, "runs": False, "fixed_by_hand": False, "reason": ""}
    try:
        cut = host_cut(model, inputs, recipe, 0)
    except Exception as error:  # noqa: BLE001 - any failure is a result here
        return {**result, "reason": shortened(error)}, None
    result["prunes"] = True
    for by_hand in (False, True):
        if by_hand and recipe.documented_fix is not None:
            recipe.documented_fix(cut)
        try:
            shapes = output_shapes(cut, inputs)
            expected = output_shapes(copy.deepcopy(model), inputs)
            return {**result, "runs": shapes == expected, "fixed_by_hand": by_hand}, cut
        except Exception as error:  # noqa: BLE001
            result["reason"] = shortened(error)
            if recipe.documented_fix is None:
                break
    return result, cut


def without_keywords(
    model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], recipe: Recipe
) -> str:
    """What the host does with nothing but the output layers ignored: ``"runs"``, or its error."""
    plain = replace(recipe, keywords=only_output_layers)
    try:
        with cpu_limit(PLAIN_SECONDS):
            cut = host_cut(model, batch[0], plain, 0)
            if recipe.documented_fix is not None:
                recipe.documented_fix(cut)
            output_shapes(cut, batch[0])
            train_step(cut, batch)
    except Exception as error:  # noqa: BLE001 - any failure is a result here
        return shortened(error, 160)
    return "runs"


def host_cut(model: nn.Module, inputs: torch.Tensor, recipe: Recipe, ticket: int) -> nn.Module:
    """A copy of the model, cut by the host itself with the scores of one ticket."""
    twin = copy.deepcopy(model)
    keywords = recipe.keywords(twin)
    with quiet():
        pruner = tp.pruner.BasePruner(
            twin,
            inputs,
            LayerScores(ticket),
            pruning_ratio=RATIO,
            **{name: {} for name in _FRESH},
            **keywords,
        )
        pruner.step()
    return twin


def train_step(network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    """One step of SGD on all outputs in train mode; random depth and dropout have a fixed seed."""
    torch.manual_seed(0)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    outputs = list(tensors_in(network(batch[0])))
    loss = sum(nn.functional.cross_entropy(output, batch[1]) for output in outputs)
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    require(bool(torch.isfinite(loss)), f"the loss is {float(loss.detach())}")
    optimizer.step()
    network.zero_grad(set_to_none=True)
    network.eval()


def output_shapes(network: nn.Module, inputs: torch.Tensor) -> list[tuple[int, ...]]:
    """Shapes of the outputs in eval mode."""
    with torch.no_grad():
        shapes = [tuple(t.shape) for t in tensors_in(network.eval()(inputs))]
    require(shapes == [(len(inputs), CLASSES)], f"outputs of shapes {shapes}")
    return shapes


def require(condition: bool, what: str) -> None:
    if not condition:
        raise Failed(what)


def shortened(error: BaseException, longest: int = 240) -> str:
    """An error in one line."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


@contextmanager
def quiet() -> Iterator[None]:
    """Let the host prune parameters outside of layers by their last dimension, as it announces."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unwrapped parameters detected")
        yield


@contextmanager
def cpu_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in a block that uses more CPU time."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {seconds} s of CPU time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
