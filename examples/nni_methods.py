"""What nni_existing_config.py compares: NNI's own way, tickets, and what they are held against."""

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nni
import torch
from nni.compression.pruning import AGPPruner, L1NormPruner
from safetensors.torch import save
from torch import nn
from torch_pruning_methods import EXAMPLE, CountedLoss, Method, budget, dense, pooled, train
from torch_pruning_methods import Recipe as CommonRecipe

import rtl_nni
import rtl_plugin as rtl
from rtl_nni.exact_speedup import speedup_with_report
from rtl_plugin.tasks import digits

STAGES = {  # a residual sum needs the same channels from all that it adds
    "stage 1": ["stem", "blocks.0.conv2"],
    "stage 2": ["blocks.1.conv2", "blocks.1.shortcut"],
    "stage 3": ["blocks.2.conv2", "blocks.2.shortcut"],
}
NORMS = {  # a batch norm loses the channels of the convolution before it
    "norm": "stem",
    **{f"blocks.{b}.norm{n}": f"blocks.{b}.conv{n}" for b in range(3) for n in (1, 2)},
}

INPUTS = {  # layer -> the convolution whose channels it reads
    "blocks.0.conv1": "stem",
    **{f"blocks.{b}.conv2": f"blocks.{b}.conv1" for b in range(3)},
    **{f"blocks.{b}.{n}": f"blocks.{b - 1}.conv2" for b in (1, 2) for n in ("conv1", "shortcut")},
    "head": "blocks.2.conv2",
}


@dataclass(frozen=True)
class Recipe(CommonRecipe):
    """That of torch_pruning_methods.py, and how often AGP updates its masks in a round."""

    updates: int = 3


def norm_entry(norm: str, convolution: str) -> dict[str, Any]:
    """NNI's way to say that a batch norm follows a convolution."""
    align = {"module_name": convolution, "target_name": "weight", "dims": [0]}
    weight = {"align": align, "granularity": "out_channel"}
    return {
        "op_names": [norm],
        "target_names": ["weight", "bias"],
        "target_settings": {"weight": weight, "bias": {"align": align}},
    }


def config_list(ratio: float) -> list[dict[str, Any]]:
    """The NNI configuration: convolutions lose channels, the classifier none."""
    coupled = [name for names in STAGES.values() for name in names]
    return [
        *(
            {"op_names": names, "sparse_ratio": ratio, "dependency_group_id": stage}
            for stage, names in STAGES.items()
        ),
        {
            "op_types": ["Conv2d", "Linear"],
            "exclude_op_names": ["head", *coupled],
            "sparse_ratio": ratio,
        },
        *(norm_entry(*pair) for pair in NORMS.items()),
    ]


def evaluators(network: nn.Module, loaders: Mapping[str, Any], recipe: Recipe, loss: Any) -> Any:
    """One NNI evaluator a loader."""
    return rtl_nni.torch_evaluators(
        network, loaders, lambda batch, model: loss(model, batch),
        lambda params: nni.trace(torch.optim.Adam)(params, lr=recipe.learning_rate),
    )  # fmt: skip


def agp(interval: int, updates: int, model: nn.Module, config: Any, evaluator: Any) -> Any:
    """NNI's L1NormPruner whose ratios AGPPruner raises step by step."""
    inner = L1NormPruner(model, config, evaluator)
    return AGPPruner(inner, interval_steps=interval, total_times=updates)


class RandomPruner(L1NormPruner):  # type: ignore[misc]
    """An NNI pruner that draws its channels."""

    def _calculate_metrics(self, data: Any) -> Any:
        scores = super()._calculate_metrics(data)
        return {m: {t: torch.rand_like(s) for t, s in own.items()} for m, own in scores.items()}


