"""The similarity benchmark: what it compares is right, and its goals can be missed."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import similarity
from benchmarks.similarity_programs import (
    BLOCKS,
    COUNTERS,
    PACKED,
    WHOLE,
    Setting,
    check,
    made,
    resnet50_shapes,
    weights_of,
)

TINY = Setting(tickets=4, divisor=32, rounds=1, rounds_of_two=1)


def test_the_network_is_resnet_50() -> None:
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        model = torchvision.models.resnet50(weights=None)
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if p.dim() > 1}
    assert resnet50_shapes() == shapes
    assert weights_of(shapes) == 25_502_912


def test_all_programs_count_the_same() -> None:
    tickets = made(TINY, packed=False)
    expected = COUNTERS[BLOCKS][1](tickets)
    assert len(np.unique(expected)) > 8
    for program, (packed, count) in COUNTERS.items():
        assert check(program, count(made(TINY, packed)), expected) == 0


def test_odd_tickets_share_more_than_chance() -> None:
    counts = COUNTERS[BLOCKS][1](made(Setting(8, 16, 1, 1), packed=False))
    kept, size = np.diag(counts), weights_of(resnet50_shapes(16))
    lift = counts * size / np.outer(kept, kept)
    assert lift[4, 6] == pytest.approx(1, abs=0.02)
    assert lift[3, 5] > 1.1


def test_a_wrong_count_is_an_error() -> None:
    expected = np.array([[50_000, 3], [3, 40_000]])
    with pytest.raises(AssertionError, match="differ by up to 1"):
        check(PACKED, expected + 1, expected)
    assert check(WHOLE, expected + 4, expected) == 4
    with pytest.raises(AssertionError, match="differ by up to 6"):
        check(WHOLE, expected + 6, expected)


def memory(peak: float | None) -> list[dict[str, Any]]:
    row: dict[str, Any] = {"program": PACKED, "threads": 2}
    return [row | ({"error": "killed"} if peak is None else {"peak_gb": peak})]


def rows(seconds: float, cpu: float, again: float) -> list[dict[str, Any]]:
    best = {PACKED: cpu, PACKED + similarity.AGAIN: again, similarity.BLOCKS_PACKED: 6.0}
    return [
        {"program": program, "threads": n, "best": seconds, "best_cpu": value}
        for program, value in best.items()
        for n in (1, 2)
    ]


@pytest.mark.parametrize(
    ("seconds", "cpu", "again", "peak", "setting", "met"),
    [
        (9.0, 2.0, 2.0, 1.9, similarity.FULL, [True, True, True]),
        (11.0, 3.5, 3.5, 2.1, similarity.FULL, [False, False, False]),
        # 3 against a goal of 2 is sure up to half of that gap.
        (9.0, 2.0, 2.5, 1.9, similarity.FULL, [True, True, None]),
        (9.0, 2.0, 2.0, None, similarity.FULL, [True, None, True]),
        (9.0, 2.0, 2.0, 1.9, similarity.FULL._replace(rounds=3), [True, True, None]),
        (9.0, 2.0, 2.0, 1.9, similarity.QUICK, [None, None, None]),
    ],
)
def test_goals(
    seconds: float, cpu: float, again: float, peak: float | None, setting: Setting, met: list[Any]
) -> None:
    content = similarity.report(rows(seconds, cpu, again), memory(peak), setting)
    assert [goal["met"] for goal in content["goals"]] == met
    assert content["goals"][2]["value"] == pytest.approx(6.0 / cpu)


def test_timings_are_complete_and_the_whole_reads_as_a_table() -> None:
    taken = similarity.timings(TINY._replace(rounds=2))
    assert [len(row["seconds"]) for row in taken] == [2 if r["threads"] == 1 else 1 for r in taken]
    assert len(taken) == 10
    failed = {"program": WHOLE, "threads": 2, "error": "needs 14 GB, 2 are free"}
    own = [similarity.in_process(PACKED, TINY), failed]
    assert own[0]["peak_gb"] >= own[0]["peak_of_making_gb"] >= own[0]["peak_at_start_gb"] > 0.01
    content = similarity.report(taken, own, TINY)
    assert json.loads(json.dumps(content)) == content
    assert "needs 14 GB" in similarity.shown(content)


def test_a_run_has_its_threads_and_gives_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before = torch.get_num_threads()

    def count(_: Any) -> None:
        seen.append(torch.get_num_threads())

    monkeypatch.setitem(COUNTERS, PACKED, (True, count))
    similarity.timed(PACKED, [], before + 1)
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


def test_a_process_that_fails_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('went wrong')"]
    real = subprocess.run
    monkeypatch.setattr(similarity.subprocess, "run", lambda _, **kw: real(command, **kw))
    found = similarity.fresh_process(PACKED, TINY)
    assert found == {"program": PACKED, "threads": 2, "error": "went wrong"}
    monkeypatch.setattr(similarity, "free_memory", lambda: 1e9)
    assert "needs 14 GB, 1 are free" in similarity.fresh_process(WHOLE, similarity.FULL)["error"]
