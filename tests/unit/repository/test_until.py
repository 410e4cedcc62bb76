"""Waiting for a condition: it ends when the condition holds, and a failure names the condition."""

import re
import threading

import pytest
import trio
import trio.testing

from tests.until import block_until, until


async def test_until_returns_the_seconds_it_took(autojump_clock: trio.testing.MockClock) -> None:
    assert await until(lambda: True) == 0.0
    assert await until(lambda: trio.current_time() >= 3.0) == pytest.approx(3.0, abs=0.05)


async def test_until_awaits_an_asynchronous_condition(autojump_clock: trio.testing.MockClock) -> None:
    async def is_late() -> bool:
        await trio.sleep(1.0)
        return trio.current_time() > 2.5

    assert await until(is_late) > 2.5


@pytest.mark.parametrize(
    ("condition", "what", "name"),
    [
        (lambda: sum((1, 1)) == 3, "", "lambda: sum((1, 1)) == 3"),
        (threading.Event().is_set, "", "Event.is_set"),
        (threading.Event().is_set, "the door is open", "the door is open"),
    ],
)
async def test_a_failure_names_the_condition(
    autojump_clock: trio.testing.MockClock, condition: object, what: str, name: str
) -> None:
    with pytest.raises(AssertionError, match=f"not within 2 s: .*{re.escape(name)}"):
        await until(condition, seconds=2.0, what=what)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match=f"not within 0.01 s: .*{re.escape(name)}"):
        block_until(condition, seconds=0.01, what=what)  # type: ignore[arg-type]


async def test_a_mock_clock_stands_still_while_a_thread_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    done = threading.Event()
    timer = threading.Timer(0.02, done.set)
    timer.start()
    assert await until(done.is_set, on_real_clock=True) > 0
    assert trio.current_time() == 0.0
    timer.join()


def test_block_until_waits_for_a_thread() -> None:
    done = threading.Event()
    timer = threading.Timer(0.02, done.set)
    timer.start()
    block_until(done.is_set)
    timer.join()
