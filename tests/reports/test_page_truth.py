"""Numbers on the page against those of the run."""

import importlib.metadata
import json
import shutil
import sys

import numpy as np
import pytest

from rtl_plugin import TicketSet
from rtl_plugin.reports import write_report
from rtl_plugin.reports.page.text import NONE
from rtl_plugin.run_folder import RunFolder
from tests.reports import page_runs
from tests.reports.page_runs import ROWS, cells, plain


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "my run"
    page_runs.full_run(folder)
    (folder / "comparison.json").write_text(json.dumps({"rows": ROWS}))
    return folder


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(run, path)
    return page_runs.page_of(path)


@pytest.fixture(scope="module")
def tickets(run):
    return TicketSet.load(RunFolder(run, "discover").tickets)


def test_tickets(page, tickets):
    assert cells(page, "tickets", "weights kept") == [f"{t.kept:,}" for t in tickets.values()]
    matrix = tickets.similarity()
    for k, cell in enumerate(cells(page, "tickets", "similarity")):
        others = [matrix[k, j] for j in range(3) if j != k]
        assert float(cell) == pytest.approx(np.mean(others), abs=0.0006)
    for k, (most, least) in enumerate(
        zip(
            cells(page, "tickets", "most alike"),
            cells(page, "tickets", "least alike"),
            strict=True,
        )
    ):
        order = sorted((matrix[k, j], tickets.names[j]) for j in range(3) if j != k)
        assert most == f"{order[-1][1]} ({order[-1][0]:.3f})"
        assert least == f"{order[0][1]} ({order[0][0]:.3f})"


def test_the_metric_of_a_ticket_is_that_of_the_mask_it_ended_with(page, tickets):
    expected = []
    for name in tickets:
        rows = [row for row in tickets.history if row["group"] == name]
        alarm = next((row["alarm"] for row in rows if row.get("alarm")), None)
        kept = alarm["last_good_round"] if alarm else max(row["round"] for row in rows) - 1
        expected += [f"{row['metric']:#.4g}" for row in rows if row["round"] == kept + 1]
    assert len(expected) == 3
    assert cells(page, "tickets", "accuracy") == expected


def test_alarms(page, tickets):
    rung = [row for row in tickets.history if row.get("alarm")]
    assert cells(page, "alarms", "ticket") == [row["group"] for row in rung]
    assert cells(page, "alarms", "round") == [str(row["round"]) for row in rung]
    arrows = {"rise": "▲ rise", "fall": "▼ fall"}
    assert cells(page, "alarms", "direction") == [arrows[r["alarm"]["direction"]] for r in rung]
    assert cells(page, "alarms", "what followed") == [
        f"left with the mask of round {row['alarm']['last_good_round']}" for row in rung
    ]
    for row in rung:
        assert row["alarm"]["explanation"] in plain(page.root.text)


def test_alarms_are_marked_in_the_curves(page, tickets):
    rung = [row for row in tickets.history if row.get("alarm")]
    similarity = page.with_id("curve-similarity-t").parent
    classes = [p.attributes.get("class") for p in similarity.all("path")]
    assert classes.count("alarm") == len(rung)
    assert classes.count("kept") == len([row for row in rung if row["left"]])


def test_rounds(page, tickets):
    rows = tickets.history
    assert len(page.table("log")[1]) == len(rows)
    assert cells(page, "log", "loss") == [f"{row['loss']:#.4g}" for row in rows]
    assert cells(page, "log", "accuracy") == [f"{row['metric']:#.4g}" for row in rows]
    assert cells(page, "log", "achieved") == [f"{100 * row['achieved']:.2f} %" for row in rows]
    last = max(row["round"] for row in rows)
    assert len(page.table("rounds")[1]) == last
    for column, key in (("loss", "loss"), ("accuracy", "metric"), ("similarity", "similarity")):
        for number, cell in enumerate(cells(page, "rounds", column), start=1):
            values = [row[key] for row in rows if row["round"] == number]
            form = ".3f" if key == "similarity" else "#.4g"
            ends = [format(min(values), form), format(max(values), form)]
            assert cell == " to ".join(dict.fromkeys(ends)), (number, column)
    assert "s" in cells(page, "log", "time")[0]


