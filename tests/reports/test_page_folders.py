"""Run folders of every kind, whole and damaged: read, never written, nothing lost in silence."""

import json
import shutil

import numpy as np
import pytest
import torch

from rtl_plugin import Ticket, TicketSet
from rtl_plugin.errors import MissingFile
from rtl_plugin.packed_masks import PackedMasks
from rtl_plugin.reports import write_report
from rtl_plugin.reports.page.report_data import collected
from rtl_plugin.reports.page.run_files import read_run
from rtl_plugin.reports.page.summary import absent_parts, standing
from rtl_plugin.run_folder import RunFolder
from tests.reports import page_runs
from tests.reports.page_runs import ROW, same_tickets


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run with everything."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    page_runs.full_run(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def absent(data):
    return {each.part: each.remedy for each in absent_parts(data)}


def test_a_finished_run(folder):
    run = read_run(folder)
    tickets = TicketSet.load(RunFolder(folder, "discover").tickets)
    assert run.source == "discovery"
    same_tickets(run.tickets, tickets)
    assert [(row["round"], row["group"], row["loss"]) for row in run.history] == [
        (row["round"], row["group"], row["loss"]) for row in tickets.history
    ]
    assert run.group_names == page_runs.NAMES
    assert set(run.arguments) == {"discover", "retrain"}
    assert [(row["epoch"], row["group"]) for row in run.epochs] == [
        (epoch, name) for epoch in (1, 2) for name in page_runs.NAMES
    ]
    assert run.problems == ()
    assert all(isinstance(ticket.masks, PackedMasks) for ticket in run.tickets.values())
    assert list(absent(collected(folder))) == ["comparison of methods"]


def test_the_report_writes_nothing_into_the_folder(folder, tmp_path):
    (folder / "comparison.json").write_text(json.dumps({"rows": [ROW]}))
    before = page_runs.snapshot(folder)
    write_report(folder, tmp_path / "page.html")
    assert page_runs.snapshot(folder) == before


def test_an_unfinished_run_is_told_from_its_rounds(folder):
    """Without the finished file, round files and log give the same tickets and history."""
    whole = read_run(folder)
    RunFolder(folder, "discover").tickets.unlink()
    run = read_run(folder)
    assert run.source == "unfinished discovery"
    same_tickets(run.tickets, whole.tickets)
    keys = ("round", "group", "achieved", "loss", "metric", "kept", "at_floor")
    assert [[row.get(k) for k in keys] for row in run.history] == [
        [row.get(k) for k in keys] for row in whole.history
    ]
    rung = [row for row in whole.history if row.get("alarm")]
    assert rung, "the run must have alarms"
    assert any(row["left"] for row in rung)
    for ours, theirs in zip(run.history, whole.history, strict=True):
        if not theirs.get("closing"):
            assert ours["similarity"] == pytest.approx(theirs["similarity"], abs=1e-12)
            assert ours["excess"] == pytest.approx(theirs["excess"], abs=1e-12)
        if theirs.get("alarm"):
            assert ours["alarm"]["direction"] == theirs["alarm"]["direction"]
            assert ours["alarm"]["last_good_round"] == theirs["alarm"]["last_good_round"]
            assert ours["left"] is theirs["left"]


def test_a_ticket_that_left_with_the_dense_network_is_dense(folder):
    RunFolder(folder, "discover").tickets.unlink()
    log = folder / "log.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    for event in events:
        if event.get("alarm"):
            event["alarm"]["last_good_round"] = 0
    log.write_text("\n".join(map(json.dumps, events)))
    left = [e["group"] for e in events if e.get("alarm") and e["left"]]
    assert left
    run = read_run(folder)
    assert [run.tickets.density(name) for name in left] == [1.0] * len(left)


def test_without_a_log_the_masks_of_rounds_are_compared(folder):
    whole = read_run(folder)
    RunFolder(folder, "discover").tickets.unlink()
    (folder / "log.jsonl").unlink()
    first = [row for row in read_run(folder).history if row["round"] == 1]
    assert [row["similarity"] for row in first] == pytest.approx(
        [row["similarity"] for row in whole.history if row["round"] == 1]
    )


def test_masks_that_are_gone_leave_the_log(folder):
    whole = read_run(folder)
    shutil.rmtree(folder / "retrain")
    for file in (folder / "discover").glob("*.safetensors"):
        file.unlink()
    data = collected(folder)
    assert data.masks is None
    keys = ("round", "group", "loss", "metric", "similarity", "left")
    assert [[row.get(k) for k in keys] for row in data.run.history] == [
        [row.get(k) for k in keys] for row in whole.history
    ]


def test_a_killed_run(tmp_path):
    # 3 groups of 3 steps a round: killed in the second group of the third round.
    page_runs.killed_run(tmp_path / "run", after=22)
    data = collected(tmp_path / "run")
    assert data.run.source == "unfinished discovery"
    assert len(data.run.history) == 7
    assert "round 3 of 4 is done for 1 of 3 groups" in standing(data)
    assert "the same discover(...) call" in absent(data)["the end of the discovery"]
    by_round = {row["round"]: row.get("similarity") for row in data.run.history}
    assert by_round[2] is not None
    assert by_round[3] is None, "the round is not complete"
    masks = {name: mask.sum() for name, mask in data.run.tickets["plain"].masks.items()}
    assert sum(masks.values()) > data.run.tickets[page_runs.HOSTILE].kept


