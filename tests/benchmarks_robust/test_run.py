"""The benchmark at its smallest, and its committed results."""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import robust_ensemble
from benchmarks.robust_defences import (
    AVERAGED,
    CLEAN,
    DENSE,
    METHODS,
    OTHER,
    SINGLE,
    SOURCES,
    check_strength,
    with_worst_case,
)
from benchmarks.robust_ensemble import COMPARED, FULL, Setting, difference_table, table
from rtl_plugin.evaluation import confidence_interval, paired_difference
from tests.benchmarks_robust.small import TINY, networks

ROOT = Path(__file__).parents[2]
FIELDS = {
    *("benchmark", "date", "device", "versions", "data", "setting", "similarity"),
    *("rows", "paired_differences", "raw", "goals"),
}


def committed() -> dict[str, Any]:
    path = ROOT / "benchmarks/results/robust_ensemble.cpu.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def intervals_of_raw(content: dict[str, Any]) -> list[tuple[float, ...]]:
    """Means and ends of all rows and differences, computed again."""
    each = [
        confidence_interval(values) for raw in content["raw"] for values in raw["accuracy"].values()
    ]
    each += [
        paired_difference(raw["accuracy"][method], raw["accuracy"][rival])
        for raw in content["raw"]
        for method, rival in COMPARED
    ]
    return [tuple(interval) for interval in each]


def intervals_of(content: dict[str, Any]) -> list[tuple[float, ...]]:
    rows = [*content["rows"], *content["paired_differences"]["rows"]]
    return [(row["mean"], row["low"], row["high"]) for row in rows]


def test_all_of_it_runs_in_small(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(robust_ensemble, "train_networks", lambda *arguments: networks())
    monkeypatch.setattr(robust_ensemble, "QUICK", Setting((0, 1), TINY, (0.1,), 5, every=25))
    path = tmp_path / "new" / "robust.json"
    monkeypatch.setattr(sys, "argv", ["robust_ensemble", "--quick", "--json", str(path)])
    threads = torch.get_num_threads()
    try:
        robust_ensemble.main()
    finally:
        torch.set_num_threads(threads)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert set(content) == FIELDS
    assert len(content["raw"]) == 1 + 2 * len(SOURCES) + 1
    assert intervals_of(content) == intervals_of_raw(content)
    # 40 of the 1,000 test digits.
    shares = [value * 40 for raw in content["raw"] for value in raw["accuracy"][SINGLE]]
    assert shares == pytest.approx([round(share) for share in shares])
    printed = capsys.readouterr().out
    assert table(content["rows"]) in printed
    assert difference_table(content["paired_differences"]["rows"]) in printed


def test_parameters_are_weights_in_use() -> None:
    trained = networks()
    sizes = robust_ensemble.sizes_of(trained)
    assert sizes[DENSE] == 13_968
    assert sizes[SINGLE] == sizes[OTHER] == round(0.3 * 13_968)
    assert sizes[SINGLE] < sizes[AVERAGED] == trained.tickets.active_parameters() < 13_968


def test_similarity_is_that_of_different_tickets() -> None:
    trained = networks()
    masks = [torch.cat([m.flatten() for m in t.masks.values()]) for t in trained.tickets.values()]
    pairs = [float((a & b).sum() / (a | b).sum()) for a, b in itertools.combinations(masks, 2)]
    found = robust_ensemble.mean_similarity(trained)
    assert found == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)


def test_one_seed_has_no_interval() -> None:
    row = {"metric": "accuracy", "mean": 0.5, "low": None, "high": None}
    assert "[" not in table([{**row, "method": method} for method in METHODS])


def test_the_committed_run_is_whole() -> None:
    content = committed()
    assert set(content) == FIELDS
    assert content["setting"]["seeds"] == list(FULL.seeds)
    assert len(FULL.seeds) >= 5
    assert content["setting"]["recipe"] == json.loads(json.dumps(vars(FULL.recipe)))
    assert content["setting"]["steps"] == FULL.steps
    asked = {CLEAN} | {
        (source, attack, eps)
        for source in SOURCES
        for attack in ("FGSM", "PGD")
        for eps in FULL.eps
    }
    asked |= {("any", "worst", eps) for eps in FULL.eps}
    methods = [tuple(entry["accuracy"]) for entry in content["raw"] if entry["attack"] != "worst"]
    assert methods == [METHODS] * len(methods)
    raw = {(entry["source"], entry["attack"], entry["eps"]) for entry in content["raw"]}
    assert raw == asked
    stored, again = torch.tensor(intervals_of(content)), torch.tensor(intervals_of_raw(content))
    torch.testing.assert_close(stored, again)
    assert [row["seeds"] for row in content["rows"]] == [list(FULL.seeds)] * len(content["rows"])


def test_the_committed_figures_pass_the_checks() -> None:
    raw = committed()["raw"]
    for position, _ in enumerate(FULL.seeds):
        found = {
            (entry["source"], entry["attack"], entry["eps"]): {
                method: values[position] for method, values in entry["accuracy"].items()
            }
            for entry in raw
        }
        attacked = {case: each for case, each in found.items() if case[1] != "worst"}
        assert with_worst_case(attacked) == found
        check_strength(attacked, FULL.eps, digits=1000)


def test_figures_in_documents_can_be_tied_to_the_results() -> None:
    rows = committed()["rows"]
    lines = table(rows, "github").splitlines()[2:]
    for row in rows:
        row["mean"], row["low"], row["high"] = 0.1234, 0.1230, 0.1239
    changed = table(rows, "github").splitlines()[2:]
    assert len(set(lines) & set(changed)) == 0
    assert len(set(lines)) == len(lines)
