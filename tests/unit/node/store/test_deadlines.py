"""Deadlines of waits for a commit: each wait ends at its own, in whatever order they were added."""

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from node.store.completion import Completion
from node.store.deadlines import Deadlines
from node.store.errors import CommitLate


@pytest.fixture
async def deadlines() -> AsyncIterator[Deadlines]:
    made = Deadlines()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        yield made
        nursery.cancel_scope.cancel()


async def wait(deadlines: Deadlines, seconds: float, completion: Completion[int]) -> tuple[float, int | None]:
    """When the wait ended, from its begin, and its result; None: it was late."""
    started = trio.current_time()
    deadlines.add(started + seconds, completion)
    try:
        result = await completion.wait()
    except CommitLate:
        return trio.current_time() - started, None
    return trio.current_time() - started, result


async def test_each_wait_ends_at_its_own_deadline(deadlines: Deadlines, autojump_clock: trio.testing.MockClock) -> None:
    ended: dict[float, tuple[float, int | None]] = {}

    async def one(seconds: float) -> None:
        ended[seconds] = await wait(deadlines, seconds, Completion())

    async with trio.open_nursery() as nursery:
        for seconds in (5.0, 1.0, 3.0, 1.5):
            nursery.start_soon(one, seconds)
            await trio.sleep(0.25)
    assert {seconds: round(at, 6) for seconds, (at, _) in ended.items()} == {each: each for each in ended}
    assert all(result is None for _, result in ended.values())


async def test_what_is_done_in_time_is_left_alone_and_forgotten(
    deadlines: Deadlines, autojump_clock: trio.testing.MockClock
) -> None:
    for number in range(100):
        completion: Completion[int] = Completion()
        deadlines.add(trio.current_time() + 5.0, completion)
        completion.succeed(number)
        assert await completion.wait() == number
    assert len(deadlines._waits) == 1  # private: a queue that grew would be seen by no caller
    await trio.sleep(6.0)
    assert not deadlines._waits


async def test_a_result_that_comes_late_is_dropped(
    deadlines: Deadlines, autojump_clock: trio.testing.MockClock
) -> None:
    completion: Completion[int] = Completion()
    at, result = await wait(deadlines, 1.0, completion)
    assert at == pytest.approx(1.0)
    assert result is None
    completion.succeed(7)


async def test_a_deadline_that_has_passed_ends_the_wait_at_once(
    deadlines: Deadlines, autojump_clock: trio.testing.MockClock
) -> None:
    at, result = await wait(deadlines, -1.0, Completion())
    assert at == pytest.approx(0.0)
    assert result is None
