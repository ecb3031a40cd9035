"""NNI's web page over a real experiment, in a real browser where one is found."""

import json
import os
import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("nni", reason="NNI cannot be imported here")

from nni.experiment import ExperimentConfig

import rtl_nni
from rtl_nni.search import resuming
from rtl_nni.search.trial_folder import TrialFolder
from tests.nni.search import page_trial
from tests.nni.search.experiment_support import alive, config_of, nni_at

NAME = "tickets in a browser"
ENDS = {"finished": ("SUCCEEDED",), "stopped": ("USER_CANCELED", "EARLY_STOPPED")}
# NNI's page takes its fonts and icons from here, and shows boxes where it cannot.
FONTS = re.compile(r"https://res(-\d)?\.cdn\.office\.net/[^?]*\.woff2?")
QUIET = ("--disable-background-networking", "--disable-component-update")
ROWS = """
() => [...document.querySelectorAll('.ms-DetailsRow')].map(row => Object.fromEntries(
  [...row.querySelectorAll('[data-automation-key]')].map(
    cell => [cell.dataset.automationKey, cell.innerText.trim().split('\\n')[0]])))
"""
PAINTED = """
() => [...document.querySelectorAll('canvas')].some(
  c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0))
"""


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium, or None. Opened before HOME is another, below which playwright has its own."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        yield None
        return
    from tests.reports.test_browser_page import executable

    path = executable()
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as driver:
        if path is None and not Path(driver.chromium.executable_path).exists():
            yield None
            return
        arguments = [*QUIET, *(["--no-sandbox"] if as_root else [])]
        opened = driver.chromium.launch(executable_path=path, args=arguments)
        yield opened
        opened.close()


def test_an_experiment_and_its_web_page(browser: Any, tmp_path: Path) -> None:
    """Four trials, two at a time; the tickets of the last collapse."""
    jobs: dict[str, Any] = {}

    def look(result: rtl_nni.ExperimentResult) -> None:
        jobs.update(recorded(result.url))
        if browser is not None:
            with Visit(browser, result.url, tmp_path) as visit:
                pages_show(visit, result, jobs)

    with nni_at(tmp_path) as home:
        result = rtl_nni.run_experiment(configured(home), poll_seconds=0.2, before_stop=look)
        assert alive(result.folder) == []
        assert resuming.listed(result.id)["status"] == "STOPPED"
    records = rtl_nni.read_trials(result.folder)
    assert [record.sequence for record in records] == [0, 1, 2, 3]
    for record in records:
        agrees_with_nni(record, jobs[record.name], result.folder)
    one_was_stopped(records, result.folder)
    if browser is None:
        pytest.skip("all held but the web page, which was not looked at: there is no browser")


def configured(home: Path) -> ExperimentConfig:
    return config_of(
        home,
        [],
        experiment_name=NAME,
        trial_command=f"{sys.executable} -m tests.nni.search.page_trial",
        search_space=page_trial.SPACE,
        max_trial_number=page_trial.TRIALS,
        trial_concurrency=2,
        assessor={
            "class_name": "rtl_nni.CollapseAssessor",
            "code_directory": str(home / "code"),
            "class_args": {"share": 0.5},
        },
    )


def recorded(url: str) -> dict[str, Any]:
    """NNI's records by trial id, with its metrics by type."""
    jobs = {job["trialJobId"]: job for job in read(f"{url}/api/v1/nni/trial-jobs")}
    for job in jobs.values():
        job |= {"PERIODICAL": [], "FINAL": []}
    for told in sorted(read(f"{url}/api/v1/nni/metric-data"), key=lambda told: told["sequence"]):
        # A text that holds a text that holds the number.
        jobs[told["trialJobId"]][told["type"]].append(json.loads(json.loads(told["data"])))
    return jobs


def read(url: str) -> Any:
    return json.loads(urllib.request.urlopen(url, timeout=20).read())


def agrees_with_nni(record: rtl_nni.TrialRecord, job: Any, experiment: Path) -> None:
    """What a trial wrote is what NNI's manager recorded, its own parameters among it."""
    files = TrialFolder(experiment / "environments" / "local-env" / "trials" / record.name)
    given = json.loads(job["hyperParameters"][0])["parameters"]
    assert files.read(files.settings)["params"] == given == record.params
    assert job["sequenceId"] == record.sequence
    assert job["status"] in ENDS[record.status]
    assert tuple(job["PERIODICAL"]) == record.intermediate
    assert job["FINAL"] == ([] if record.metric is None else [record.metric])
    assert all(type(value) is float for value in [*job["PERIODICAL"], *job["FINAL"]])
    if record.status == "finished":
        assert page_trial.run(given).metric == record.metric, "another result without NNI"


