"""What docs/diagnostics.md says of the cost of similarity is what was measured."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_figures_of_the_page_are_the_results() -> None:
    path = ROOT / "benchmarks/results/similarity.cpu.json"
    goals = json.loads(path.read_text(encoding="utf-8"))["goals"]
    seconds, peak, ratio = (goal["value"] for goal in goals)
    assert all(goal["met"] for goal in goals)
    prose = " ".join((ROOT / "docs/diagnostics.md").read_text(encoding="utf-8").split())
    assert f"take {seconds:.1f} s on two CPU threads, in a process of {peak:.2f} GB" in prose
    assert f"takes {ratio:.1f} times the CPU time" in prose
