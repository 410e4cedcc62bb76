"""Sleep and wake: seen by a wall clock that went on while the monotonic one stood still."""

import pytest
import trio
import trio.testing

from node.services.membership.wake import LOOK_SECONDS, SLEPT_SECONDS_MIN, notice_wake


@pytest.mark.parametrize(
    ("jump_seconds", "noticed"),
    [(0.0, 0), (SLEPT_SECONDS_MIN - 1, 0), (SLEPT_SECONDS_MIN, 1), (8 * 3600.0, 1), (-3600.0, 0)],
)
async def test_a_jump_of_the_wall_clock_forward_is_a_wake(
    autojump_clock: trio.testing.MockClock, jump_seconds: float, noticed: int
) -> None:
    ahead, slept = 0.0, list[float]()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(notice_wake, lambda: int((trio.current_time() + ahead) * 1000), slept.append)
        await trio.sleep(10 * LOOK_SECONDS)
        assert slept == [], "a clock that goes as it should"
        ahead = jump_seconds
        await trio.sleep(10 * LOOK_SECONDS)
        nursery.cancel_scope.cancel()
    assert len(slept) == noticed
    assert not slept or slept[0] == pytest.approx(jump_seconds, abs=0.01)
