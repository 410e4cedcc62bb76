"""The hop to a thread: its result, its errors, and what happens when its waiter was cancelled."""

import threading
from typing import Any

import pytest
import trio
import trio.testing

from node.store.sqlite.thread_hop import in_thread


def same(answer: Any) -> Any:
    return answer


async def test_the_result_or_the_error_of_the_work_comes_back() -> None:
    here = threading.get_ident()
    assert await in_thread(threading.get_ident, same) != here
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0, same)


async def test_then_runs_on_the_trio_thread_and_its_error_is_raised_to_the_waiter() -> None:
    here = threading.get_ident()
    assert await in_thread(lambda: 2, lambda answer: (answer + 1, threading.get_ident())) == (3, here)
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 0, lambda answer: 1 // answer)


async def test_work_whose_waiter_was_cancelled_goes_on_and_disturbs_no_other() -> None:
    go_on, is_over = threading.Event(), threading.Event()

    def work() -> str:
        assert go_on.wait(30)
        is_over.set()
        return "too late"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_thread, work, same)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    go_on.set()
    assert await in_thread(lambda: is_over.wait(30), same)
    assert await in_thread(lambda: "in time", same) == "in time", "this task is woken by its own work alone"


def test_work_may_outlive_the_loop() -> None:
    go_on, is_over = threading.Event(), threading.Event()

    def work() -> None:
        assert go_on.wait(30)
        is_over.set()

    async def leave() -> None:
        with trio.move_on_after(0.01):
            await in_thread(work, same)

    trio.run(leave)
    go_on.set()
    assert is_over.wait(30)
