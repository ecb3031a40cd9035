"""The runs behind benchmarks/collapse.py: real discoveries pruned until nothing is left to lose.

Each gives, per round and ticket, what is kept, what every two tickets share, the training loss and
the metric. The metric is of the network trained under the masks of that round, on the validation
and test samples together: nothing is chosen by it. An INR has neither: it is measured on the pixels
that it was trained on.
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import rtl_plugin as rtl
from rtl_plugin import TicketSet
from rtl_plugin.checkpoint import write_atomically
from rtl_plugin.diagnostics.curves import ticket_curves
from rtl_plugin.diagnostics.mask_counts import count_masks
from rtl_plugin.errors import DamagedFile
from rtl_plugin.run_folder import RunFolder
from rtl_plugin.tasks import digits, image_regions, one_vs_rest_digits


@dataclass(frozen=True)
class CollapseTask:
    """A task whose tickets are pruned past their collapse."""

    name: str
    metric: str
    build_model: Callable[[int], torch.nn.Module]
    groups: Callable[[], rtl.DataGroups]
    loss: Callable[..., torch.Tensor]
    evaluate: Callable[..., float]
    learning_rate: float
    steps: int
    sparsity: float
    rounds: int
    chance: Callable[[rtl.DataGroups], dict[str, float]]
    floor: float = 0.0001

    def optimizer(self, params: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr=self.learning_rate)

    def settings(self) -> dict[str, Any]:
        """What a run depends on beside the seed; ``name`` stands for the data."""
        return {
            "task": self.name,
            "network": qualified(self.build_model),
            "loss": qualified(self.loss),
            "evaluate": qualified(self.evaluate),
            "optimizer": "Adam",
            "learning rate": self.learning_rate,
            "steps": self.steps,
            "sparsity": self.sparsity,
            "rounds": self.rounds,
            "floor": self.floor,
        }

    def file(self, seed: int, cache: Path) -> Path:
        """Where a run with these settings is kept."""
        text = json.dumps(self.settings(), sort_keys=True)
        short = hashlib.sha256(text.encode()).hexdigest()[:8]
        return cache / f"{self.name.replace(' ', '-')}-{seed}-{short}.json"


def qualified(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def inr_task(photo: str) -> CollapseTask:
    return CollapseTask(
        name=f"INR {photo}", metric="PSNR", build_model=image_regions.coordinate_network,
        groups=lambda: image_regions.image_regions(photo), loss=image_regions.mean_squared_error,
        evaluate=image_regions.psnr, learning_rate=5e-3, steps=300, sparsity=0.99, rounds=16,
        chance=mean_colour_psnr,
    )  # fmt: skip


ENVIRONMENTS = CollapseTask(
    name="digit environments", metric="accuracy", build_model=digits.small_conv_net,
    groups=digits.digit_environments, loss=digits.cross_entropy, evaluate=digits.accuracy,
    learning_rate=3e-3, steps=200, sparsity=0.998, rounds=21,
    chance=lambda groups: dict.fromkeys(groups, 1 / digits.CLASSES),
)  # fmt: skip
ONE_VS_REST = CollapseTask(
    name="one-vs-rest digits", metric="balanced accuracy", build_model=one_vs_rest_digits.detector,
    groups=one_vs_rest_digits.one_vs_rest_digits, loss=one_vs_rest_digits.binary_cross_entropy,
    evaluate=one_vs_rest_digits.balanced_accuracy, learning_rate=3e-3, steps=100, sparsity=0.998,
    rounds=21, chance=lambda groups: dict.fromkeys(groups, 0.5),
)  # fmt: skip


def mean_colour_psnr(groups: rtl.DataGroups) -> dict[str, float]:
    """What painting every region in its mean colour reaches."""
    result = {}
    for name, group in groups.items():
        colours = torch.cat([batch[1] for batch in group.validation or ()])
        error = (colours - colours.mean(0)).square().mean().item()
        result[name] = -10 * math.log10(error)
    return result


def with_all_held_out(groups: rtl.DataGroups) -> rtl.DataGroups:
    """The same groups, measured on validation and test samples together."""
    held_out = {
        name: [*(group.validation or ()), *(group.test or ())] for name, group in groups.items()
    }
    return rtl.DataGroups.from_loaders(
        {name: group.train for name, group in groups.items()}, validation=held_out
    )


def run_of(task: CollapseTask, seed: int, cache: Path) -> dict[str, Any]:
    """One discovery as plain numbers, from the cache where it was run with the same settings."""
    path = task.file(seed, cache)
    kept = kept_run(path)
    if kept is None or (kept.get("settings"), kept.get("seed")) != (task.settings(), seed):
        kept = measured(task, seed)
        write_atomically(path, (json.dumps(kept) + "\n").encode())
    return kept


def kept_run(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise DamagedFile(f"{path} is not JSON ({error}): delete it to run it again") from error
    if not isinstance(content, dict):
        raise DamagedFile(f"{path} does not hold a JSON object: delete it to run it again")
    return content


def measured(task: CollapseTask, seed: int) -> dict[str, Any]:
    """One discovery as plain numbers."""
    groups = with_all_held_out(task.groups())
    with tempfile.TemporaryDirectory() as folder:
        tickets = rtl.discover(
            task.build_model(seed), groups, task.loss,
            schedule=rtl.GeometricSchedule(task.sparsity, rounds=task.rounds), steps=task.steps,
            optimizer=task.optimizer, floor=task.floor, evaluate=task.evaluate, seed=seed,
            run_folder=folder,
        )  # fmt: skip
        counts = [shared(folder, round, len(groups)) for round in range(1, task.rounds + 1)]
    curves = [ticket_curves(tickets.history)[name] for name in groups]
    chance = task.chance(groups)
    return {
        "task": task.name,
        "seed": seed,
        "settings": task.settings(),
        "metric": task.metric,
        "groups": list(groups),
        "prunable": sum(math.prod(shape) for shape in tickets.shapes.values()),
        "chance": [chance[name] for name in groups],
        "shared": counts,
        "metrics": [[rounded(point.metric) for point in curve.points] for curve in curves],
        "losses": [[rounded(point.loss) for point in curve.points] for curve in curves],
    }


def shared(folder: str, round: int, groups: int) -> list[list[int]]:
    """Weights that every two tickets both keep after a round; the diagonal is what each keeps."""
    files = [RunFolder(folder, "discover").round_ticket(round, k) for k in range(groups)]
    masks = [next(iter(TicketSet.load(file).values())).masks for file in files]
    total = sum(layer.shared for layer in count_masks(masks))
    return [[int(count) for count in row] for row in total]


def rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
