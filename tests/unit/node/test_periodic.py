"""A periodic task outlives errors of the machine, and no others."""

import errno
import os

import pytest
import trio
import trio.testing

from node.periodic import AGAIN_SECONDS, keep_running

NO_FILES = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize(
    "error",
    [
        NO_FILES,
        MemoryError(),
        RuntimeError("can't start new thread"),
        ExceptionGroup("of a nursery", [NO_FILES, ExceptionGroup("of another", [MemoryError()])]),
    ],
    ids=repr,
)
async def test_an_error_of_the_machine_is_logged_and_the_task_begins_again(
    error: Exception, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    starts: list[float] = []

    async def task() -> None:
        starts.append(trio.current_time())
        if len(starts) < 4:
            raise error

    begun = trio.current_time()
    await keep_running(task, "the look at the weather")
    assert [at - begun for at in starts] == pytest.approx([AGAIN_SECONDS * number for number in range(4)])
    assert caplog.text.count("the look at the weather failed") == 1


@pytest.mark.parametrize("error", [ValueError("a defect"), ExceptionGroup("both", [NO_FILES, ValueError("a defect")])])
async def test_a_defect_is_raised(error: Exception) -> None:
    async def task() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        await keep_running(task, "a task")
    assert raised.value is error
