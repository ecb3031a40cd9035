"""The server example over real HTTP: a process of its own, real clients, and its load test."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from examples.serving import digits_model, load_test, server_process
from examples.serving.backends import MixtureBackend, Request, SeparateBackend, image_tensor
from examples.serving.server_process import Running, running_server
from rtl_plugin import MixtureOfMasks
from rtl_plugin.errors import UnknownTicket
from tests.mixture.plain_loop import plain_copy, random_tickets

FOLDER = Path(__file__).parents[2] / "examples/serving"
GROUPS = [*digits_model.VIEWS]
PIXELS = [[(7 * row + 3 * column) % 256 for column in range(28)] for row in range(28)]


@pytest.fixture(scope="module")
def mixture() -> MixtureOfMasks:
    torch.manual_seed(0)
    model = digits_model.network(32)
    return MixtureOfMasks(model, random_tickets(model, names=GROUPS))


@pytest.fixture(scope="module")
def folder(mixture: MixtureOfMasks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served")
    digits_model.write(path, mixture, {"hidden": 32})
    return path


def questions(count: int) -> list[Request]:
    images = torch.randint(256, (count, 1, 28, 28), generator=torch.Generator().manual_seed(1))
    return [Request(GROUPS[k * 7 % 10], image.float() / 255) for k, image in enumerate(images)]


def expected(mixture: MixtureOfMasks, request: Request) -> torch.Tensor:
    copy = plain_copy(mixture.model, mixture.tickets[request.group])
    return copy(request.image[None])[0].detach()


@pytest.mark.parametrize("backend", [MixtureBackend, SeparateBackend])
def test_both_backends_give_every_request_its_own_tickets_scores(
    backend: type[MixtureBackend] | type[SeparateBackend], mixture: MixtureOfMasks, folder: Path
) -> None:
    served = backend(folder)
    assert list(served.groups) == GROUPS
    asked = questions(25)
    for request, scores in zip(asked, served.run(asked), strict=True):
        torch.testing.assert_close(
            torch.tensor(scores), expected(mixture, request), atol=1e-5, rtol=1e-4
        )
    served.check_group("thick")
    with pytest.raises(UnknownTicket, match="unknown ticket 'round'; this set has 'plain'"):
        served.check_group("round")


def test_a_folder_without_a_model_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"python -m examples\.serving\.digits_model"):
        MixtureBackend(tmp_path)


def test_images() -> None:
    assert torch.equal(image_tensor(PIXELS)[0], torch.tensor(PIXELS).float() / 255)
    with pytest.raises(ValueError, match="got 28 rows of 27 pixels"):
        image_tensor([row[:27] for row in PIXELS])
    with pytest.raises(ValueError, match="got 0 rows of no pixels"):
        image_tensor([])


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    arguments = ["--folder", str(folder), "--max-wait-ms", "20", "--max-batch", "16"]
    with running_server(arguments) as running:
        yield running


async def ask(url: str, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    async with httpx.AsyncClient(base_url=url, timeout=15) as client:
        return await asyncio.gather(*(client.post("/predict", json=body) for body in bodies))


def body(request: Request) -> dict[str, Any]:
    pixels = request.image[0].mul(255).round().int().tolist()
    return {"group": request.group, "image": pixels}


def test_real_clients_of_all_groups(mixture: MixtureOfMasks, server: Running) -> None:
    asked = questions(60)
    for request, response in zip(
        asked, asyncio.run(ask(server.url, [body(request) for request in asked])), strict=True
    ):
        assert response.status_code == 200, response.text
        answer = response.json()
        scores = expected(mixture, request)
        torch.testing.assert_close(torch.tensor(answer["scores"]), scores, atol=1e-5, rtol=1e-4)
        assert answer["digit"] == int(scores.argmax())
        assert answer["group"] == request.group
    metrics = httpx.get(f"{server.url}/metrics").json()
    assert metrics["answered"] >= 60
    assert max(map(int, metrics["batch_sizes"])) > 1, "nothing was batched"
    assert max(map(int, metrics["groups_in_a_batch"])) > 1, "no batch was mixed"
    assert max(map(int, metrics["batch_sizes"])) <= 16
    assert metrics["peak_rss_bytes"] > 50e6
    health = httpx.get(f"{server.url}/health").json()
    assert (health["status"], health["groups"], health["backend"]) == ("ok", GROUPS, "mixture")
    assert health["pid"] == server.process.pid


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"group": "round"}, 404, "unknown ticket 'round'; this set has 'plain'"),
        ({"image": PIXELS[:27]}, 422, "at least 28 items after validation, not 27"),
        ({"image": "a seven"}, 422, "valid list"),
        ({"image": [[256] * 28] * 28}, 422, "less than or equal to 255"),
        ({"ticket": "plain"}, 422, "Extra inputs are not permitted"),
    ],
)
def test_a_bad_request_is_told_why_and_its_neighbours_are_answered(
    change: dict[str, Any], status: int, message: str, server: Running
) -> None:
    good = {"group": "plain", "image": PIXELS}
    responses = asyncio.run(ask(server.url, [good, {**good, **change}, good]))
    assert [response.status_code for response in responses] == [200, status, 200]
    assert message in responses[1].text


def test_an_overloaded_server_says_so_and_a_terminated_one_answers_what_it_took(
    folder: Path,
) -> None:
    # A wait of two seconds, so that the requests surely wait when the signal comes.
    arguments = ["--folder", str(folder), "--backend", "separate", "--max-wait-ms", "2000"]
    with running_server([*arguments, "--max-queue", "8"]) as running:
        statuses = asyncio.run(overloaded_and_terminated(running))
        assert sorted(statuses) == [200] * 8 + [503] * 4
        assert running.process.wait(15) in (0, -signal.SIGTERM)


async def overloaded_and_terminated(running: Running) -> list[int]:
    good = {"group": "plain", "image": PIXELS}
    async with httpx.AsyncClient(base_url=running.url, timeout=15) as client:
        asked = [asyncio.create_task(client.post("/predict", json=good)) for _ in range(12)]
        while (await client.get("/metrics")).json()["refused"] < 4:
            await asyncio.sleep(0.02)
        running.process.terminate()
        return [(await each).status_code for each in asked]


def test_the_process_is_gone_also_after_a_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_process, "_address", lambda *_: "http://127.0.0.1")
    with (
        pytest.raises(ZeroDivisionError),
        running_server(["--folder", str(folder)]) as running,
    ):
        1 / 0  # noqa: B018
    assert running.process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(running.process.pid, 0)


def test_a_server_that_does_not_come_up_shows_what_it_printed(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"(?s)exit code 1.*recipe\.json is missing"),
        running_server(["--folder", str(tmp_path)]),
    ):
        pass


def test_the_load_test_measures_what_it_prints(folder: Path) -> None:
    load = load_test.Load(requests=40, warm_up=5, concurrency=8)
    rows = load_test.repetitions(folder, load, 1)
    assert [row["backend"] for row in rows] == [*load_test.BACKENDS]
    for row in rows:
        assert row["errors"] == 0
        assert row["requests_per_second"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert 0 < row["memory_of_models_bytes"] < row["peak_rss_bytes"]
        assert 1 <= row["mean_batch"] <= 8
    content = load_test.report(rows, load, {"hidden": 32})
    assert {"benchmark", "date", "device", "versions", "rows", "goals"} <= set(content)
    assert [goal["met"] for goal in content["goals"]][:2] == [True, None]
    assert os.uname().nodename not in json.dumps(content)
    assert f"{rows[0]['requests_per_second']:.3g}" in load_test.printed(content["rows"])


def test_the_load_test_counts_errors(server: Running) -> None:
    asked = [load_test.query(group, PIXELS, 0) for group in ("plain", "round", "plain")]

    async def seen() -> load_test.Seen:
        async with httpx.AsyncClient(base_url=server.url, timeout=15) as client:
            return await load_test.drive(client, asked, 2)

    async def nobody_there() -> load_test.Seen:
        async with httpx.AsyncClient(base_url="http://127.0.0.1:9", timeout=5) as client:
            return await load_test.drive(client, asked, 2)

    assert (asyncio.run(seen()).errors, asyncio.run(nobody_there()).errors) == (1, 3)


def goal_rows(mixture: list[float]) -> list[dict[str, Any]]:
    """Rows of a mixture at these rates beside 100 requests a second of separate networks."""
    return [
        {
            "backend": backend,
            "repetition": repetition,
            "errors": 0,
            "requests_per_second": rate if backend == "mixture" else 100.0,
            "memory_of_models_bytes": 10.0 if backend == "separate networks" else 4.0,
        }
        for repetition, rate in enumerate(mixture)
        for backend in load_test.BACKENDS
    ]


@pytest.mark.parametrize(("rates", "met"), [
    ([100.0, 95.0], True), ([50.0, 60.0], False), ([100.0, 60.0], None), ([100.0], None),
])  # fmt: skip
def test_the_goals(rates: list[float], met: bool | None) -> None:
    errors, throughput, memory = load_test.goals(goal_rows(rates))
    assert (errors["met"], throughput["met"]) == (True, met)
    assert throughput["repetitions"] == [rate / 100 for rate in rates]
    assert (memory["value"], memory["met"]) == (2.5, True)
    failing = goal_rows(rates)
    failing[0]["errors"] = 2
    assert load_test.goals(failing)[0] == {**errors, "value": 2, "met": False}


def test_percentiles() -> None:
    hundred = [float(k) for k in range(1, 101)]
    shares = (0.5, 0.99, 1.0, 0.001)
    assert [load_test.percentile(hundred, share) for share in shares] == [50.0, 99.0, 100.0, 1.0]
    assert load_test.percentile([3.0], 0.99) == 3.0


def test_the_documented_figures_are_the_measured_ones() -> None:
    path = FOLDER.parents[1] / "benchmarks/results/serving_load.cpu.json"
    measured = json.loads(path.read_text(encoding="utf-8"))
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    table = load_test.printed(measured["rows"], "github").splitlines()
    assert [line for line in table if line not in text] == []
    rows = load_test.summary(measured["raw"])
    assert rows == measured["rows"], "the rows are not the medians of the raw figures"
    assert load_test.goals(measured["raw"]) == measured["goals"]
    counts = {row["repetition"] for row in measured["raw"]}
    assert f"{len(counts)} repetitions" in text
    assert measured["goals"][0]["met"] is True, "errors were committed"


def test_the_documented_commands_exist() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"python -m examples\.serving\.(\w+)(.*)", text)
    assert {module for module, _ in commands} == {"digits_model", "server", "load_test"}
    for module, arguments in commands:
        source = (FOLDER / f"{module}.py").read_text(encoding="utf-8")
        for option in re.findall(r"--[\w-]+", arguments):
            assert f'add_argument("{option}"' in source, f"{module} has no option {option}"
