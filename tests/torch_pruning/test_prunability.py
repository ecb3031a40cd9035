"""Ten architectures of torchvision as channel tickets; the benchmark runs the whole zoo."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

import benchmarks.prunability_checks as checks
from benchmarks.prunability import QUICK
from benchmarks.prunability_checks import CHECKS, check
from benchmarks.prunability_host import LayerScores, quiet
from benchmarks.prunability_recipes import architectures
from benchmarks.prunability_report import goals, page, passed
from rtl_plugin import DataGroups
from rtl_plugin.errors import PruningFailed
from rtl_torch_pruning import RTLPruner

ROOT = Path(__file__).parents[2]
EXACT = {"mobilenet_v2", "densenet121", "resnet18", "resnext50_32x4d", "squeezenet1_1"}


@pytest.mark.parametrize("architecture", QUICK)
def test_an_architecture_becomes_two_tickets(architecture: str) -> None:
    row = check(architecture, plain=False)
    assert row["checks"] == dict.fromkeys(CHECKS, True), row["reason"]
    assert row["host"]["runs"], row["host"]["reason"]
    assert row["masked"] == "equal" or architecture not in EXACT, row["masked"]


def test_another_cut_than_the_hosts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = checks.host_cut

    def other_cut(*arguments: Any) -> nn.Module:
        return cut(*arguments[:-1], 5)

    monkeypatch.setattr(checks, "host_cut", other_cut)
    row = check("squeezenet1_1", plain=False)
    assert row["checks"] == {name: name != "gather" for name in CHECKS}
    assert "ticket b and the host's network" in row["reason"]


def test_an_attention_with_uneven_heads_is_named_with_its_remedy() -> None:
    model = VisionTransformer(32, 16, 1, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=3)
    images = torch.rand(2, 3, 32, 32)
    groups = DataGroups.from_loaders({"a": [images]})
    with quiet():
        pruner = RTLPruner(
            model, images, LayerScores(), groups=groups, steps=0, pruning_ratio=0.4,
            ignored_layers=[model.heads], progress=False,
        )  # fmt: skip
    expected = r"embed_dim=19 .* no multiple of its num_heads=4 \(pass round_to=4\)"
    with pytest.raises(PruningFailed, match=expected):
        pruner.step()


@pytest.fixture
def measured() -> dict[str, Any]:
    path = ROOT / "benchmarks/results/prunability.cpu.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_the_page_is_made_from_the_committed_results(measured: dict[str, Any]) -> None:
    assert [row["architecture"] for row in measured["rows"]] == architectures()
    assert measured["goals"] == goals(measured["rows"])
    text = (ROOT / "docs/prunability.md").read_text(encoding="utf-8")
    assert text == page(measured)


def test_a_failure_shows_on_the_page(measured: dict[str, Any]) -> None:
    row = next(row for row in measured["rows"] if passed(row))
    row["checks"]["gather"], row["reason"] = False, "gather: Failed: other bits"
    changed = {**measured, "goals": goals(measured["rows"])}
    assert changed["goals"][0]["value"] < 1
    assert f"- {row['architecture']}: ours: gather: Failed: other bits" in page(changed)
