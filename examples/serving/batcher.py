"""Requests that arrive one by one, run in batches by one worker thread."""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class Overloaded(RuntimeError):
    """As many requests wait as may: come back later."""


class Stopping(RuntimeError):
    """The server is about to end and takes no more requests."""


class TookTooLong(RuntimeError):
    """A request waited for its answer as long as it may."""


@dataclass(frozen=True)
class Limits:
    """How batches are made.

    Args:
        max_batch: requests in a batch, at most.
        max_wait: seconds that a request waits for others to join it, at most.
        max_queue: requests that wait for a batch, at most.
        timeout: seconds from arrival to answer, at most.
    """

    max_batch: int = 32
    max_wait: float = 0.002
    max_queue: int = 256
    timeout: float = 10.0

    def __post_init__(self) -> None:
        waits = 0 <= self.max_wait < math.inf and 0 < self.timeout < math.inf  # nor NaN
        if min(self.max_batch, self.max_queue) < 1 or not waits:
            raise ValueError(
                "max_batch and max_queue must be 1 or more, max_wait 0 or more and timeout "
                f"positive, both finite, got {self}"
            )


@dataclass
class Statistics:
    """What became of the requests.

    Args:
        answered: with a result.
        failed: with the error of their own.
        refused: because too many waited, or the server was stopping.
        expired: because they took too long, or because the client went away.
        split: batches that failed and were run again request by request.
        batch_sizes: size -> how many batches.
        labels: distinct labels (groups) in a batch -> how many batches.
        busy_seconds: that the worker thread ran.
    """

    answered: int = 0
    failed: int = 0
    refused: int = 0
    expired: int = 0
    split: int = 0
    batch_sizes: Counter[int] = field(default_factory=Counter)
    labels: Counter[int] = field(default_factory=Counter)
    busy_seconds: float = 0.0


@dataclass(eq=False)  # a request equals itself alone, whatever its item
class _Waiting(Generic[Item]):
    item: Item
    label: Hashable
    answer: "asyncio.Future[tuple[Any, int]]"
    arrived: float


