"""A trial of the web page's test, run by NNI's manager: ``python -m tests.nni.search.page_trial``.

``grouping`` names groups whose targets decide what their tickets keep: in "core" all tickets come
to keep the same weights, in "own" they share by chance.
"""

import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import torch
from torch import nn

import rtl_nni
from rtl_plugin import DataGroups
from tests.nni.search.trial_setups import CORE, WEIGHTS, metric, squared, stream

NAMES = "abcd"
TRIALS = 4
# What does not vary is in the space too: a trial runs with what NNI gives it and nothing else.
SPACE = rtl_nni.search_space(
    pruned_per_round=[0.3],
    rounds=[3, 9],
    steps=[1],
    epochs=[1],
    floor=[0.0],
    grouping=["own", "core"],
)
COLLAPSING = {"rounds": 9, "grouping": "core"}
ALARM_ROUND = 4  # after which half of the tickets of "core" have rung; three rounds are too few


def designed_groups(params: Mapping[str, Any]) -> DataGroups:
    """The groups that ``grouping`` names."""
    loaders = {}
    for name in NAMES:
        targets = torch.rand(WEIGHTS, 1, generator=stream(name)) * 0.4 + 0.1
        if params["grouping"] == "core":
            targets[:CORE] += 1
        loaders[name] = [(torch.eye(WEIGHTS), targets)]
    return DataGroups.from_loaders(loaders, validation=loaders)


def patient_metric(collapses: bool) -> Callable[[Any, Any], float]:
    """The metric; after the alarms it is slow, so that a busy assessor comes before the end."""
    calls = count()

    def evaluate(model: Any, batches: Any) -> float:
        if collapses and next(calls) >= ALARM_ROUND * len(NAMES):
            time.sleep(1)
        return metric(model, batches)

    return evaluate


def run(params: Mapping[str, Any]) -> rtl_nni.TrialResult:
    """The trial, also outside NNI."""
    return rtl_nni.run_trial(
        lambda seed: nn.Sequential(nn.Linear(WEIGHTS, 1, bias=False)),
        designed_groups,
        # One step of size 1 puts every weight on its target.
        lambda model, batch: WEIGHTS / 2 * squared(model, batch),
        patient_metric(collapses=COLLAPSING.items() <= params.items()),
        params,
        optimizer=lambda weights: torch.optim.SGD(weights, 1.0),
        prunable=["0.weight"],
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(rtl_nni.next_parameters())