def test_shared_weights_and_bytes(page, tickets):
    union = tickets.active_parameters()
    parts = {row[0]: row[1:] for row in page.table("bytes")[1]}
    assert parts["union: weights that some ticket keeps"][:3:2] == [
        f"{union:,}",
        f"{4 * union:,}",
    ]
    masks = sum(((m.numel() + 7) // 8) for t in tickets.values() for m in t.masks.values())
    assert parts["masks of all tickets, one bit a weight"][2] == f"{masks:,}"
    state = sum(v.nbytes for t in tickets.values() for v in t.state.values())
    assert state > 0
    assert parts["own state of all tickets"][2] == f"{state:,}"
    assert parts["union, masks and own state"][2] == f"{4 * union + masks + state:,}"
    shared = {int(row[0]): int(row[1].replace(",", "")) for row in page.table("shared-by")[1]}
    keepers = {name: sum(t.masks[name].int() for t in tickets.values()) for name in tickets.shapes}
    for number in range(4):
        assert shared.get(number, 0) == sum(int((k == number).sum()) for k in keepers.values())


def test_layers(page, tickets):
    assert cells(page, "layer-shares", "layer") == list(tickets.shapes)
    kept = {row[0]: row[1:] for row in page.table("kept")[1]}
    headers = page.table("kept")[0][1:]
    for name in tickets.shapes:
        expected = [f"{int(tickets[h].masks[name].sum()):,}" for h in headers]
        assert kept[name] == expected


def test_similarity_tables(page, tickets):
    headers, rows = page.table("pairs-all-layers-similarity")
    order = [tickets.names.index(name) for name in headers[1:]]
    shown = np.array([[float(cell) for cell in row[1:]] for row in rows])
    assert np.allclose(shown, tickets.similarity()[np.ix_(order, order)], atol=0.0006)
    assert [row[1] for row in page.table("order")[1]] == headers[1:]


def test_retraining(page, run):
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    expected = []
    for number, event in enumerate((e for e in events if e["event"] == "epoch"), start=1):
        losses = sorted((loss, name) for name, loss in event["losses"].items())
        ends = [f"{name} ({loss:#.4g})" for loss, name in (losses[0], losses[-1])]
        mean = sum(loss for loss, _ in losses) / 3
        expected.append([str(number), "3", f"{mean:#.4g}", *ends])
    assert len(expected) == 2
    assert page.table("epochs")[1] == expected


def test_every_retrained_ticket(page, run):
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [event["losses"] for event in events if event["event"] == "epoch"]
    assert page.table("retrained")[1] == [
        [name, "2", f"{losses[0][name]:#.4g}", f"{losses[1][name]:#.4g}"] for name in losses[0]
    ]


def test_versions_that_the_run_recorded(run, page, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    event = {"time": 86400.0, "stage": "discover", "event": "started", "versions": {"torch": "9.9"}}
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps(event) + "\n")
    write_report(folder, tmp_path / "page.html")
    found = page_runs.page_of(tmp_path / "page.html")
    assert dict(found.table("run-environment")[1])["discover: torch"] == "9.9"
    assert dict(found.table("run-environment")[1])["first event"] == "1970-01-02 00:00:00 UTC"
    assert "The run recorded no versions" not in found.root.text


def test_comparison(page):
    headers, rows = page.table("comparison")
    assert headers[:4] == ["method", "sparsity", "accuracy", "worst group"]
    assert rows[0][1:4] == ["50 %", "0.7000 [0.6000, 0.8000]", "0.7000"]
    assert rows[1][1:4] == [NONE, "0.7000 [0.6900, 0.7100]", NONE]
    assert rows[0][4:] == ["1,234", "99", "2"]


def test_arguments_and_versions(page, run):
    arguments = json.loads(RunFolder(run, "discover").arguments.read_text())
    assert cells(page, "arguments-discover", "argument") == list(arguments)
    box = page.with_id("arguments-discover-table").parent
    assert box.attributes["class"].split() == ["box", "arguments"], "shown whole"
    values = dict(page.table("arguments-discover")[1])
    assert values["loss"] == arguments["loss"]
    assert json.loads(values["schedule"]) == arguments["schedule"]
    assert values["steps"].startswith("3 for each of")
    versions = dict(page.table("page-environment")[1])
    assert versions["Python"] == sys.version.split()[0]
    assert versions["torch"] == importlib.metadata.version("torch")
    assert "UTC" in dict(page.table("run-environment")[1])["first event"]


def test_summary(page, tickets):
    terms = [plain(dt.text) for dt in page.root.all("dt")]
    values = [dd for dd in page.root.all("dd") if dd.attributes["class"] == "value"]
    figures = dict(zip(terms, [plain(dd.text) for dd in values], strict=True))
    assert figures["tickets"] == "3"
    assert figures["union of the tickets"] == f"{tickets.active_parameters():,}"
    rung = [row for row in tickets.history if row.get("alarm")]
    assert figures["alarms"] == str(len(rung))
    pairs = tickets.similarity()[np.triu_indices(3, 1)]
    assert float(figures["mean similarity"]) == pytest.approx(pairs.mean(), abs=0.0006)
    excess = tickets.similarity(excess=True)[np.triu_indices(3, 1)].mean()
    remarks = [plain(d.text) for d in page.root.all("dd") if d.attributes["class"] == "remark"]
    assert f"+{excess:.3f} over chance" in remarks
