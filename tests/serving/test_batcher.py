"""The batcher of the server example: own answers, isolated errors, limits, an orderly end."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from examples.serving.batcher import DynamicBatcher, Limits, Overloaded, Stopping, TookTooLong

Run = Callable[[list[int]], Sequence[Any]]


def tenfold(items: list[int]) -> list[int]:
    return [10 * item for item in items]


class Gate:
    """A run that waits until it is told to go on."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, items: list[int]) -> list[int]:
        self.entered.set()
        assert self.open.wait(10)
        return tenfold(items)

    async def until_entered(self) -> None:
        while not self.entered.is_set():
            await asyncio.sleep(0.001)


def with_batcher(
    run: Run, limits: Limits, use: Callable[[DynamicBatcher[int]], Awaitable[Any]]
) -> Any:
    async def scenario() -> Any:
        batcher = DynamicBatcher(run, lambda item: item % 3, limits)
        await batcher.start()
        try:
            return await use(batcher)
        finally:
            await batcher.stop()

    return asyncio.run(asyncio.wait_for(scenario(), 20))


def test_every_client_gets_its_own_row() -> None:
    seen: list[list[int]] = []

    def run(items: list[int]) -> list[int]:
        seen.append(items)
        return tenfold(items)

    async def use(batcher: DynamicBatcher[int]) -> None:
        answers = await asyncio.gather(*(batcher.submit(item) for item in range(100)))
        assert [result for result, _ in answers] == tenfold([*range(100)])
        assert {size for _, size in answers} == {8, 4}
        statistics = batcher.statistics
        assert statistics.batch_sizes == {8: 12, 4: 1}
        assert statistics.labels == {3: 13}
        assert statistics.answered == 100
        assert 0 < statistics.busy_seconds < 20

    with_batcher(run, Limits(max_batch=8), use)
    assert [item for batch in seen for item in batch] == [*range(100)]


def test_the_network_runs_in_one_thread_that_is_not_the_event_loops() -> None:
    threads = set()

    def run(items: list[int]) -> list[int]:
        threads.add(threading.current_thread())
        return tenfold(items)

    async def use(batcher: DynamicBatcher[int]) -> None:
        for item in range(5):
            await batcher.submit(item)

    with_batcher(run, Limits(max_wait=0), use)
    assert len(threads) == 1
    assert threads != {threading.main_thread()}
    assert not any(thread.is_alive() for thread in threads)


def test_a_bad_request_fails_alone() -> None:
    def run(items: list[int]) -> list[int]:
        if 3 in items:
            raise ValueError(f"no threes, got {items}")
        return tenfold(items)

    async def use(batcher: DynamicBatcher[int]) -> None:
        answers = await asyncio.gather(
            *(batcher.submit(item) for item in range(6)), return_exceptions=True
        )
        error = answers.pop(3)
        assert isinstance(error, ValueError)
        assert str(error) == "no threes, got [3]"
        assert [result for result, _ in answers] == [0, 10, 20, 40, 50]
        counts = batcher.statistics
        assert (counts.answered, counts.failed, counts.split) == (5, 1, 1)
        assert (await batcher.submit(7))[0] == 70

    with_batcher(run, Limits(), use)


def test_a_wrong_number_of_results_is_an_error_of_each() -> None:
    async def use(batcher: DynamicBatcher[int]) -> None:
        for error in await asyncio.gather(
            batcher.submit(1), batcher.submit(2), return_exceptions=True
        ):
            assert isinstance(error, RuntimeError)
            assert str(error) == "0 results for a batch of 1"

    with_batcher(lambda items: [], Limits(), use)


def test_a_full_batch_does_not_wait_and_a_part_of_one_waits_no_longer_than_allowed() -> None:
    async def use(batcher: DynamicBatcher[int]) -> None:
        began = time.perf_counter()
        await asyncio.gather(*(batcher.submit(item) for item in range(4)))
        assert time.perf_counter() - began < 0.2
        began = time.perf_counter()
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(batcher.submit(1))
        assert [(await task)[1] for task in (first, second)] == [2, 2]
        assert 0.25 <= time.perf_counter() - began < 5

    with_batcher(tenfold, Limits(max_batch=4, max_wait=0.3), use)


def test_too_many_waiting_requests_are_refused_at_once() -> None:
    gate = Gate()

    async def use(batcher: DynamicBatcher[int]) -> None:
        running = asyncio.create_task(batcher.submit(0))
        await gate.until_entered()
        waiting = [asyncio.create_task(batcher.submit(item)) for item in (1, 2)]
        await asyncio.sleep(0)
        assert batcher.waiting == 2
        with pytest.raises(Overloaded, match="2 requests wait already"):
            await batcher.submit(3)
        gate.open.set()
        assert [(await task)[0] for task in (running, *waiting)] == [0, 10, 20]
        assert batcher.statistics.refused == 1
        assert (await batcher.submit(4))[0] == 40

    with_batcher(gate, Limits(max_batch=1, max_wait=0, max_queue=2), use)


