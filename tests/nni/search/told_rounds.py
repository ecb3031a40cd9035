"""Rounds as trials tell them, made by hand from masks that are known."""

from collections.abc import Mapping
from typing import Any

from tests.nni.search.trial_setups import WEIGHTS, designed_masks

CORE, OWN = dict.fromkeys("abcd", "core"), dict.fromkeys("abcd", "own")
# Of 1024 weights, after the round in which half of the CORE tickets' alarms ring.
RANG, AT = 4, 1 - round(0.7**4 * WEIGHTS) / WEIGHTS


def rows(kinds: Mapping[str, str], rounds: int = 9, **changed: Any) -> list[dict[str, Any]]:
    """What a trial of these kinds tells that prunes 30 % of the survivors a round."""
    found = []
    for number, masks in enumerate(designed_masks(kinds, rounds), start=1):
        kept = [ticket["w"] for ticket in masks.values()]
        row = {
            "round": number, "of": rounds, "target": 1 - 0.7**rounds, "names": list(kinds),
            "sparsity": 1 - int(kept[0].sum()) / WEIGHTS, "prunable": WEIGHTS, "left": [],
            "shared": [[int((a & b).sum()) for b in kept] for a in kept],
        }  # fmt: skip
        found.append(row | changed)
    return found
