"""The page in a real browser, where one is found: nothing wrong, nothing loaded, all readable."""

import os
import re
import shutil
from pathlib import Path

import pytest

from rtl_plugin.reports import write_report
from tests.reports import page_runs

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 900}

# The colour of every text against what is painted behind it, by the rules of WCAG 2.1.
CONTRASTS = """
() => {
  const channel = v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 }
  const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2])
  const parse = text => text.match(/[\\d.]+/g).map(Number)
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor)
      if (c.length < 4 || c[3] > 0) return c
    }
    return null
  }
  const found = []
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue
    const style = getComputedStyle(element), svg = element.closest('svg')
    if (['title', 'desc'].includes(element.tagName) || /[qd]i\\d/.test(element.classList)) continue
    const ink = parse(svg ? style.fill : style.color), back = ground(element)
    const pair = [light(ink), light(back)].sort((a, b) => a - b)
    found.push([(pair[1] + 0.05) / (pair[0] + 0.05), walker.currentNode.data.trim().slice(0, 40)])
  }
  return found
}
"""

# Ink of the cells of heat maps against the colour of the cell that lies under it.
CELLS = """
() => [...document.querySelectorAll('svg text')]
  .filter(t => /[qd]i\\d/.test(t.getAttribute('class')) && t.checkVisibility())
  .map(t => {
    const family = t.getAttribute('class').match(/([qd])i(\\d+)/)
    const value = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()
    return [getComputedStyle(t).fill, value(`--${family[1]}i${family[2]}`)]
  })
"""


