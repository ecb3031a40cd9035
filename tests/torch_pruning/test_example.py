"""examples/torch_pruning_digits.py runs, and prints what it writes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
METHODS = ["channel tickets", "one pruned network", "dense", "pruned apart"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What the quick run printed, and its JSON."""
    path = tmp_path_factory.mktemp("example") / "folder" / "results.json"
    script = ROOT / "examples/torch_pruning_digits.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), "--quick", "--json", str(path)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "integrations")]),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text(encoding="utf-8"))


def cells(printed: str, first_cell: str) -> list[list[str]]:
    """Every table line that begins with a cell, split into cells."""
    lines = [line for line in printed.splitlines() if line.startswith(first_cell + "  ")]
    return [[part.strip() for part in line.split("  ") if part.strip()] for line in lines]


def test_the_accuracies_that_it_prints_are_those_in_its_json(
    run: tuple[str, dict[str, Any]],
) -> None:
    printed, results = run
    assert [row["method"] for row in results["rows"]] == METHODS
    for row in results["rows"]:
        expected = [
            row["method"],
            f"{row['accuracy']['mean']:.3f}",
            *(f"{each['mean']:.3f}" for each in row["environments"].values()),
            str(row["networks"]),
            f"{max(row['parameters']):,}",
            f"{row['stored_bytes']:,}",
            f"{row['served_bytes']:,}",
            f"{row['batches']:,}",
        ]
        assert expected in cells(printed, row["method"])
    for row in results["paired_differences"]["rows"]:
        assert f"channel tickets - {row['rival']}: {row['mean']:+.3f}" in printed


def test_the_sizes_that_it_prints_are_those_in_its_json(run: tuple[str, dict[str, Any]]) -> None:
    printed, results = run
    apart = [f"{name}, pruned apart" for name in results["environments"]]
    names = ["dense", *results["environments"], "one pruned network", *apart]
    assert [row["name"] for row in results["sizes"]["rows"]] == names
    for row in results["sizes"]["rows"]:
        line = [
            row["name"],
            f"{row['asked']:.1%} removed",
            f"{row['parameters']:,}",
            f"{row['macs']:,}",
            f"{row['bytes']:,}",
            f"{row['latency_ms']:.3f}",
            f"{row['latency_ratio']:.3f}",
        ]
        assert line in cells(printed, row["name"])
        warned = f"warning: {row['name']!r} is not clearly faster" in printed
        assert warned is row["within_noise"]
    mixed = results["mixed_batch_latency"]
    assert f"a batch that mixes the environments: {mixed['ratio']:.3f} of dense" in printed
    assert f"networks pruned apart: {mixed['ratio_pruned_apart']:.3f} of dense" in printed


def test_every_method_had_the_same_batches_and_the_small_networks_are_as_large(
    run: tuple[str, dict[str, Any]],
) -> None:
    rows = {row["method"]: row for row in run[1]["raw"]}
    assert len({row["batches"] for row in rows.values()}) == 1
    found, pruned, dense, apart = (rows[name]["parameters"] for name in METHODS)
    assert found == apart == pruned * 5
    assert found[0] < 0.3 * dense[0]


def test_the_json_names_no_machine(run: tuple[str, dict[str, Any]]) -> None:
    results = run[1]
    assert {"benchmark", "date", "device", "versions", "rows", "goals"} <= set(results)
    assert "/" not in results["device"]
    assert os.uname().nodename not in json.dumps(results)
