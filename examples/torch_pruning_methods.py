"""The four ways to small networks that torch_pruning_digits.py compares, on one budget."""

import copy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from safetensors.torch import save
from torch import nn

import rtl_plugin as rtl
from rtl_plugin.tasks import digits
from rtl_torch_pruning import RTLPruner

EXAMPLE = torch.zeros(2, 1, 28, 28)
Answer = Callable[[torch.Tensor, list[str]], torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """How everything is trained and pruned.

    All methods start from one network, pretrained on so many batches of all environments;
    ``steps`` (of every round) and ``epochs`` (after the last cut) are for one environment.
    """

    pretraining: int = 275
    rounds: int = 3
    steps: int = 15
    epochs: int = 2
    batches_per_epoch: int | None = None
    pruning_ratio: float = 0.5
    round_to: int = 8
    learning_rate: float = 3e-3

    def adam(self, params: Any, falling_over: int | None = None) -> Any:
        """Adam and its schedule: constant, or to zero over so many steps in the last phase."""
        optimizer = torch.optim.Adam(params, self.learning_rate)
        falling = {"end_factor": 0.0, "total_iters": falling_over} if falling_over else {}
        constant = {"start_factor": 1.0, "end_factor": 1.0}
        return optimizer, torch.optim.lr_scheduler.LinearLR(optimizer, **{**constant, **falling})

    def host_keywords(self, network: nn.Module) -> dict[str, Any]:
        """What RTLPruner and Torch-Pruning's own pruner are given alike."""
        return {
            "importance": tp.importance.GroupMagnitudeImportance(p=2),
            "pruning_ratio": self.pruning_ratio,
            "round_to": self.round_to,
            "iterative_steps": self.rounds,
            "ignored_layers": [network.head],
        }


class CountedLoss:
    """Cross-entropy that counts the training batches."""

    def __init__(self) -> None:
        self.batches = 0

    def __call__(self, network: nn.Module, batch: Any) -> torch.Tensor:
        self.batches += 1
        return digits.cross_entropy(network, batch)


@dataclass(frozen=True)
class Method:
    """What a method leaves behind.

    ``answer(x, names)`` gives logits of a mixed batch whose environments are known; ``stored`` are
    the bytes of its file, ``served`` those of the tensors that lie in memory while it answers.
    """

    name: str
    answer: Answer
    networks: Mapping[str, nn.Module]
    batches: int
    stored: int
    served: int
    extras: dict[str, Any] = field(default_factory=dict)


def tickets(start: nn.Module, groups: Any, recipe: Recipe, seed: int) -> Method:
    """One channel ticket an environment on shared weights, retrained together."""
    network, loss = copy.deepcopy(start), CountedLoss()
    pruner = RTLPruner(
        network, EXAMPLE, groups=groups, loss=loss, steps=recipe.steps, optimizer=recipe.adam,
        seed=seed, progress=False, **recipe.host_keywords(network),
    )  # fmt: skip
    for _ in range(recipe.rounds):
        report = pruner.step()
    rtl.retrain(
        network, pruner.tickets, groups, loss, epochs=recipe.epochs,
        optimizer=partial(recipe.adam, falling_over=budget(groups, recipe)[1]),
        batches_per_epoch=recipe.batches_per_epoch, seed=seed, progress=False,
    )  # fmt: skip
    mixture = rtl.MixtureOfMasks(network, pruner.tickets, strategy="compact")
    small = {name: pruner.compact(name) for name in groups}
    owned = [
        value for t in pruner.tickets.values() for value in (*t.masks.values(), *t.state.values())
    ]
    lists = sum(t.channels.nbytes for t in pruner.tickets.values() if t.channels)
    owned_bytes = lists + sum(t.nbytes for t in owned)
    served = _bytes(network) + sum(map(_bytes, small.values())) + owned_bytes
    return Method(
        "channel tickets", lambda x, names: mixture(x, tickets=names), small, loss.batches,
        _mixture_file_bytes(mixture), served, {"mixture": mixture, "report": str(report)},
    )  # fmt: skip


def dense(start: nn.Module, groups: Any, recipe: Recipe, seed: int) -> Method:
    """The whole network, trained on with batches of all environments."""
    network, loss = copy.deepcopy(start), CountedLoss()
    steps = sum(budget(groups, recipe))
    train(network, pooled(groups), steps, loss, partial(recipe.adam, falling_over=steps), seed)
    return _single("dense", network, loss)


def host_single(start: nn.Module, groups: Any, recipe: Recipe, seed: int) -> Method:
    """One network pruned by Torch-Pruning on all environments, as large as one ticket's."""
    network, loss = copy.deepcopy(start), CountedLoss()
    host_pruned(network, pooled(groups), budget(groups, recipe), loss, recipe, seed)
    return _single("one pruned network", network, loss)


def host_multiple(start: nn.Module, groups: Any, recipe: Recipe, seed: int) -> Method:
    """A network an environment, each pruned by Torch-Pruning and trained alone."""
    loss, share = CountedLoss(), tuple(part // len(groups) for part in budget(groups, recipe))
    networks = {}
    for number, (name, group) in enumerate(groups.items()):
        networks[name] = copy.deepcopy(start)
        host_pruned(networks[name], group.train, share, loss, recipe, 100 * seed + number)

    def answer(x: torch.Tensor, names: list[str]) -> torch.Tensor:
        logits = torch.zeros(len(x), digits.CLASSES)
        for name in dict.fromkeys(names):
            rows = [row for row, own in enumerate(names) if own == name]
            logits[rows] = networks[name](x[rows])
        return logits

    files = {f"{n}/{k}": v for n, net in networks.items() for k, v in net.state_dict().items()}
    served = sum(map(_bytes, networks.values()))
    return Method("pruned apart", answer, networks, loss.batches, len(save(files)), served)


def pretrained(network: nn.Module, groups: Any, recipe: Recipe, seed: int) -> nn.Module:
    """Where all methods start: the network trained on batches of all environments."""
    train(network, pooled(groups), recipe.pretraining, CountedLoss(), recipe.adam, 2000 + seed)
    return network


METHODS = (tickets, host_single, dense, host_multiple)


def host_pruned(
    network: nn.Module, batches: Any, parts: tuple[int, ...], loss: CountedLoss, recipe: Recipe,
    seed: int,
) -> None:  # fmt: skip
    """Torch-Pruning's usual way: train, prune a step, train on, ..., fine-tune."""
    tables = ("in_channel_groups", "out_channel_groups", "num_heads")
    fresh: dict[str, Any] = {name: {} for name in tables}
    pruner = tp.pruner.BasePruner(network, EXAMPLE, **fresh, **recipe.host_keywords(network))
    before, fine_tuning = parts
    for round in range(recipe.rounds):
        count = before // recipe.rounds
        train(network, batches, count, loss, recipe.adam, 1000 * seed + round)
        pruner.step()
    decaying = partial(recipe.adam, falling_over=fine_tuning)
    train(network, batches, fine_tuning, loss, decaying, 1000 * seed + recipe.rounds)


def train(
    network: nn.Module,
    batches: Any,
    count: int,
    loss: CountedLoss,
    optimizers: Callable[[Any], Any],
    seed: int,
) -> None:
    """An ordinary loop over so many batches; leaves the network in eval mode."""
    torch.manual_seed(seed)
    network.train()
    optimizer, scheduler = optimizers(network.parameters())
    done = 0
    while done < count:
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            loss(network, batch).backward()
            optimizer.step()
            scheduler.step()
            done += 1
            if done == count:
                break
    network.zero_grad(set_to_none=True)
    network.eval()


def budget(groups: Any, recipe: Recipe) -> tuple[int, int]:
    """Batches of all environments before the last cut, and after it."""
    length = recipe.batches_per_epoch or max(len(group.train) for group in groups.values())
    before, after = recipe.rounds * recipe.steps, recipe.epochs * length
    return len(groups) * before, len(groups) * after


def pooled(groups: Any) -> digits.TensorBatches:
    """Batches that mix the samples of all environments."""
    parts = [group.train for group in groups.values()]
    x, y = torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts])
    return digits.TensorBatches(x, y, parts[0].batch_size, shuffle=True)


def _single(name: str, network: nn.Module, loss: CountedLoss) -> Method:
    stored = len(save(network.state_dict()))
    return Method(
        name, lambda x, names: network(x), {"all": network}, loss.batches, stored, _bytes(network)
    )


def _bytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


def _mixture_file_bytes(mixture: rtl.MixtureOfMasks) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mixture.safetensors"
        mixture.save(path)
        return path.stat().st_size