def tickets(start: nn.Module, groups: Any, recipe: Recipe, seed: int) -> Method:
    """The same configuration and pruner, with a ticket an environment."""
    network, loss = copy.deepcopy(start), CountedLoss()
    pruner = rtl_nni.RTLPruner(
        network,
        config_list(recipe.pruning_ratio),
        pruner=partial(agp, recipe.steps // recipe.updates, recipe.updates),
        evaluators=evaluators(network, training_batches(groups), recipe, loss),
        schedule=rtl.GeometricSchedule(recipe.pruning_ratio, rounds=recipe.rounds),
        steps=recipe.steps,
        seed=seed,
        progress=False,
    )
    pruner.compress()
    return retrained("tickets", network, pruner, groups, recipe, seed, loss)


def random_tickets(start: nn.Module, groups: Any, recipe: Recipe, seed: int) -> Method:
    """Tickets of the same sizes with drawn channels, which needs no training before."""
    network, loss = copy.deepcopy(start), CountedLoss()
    pruner = rtl_nni.RTLPruner(
        network,
        config_list(recipe.pruning_ratio),
        pruner=RandomPruner,
        evaluators=evaluators(network, training_batches(groups), recipe, loss),
        steps=0,
        seed=seed,
        progress=False,
    )
    pruner.compress()
    return retrained("random tickets", network, pruner, groups, recipe, seed, loss)


def retrained(
    name: str, network: nn.Module, pruner: Any, groups: Any, recipe: Recipe, seed: int,
    loss: CountedLoss,
) -> Method:  # fmt: skip
    """Tickets trained together on the shared weights, each served by its small network."""
    chosen = pruner.tickets
    rtl.retrain(
        network, chosen, groups, loss, epochs=recipe.epochs,
        optimizer=partial(recipe.adam, falling_over=budget(groups, recipe)[1]),
        batches_per_epoch=recipe.batches_per_epoch, seed=seed, progress=False,
    )  # fmt: skip
    mixture = rtl.MixtureOfMasks(network, chosen)
    masked = {group: mixture.export(group) for group in groups}
    cuts = {g: speedup_with_report(masked[g], pruner.get_masks(g), EXAMPLE) for g in groups}
    small = {group: cut.network for group, cut in cuts.items()}
    extras = {
        "report": f"{pruner.report}\n\n{cuts[next(iter(cuts))]}",
        "similarity": mean_similarity(chosen),
        "kept": kept_by_any(network, chosen, cuts),
        "difference": max(difference(masked[g], small[g], groups[g].test.x) for g in groups),
    }
    return Method(
        name, by_group(small), small, loss.batches, file_bytes(mixture),
        sum(map(tensor_bytes, small.values())), extras,
    )  # fmt: skip


def nni_alone(start: nn.Module, groups: Any, recipe: Recipe, seed: int) -> Method:
    """The configuration as it was: one mask for all data."""
    network, used = nni_run(start, pooled(groups), budget(groups, recipe), recipe, seed)
    stored = len(save(network.state_dict()))
    extras = {"kept": sum(p.numel() for p in network.parameters())}
    return Method(
        "one NNI mask", lambda x, names: network(x), {"all": network}, used, stored,
        tensor_bytes(network), extras,
    )  # fmt: skip


def nni_apart(start: nn.Module, groups: Any, recipe: Recipe, seed: int) -> Method:
    """NNI alone, once for each environment, nothing shared."""
    share = tuple(part // len(groups) for part in budget(groups, recipe))
    runs = {
        name: nni_run(start, group.train, share, recipe, 100 * seed + number)
        for number, (name, group) in enumerate(groups.items())
    }
    small = {name: network for name, (network, _) in runs.items()}
    stored = sum(len(save(network.state_dict())) for network in small.values())
    extras = {"kept": sum(p.numel() for n in small.values() for p in n.parameters())}
    return Method(
        "NNI apart", by_group(small), small, sum(used for _, used in runs.values()), stored,
        sum(map(tensor_bytes, small.values())), extras,
    )  # fmt: skip


def nni_run(
    start: nn.Module, batches: Any, parts: tuple[int, ...], recipe: Recipe, seed: int
) -> tuple[nn.Module, int]:
    """A pruner that nothing of ours has touched: prune while training, fine-tune, cut."""
    network, loss = copy.deepcopy(start), CountedLoss()
    before, fine_tuning = parts
    updates = recipe.rounds * recipe.updates
    torch.manual_seed(seed)
    evaluator = evaluators(network, {"all": batches}, recipe, loss)["all"]
    config = config_list(recipe.pruning_ratio)
    pruner = agp(before // updates, updates, network, config, evaluator)
    network, masks = pruner.compress(before, None)
    decaying = partial(recipe.adam, falling_over=fine_tuning)
    train(network, batches, fine_tuning, loss, decaying, 1000 + seed)  # wrapped: under the masks
    pruner.unwrap_model()
    masked = rtl.MixtureOfMasks(network, rtl.TicketSet.from_nni(masks, network)).export("pruned")
    return speedup_with_report(masked, masks, EXAMPLE).network, loss.batches


METHODS = (tickets, nni_alone, nni_apart, random_tickets, dense)


def training_batches(groups: Any) -> dict[str, Any]:
    """Environment -> batches that can be walked again and again."""
    return {name: group.train for name, group in groups.items()}


def by_group(networks: Mapping[str, nn.Module]) -> Any:
    """Answers a mixed batch, every sample by its environment's network."""

    def answer(x: torch.Tensor, names: list[str]) -> torch.Tensor:
        logits = torch.zeros(len(x), digits.CLASSES)
        for name in dict.fromkeys(names):
            rows = [row for row, own in enumerate(names) if own == name]
            logits[rows] = networks[name](x[rows])
        return logits

    return answer


def kept_by_any(network: nn.Module, found: rtl.TicketSet, cuts: Mapping[str, Any]) -> int:
    """Parameters of the shared network that at least one small network has."""
    kept = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in network.named_parameters()}
    for group, ticket in found.items():
        own = {name: ticket.masks.get(name, torch.ones_like(all_)) for name, all_ in kept.items()}
        for layer, source in INPUTS.items():
            own[f"{layer}.weight"] = own[f"{layer}.weight"].clone()
            own[f"{layer}.weight"][:, list(cuts[group].cut[source])] = False
        assert sum(int(mask.sum()) for mask in own.values()) == cuts[group].parameters
        kept = {name: mask | own[name] for name, mask in kept.items()}
    return sum(int(mask.sum()) for mask in kept.values())


@torch.no_grad()
def difference(masked: nn.Module, small: nn.Module, x: torch.Tensor) -> float:
    """Largest difference of two networks' answers."""
    return float((masked.eval()(x) - small.eval()(x)).abs().max())


def mean_similarity(found: rtl.TicketSet) -> float:
    """Mean Jaccard similarity of two tickets' masks."""
    pairs = torch.from_numpy(found.similarity())
    others = pairs[~torch.eye(len(found), dtype=torch.bool)]
    return float(others.mean())


def tensor_bytes(network: nn.Module) -> int:
    """Of a network in memory."""
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


def file_bytes(mixture: rtl.MixtureOfMasks) -> int:
    """Of shared weights and tickets on disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mixture.safetensors"
        mixture.save(path)
        return path.stat().st_size
