"""What the page says of alarms, departures and what a run did not record."""

import re

import pytest
import torch

from rtl_plugin import Ticket, TicketSet
from rtl_plugin.diagnostics.collapse_rule import CollapseRule
from rtl_plugin.reports import write_report
from rtl_plugin.reports.page.charts import curve_charts
from rtl_plugin.reports.page.report_data import collected
from rtl_plugin.reports.page.summary import absent_parts, key_figures
from rtl_plugin.reports.page.ticket_tables import layer_table
from rtl_plugin.reports.page.watching import silence
from rtl_plugin.run_folder import RunFolder
from tests.reports import page_runs
from tests.reports.page_runs import plain

NONE = "\N{EN DASH}"
BREAK = "the others are compared among themselves"


def row(round, name, **others):
    return {
        "round": round, "group": name, "achieved": 1 - 0.7**round, "kept": 9, "loss": 0.5,
        "metric": 0.9, "similarity": 0.6 - 0.01 * round, "excess": 0.1, "alarm": None,
        "left": False, **others,
    }  # fmt: skip


def saved(tmp_path, rows, arguments=None):
    folder = RunFolder(tmp_path / "run", "discover")
    mask = {"w": torch.arange(10) > 2, "v": torch.ones(4, dtype=torch.bool)}
    names = dict.fromkeys(row["group"] for row in rows)
    TicketSet([Ticket(name, mask) for name in names], history=rows).save(folder.tickets)
    if arguments:
        folder.open(arguments)
    return tmp_path / "run"


def alarms(data):
    return next(figure for figure in key_figures(data) if figure.name == "alarms")


def text_of(folder, tmp_path):
    write_report(folder, tmp_path / "page.html")
    return plain(page_runs.page_of(tmp_path / "page.html").root.text)


def departing(names="abcd", rounds=5):
    """The first leaves with an alarm, the second without one, both in round 3."""
    alarm = {"direction": "fall", "last_good_round": 2, "round": 3}
    rows = []
    for round in range(1, rounds + 1):
        for name in names:
            leaves = round == 3 and name in names[:2]
            rung = {"alarm": alarm} if leaves and name == names[0] else {}
            if round <= 3 or name not in names[:2]:
                rows.append(row(round, name, left=leaves, **rung))
    return rows


def test_who_left_is_counted_not_who_rang(tmp_path):
    figure = alarms(collected(saved(tmp_path, departing())))
    assert (figure.value, figure.remark) == ("1", "2 tickets left the rounds")


def test_one_ticket_is_not_watched(tmp_path):
    folder = saved(tmp_path, [row(round, "a", similarity=None) for round in range(1, 7)])
    assert alarms(collected(folder)).remark == "not watched: one ticket"
    assert alarms(collected(folder)).value == NONE
    text = text_of(folder, tmp_path)
    assert "Not watched: one ticket." in text
    assert "No alarm rang" not in text


@pytest.mark.parametrize(("rounds", "silent"), [(2, True), (3, False)])
def test_a_run_too_short_for_an_alarm(tmp_path, rounds, silent):
    # Of the default rule: two steps of 0.2 in the log density must lie before the one that rings.
    folder = saved(tmp_path, [row(r, name) for r in range(1, rounds + 1) for name in "ab"])
    text = text_of(folder, tmp_path)
    assert ("Alarms could not ring: 2 rounds give fewer than 3 steps of 0.2" in text) is silent
    assert ("No alarm rang." in text) is not silent
    assert (alarms(collected(folder)).value == NONE) is silent


def test_an_alarm_that_rang_could_ring(tmp_path):
    rows = [row(r, name) for r in (1, 2) for name in "ab"]
    rows[-1]["alarm"] = {"direction": "rise", "last_good_round": 1}
    assert alarms(collected(saved(tmp_path, rows))).value == "1"


def test_the_rule_of_the_run_decides(tmp_path):
    rows = [row(r, name) for r in range(1, 5) for name in "ab"]
    late = CollapseRule(warm_up=5).description()
    assert "fewer than 6 steps" in silence(
        collected(saved(tmp_path, rows, {"stop_before_collapse": late}))
    )
    for k, other in enumerate([None, {"warm_up": 0}, {"unknown": 1}, "late"]):
        root = tmp_path / str(k)
        assert silence(collected(saved(root, rows, {"stop_before_collapse": other}))) == ""


@pytest.mark.parametrize("count", [4, 12])
def test_lines_break_where_tickets_leave(tmp_path, count):
    names = "abcdefghijkl"[:count]
    folder = saved(tmp_path, departing(names))
    charts = {chart.key: chart for chart in curve_charts(collected(folder))}
    for key in ("similarity", "excess"):
        pieces = {line.name: line.path.count("M") for line in charts[f"curve-{key}"].lines}
        assert pieces == {name: 1 if name in "ab" else 2 for name in names}
    for key in ("metric", "loss"):
        assert {line.path.count("M") for line in charts[f"curve-{key}"].lines} == {1}
    if count > 10:
        medians = {key: chart.median.count("M") for key, chart in charts.items()}
        assert set(medians.values()) == {2}
    # The first piece ends at round 3, where they left; similarity has no point at round 0.
    stays = charts["curve-similarity"].lines[2].path
    places = [len(re.findall(r"[\d.]+ [\d.]+", piece)) for piece in stays.split("M")[1:]]
    assert places == [3, 2]
    assert BREAK in text_of(folder, tmp_path)


