"""Damaged files and strange histories: named on the page, and the rest of it is there."""

import json
import shutil

import pytest
import torch

from rtl_plugin import Ticket, TicketSet
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.reports import write_report
from rtl_plugin.reports.page.report_data import collected, read_comparison
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


class TestDamage:
    def test_log_lines(self, folder):
        log = folder / "log.jsonl"
        lines = log.read_text().splitlines()
        lines[1:1] = ["{not json", "[1, 2]", "\udcff".encode("utf-8", "surrogateescape").hex(), ""]
        log.write_bytes("\n".join(lines).encode() + b'\n{"stage": "retr\xff')
        run = read_run(folder)
        # "ff" is a JSON error as well; the empty line is none.
        left_out = f"log.jsonl: 4 of {len(lines) + 1} lines are no JSON objects and were left out"
        assert run.problems == (f"{left_out} (line 2, 3, 4, {len(lines) + 1})",)
        assert len(run.events) == len(lines) - 4

    def test_the_finished_tickets(self, folder):
        path = RunFolder(folder, "discover").tickets
        truth = TicketSet.load(path)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        data = collected(folder)
        same_tickets(data.run.tickets, truth)
        assert any("discover/tickets.safetensors" in problem for problem in data.problems)
        said = standing(data)
        assert said.startswith("Discovery is finished; its ticket file is damaged, shown are its")
        assert "the end of the discovery" not in [each.part for each in absent_parts(data)]
        # What the page advises does help.
        assert "Delete discover/tickets.safetensors and call discover(...) again" in said
        path.unlink()
        same_tickets(page_runs.full_run(folder), truth)
        assert standing(collected(folder)) == "Discovery is finished."

    def test_a_round_file(self, folder):
        RunFolder(folder, "discover").tickets.unlink()
        (folder / "log.jsonl").unlink()
        path = RunFolder(folder, "discover").round_ticket(2, 1)
        path.write_bytes(path.read_bytes()[:40])
        run = read_run(folder)
        assert [p for p in run.problems if "round-0002-group-0001" in p]
        assert (2, page_runs.NAMES[1]) not in [(r["round"], r["group"]) for r in run.history]
        assert all(row.get("similarity") is None for row in run.history if row["round"] == 2)

    def test_round_files_of_two_networks(self, folder):
        RunFolder(folder, "discover").tickets.unlink()
        for path in (folder / "discover").glob("round-*-group-0001*"):
            (found,) = TicketSet.load(path).values()
            history = TicketSet.load(path).history
            TicketSet([Ticket(found.name, {"x": torch.tensor([True])})], history=history).save(path)
        run = read_run(folder)
        assert any("disagree" in problem for problem in run.problems)
        assert run.source == "retraining", "what is left of the run"

    def test_a_kept_mask_that_is_gone(self, folder):
        whole = read_run(folder)
        gone = next(
            (row["alarm"]["last_good_round"], row["group"])
            for row in whole.history
            if row.get("left") and row["alarm"] and row["alarm"]["last_good_round"] > 0
        )
        RunFolder(folder, "discover").tickets.unlink()
        position = page_runs.NAMES.index(gone[1])
        RunFolder(folder, "discover").round_ticket(gone[0], position).unlink()
        assert any("which it kept" in problem for problem in read_run(folder).problems)

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"a": ' + "9" * 5000 + "}"])
    @pytest.mark.parametrize("stage", ["discover", "retrain"])
    def test_arguments(self, folder, stage, content):
        RunFolder(folder, stage).arguments.write_text(content)
        data = collected(folder)
        assert stage not in data.run.arguments
        assert len(data.problems) == 1
        assert data.run.group_names == page_runs.NAMES

    @pytest.mark.parametrize(
        "name", ["retrain/checkpoint.safetensors", "retrain/tickets.safetensors"]
    )
    def test_retraining(self, folder, name):
        (folder / name).write_bytes(b"nothing")
        run = read_run(folder)
        assert len(run.problems) == 1
        assert name in run.problems[0]
        assert len(run.epochs) == 6, "from the log, if need be"

    def test_a_folder_where_a_file_should_be(self, folder, tmp_path):
        (folder / "log.jsonl").unlink()
        (folder / "log.jsonl").mkdir()
        assert len(read_run(folder).problems) == 1
        write_report(folder, tmp_path / "page.html")

    @pytest.mark.parametrize("content", ["[]", "{", '{"rows": [{"task": 1}]}', '{"rows": [3]}'])
    def test_the_comparison_in_the_folder(self, folder, content):
        (folder / "comparison.json").write_text(content)
        data = collected(folder)
        assert data.comparison == ()
        assert len(data.problems) == 1
        assert "comparison" in data.problems[0]

    def test_problems_are_on_the_page(self, folder, tmp_path):
        (folder / "log.jsonl").write_text("<b>\n")
        write_report(folder, tmp_path / "page.html")
        page = page_runs.page_of(tmp_path / "page.html")
        assert "log.jsonl: 1 of 1 lines" in page.root.text