def one_was_stopped(records: list[rtl_nni.TrialRecord], experiment: Path) -> None:
    (stopped,) = [record for record in records if record.status == "stopped"]
    assert page_trial.COLLAPSING.items() <= stopped.params.items()
    assert page_trial.ALARM_ROUND <= stopped.rounds < stopped.rounds_planned
    assert stopped.reason is not None
    assert stopped.reason.startswith("the masks of 2 of 4 tickets changed abruptly by round 4 of 9")
    lines = (experiment / "log" / "dispatcher.log").read_text().splitlines()
    told = [line for line in lines if "stopped trial" in line]
    assert len(told) == 1
    assert told[0].endswith(f"stopped trial {stopped.name}: {stopped.reason}")


class Visit:
    """NNI's pages, with what went wrong on them; nothing but this machine answers."""

    def __init__(self, browser: Any, url: str, pictures: Path) -> None:
        self.url, self.pictures = url, pictures
        self.context = browser.new_context(viewport={"width": 1600, "height": 1100})
        self.complaints: list[str] = []
        self.context.route(lambda address: urlsplit(address).hostname != "localhost", self._refuse)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._console)
        self.page.on("response", self._response)

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *error: Any) -> None:
        self.context.close()

    def open(self, path: str, rows: int) -> list[dict[str, str]]:
        """The rows of the page's table, once all are there."""
        self.page.goto(f"{self.url}/{path}")
        self.page.locator(".ms-DetailsRow").nth(rows - 1).wait_for()
        return self.page.evaluate(ROWS)

    def picture(self, name: str) -> None:
        self.page.wait_for_timeout(500)  # charts grow into their places
        self.page.screenshot(path=self.pictures / f"{name}.png")

    def _refuse(self, route: Any) -> None:
        if not FONTS.fullmatch(route.request.url):
            self.complaints.append(f"asked for {route.request.url}")
        route.abort()

    def _console(self, message: Any) -> None:
        if message.type == "error" and not FONTS.fullmatch(message.location["url"]):
            self.complaints.append(message.text)

    def _response(self, response: Any) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status} for {response.url}")


def pages_show(visit: Visit, result: rtl_nni.ExperimentResult, jobs: dict[str, Any]) -> None:
    overview_shows(visit, result, jobs)
    details_show(visit, jobs)
    (listed,) = visit.open("experiment", 1)
    visit.picture("experiments")
    wanted = {"experimentName": NAME, "id": result.id, "status": "DONE", "platform": "local"}
    assert wanted.items() <= listed.items()
    assert visit.complaints == []
    with visit.page.expect_event("pageerror"):
        visit.page.evaluate("() => { setTimeout(() => { throw new Error('told of') }) }")
    assert visit.complaints == ["told of"]


def overview_shows(visit: Visit, result: rtl_nni.ExperimentResult, jobs: dict[str, Any]) -> None:
    finished = {name: job for name, job in jobs.items() if job["FINAL"]}
    rows = visit.open("oview", len(finished))
    visit.picture("overview")
    assert visit.page.evaluate(PAINTED)
    shown_as_recorded(rows, finished)
    for row in rows:
        assert float(row["accuracy"]) == rounded(finished[row["id"]]["FINAL"][0])
    text = visit.page.inner_text("body")
    for line in (NAME, result.id, "DONE", "GridSearch/rtl_nni.CollapseAssessor"):
        assert line in text.splitlines(), line
    best = max(job["FINAL"][0] for job in finished.values())
    assert rounded(best) == float(re.search(r"(\S+)\s+Best metric", text)[1])
    for word, number in (("Succeeded", 3), ("Stopped", 1), ("Failed", 0)):
        assert re.search(rf"{word}\s+(\d+)", text)[1] == str(number), word


def details_show(visit: Visit, jobs: dict[str, Any]) -> None:
    rows = visit.open("detail", len(jobs))
    shown_as_recorded(rows, jobs)
    for row in rows:
        job = jobs[row["id"]]
        value, kind = row["latestAccuracy"].split()
        assert kind == ("(FINAL)" if job["FINAL"] else "(LATEST)")
        assert float(value) == rounded([*job["PERIODICAL"], *job["FINAL"]][-1])
    visit.page.locator("[data-automation-key=_expand] i").last.click()
    visit.picture("details")
    lines = visit.page.inner_text("body").splitlines()
    given = json.loads(jobs[rows[-1]["id"]]["hyperParameters"][0])["parameters"]
    for name, value in given.items():
        assert f"{name}:{json.dumps(value)}" in lines
    for tab in ("Default metric", "Hyper-parameter", "Duration", "Intermediate result"):
        visit.page.get_by_role("tab", name=tab).click()
        visit.picture(f"details, {tab}")
        assert visit.page.evaluate(PAINTED), tab


def shown_as_recorded(rows: list[dict[str, str]], jobs: dict[str, Any]) -> None:
    shown = {row["id"]: (row["sequenceId"], row["status"]) for row in rows}
    assert shown == {name: (str(j["sequenceId"]), j["status"]) for name, j in jobs.items()}


def rounded(metric: float) -> Any:
    return pytest.approx(metric, abs=6e-7)