def test_lines_of_a_run_that_nobody_left_are_whole(tmp_path):
    folder = saved(tmp_path, [row(r, name) for r in range(1, 5) for name in "abc"])
    charts = curve_charts(collected(folder))
    for chart in charts:
        assert {line.path.count("M") for line in chart.lines} == {1}
    ends = {chart.key: chart.description.partition("at the end ")[2] for chart in charts}
    assert ends["curve-similarity"] == "0.560.", "as in the tables"
    assert ends["curve-loss"] == "0.5000."
    assert BREAK not in text_of(folder, tmp_path)


def test_nothing_breaks_where_all_leave_together(tmp_path):
    folder = saved(tmp_path, departing("ab"))
    for chart in curve_charts(collected(folder)):
        assert {line.path.count("M") for line in chart.lines} == {1}
    assert BREAK not in text_of(folder, tmp_path)


def host_row(round, name, loss):
    return {"round": round, "group": name, "asked": 0.3, "achieved": 0.2 * round, "loss": loss}


@pytest.mark.parametrize("loss", [None, 0.4])
def test_tickets_of_a_host_have_no_floors_and_no_versions_to_blame(tmp_path, loss):
    rows = [host_row(r, name, loss) for r in (1, 2) for name in "ab"]
    mask = {"w": torch.arange(10) > 2}
    tickets = TicketSet([Ticket(name, mask) for name in "ab"], history=rows)
    tickets.save(tmp_path / "run" / "tickets.safetensors")
    data = collected(tmp_path / "run")
    assert layer_table(data.masks).rows[0][7:] == (NONE, NONE)
    remedies = {each.part: each.remedy for each in absent_parts(data)}
    assert "version" not in remedies["alarms"]
    assert "RTLPruner does not" in remedies["similarity against sparsity"]
    assert ("training loss against sparsity" in remedies) is (loss is None)
    write_report(tmp_path / "run", tmp_path / "page.html")


def test_floors_of_a_run_of_discover_stay(tmp_path):
    data = collected(saved(tmp_path, [row(r, name) for r in (1, 2) for name in "ab"]))
    assert data.masks.floors == (1, 1)
    remedies = [each.part for each in absent_parts(data)]
    assert not {"similarity against sparsity", "training loss against sparsity"} & set(remedies)


def test_small_losses_and_metrics_are_told(tmp_path):
    rows = [
        row(r, name, loss=1e-5 * r, metric=2.5e-6 * (2 if name == "b" else 1))
        for r in range(1, 5)
        for name in "ab"
    ]
    rows[4]["alarm"] = {"direction": "rise", "last_good_round": 1}
    folder = saved(tmp_path, rows)
    write_report(folder, tmp_path / "page.html")
    page = page_runs.page_of(tmp_path / "page.html")
    assert page_runs.cells(page, "log", "loss")[0] == "1.000e-5"
    assert page_runs.cells(page, "rounds", "accuracy")[0] == "2.500e-6 to 5.000e-6"
    assert page_runs.cells(page, "tickets", "accuracy") == [NONE, NONE], "no closing round"
    words = plain(page.with_id("curve-loss-d").text)
    assert "at the end 4.000e-5" in words
    titles = [plain(node.text) for node in page.with_id("curve-loss-t").parent.all("title")]
    assert any("training loss 4.000e-5" in title for title in titles)


def test_dense_parameters_are_said_to_be_left_out(tmp_path):
    folder = saved(tmp_path, departing())
    write_report(folder, tmp_path / "page.html")
    page = page_runs.page_of(tmp_path / "page.html")
    assert "without parameters kept dense" in page.with_id("bytes-c").text
    figures = {figure.name: figure.remark for figure in key_figures(collected(folder))}
    assert "without parameters kept dense" in figures["bytes of all tickets"]


def test_tables_in_boxes_that_scroll_say_how_long_they_are(tmp_path):
    folder = saved(tmp_path, departing())
    write_report(folder, tmp_path / "page.html")
    page = page_runs.page_of(tmp_path / "page.html")
    captions = [page.with_id(f"{key}-c").text for key in ("tickets", "log", "rounds", "order")]
    assert captions[:3] == [
        "Every ticket (4)", "Every round of every ticket (16)", "Every round (5)",
    ]  # fmt: skip
    assert captions[3].endswith("(4)")
    assert page.with_id("bytes-c").text.endswith("dense")