class TestStrangeHistories:
    def saved(self, tmp_path, rows, names=("a", "b")):
        tickets = [Ticket(n, {"w": torch.tensor([True, False, n == "a"])}) for n in names]
        TicketSet(tickets, history=rows).save(RunFolder(tmp_path / "run", "discover").tickets)
        return tmp_path / "run"

    def row(self, **others):
        return {"round": 1, "group": "a", "achieved": 0.5, "loss": 0.3, **others}

    def test_rows_that_name_no_round_are_left_out_and_said(self, tmp_path):
        rows = [
            self.row(), {"group": "a"}, self.row(round="2"), self.row(round=0), self.row(group=3),
            self.row(achieved=None), self.row(achieved=1.0), self.row(round=True),
        ]  # fmt: skip
        run = read_run(self.saved(tmp_path, rows))
        assert len(run.history) == 1
        assert any(problem.startswith("7 of 8 rows") for problem in run.problems)

    def test_a_row_that_comes_twice_counts_once(self, tmp_path):
        rows = [self.row(loss=0.3), self.row(loss=0.4)]
        run = read_run(self.saved(tmp_path, rows))
        assert [row["loss"] for row in run.history] == [0.4]

    @pytest.mark.parametrize(
        "others",
        [
            {"loss": "low", "metric": [1], "similarity": "x", "excess": {}, "at_floor": "w"},
            {"loss": float("nan"), "metric": float("inf"), "similarity": float("nan")},
            {"alarm": "rise", "left": True},
            {"alarm": {}, "left": True},
            {"alarm": {"last_good_round": "1", "direction": 7, "sparsity": []}, "left": True},
            {"alarm": {"last_good_round": 40, "direction": "rise"}, "left": True},
            {"alarm": {"last_good_round": 0, "direction": "sideways"}, "left": True},
            {"left": True},
        ],
    )
    def test_values_of_the_wrong_kind(self, tmp_path, others):
        rows = [self.row(**others), self.row(group="b")]
        write_report(self.saved(tmp_path, rows), tmp_path / "page.html")
        page = page_runs.page_of(tmp_path / "page.html")
        assert "nan" not in page.root.text.lower().replace("finance", "")
        assert len(page.table("log")[1]) == 2


class TestComparisonFile:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "is not JSON"),
            ("[1]", 'expected a JSON object with "rows", got list'),
            ('{"rows": {}}', 'expected a JSON object with "rows"'),
            ('{"rows": []}', "expected at least one row"),
            ('{"rows": [{"task": "t"}]}', "expected the keys"),
            ("9" * 5000, "is not JSON"),
        ],
    )
    def test_what_is_none(self, tmp_path, content, message):
        path = tmp_path / "rows.json"
        path.write_text(content)
        with pytest.raises(InvalidArgument, match=message) as raised:
            read_comparison(path)
        assert str(path) in str(raised.value)

    def test_it_goes_before_the_one_in_the_folder(self, folder, tmp_path):
        (folder / "comparison.json").write_text(json.dumps({"rows": [ROW]}))
        path = tmp_path / "rows.json"
        path.write_text(json.dumps({"rows": [{**ROW, "method": "other"}]}))
        assert [row.method for row in collected(folder).comparison] == ["tickets"]
        assert [row.method for row in collected(folder, comparison=path).comparison] == ["other"]
