"""Who waits for a dial learns how it ended, and does not wait for ever."""

import trio
import trio.testing

from node.services.membership.dial_waits import WAIT_SECONDS, DialWaits

Clock = trio.testing.MockClock


async def test_who_waits_for_a_dial_learns_its_end_and_waits_no_longer_than_the_bound(autojump_clock: Clock) -> None:
    waits, outcomes = DialWaits(), []

    async def wait(peer: str) -> None:
        outcomes.append((peer, await waits.wait(peer)))

    async with trio.open_nursery() as nursery:
        for peer in ("a", "a", "b", "c"):
            nursery.start_soon(wait, peer)
        await trio.testing.wait_all_tasks_blocked(0.01)
        waits.ended("a")
        waits.ended("b", "refused")
        waits.ended("nobody")
    assert sorted(outcomes) == [("a", ""), ("a", ""), ("b", "refused"), ("c", "it was not connected in time")]
    assert WAIT_SECONDS <= trio.current_time() < WAIT_SECONDS + 1.0