def test_a_request_that_takes_too_long_is_told_so_and_is_not_run() -> None:
    gate, ran = Gate(), []

    def run(items: list[int]) -> list[int]:
        ran.extend(items)
        return gate(items)

    async def use(batcher: DynamicBatcher[int]) -> None:
        running = asyncio.create_task(batcher.submit(0))
        await gate.until_entered()
        late = asyncio.create_task(batcher.submit(1))
        for task in (running, late):
            with pytest.raises(TookTooLong, match=r"no answer in 0.05 seconds"):
                await task
        gate.open.set()
        assert (await batcher.submit(2))[0] == 20
        assert ran == [0, 2]
        assert batcher.statistics.expired == 2

    with_batcher(run, Limits(max_wait=0, timeout=0.05), use)


def test_a_client_that_goes_away_leaves_the_others_alone() -> None:
    async def use(batcher: DynamicBatcher[int]) -> None:
        tasks = [asyncio.create_task(batcher.submit(item)) for item in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        answers = await asyncio.gather(tasks[0], tasks[2])
        assert answers == [(0, 2), (20, 2)]
        assert tasks[1].cancelled()

    with_batcher(tenfold, Limits(max_wait=0.1), use)


def test_requests_that_nobody_waits_for_make_room_at_once() -> None:
    gate = Gate()

    async def use(batcher: DynamicBatcher[int]) -> None:
        running = asyncio.create_task(batcher.submit(0))
        await gate.until_entered()
        waiting = [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.wait([waiting[1]])
        assert (batcher.waiting, batcher.statistics.expired) == (2, 1)
        await asyncio.wait([running, *waiting])
        assert (batcher.waiting, batcher.statistics.expired) == (0, 4)
        gate.open.set()
        assert (await batcher.submit(4))[0] == 40
        assert (batcher.statistics.answered, batcher.statistics.expired) == (1, 4)

    with_batcher(gate, Limits(max_batch=1, max_wait=0, max_queue=3, timeout=0.3), use)


def test_a_batch_that_everybody_left_before_it_ran_is_forgotten() -> None:
    async def use(batcher: DynamicBatcher[int]) -> None:
        task = asyncio.create_task(batcher.submit(0))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.2)
        assert await batcher.submit(1) == (10, 1)
        assert batcher.statistics.batch_sizes == {1: 1}

    with_batcher(tenfold, Limits(max_wait=0.1, timeout=5), use)


def test_a_failed_batch_is_not_rerun_for_those_who_do_not_wait_any_more() -> None:
    gate, ran = Gate(), []

    def run(items: list[int]) -> list[int]:
        ran.append(items)
        gate(items)
        if len(items) > 1:
            raise ValueError("one by one")
        return tenfold(items)

    async def use(batcher: DynamicBatcher[int]) -> None:
        tasks = [asyncio.create_task(batcher.submit(item)) for item in range(3)]
        await gate.until_entered()
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        gate.open.set()
        assert await asyncio.gather(tasks[0], tasks[2]) == [(0, 3), (20, 3)]
        assert ran == [[0, 1, 2], [0], [2]]
        assert batcher.statistics.expired == 1

    with_batcher(run, Limits(), use)


def test_stopping_answers_what_waits_and_refuses_the_rest() -> None:
    gate = Gate()

    async def use(batcher: DynamicBatcher[int]) -> None:
        tasks = [asyncio.create_task(batcher.submit(item)) for item in range(5)]
        await gate.until_entered()
        stop = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0)
        with pytest.raises(Stopping):
            await batcher.submit(9)
        assert not stop.done()
        gate.open.set()
        await stop
        assert [task.result()[0] for task in tasks] == tenfold([*range(5)])
        with pytest.raises(Stopping):
            await batcher.submit(9)

    # A part of a batch must not sit out its wait, either.
    began = time.perf_counter()
    with_batcher(gate, Limits(max_batch=2, max_wait=15), use)
    assert time.perf_counter() - began < 10


def test_before_the_start_there_is_no_answer() -> None:
    with pytest.raises(Stopping, match="not running"):
        asyncio.run(DynamicBatcher(tenfold, str, Limits()).submit(1))


@pytest.mark.parametrize("wrong", [
    {"max_batch": 0}, {"max_queue": 0}, {"max_wait": -1.0}, {"timeout": 0.0},
    {"max_wait": float("inf")}, {"timeout": float("inf")}, {"timeout": float("nan")},
])  # fmt: skip
def test_limits_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        Limits(**wrong)
