"""Whatever a backend does, the batcher of the server example answers, and goes on."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Any

import pytest

from examples.serving.batcher import DynamicBatcher, Limits, TookTooLong

BAD = "bad"


def answers(
    run: Callable[[list[Any]], Any], items: list[Any], label: Callable[[Any], Hashable] = str
) -> tuple[list[Any], DynamicBatcher[Any]]:
    """The results or errors of items that are sent together, and of one more after them."""

    async def scenario() -> tuple[list[Any], DynamicBatcher[Any]]:
        batcher: DynamicBatcher[Any] = DynamicBatcher(run, label, Limits(timeout=5))
        await batcher.start()
        try:
            sent = (batcher.submit(item) for item in items)
            found = await asyncio.gather(*sent, return_exceptions=True)
            found.append(await batcher.submit("after"))
        finally:
            await batcher.stop()
        return found, batcher

    return asyncio.run(asyncio.wait_for(scenario(), 20))


def raising(error: BaseException) -> Callable[[list[Any]], list[Any]]:
    def run(items: list[Any]) -> list[Any]:
        if BAD in items:
            raise error
        return items

    return run


@pytest.mark.parametrize("error", [
    StopIteration("x"), StopAsyncIteration("x"), SystemExit("x"), KeyboardInterrupt("x"),
    GeneratorExit("x"), asyncio.CancelledError("x"),
])  # fmt: skip
def test_errors_that_end_coroutines_and_loops_reach_one_client_as_ordinary_ones(
    error: BaseException,
) -> None:
    found, batcher = answers(raising(error), ["a", BAD, "b"])
    assert [each for each in found if isinstance(each, tuple)] == [("a", 3), ("b", 3), ("after", 1)]
    assert type(found[1]) is RuntimeError
    assert str(found[1]) == f"the batch raised {type(error).__name__}: x"
    assert found[1].__cause__ is error
    assert (batcher.statistics.answered, batcher.statistics.failed) == (3, 1)


def test_a_timeout_of_the_backend_is_not_taken_for_one_of_the_server() -> None:
    found, batcher = answers(raising(asyncio.TimeoutError("of a database")), [BAD])
    assert isinstance(found[0], asyncio.TimeoutError)
    assert not isinstance(found[0], TookTooLong)
    assert (batcher.statistics.failed, batcher.statistics.expired) == (1, 0)


@pytest.mark.parametrize(("returned", "message"), [
    (None, "'NoneType' object is not iterable"), ([1, 2], "2 results for a batch of 1"),
    (7, "'int' object is not iterable"),
    ([StopIteration("x")], "the batch raised StopIteration: x"),
])  # fmt: skip
def test_what_is_not_a_result_an_item_is_an_error(returned: Any, message: str) -> None:
    found, batcher = answers(lambda items: returned if BAD in items else items, [BAD])
    assert isinstance(found[0], (RuntimeError, TypeError))
    assert str(found[0]) == message
    assert found[1] == ("after", 1)
    assert (batcher.statistics.answered, batcher.statistics.failed) == (1, 1)


def test_a_label_that_cannot_be_counted_fails_alone() -> None:
    found, batcher = answers(lambda items: items, ["a", [BAD], "b"], lambda item: item)
    assert (found[0], found[2]) == (("a", 2), ("b", 2))
    assert isinstance(found[1], TypeError)
    assert (batcher.statistics.answered, batcher.statistics.failed) == (3, 1)


def test_an_error_of_the_batcher_itself_is_the_answer_of_its_batch() -> None:
    async def scenario() -> None:
        batcher: DynamicBatcher[int] = DynamicBatcher(lambda items: items, str, Limits(timeout=5))
        await batcher.start()
        batcher._worker.shutdown()
        for _ in range(2):
            for error in await asyncio.gather(
                batcher.submit(1), batcher.submit(2), return_exceptions=True
            ):
                assert isinstance(error, RuntimeError)
                assert "cannot schedule new futures" in str(error)
        assert batcher.statistics.failed == 4
        await batcher.stop()

    asyncio.run(asyncio.wait_for(scenario(), 20))