def test_a_run_that_was_killed_in_its_first_round(tmp_path):
    page_runs.killed_run(tmp_path / "run", after=2)
    data = collected(tmp_path / "run")
    assert data.masks is None
    assert "discover" in absent(data)["tickets and everything about masks"]
    assert standing(data) == "The folder holds no tickets yet."
    write_report(tmp_path / "run", tmp_path / "page.html")
    assert (
        "tickets and everything about masks" in page_runs.page_of(tmp_path / "page.html").root.text
    )


def test_a_run_of_an_older_version_gets_its_similarity_from_the_masks(folder):
    path = RunFolder(folder, "discover").tickets
    tickets = TicketSet.load(path)
    truth = [dict(row) for row in tickets.history]
    for row in tickets.history:
        for key in ("trained_at", "metric", "similarity", "excess"):
            row.pop(key, None)
    tickets.save(path)
    data = collected(folder)
    for ours, theirs in zip(data.run.history, truth, strict=True):
        if not theirs.get("closing") and not theirs["left"]:
            assert ours["similarity"] == pytest.approx(theirs["similarity"])
    assert set(absent(data)) == {"accuracy against sparsity", "comparison of methods"}


def test_a_run_that_nobody_watched(folder):
    path = RunFolder(folder, "discover").tickets
    tickets = TicketSet.load(path)
    for row in tickets.history:
        row.pop("alarm", None)
    tickets.save(path)
    data = collected(folder)
    assert not data.watched
    assert "alarms" in absent(data)


def test_similarity_of_an_older_run_whose_round_files_are_gone(folder):
    path = RunFolder(folder, "discover").tickets
    tickets = TicketSet.load(path)
    for row in tickets.history:
        row.pop("similarity", None)
    tickets.save(path)
    for file in (folder / "discover").glob("round-*"):
        file.unlink()
    curves = collected(folder).curves
    assert all(p.similarity is None for curve in curves.values() for p in curve.points)


def test_discovery_alone(folder, tmp_path):
    shutil.rmtree(folder / "retrain")
    (folder / "log.jsonl").unlink()
    data = collected(folder)
    assert set(absent(data)) == {"retraining", "comparison of methods", "times"}
    write_report(folder, tmp_path / "page.html")


def test_retraining_alone(folder, tmp_path):
    shutil.rmtree(folder / "discover")
    data = collected(folder)
    assert data.run.source == "retraining"
    same_tickets(data.run.tickets, TicketSet.load(RunFolder(folder, "retrain").tickets))
    write_report(folder, tmp_path / "page.html")


def test_epochs_of_an_unfinished_retraining_come_from_the_log(folder):
    RunFolder(folder, "retrain").checkpoint.unlink()
    whole = [(row["epoch"], row["group"]) for row in read_run(folder).epochs]
    assert whole == [(epoch, name) for epoch in (1, 2) for name in page_runs.NAMES]


def test_a_ticket_file_alone(tmp_path):
    ticket = Ticket("a", {"w": torch.tensor([True, False])})
    TicketSet([ticket]).save(tmp_path / "tickets.safetensors")
    data = collected(tmp_path)
    assert data.run.source == "ticket file"
    assert data.masks.prunable == 2
    assert "similarity" in absent(data)


def test_a_comparison_alone(tmp_path):
    (tmp_path / "compare").mkdir()
    (tmp_path / "compare" / "results.json").write_text(json.dumps({"rows": [ROW], "raw": []}))
    data = collected(tmp_path)
    assert data.comparison[0].mean == 0.7
    assert data.masks is None
    write_report(tmp_path, tmp_path / "page.html")


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_what_is_no_run_folder(tmp_path, what):
    path = tmp_path / what
    if what == "empty":
        path.mkdir()
    elif what == "file":
        path.write_text("x")
    with pytest.raises(MissingFile, match=what):
        write_report(path, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_facts_agree_with_the_ticket_set(folder):
    data = collected(folder)
    tickets = data.run.tickets
    facts = data.masks
    assert facts.kept.sum(axis=0).tolist() == [ticket.kept for ticket in tickets.values()]
    assert int(facts.union.sum()) == tickets.active_parameters()
    assert sum(facts.shared_by) == facts.prunable
    assert np.allclose(facts.likeness["all layers"].raw, tickets.similarity())
    assert np.allclose(facts.likeness["all layers"].excess, tickets.similarity(excess=True))
    assert set(facts.likeness) == {"all layers", "shallow", "middle", "deep"}
    recorded = data.run.arguments["discover"]["floor"]
    assert dict(zip(facts.layers, facts.floors, strict=True)) == recorded
    packed = sum((mask.numel() + 7) // 8 for t in tickets.values() for mask in t.masks.values())
    assert facts.mask_bytes == packed
