"""The page as HTML: sound, self-contained, escaped, and true to the run."""

import itertools
import json
import re
import sys

import pytest

from rtl_plugin.errors import InvalidArgument, MissingExtra
from rtl_plugin.reports import write_report
from rtl_plugin.reports.page.text import NONE
from tests.reports import page_runs
from tests.reports.page_runs import ROWS, cells, page_of, plain


def built(folder, path, **others):
    write_report(folder, path, **others)
    return page_of(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "my run"
    page_runs.full_run(folder)
    (folder / "comparison.json").write_text(json.dumps({"rows": ROWS}))
    return folder


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    return built(run, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def pages(run, page, tmp_path_factory):
    """Pages of very different folders."""
    root = tmp_path_factory.mktemp("others")
    page_runs.run(root / "one", names=("only",), rounds=2)
    page_runs.killed_run(root / "killed", after=13)
    page_runs.killed_run(root / "begun", after=1)
    page_runs.many_tickets(root / "many", 41)
    names = ("one", "killed", "begun", "many")
    return {"full": page, **{name: built(root / name, root / f"{name}.html") for name in names}}


KINDS = ["full", "one", "killed", "begun", "many"]


@pytest.mark.parametrize("kind", KINDS)
class TestSoundness:
    def test_document(self, pages, kind):
        page = pages[kind]
        assert page.doctype == "doctype html"
        (html,) = page.root.children
        assert html.attributes["lang"] == "en"
        assert [child.tag for child in html.children] == ["head", "body"]
        metas = {m.attributes.get("name"): m.attributes for m in html.all("meta")}
        assert metas["viewport"]["content"] == "width=device-width,initial-scale=1"
        assert html.all("head")[0].all("title")[0].text.endswith(": adaptive tickets")

    def test_ids_are_unique_and_references_lead_somewhere(self, pages, kind):
        nodes = list(pages[kind].root.every())
        ids = [node.attributes["id"] for node in nodes if "id" in node.attributes]
        assert len(ids) == len(set(ids))
        for node in nodes:
            for key in ("aria-labelledby", "aria-describedby", "for"):
                assert set(node.attributes.get(key, "").split()) <= set(ids), node.attributes
            target = node.attributes.get("href", "")
            if target.startswith("#"):
                assert target[1:] in ids, target

    def test_headings(self, pages, kind):
        tags = [node.tag for node in pages[kind].root.every()]
        levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))

    def test_landmarks_and_skip_link(self, pages, kind):
        root = pages[kind].root
        for tag in ("header", "nav", "main", "footer"):
            assert len(root.all(tag)) == 1, tag
        first = root.all("a")[0]
        assert first.attributes["href"] == "#content"
        assert root.all("main")[0].attributes["id"] == "content"
        assert root.all("nav")[0].attributes["aria-label"]
        for section in root.all("section"):
            assert section.all("h2")[0].attributes["id"] == section.attributes["aria-labelledby"]
        linked = [a.attributes["href"] for a in root.all("nav")[0].all("a")]
        assert linked == [f"#{s.attributes['aria-labelledby']}" for s in root.all("section")]

    def test_tables_have_captions_scopes_and_a_focusable_box(self, pages, kind):
        for table in pages[kind].root.all("table"):
            (caption,) = table.all("caption")
            assert caption.text.strip()
            columns = len(table.all("thead")[0].all("th"))
            assert all(th.attributes["scope"] == "col" for th in table.all("thead")[0].all("th"))
            for row in table.all("tbody")[0].all("tr"):
                assert len(row.children) == columns
                assert row.children[0].tag == "th"
                assert row.children[0].attributes["scope"] == "row"
            box = table.parent.attributes
            assert (box["role"], box["tabindex"]) == ("region", "0")
            assert box["aria-labelledby"] == caption.attributes["id"]

    def test_pictures_that_may_scroll_take_the_focus(self, pages, kind):
        boxes = [n for n in pages[kind].root.every() if n.attributes.get("class") == "scroll"]
        assert bool(boxes) == (kind != "begun")
        for box in boxes:
            assert (box.attributes["role"], box.attributes["tabindex"]) == ("region", "0")
            assert box.all("svg")

    def test_regions_have_names_of_their_own(self, pages, kind):
        page = pages[kind]
        regions = [
            page.with_id(node.attributes["aria-labelledby"]).text
            for node in page.root.every()
            if node.tag == "section" or node.attributes.get("role") == "region"
        ]
        assert len(regions) == len(set(regions))

    def test_pictures_have_words(self, pages, kind):
        pictures = pages[kind].root.all("svg")
        for svg in pictures:
            if svg.attributes.get("aria-hidden") == "true":
                continue
            assert svg.attributes["role"] == "img"
            words = [pages[kind].with_id(key) for key in svg.attributes["aria-labelledby"].split()]
            assert all(word.text.strip() and word.parent is svg for word in words)
        if kind != "begun":
            assert len(pictures) > 3

    def test_nothing_is_loaded_from_elsewhere(self, pages, kind):
        nodes = list(pages[kind].root.every())
        tags = {node.tag for node in nodes}
        assert not tags & {
            *("script", "link", "img", "image", "iframe", "object", "embed", "base", "use"),
            *("audio", "video", "source", "form", "foreignobject", "animate", "set"),
        }
        for node in nodes:
            for key, value in node.attributes.items():
                assert not key.startswith("on"), key
                assert key not in ("src", "srcset", "xlink:href", "action", "data"), key
                if key == "href":
                    assert node.tag == "a"
                    assert re.match("#|https://arxiv.org/", value)
                if key == "style":
                    assert "url" not in value
        styles = "".join(node.text for node in nodes if node.tag == "style")
        assert "@import" not in styles
        assert "url(" not in styles
        policy = [
            n.attributes["content"]
            for n in nodes
            if n.attributes.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]

    def test_no_value_is_python(self, pages, kind):
        for section in pages[kind].root.all("section"):
            if section.attributes["aria-labelledby"] != "arguments":  # those are the user's
                found = re.findall(r"\b(?:None|nan|inf|True|False|Undefined)\b", section.text)
                assert not found