class DynamicBatcher(Generic[Item]):
    """Collects requests until a batch is full or its oldest request has waited long enough.

    Args:
        run: a batch of items -> one result an item, in the same order; called in one thread.
        label: what distinguishes items for the statistics, such as their group.
        limits: see :class:`Limits`.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Any]],
        label: Callable[[Item], Hashable],
        limits: Limits,
    ) -> None:
        self._run, self._label, self.limits = run, label, limits
        self.statistics = Statistics()
        self._queue: deque[_Waiting[Item]] = deque()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to run batches, in the event loop of the caller."""
        self._arrival = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._task = asyncio.create_task(self._serve())

    async def stop(self) -> None:
        """Refuse new requests, answer those that wait, and end the worker thread."""
        self._stopping = True
        if self._task is not None:
            self._arrival.set()
            await self._task
            self._worker.shutdown()

    @property
    def waiting(self) -> int:
        """Requests that are in no batch yet."""
        return len(self._queue)

    async def submit(self, item: Item) -> tuple[Any, int]:
        """Run an item in some batch.

        Args:
            item: for ``run``.

        Returns:
            Its own result, and the size of the batch that it was in.

        Raises:
            Overloaded: as many requests wait as may.
            Stopping: the batcher was stopped, or not started.
            TookTooLong: there was no answer in time.
            Exception: whatever ``run`` raises for this item alone.
        """
        if self._stopping or self._task is None:
            self.statistics.refused += 1
            raise Stopping("the server is not running, or about to end: try another one")
        if len(self._queue) >= self.limits.max_queue:
            self.statistics.refused += 1
            raise Overloaded(
                f"{self.limits.max_queue} requests wait already, which is the limit: try later"
            )
        loop = asyncio.get_running_loop()
        waiting = _Waiting(item, self._hashable(item), loop.create_future(), loop.time())
        self._queue.append(waiting)
        self._arrival.set()
        try:
            return await asyncio.wait_for(waiting.answer, self.limits.timeout)
        except asyncio.TimeoutError as error:
            if not waiting.answer.cancelled():
                raise  # the error of the item, which happens to be of this type
            raise TookTooLong(f"no answer in {self.limits.timeout} seconds") from error
        finally:
            if waiting.answer.cancelled():
                self._leave(waiting)

    def _hashable(self, item: Item) -> Hashable:
        try:
            label = self._label(item)
            hash(label)
        except Exception:
            self.statistics.failed += 1
            raise
        return label

    def _leave(self, waiting: _Waiting[Item]) -> None:
        """Nobody waits for this answer any more: make room for another request."""
        self.statistics.expired += 1
        if waiting in self._queue:
            self._queue.remove(waiting)

    async def _serve(self) -> None:
        while await self._some_wait():
            await self._until_full_or_old()
            count = min(len(self._queue), self.limits.max_batch)
            taken = [self._queue.popleft() for _ in range(count)]
            batch = _still_wanted(taken)
            try:
                if batch:
                    await self._answer(batch)
            except Exception as error:  # noqa: BLE001 - the requests after this batch must be served
                for waiting in _still_wanted(batch):
                    self._settle(waiting, error, len(batch))

    async def _some_wait(self) -> bool:
        """Wait for a request; False when there will be no more."""
        while not self._queue:
            if self._stopping:
                return False
            self._arrival.clear()
            await self._arrival.wait()
        return True

    async def _until_full_or_old(self) -> None:
        loop = asyncio.get_running_loop()
        while 0 < len(self._queue) < self.limits.max_batch and not self._stopping:
            # The oldest may have grown old already, while the batch before was running.
            remaining = self._queue[0].arrived + self.limits.max_wait - loop.time()
            if remaining <= 0:
                return
            self._arrival.clear()
            timer = loop.call_later(remaining, self._arrival.set)
            await self._arrival.wait()
            timer.cancel()

    async def _answer(self, batch: list[_Waiting[Item]]) -> None:
        size = len(batch)
        self.statistics.batch_sizes[size] += 1
        self.statistics.labels[len({waiting.label for waiting in batch})] += 1
        outcome = await self._outcome(batch)
        if not isinstance(outcome, BaseException):
            for waiting, result in zip(batch, outcome, strict=True):
                self._settle(waiting, result, size)
        elif size == 1:
            self._settle(batch[0], outcome, size)
        else:
            # One bad request must not fail the others: each runs alone and gets its own answer.
            self.statistics.split += 1
            for waiting in batch:
                if not waiting.answer.done():
                    alone = await self._outcome([waiting])
                    failed = isinstance(alone, BaseException)
                    self._settle(waiting, alone if failed else alone[0], size)

    async def _outcome(self, batch: list[_Waiting[Item]]) -> list[Any] | BaseException:
        items = [waiting.item for waiting in batch]
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._worker, _results, self._run, items)
        finally:
            self.statistics.busy_seconds += time.perf_counter() - began

    def _settle(self, waiting: _Waiting[Item], outcome: Any, size: int) -> None:
        if waiting.answer.done():
            return
        if isinstance(outcome, BaseException):
            self.statistics.failed += 1
            waiting.answer.set_exception(_ordinary(outcome))
        else:
            self.statistics.answered += 1
            waiting.answer.set_result((outcome, size))


def _still_wanted(batch: list[_Waiting[Item]]) -> list[_Waiting[Item]]:
    return [waiting for waiting in batch if not waiting.answer.done()]


def _results(
    run: Callable[[list[Item]], Sequence[Any]], items: list[Item]
) -> list[Any] | BaseException:
    """One result an item, or what was raised: as a value, for a future cannot hold them all."""
    try:
        results = list(run(items))
        if len(results) != len(items):
            raise RuntimeError(f"{len(results)} results for a batch of {len(items)}")
    except BaseException as error:  # noqa: BLE001 - handed to the requests of the batch
        return error
    return results


def _ordinary(error: BaseException) -> Exception:
    """The error, or one around it if raising it would end a coroutine or the event loop."""
    if isinstance(error, Exception) and not isinstance(error, (StopIteration, StopAsyncIteration)):
        return error
    wrapped = RuntimeError(f"the batch raised {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
