"""The virtual clock, the order of tasks and the chance of a run follow its seed, and trio is left as it was."""

import pytest
import trio
from trio._core import _run as trio_run

from netsim.virtual.scheduler import START_MS, Stuck, WallClock, chance, run_virtual


def test_an_hour_passes_on_the_virtual_clock_alone() -> None:
    async def wait() -> tuple[float, float]:
        begin = trio.current_time()
        await trio.sleep(3600)
        return begin, trio.current_time()

    assert run_virtual(1, wait) == (0.0, 3600.0)


def order_of_tasks(seed: int) -> str:
    """Twenty tasks that wake at the same moments, ten times, on a common event and on equal deadlines."""

    async def main() -> str:
        order: list[str] = []
        start = trio.Event()

        async def task(name: str) -> None:
            await start.wait()
            for _ in range(10):
                order.append(name)
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            for name in "abcdefghijklmnopqrst":
                nursery.start_soon(task, name)
            await trio.testing.wait_all_tasks_blocked()
            start.set()
        return "".join(order)

    return run_virtual(seed, main)


def test_tasks_run_in_the_order_of_the_seed() -> None:
    assert order_of_tasks(1) == order_of_tasks(1)
    assert len({order_of_tasks(seed) for seed in range(8)}) == 8


def test_trio_is_left_as_it_was_even_after_an_error() -> None:
    # Private, here and below: the scheduler replaces trio's own source of random numbers, which has no public name.
    source, switch = trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    state = source.getstate()

    async def fail() -> None:
        assert trio_run._r is not source
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        run_virtual(1, fail)
    assert trio_run._r is source
    assert trio_run._ALLOW_DETERMINISTIC_SCHEDULING is switch
    assert source.getstate() == state


async def test_a_virtual_run_inside_another_run_is_refused_and_leaves_trio_alone() -> None:
    source = trio_run._r
    with pytest.raises(RuntimeError, match="inside"):
        run_virtual(1, trio.sleep, 1)
    assert trio_run._r is source


def test_a_run_whose_tasks_all_wait_ends_with_an_error() -> None:
    with pytest.raises(Stuck, match=r"60 s of virtual time \(seed 3\)"):
        run_virtual(3, trio.sleep_forever, limit_seconds=60)


def test_a_run_that_works_for_ever_while_no_time_passes_ends_and_names_the_task() -> None:
    async def restless() -> None:
        await trio.sleep(12.5)
        while True:
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(restless)
            nursery.start_soon(trio.sleep, 60)

    with pytest.raises(Stuck, match=r"stands still at 12\.500000 s \(seed 3\).*restless"):
        run_virtual(3, main)


def test_a_wall_clock_follows_the_virtual_one_with_its_offset_and_jumps() -> None:
    async def read() -> list[int]:
        right, behind = WallClock(), WallClock(offset_ms=-120_000)
        first = [right.now_ms(), behind.now_ms()]
        await trio.sleep(1.5)
        behind.jump(60_000)
        return [*first, right.now_ms(), behind.now_ms()]

    shown = [0, -120_000, 1_500, -58_500]
    assert run_virtual(1, read) == [START_MS + ms for ms in shown]


def test_each_purpose_has_a_chance_of_its_own() -> None:
    draws = {chance(seed, purpose).random() for seed in (1, 2) for purpose in ("net", "n1", "n2")}
    assert len(draws) == 6
    assert chance(1, "net").random() == chance(1, "net").random()