def test_names_are_text(page, run, tmp_path):
    assert page.root.all("script") == []
    raw = (run.parent / "x").with_name("report.html")
    write_report(run, raw, title=page_runs.HOSTILE)
    text = raw.read_text(encoding="utf-8")
    assert page_runs.HOSTILE not in text
    assert page_of(raw).root.all("h1")[0].text == page_runs.HOSTILE
    assert [row[0] for row in page.table("tickets")[1]] == list(page_runs.NAMES)
    lines = [n.text for n in page.root.all("title") if n.parent.tag == "path"]
    assert set(page_runs.NAMES) <= set(lines)
    assert any(row[0] == "adaptive <b>tickets</b>" for row in page.table("comparison")[1])


def test_the_metric_is_called_as_asked(run, tmp_path):
    page = built(run, tmp_path / "page.html", metric="PSNR")
    assert page.with_id("curve-metric-t").text == "PSNR"
    assert "PSNR" in page.table("rounds")[0]
    assert "accuracy" not in page.with_id("curves").parent.text


def test_one_ticket_has_no_similarity(pages):
    page = pages["one"]
    assert not page.has_id("similarity")
    assert "two or more groups" in page.root.text
    assert cells(page, "tickets", "similarity") == [NONE]
    assert page.has_id("layers")


def test_absent_parts_are_named_with_what_would_make_them(pages):
    text = plain(pages["killed"].root.text)
    assert "evaluate=..." in text
    assert "retraining: retrain(...) with the same run_folder" in text
    assert "rtl-plugin compare --json FILE" in text
    assert "Discovery is not finished" in text


def test_many_tickets_share_a_look_and_have_a_median(pages):
    chart = pages["many"].with_id("curve-metric-t").parent
    classes = [path.attributes.get("class", "") for path in chart.all("path")]
    assert sum("thin" in each for each in classes) == 41
    assert classes.count("median") == 1
    every = [path.attributes.get("class") for path in pages["many"].root.all("path")]
    assert "kept" not in every, "nobody left"
    assert len(pages["many"].table("tickets")[1]) == 41
    assert not pages["many"].has_id("pairs-all-layers-similarity-table")


def test_300_tickets_stay_small(tmp_path):
    page_runs.many_tickets(tmp_path / "run", 300, rounds=5)
    write_report(tmp_path / "run", tmp_path / "page.html")
    content = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(content) < 2_500_000
    assert content.count("customer 299") > 5


def test_alike_tickets_are_neighbours(pages):
    names = [row[1] for row in pages["many"].table("order")[1]]
    families = [int(name.split()[1]) % 5 for name in names]
    changes = sum(a != b for a, b in itertools.pairwise(families))
    assert changes == 4, "five families, each together"


@pytest.mark.parametrize("path", ["report.pdf", "report", "folder.html"])
def test_paths_that_are_no_html_file(run, tmp_path, path):
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(InvalidArgument, match=r"path: expected a file name ending in \.html"):
        write_report(run, tmp_path / path)


def test_missing_libraries_are_named(run, tmp_path, monkeypatch):
    for module in ("jinja2", "scipy.cluster.hierarchy"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(MissingExtra, match=r"pip install 'rtl-plugin\[report\]'"):
                write_report(run, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_page_needs_no_matplotlib(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_report(run, tmp_path / "page.html")


def test_the_same_folder_gives_the_same_page_but_for_the_date(run, page, tmp_path):
    write_report(run, tmp_path / "a.html")
    write_report(run, tmp_path / "b.html")
    first, second = (
        re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "", (tmp_path / name).read_text())
        for name in ("a.html", "b.html")
    )
    assert first == second