def executable():
    """The browser to use: named, on the path, or playwright's own (None)."""
    named = os.environ.get("RTL_BROWSER")
    if named:
        if not Path(named).is_file():
            pytest.fail(f"RTL_BROWSER names {named}, which is no file")
        return named
    return next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def browser():
    path = executable()
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with playwright.sync_playwright() as driver:
        if path is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip(
                "no browser: none of " + ", ".join(NAMES) + " is on the PATH, RTL_BROWSER is not "
                "set, and playwright has none of its own"
            )
        arguments = ["--no-sandbox"] if as_root else []
        opened = driver.chromium.launch(executable_path=path, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Page files by kind."""
    root = tmp_path_factory.mktemp("pages")
    page_runs.full_run(root / "full-run")
    page_runs.many_tickets(root / "many-run", 60)
    page_runs.killed_run(root / "begun-run", after=1)
    for kind in ("full", "many", "begun"):
        write_report(root / f"{kind}-run", root / f"{kind}.html")
    return {kind: root / f"{kind}.html" for kind in ("full", "many", "begun")}


class Visit:
    """An opened page, with what went wrong on it and what it asked for."""

    def __init__(self, browser, path, viewport=DESKTOP, scheme="light"):
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme)
        self.page = self.context.new_page()
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.context.close()

    def __call__(self, script):
        return self.page.evaluate(script)


@pytest.mark.parametrize("kind", ["full", "many", "begun"])
def test_nothing_is_wrong_and_nothing_is_loaded(browser, pages, kind):
    with Visit(browser, pages[kind]) as visit:
        visit("() => [...document.querySelectorAll('details')].forEach(d => d.open = true)")
        visit.page.wait_for_timeout(100)
        assert visit.complaints == []
        assert visit.requests == [pages[kind].as_uri()]


def test_the_browser_would_tell(browser, tmp_path):
    path = tmp_path / "wrong.html"
    path.write_text("<img src='absent.png'><script>throw new Error('no')</script>")
    with Visit(browser, path) as visit:
        assert visit.complaints
        assert len(visit.requests) == 2


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP])
@pytest.mark.parametrize("kind", ["full", "many"])
def test_pictures_and_tables_are_there(browser, pages, kind, viewport):
    with Visit(browser, pages[kind], viewport) as visit:
        sizes = visit(
            "() => [...document.querySelectorAll('svg[role=img], table')]"
            ".filter(e => !e.closest('details, [data-maps=excess]'))"
            ".map(e => { const r = e.getBoundingClientRect(); return [r.width, r.height] })"
        )
        assert len(sizes) >= 15
        assert all(width > 100 and height > 15 for width, height in sizes)


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
@pytest.mark.parametrize("kind", ["full", "many", "begun"])
def test_the_page_does_not_scroll_sideways(browser, pages, kind, width):
    with Visit(browser, pages[kind], {"width": width, "height": 700}) as visit:
        visit("() => [...document.querySelectorAll('details')].forEach(d => d.open = true)")
        assert visit("() => document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["full", "many", "begun"])
def test_text_can_be_read(browser, pages, kind, scheme):
    with Visit(browser, pages[kind], scheme=scheme) as visit:
        visit("() => [...document.querySelectorAll('details')].forEach(d => d.open = true)")
        found = visit(CONTRASTS)
        assert len(found) > 20
        faint = [(round(ratio, 2), text) for ratio, text in found if ratio < 4.5]
        assert faint == []


def test_the_schemes_differ_and_pictures_follow(browser, pages):
    looks = {}
    for scheme in ("light", "dark"):
        with Visit(browser, pages["full"], scheme=scheme) as visit:
            looks[scheme] = visit(
                "() => [document.body, document.querySelector('.line'),"
                " document.querySelector('.cells .q0, .cells .q9'), document.querySelector('.own'),"
                " document.querySelector('svg text')].map(e => { const s = getComputedStyle(e);"
                " return e === document.body ? s.backgroundColor"
                " : e.tagName === 'text' ? s.fill : s.stroke })"
            )
            inks = visit(CELLS)
            assert inks
            for used, wanted in inks:
                shown = tuple(map(int, re.findall(r"\d+", used)))
                assert tuple(bytes.fromhex(wanted[1:])) == shown
    assert all(a != b for a, b in zip(*looks.values(), strict=True))


def test_text_on_a_phone_is_not_tiny(browser, pages):
    with Visit(browser, pages["full"], PHONE) as visit:
        heights = visit(
            "() => [...document.querySelectorAll('svg text')]"
            ".filter(t => t.checkVisibility())"
            ".map(t => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a)"
        )
        assert min(heights) >= 8.5


def test_the_keyboard_reaches_everything_that_scrolls(browser, pages):
    with Visit(browser, pages["full"], PHONE) as visit:
        scrolling = visit(
            "() => { let k = 0; return [...document.querySelectorAll('body *')].filter(e =>"
            " ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)"
            " && e.scrollWidth > e.clientWidth && e.checkVisibility())"
            ".map(e => e.dataset.k = String(++k)) }"
        )
        assert len(scrolling) >= 3
        reached, first = set(), None
        for step in range(300):
            visit.page.keyboard.press("Tab")
            spot = visit("() => [document.activeElement.tagName, document.activeElement.dataset.k]")
            if step == 0:
                first = visit("() => document.activeElement.className")
            if spot[0] == "BODY":
                break
            reached.add(spot[1])
        assert first == "skip"
        assert set(scrolling) <= reached


def test_focus_is_seen_and_the_skip_link_skips(browser, pages):
    with Visit(browser, pages["full"]) as visit:
        visit.page.keyboard.press("Tab")
        box = visit("() => document.activeElement.getBoundingClientRect().top")
        assert box >= 0, "the skip link shows itself"
        assert visit("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
        visit.page.keyboard.press("Enter")
        assert visit("() => location.hash") == "#content"
        assert visit("() => document.activeElement.id") == "content"


def test_the_outline_for_screen_readers(browser, pages):
    with Visit(browser, pages["full"]) as visit:
        snapshot = visit.page.locator("body").aria_snapshot()
        for line in (
            '- heading "Run full-run" [level=1]',
            '- heading "Curves against sparsity" [level=2]',
            '- navigation "Contents"',
            "- main",
            "- contentinfo",
            '- region "Tickets"',
            '- region "Every ticket (3)"',
            '- radio "Raw" [checked]',
        ):
            assert line in snapshot, line
        assert 'img "accuracy' in snapshot
        assert visit.page.get_by_role("img", name="similarity (mean Jaccard").count() == 1


def test_raw_and_excess_are_shown_in_turn(browser, pages):
    with Visit(browser, pages["full"]) as visit:
        raw, excess = (visit.page.locator(f"[data-maps={key}]") for key in ("raw", "excess"))
        assert (raw.is_visible(), excess.is_visible()) == (True, False)
        visit.page.get_by_role("radio", name="In excess of chance").check()
        assert (raw.is_visible(), excess.is_visible()) == (False, True)


def test_a_ticket_can_be_picked_out(browser, pages):
    with Visit(browser, pages["many"]) as visit:
        width = "() => parseFloat(getComputedStyle(document.querySelector('.t7.line')).strokeWidth)"
        colour = "() => getComputedStyle(document.querySelector('.t7.line')).stroke"
        before, plain = visit(width), visit(colour)
        visit.page.get_by_role("link", name="customer 007").first.click()
        assert visit(width) > 3 > before
        assert visit(colour) == plain
        assert visit.page.get_by_text("Shown in bold: customer 007").is_visible()
        assert not visit.page.get_by_text("Shown in bold: customer 008").is_visible()
        visit.page.get_by_role("link", name="show all alike").first.click()
        assert visit(width) == before


def test_both_halves_of_a_heat_map_have_the_colours_of_their_values(browser, pages):
    with Visit(browser, pages["full"], {"width": 1280, "height": 9000}) as visit:
        pairs = visit(
            "() => [...document.querySelectorAll('[data-maps=raw] figure text')]"
            ".filter(t => /qi/.test(t.getAttribute('class'))).map(t => {"
            " const r = t.getBoundingClientRect();"
            " const under = document.elementsFromPoint(r.x + r.width / 2, r.y + r.height / 2);"
            " const cell = under.find(e => e.closest('.cells'));"
            " return [t.getAttribute('class'), cell ? cell.getAttribute('class') : null] })"
        )
        assert len(pairs) == 4 * 3 * 2, "four depths, both halves of three tickets"
        assert [ink.split()[1].replace("i", "") for ink, _ in pairs] == [cell for _, cell in pairs]


def test_it_prints_whole(browser, pages):
    with Visit(browser, pages["full"]) as visit:
        visit.page.emulate_media(media="print")
        assert visit.page.locator("[data-maps=excess]").is_visible()
        assert not visit.page.locator("nav").is_visible()


def test_a_box_that_goes_on_below_looks_like_it(browser, pages):
    with Visit(browser, pages["many"]) as visit:
        box = visit.page.locator(".box.tall", has=visit.page.locator("#tickets-table"))
        box.evaluate("e => e.scrollIntoView({block: 'center', behavior: 'instant'})")
        b, edges = box.bounding_box(), []
        clip = {"x": b["x"] + 3, "y": b["y"] + b["height"] - 6, "width": 6, "height": 4}
        for place in (0, 1e6):
            box.evaluate("(e, place) => { e.scrollTop = place }", place)
            edges.append(visit.page.screenshot(clip=clip))
        assert edges[0] != edges[1], "the shadow at the lower edge goes away at the end"
