"""Files of single rounds: what is missing, misplaced or unreadable is named."""

import shutil

import pytest
import torch

from rtl_plugin import Ticket, TicketSet
from rtl_plugin.reports import write_report
from rtl_plugin.reports.page.report_data import collected
from rtl_plugin.reports.page.run_files import read_run
from rtl_plugin.reports.page.summary import absent_parts, standing
from rtl_plugin.run_folder import RunFolder
from tests.reports import page_runs

NAMES = ["a", "b", "c"]
ALL = [(round, name) for round in (1, 2, 3) for name in NAMES]


def made(tmp_path, rows=ALL, names=NAMES, left=()):
    page_runs.round_files(tmp_path / "run", rows, names, left)
    return tmp_path / "run"


def path_of(folder, round, name):
    return RunFolder(folder, "discover").round_ticket(round, NAMES.index(name))


def test_whole_rounds_have_no_problem(tmp_path):
    run = read_run(made(tmp_path))
    assert run.problems == ()
    assert len(run.history) == 9


def test_gaps_are_named(tmp_path):
    folder = made(tmp_path, [pair for pair in ALL if pair not in ((1, "a"), (2, "a"), (2, "c"))])
    (problem,) = read_run(folder).problems
    assert problem.endswith("rounds that exist: round 1 of a, round 2 of a, round 2 of c")


def test_many_gaps_are_counted(tmp_path):
    names = [f"n{k}" for k in range(8)]
    folder = made(tmp_path, [(round, name) for round in (1, 3) for name in names], names)
    (problem,) = read_run(folder).problems
    assert problem.endswith("round 2 of n4 and 3 more")


def test_a_ticket_that_left_has_no_gap_and_neither_has_the_closing_round(tmp_path):
    folder = made(tmp_path, [pair for pair in ALL if pair not in ((2, "b"), (3, "b"))])
    closing = {"round": 5, "group": "b", "achieved": 0.2, "kept": 9, "closing": True}
    ticket = Ticket("b", {"w": torch.arange(10) >= 2})
    TicketSet([ticket], history=[closing]).save(path_of(folder, 5, "b"))
    assert read_run(folder).problems == ()


@pytest.mark.parametrize("with_arguments", [True, False])
def test_a_file_of_another_group(tmp_path, with_arguments):
    folder = made(tmp_path)
    shutil.copy(path_of(folder, 3, "a"), path_of(folder, 3, "b"))
    if not with_arguments:
        RunFolder(folder, "discover").arguments.unlink()
    run = read_run(folder)
    (problem,) = run.problems
    assert problem == (
        "discover/round-0003-group-0001.safetensors: expected group 'b', got 'a'; left out"
    )
    assert [row["group"] for row in run.history if row["round"] == 3] == ["a", "c"]


def test_a_file_of_a_group_that_the_run_does_not_have(tmp_path):
    folder = made(tmp_path)
    extra = {"round": 1, "group": "d", "achieved": 0.2}
    path = RunFolder(folder, "discover").round_ticket(1, 3)
    TicketSet([Ticket("d", {"w": torch.arange(10) > 1})], history=[extra]).save(path)
    run = read_run(folder)
    (problem,) = run.problems
    assert problem.endswith("group-0003.safetensors: expected no such file, got 'd'; left out")
    assert "d" not in run.tickets
    RunFolder(folder, "discover").arguments.unlink()
    assert "d" in read_run(folder).tickets, "nobody knows which groups there were"


@pytest.mark.parametrize("change", [{"round": 2}, {"group": "b"}])
def test_a_row_of_another_round(tmp_path, change):
    folder = made(tmp_path)
    path = path_of(folder, 3, "a")
    found = TicketSet.load(path)
    TicketSet(found.values(), history=[found.history[0] | change]).save(path)
    (problem,) = read_run(folder).problems
    assert "expected the row of round 3 of 'a'" in problem


def test_a_file_with_two_tickets(tmp_path):
    folder = made(tmp_path)
    mask = {"w": torch.arange(10) > 1}
    TicketSet([Ticket("a", mask), Ticket("b", mask)]).save(path_of(folder, 3, "a"))
    (problem,) = read_run(folder).problems
    assert "expected one ticket and one row of history, got 2 and 0" in problem


def test_groups_that_left_are_not_waited_for(tmp_path):
    rows = [pair for pair in ALL if pair not in ((2, "c"), (3, "c"), (3, "b"))]
    data = collected(made(tmp_path, rows, left=[(1, "c")]))
    assert "round 3 is done for 1 of 2 groups that are still in the rounds" in standing(data)
    last = collected(made(tmp_path / "last", left=[(3, "a")]))
    assert "round 3 is done for 3 of 3 groups; shown" in standing(last)
    whole = collected(made(tmp_path / "other", [*ALL, (4, "a")]))
    assert "round 4 is done for 1 of 3 groups; shown" in standing(whole)


def test_a_discovery_that_cannot_be_read_is_there(tmp_path):
    folder = made(tmp_path)
    for path in (folder / "discover").iterdir():
        path.write_bytes(b"nothing")
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"stage": "discover", "event": "round", "round": 1, "group": "b", ')
        log.write('"achieved": 0.2, "kept": 9, "loss": 0.5}\n')
    data = collected(folder)
    assert standing(data) == ("The folder holds a discovery, and no ticket file of it can be read.")
    remedies = {each.part: each.remedy for each in absent_parts(data)}
    assert remedies["tickets of the discovery"].startswith("delete the files that cannot be read")
    assert data.run.group_names == ("b",), "of the history"
    write_report(folder, tmp_path / "page.html")
    mask = {"w": torch.arange(10) > 1}
    TicketSet([Ticket("a", mask)]).save(RunFolder(folder, "retrain").tickets)
    said = standing(collected(folder))
    assert said.endswith("can be read; shown are the tickets of a retraining.")
