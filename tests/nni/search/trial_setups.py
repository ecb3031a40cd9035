"""Small trials that tests of searches share; none takes a second.

``task()`` is an ordinary one: batch norm, dropout, three groups. In ``designed()`` a group's
targets decide which weights its ticket keeps, so that its masks are known: tickets of the kind
"core" share what they keep to the last and become one, those of the kind "own" share by chance.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import rtl_nni
from rtl_nni.search.parameters import TrialParameters
from rtl_plugin import DataGroups
from rtl_plugin.fingerprint import bit_equal

ROOT = Path(__file__).parents[3]
WEIGHTS, CORE = 1024, 120
PARAMS = {"sparsity": 0.75, "rounds": 3, "steps": 4, "epochs": 2, "seed": 3}
DESIGNED = {"pruned_per_round": 0.3, "rounds": 9, "steps": 1, "epochs": 1, "floor": 0.0}


def stream(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(sum(map(ord, name)))


def network(seed: int) -> nn.Module:
    """Its weights come from the global stream, as a user's do."""
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1)
    )


def batches(name: str, count: int) -> list[Any]:
    source = stream(name)
    weights = torch.randn(6, 1, generator=source)
    inputs = [torch.randn(8, 6, generator=source) for _ in range(count)]
    return [(x, (x @ weights).relu() + 0.5) for x in inputs]


def groups(**counts: int) -> DataGroups:
    """Groups with so many training batches, by default a, b and c with 2, 3 and 2."""
    counts = counts or {"a": 2, "b": 3, "c": 2}
    return DataGroups.from_loaders(
        {name: batches(name, count) for name, count in counts.items()},
        validation={name: batches(name + "'", 2) for name in counts},
    )


def squared(model: Any, batch: Any) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def metric(model: Any, held_out: Any) -> float:
    errors = [float(squared(model, batch)) for batch in held_out]
    return 1 - sum(errors) / len(errors)


def adam(params: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, 1e-2)


def trial(params: Mapping[str, Any] = PARAMS, **options: Any) -> rtl_nni.TrialResult:
    """Run the ordinary trial; options replace what it is given."""
    given: dict[str, Any] = {
        "build_model": network, "groups": groups(), "loss": squared, "evaluate": metric,
        "optimizer": adam,
    } | options  # fmt: skip
    return rtl_nni.run_trial(params=params, **given)


def designed(kinds: Mapping[str, str], **options: Any) -> rtl_nni.TrialResult:
    """Run a trial whose masks follow from the groups' kinds; names of parameters are params."""
    ours = {name for name in options if name in TrialParameters.__dataclass_fields__}
    params = DESIGNED | {name: options.pop(name) for name in ours}
    loaders = {name: [(torch.eye(WEIGHTS), _targets(k, name))] for name, k in kinds.items()}
    return trial(
        params,
        build_model=lambda seed: nn.Sequential(nn.Linear(WEIGHTS, 1, bias=False)),
        groups=DataGroups.from_loaders(loaders, validation=loaders),
        # One step of size 1 puts every weight on its target.
        loss=lambda model, batch: 0.5 * (model(batch[0]) - batch[1]).square().sum(),
        optimizer=lambda params: torch.optim.SGD(params, 1.0),
        prunable=["0.weight"],
        **options,
    )


def _targets(kind: str, name: str) -> torch.Tensor:
    targets = torch.rand(WEIGHTS, 1, generator=stream(name)) * 0.4 + 0.1
    if kind == "core":
        targets[:CORE] += 1
    return targets


def designed_masks(
    kinds: Mapping[str, str], rounds: int
) -> list[dict[str, dict[str, torch.Tensor]]]:
    """The masks after every round that follow from the targets."""
    ranked = {name: _targets(kind, name).flatten().argsort() for name, kind in kinds.items()}
    found = []
    for round in range(1, rounds + 1):
        kept = int(0.7**round * WEIGHTS + 0.5)
        masks = {name: torch.zeros(WEIGHTS, dtype=torch.bool) for name in kinds}
        for name, mask in masks.items():
            mask[ranked[name][WEIGHTS - kept :]] = True
        found.append({name: {"w": mask} for name, mask in masks.items()})
    return found


def same_tickets(ours: Any, theirs: Any) -> bool:
    pairs = [(ours[name], theirs[name]) for name in theirs]
    return all(
        bit_equal(getattr(mine, kind)[key], value)
        for mine, its in pairs
        for kind in ("masks", "state")
        for key, value in getattr(its, kind).items()
    )


def python(code: str, *arguments: str, **variables: str) -> str:
    """What a fresh interpreter prints, as NNI starts one for a trial or an assessor."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "integrations")])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": path, **variables},
        cwd=ROOT,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    ).stdout
