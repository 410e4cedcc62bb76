"""Admission: few writes wait for nothing, many begin a few at a time in order, and what would be late is refused."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio
import trio.testing

from node.services.writes.admission import AT_ONCE, FREE, SHARE, Admission, WriteCost
from protocols.errors import Unavailable


@asynccontextmanager
async def running(admission: Admission) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admission.run)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def full(admission: Admission) -> AsyncIterator[None]:
    """So many writes under way that a further one waits in the line."""
    async with AsyncExitStack() as stack:
        for _ in range(FREE):
            await stack.enter_async_context(admission.turn(1.0))
        yield


async def test_few_writes_wait_for_nothing() -> None:
    admission = Admission()  # it does not run, so that a wait would not end
    with trio.fail_after(30):
        async with full(admission):
            pass
        async with full(admission):
            pass


class Turns(trio.abc.Instrument):
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_many_writes_begin_a_few_in_a_turn_of_the_loop_and_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    admission, turns, begun = Admission(), Turns(), list[tuple[int, int]]()

    async def write(number: int) -> None:
        async with admission.turn(1.0):
            begun.append((turns.count, number))
            await trio.sleep(1.0)

    trio.lowlevel.add_instrument(turns)
    async with full(admission), trio.open_nursery() as nursery:
        for number in range(5 * AT_ONCE):
            nursery.start_soon(write, number)
            await trio.testing.wait_all_tasks_blocked()
        assert not begun
        assert admission.waiting == 5 * AT_ONCE
        nursery.start_soon(admission.run)
        await trio.sleep(1.5)
        nursery.cancel_scope.cancel()
    trio.lowlevel.remove_instrument(turns)
    assert set(Counter(turn for turn, _ in begun).values()) == {AT_ONCE}
    assert [number for _, number in sorted(begun)] == list(range(5 * AT_ONCE))


async def test_a_write_that_would_be_late_is_refused_before_it_waits() -> None:
    admission = Admission()
    async with full(admission):
        with pytest.raises(Unavailable, match=f"busy with {FREE} writes") as refused:
            async with admission.turn(0.001):
                raise AssertionError("it began")
        assert refused.value.details["retry_after_ms"] >= 1
        assert refused.value.retryable
        assert (admission.refused, admission.waiting) == (1, 0)
        async with running(admission), admission.turn(1.0):
            pass  # this one has the time


async def test_a_write_whose_turn_comes_late_is_refused_then(autojump_clock: trio.testing.MockClock) -> None:
    admission = Admission()
    async with full(admission), trio.open_nursery() as nursery:
        refused = trio.Event()

        async def write() -> None:
            with pytest.raises(Unavailable):
                async with admission.turn(1.0):
                    raise AssertionError("it began")
            refused.set()

        nursery.start_soon(write)
        await trio.sleep(1.0)  # the loop does not come to it
        async with running(admission):
            await refused.wait()


async def test_the_time_of_its_coming_is_before_its_wait(autojump_clock: trio.testing.MockClock) -> None:
    admission, came_at = Admission(), trio.current_time()
    async with full(admission), trio.open_nursery() as nursery:

        async def write() -> None:
            async with admission.turn(1.0) as began:
                assert began == came_at
                assert trio.current_time() > came_at

        nursery.start_soon(write)
        await trio.sleep(0.1)
        nursery.start_soon(admission.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_writes_that_fail_or_are_cancelled_give_their_place_back() -> None:
    admission = Admission()
    for _ in range(2 * FREE):
        with pytest.raises(ValueError, match="a defect"):
            async with admission.turn(1.0):
                raise ValueError("a defect")
    async with full(admission):
        for _ in range(3):
            with trio.move_on_after(0.001):
                async with admission.turn(1.0):
                    raise AssertionError("nothing lets it begin")
    with trio.fail_after(30):
        async with full(admission):
            pass


async def refused_of(callers: int, *, cost_seconds: float) -> int:
    """How many of so many writes at once with a deadline of 100 ms are refused, where one takes so much of the loop."""
    admission = Admission(FixedCost(cost_seconds))

    async def write() -> None:
        with suppress(Unavailable):
            async with admission.turn(0.1):
                await trio.sleep(0.3)  # for a disk, or for far peers

    async with running(admission), trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(write)
    return admission.refused


class FixedCost(WriteCost):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def write_ended(self) -> None:
        pass


async def test_a_slow_disk_refuses_no_write(autojump_clock: trio.testing.MockClock) -> None:
    assert await refused_of(400, cost_seconds=0.0001) == 0


async def test_of_more_writes_than_the_loop_can_do_in_time_the_rest_is_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert await refused_of(40, cost_seconds=0.002) == 0
    assert await refused_of(400, cost_seconds=0.002) == 400 - 0.1 * SHARE / 0.002 - 1


async def test_the_cost_of_a_write_is_the_busy_time_of_the_loop_for_one() -> None:
    now = 0.0
    cost = WriteCost(lambda: now)
    with cost:
        for _ in range(10 * cost.SAMPLE):
            now += 0.002  # the loop works
            cost.write_ended()
            cost.before_io_wait(1.0)
            now += 1.0  # and waits
            cost.after_io_wait(1.0)
    assert cost.seconds == pytest.approx(0.002, rel=0.01)
    now += 1_000.0
    for _ in range(10 * cost.SAMPLE):
        cost.write_ended()
    assert cost.seconds == pytest.approx(0.002, rel=0.01), "what is not measured does not count"
