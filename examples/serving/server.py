"""A server that answers requests of ten groups from one mixture, or from ten networks.

python -m examples.serving.server --folder serving-model --port 8000
"""

import argparse
import asyncio
import math
import os
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi import Request as WebRequest
from fastapi.exceptions import RequestValidationError

import rtl_plugin as rtl
from examples.serving.backends import (
    Backend,
    MixtureBackend,
    Request,
    SeparateBackend,
    image_tensor,
)
from examples.serving.batcher import DynamicBatcher, Limits, Overloaded, Stopping, TookTooLong
from examples.serving.body_limit import BodyLimit
from examples.serving.messages import Answer, Question, explain

MAX_BODY = 64 * 1024  # bytes; an image with generous white space has some 5 KB


def build_app(backend: Backend, limits: Limits, about: dict[str, Any]) -> FastAPI:
    """The web application over a backend.

    Args:
        backend: runs batches.
        limits: of batching.
        about: what ``/health`` shows besides.

    Returns:
        The application; its batcher lives as long as it does.
    """
    batcher = DynamicBatcher(backend.run, lambda request: request.group, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await batcher.start()
        yield
        await batcher.stop()

    app = FastAPI(title="rtl-plugin serving example", lifespan=lifespan)
    app.add_middleware(BodyLimit, limit=MAX_BODY)
    app.add_exception_handler(RequestValidationError, explain)

    @app.post("/predict")
    async def predict(question: Question, asked: WebRequest) -> Answer:
        try:
            backend.check_group(question.group)
            request = Request(question.group, image_tensor(question.image))
        except rtl.errors.UnknownTicket as error:
            raise HTTPException(404, str(error)) from error
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        scores, size = await _while_connected(asked, _submitted(batcher, request))
        digit = max(range(len(scores)), key=scores.__getitem__)
        return Answer(group=question.group, digit=digit, scores=scores, batch_size=size)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "groups": list(backend.groups), **about}

    @app.get("/metrics")
    async def metrics() -> dict[str, Any]:
        return {**_counts(batcher), **_process()}

    return app


async def _submitted(batcher: DynamicBatcher[Request], request: Request) -> Any:
    try:
        return await batcher.submit(request)
    except (Overloaded, Stopping) as error:
        raise HTTPException(503, str(error), headers={"Retry-After": "1"}) from error
    except TookTooLong as error:
        raise HTTPException(504, str(error)) from error
    except rtl.errors.RtlError as error:
        raise HTTPException(422, str(error)) from error


async def _while_connected(asked: WebRequest, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of work, which is cancelled when the client goes away."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(asked))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise HTTPException(499, "the client went away")  # for the log: nobody reads it
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(asked: WebRequest) -> None:
    while (await asked.receive())["type"] != "http.disconnect":
        pass


def _counts(batcher: DynamicBatcher[Request]) -> dict[str, Any]:
    seen = batcher.statistics
    return {
        "answered": seen.answered,
        "failed": seen.failed,
        "refused": seen.refused,
        "expired": seen.expired,
        "batches_split": seen.split,
        "waiting": batcher.waiting,
        "batch_sizes": {str(size): seen.batch_sizes[size] for size in sorted(seen.batch_sizes)},
        "groups_in_a_batch": {str(count): seen.labels[count] for count in sorted(seen.labels)},
        "worker_busy_seconds": seen.busy_seconds,
    }


def _process() -> dict[str, Any]:
    return {"peak_rss_bytes": peak_rss(), "cpu_seconds": time.process_time()}


def peak_rss() -> int:
    """Most memory that this process has held at once, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux: getrusage() would carry over the peak of the process that started this one.
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # the one unit and the other


def bound_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that listens at an address, which may be port 0 for a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named TCP, for asyncio turns Nagle's algorithm off for such alone: else a response that is
    # written in two parts waits some 40 ms for the client's acknowledgement of the first.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    listening.listen()  # so that who reads "listening on" can connect, before uvicorn has started
    return listening


def grace(timeout: float) -> int:
    """Seconds that the end of the server waits for what it has taken, all of which is over then."""
    return math.ceil(timeout) + 5


def parsed_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="written by digits_model")
    parser.add_argument("--backend", choices=["mixture", "separate"], default="mixture")
    parser.add_argument("--strategy", default="auto", help="of the mixture")
    parser.add_argument("--budget", type=int, help="of the mixture, in bytes; 0 keeps no copies")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--threads", type=int, default=1, help="that torch computes with")
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--max-wait-ms", type=float, default=2.0)
    parser.add_argument("--max-queue", type=int, default=256)
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds a request")
    return parser.parse_args()


def main() -> None:
    """Load, listen, serve until SIGTERM or SIGINT, answer what waits, end."""
    arguments = parsed_arguments()
    torch.set_num_threads(arguments.threads)
    before = peak_rss()
    backend: Backend
    if arguments.backend == "mixture":
        backend = MixtureBackend(arguments.folder, arguments.strategy, arguments.budget)
    else:
        backend = SeparateBackend(arguments.folder)
    limits = Limits(
        arguments.max_batch, arguments.max_wait_ms / 1000, arguments.max_queue, arguments.timeout
    )
    about = {"backend": arguments.backend, "pid": os.getpid(), "rss_before_loading": before}
    app = build_app(backend, limits, about)
    listening = bound_socket(arguments.host, arguments.port)
    print(f"listening on http://{arguments.host}:{listening.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=grace(limits.timeout)
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
