"""Bodies that are too long or are no questions, clients that leave, clients that dawdle."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from examples.serving import digits_model, server
from examples.serving.backends import Request
from examples.serving.batcher import Limits
from examples.serving.server_process import Running, running_server
from rtl_plugin import MixtureOfMasks
from tests.mixture.plain_loop import random_tickets

GOOD = json.dumps({"group": "plain", "image": [[0] * 28] * 28})
JSON = {"Content-Type": "application/json"}


class Zeros:
    """A backend of one group."""

    groups = ("plain",)

    def check_group(self, group: str) -> None:
        assert group == "plain"

    def run(self, requests: list[Request]) -> list[list[float]]:
        return [[0.0] * 10 for _ in requests]


def post(*bodies: Any) -> list[httpx.Response]:
    """The answers to bodies, text or asynchronous iterators, of an application in this process."""

    async def scenario() -> list[httpx.Response]:
        app = server.build_app(Zeros(), Limits(), {})
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return [
                    await client.post("/predict", content=body, headers=JSON) for body in bodies
                ]

    return asyncio.run(asyncio.wait_for(scenario(), 20))


def with_first_pixel(text: str) -> str:
    return GOOD.replace("[[0", f"[[{text}", 1)


@pytest.mark.parametrize(
    "pixel", ["NaN", "Infinity", "-Infinity", "1e999", '"7"', "true", "3.0", "null", "-1", "256"]
)
def test_a_pixel_is_an_integer_and_nothing_else(pixel: str) -> None:
    (response,) = post(with_first_pixel(pixel))
    assert response.status_code == 422
    (error,) = response.json()["detail"]
    assert error["loc"] == ["body", "image", 0, 0]
    assert set(error) == {"type", "loc", "msg"}


@pytest.mark.parametrize("image", [
    [[-1] * 28] * 28, [[-1] * 5000], [[0] * 29] * 28, [[0] * 28] * 29, [[0] * 28] * 27, [],
    [[]] * 28, [[0] * 27] * 28,
])  # fmt: skip
def test_a_wrong_image_is_one_error(image: list[list[int]]) -> None:
    (response,) = post(json.dumps({"group": "plain", "image": image}))
    assert response.status_code == 422
    assert len(response.json()["detail"]) == 1


@pytest.mark.parametrize("wrong", [
    '{"group": NaN, "image": []}', "NaN", GOOD[:-1] + ', "\\ud800": 1}', "{",
    json.dumps({"group": "plain", **{f"field {k}": 1 for k in range(3000)}}),
])  # fmt: skip
def test_no_question_is_a_short_422(wrong: str) -> None:
    (response,) = post(wrong)
    assert response.status_code == 422
    assert 1 <= len(response.json()["detail"]) <= 10
    assert len(response.content) < 2000


async def pieces(count: int) -> AsyncIterator[bytes]:
    """A good question behind this many KB of white space."""
    for _ in range(count):
        yield b" " * 1024
    yield GOOD.encode()


def test_the_limit_of_a_body_announced_or_not() -> None:
    full = GOOD + " " * (server.MAX_BODY - len(GOOD))
    responses = post(full, full + " ", pieces(50), pieces(100))
    assert [response.status_code for response in responses] == [200, 413, 200, 413]
    assert "must have 65536 bytes or fewer" in responses[1].json()["detail"]
    assert responses[3].headers["connection"] == "close"


@pytest.mark.parametrize(("headers", "read"), [
    ([(b"content-length", b"10000000")], 0), ([], 65),
])  # fmt: skip
def test_a_long_body_is_refused_before_it_has_arrived(
    headers: list[tuple[bytes, bytes]], read: int
) -> None:
    sent: list[Any] = []
    received = 0

    async def scenario() -> None:

        async def receive() -> dict[str, Any]:
            nonlocal received
            received += 1
            if received > 3000 or (received > read and not sent):
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": b" " * 1024, "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers}
        await server.build_app(Zeros(), Limits(), {})(scope, receive, send)

    asyncio.run(asyncio.wait_for(scenario(), 20))
    assert sent[0]["status"] == 413, "it read on without an answer"
    assert received < 1200, "it read on without an end"
    assert not sent[-1]["more_body"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model, path = digits_model.network(8), tmp_path_factory.mktemp("served")
    tickets = random_tickets(model, names=[*digits_model.VIEWS])
    digits_model.write(path, MixtureOfMasks(model, tickets), {"hidden": 8})
    return path


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    """A real server that runs pairs of requests; one alone waits for longer than any test."""
    arguments = ["--folder", str(folder), "--max-wait-ms", "60000", "--timeout", "60"]
    with running_server([*arguments, "--max-batch", "2"]) as running:
        yield running


def sending(running: Running, body: bytes) -> socket.socket:
    """A connection over which a whole question is announced and this much of it is sent."""
    host, port = running.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=15)
    head = (
        f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(GOOD)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def metrics_when(running: Running, name: str, value: int) -> dict[str, Any]:
    deadline = time.monotonic() + 15
    while True:
        metrics: dict[str, Any] = httpx.get(f"{running.url}/metrics").json()
        if metrics[name] == value:
            return metrics
        assert time.monotonic() < deadline, metrics
        time.sleep(0.02)


def test_a_server_that_says_it_listens_can_be_connected_to() -> None:
    with (
        server.bound_socket("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname(), timeout=5),
    ):
        pass


def test_over_a_connection_a_long_body_gets_its_answer(running: Running) -> None:
    for content in (b" " * 400_000, pieces(400)):

        async def asked(content: Any = content) -> httpx.Response:
            async with httpx.AsyncClient(timeout=15) as client:
                return await client.post(f"{running.url}/predict", content=content, headers=JSON)

        assert asyncio.run(asked()).status_code == 413
    assert httpx.get(f"{running.url}/health").status_code == 200


def test_a_client_that_leaves_takes_its_request_along(running: Running) -> None:
    connection = sending(running, GOOD.encode())
    metrics_when(running, "waiting", 1)
    connection.close()
    assert metrics_when(running, "waiting", 0)["answered"] == 0
    assert metrics_when(running, "expired", 1)["worker_busy_seconds"] == 0
    # A client that stays is answered, over a connection that carried a request before.
    with httpx.Client(base_url=running.url, timeout=15) as client, httpx.Client() as other:
        client.get("/health")
        staying = sending(running, GOOD.encode())
        metrics_when(running, "waiting", 1)
        assert client.post("/predict", content=GOOD, headers=JSON).json()["batch_size"] == 2
        assert staying.recv(12) == b"HTTP/1.1 200"
        staying.close()
        assert other.get(f"{running.url}/metrics").json()["answered"] == 2


def test_a_client_that_dawdles_delays_the_end_by_the_grace_alone(folder: Path) -> None:
    assert [server.grace(timeout) for timeout in (0.2, 10.0, 59.5)] == [6, 15, 65]
    with running_server(["--folder", str(folder), "--timeout", "0.2"]) as running:
        connection = sending(running, GOOD[:10].encode())
        httpx.get(f"{running.url}/health", timeout=15)  # and now it has begun to read the other
        began = time.monotonic()
        running.process.terminate()
        assert running.process.wait(15) in (0, -signal.SIGTERM)
        assert 4 < time.monotonic() - began < 12
        connection.close()
