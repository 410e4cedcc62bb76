"""Waiting for the acknowledgements of a write: who is woken when, and that nothing is left of who does not wait."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from node.store.sqlite.write_cache import AcknowledgementSignals

settled = trio.testing.wait_all_tasks_blocked


@asynccontextmanager
async def waiters(signals: AcknowledgementSignals, *counts: int) -> AsyncIterator[list[int]]:
    """One for each count, of write 7; which of them woke."""
    woken: list[int] = []

    async def wait(count: int) -> None:
        await signals.wait(7, count)
        woken.append(count)

    async with trio.open_nursery() as nursery:
        for count in counts:
            nursery.start_soon(wait, count)
        await settled()
        yield woken
        nursery.cancel_scope.cancel()


async def test_who_waits_for_more_sleeps_until_there_is_enough_for_somebody() -> None:
    signals = AcknowledgementSignals()
    async with waiters(signals, 3, 2) as woken:
        signals.notify(7, 1)
        signals.notify(8, 5)
        await settled()
        assert woken == []
        signals.notify(7, 2)
        await settled()
        assert sorted(woken) == [2, 3], "each looks again by itself"
    assert len(signals) == 0


async def test_what_is_known_otherwise_wakes_everybody() -> None:
    signals = AcknowledgementSignals()
    async with waiters(signals, 3) as woken:
        signals.notify(7)
        await settled()
        assert woken == [3]


@pytest.mark.parametrize("leavers", [1, 2])
async def test_who_waits_no_longer_leaves_nothing_behind(leavers: int) -> None:
    signals = AcknowledgementSignals()
    async with waiters(signals, 9) as woken:
        async with waiters(signals, *[2] * leavers):
            assert len(signals) == 1
        assert len(signals) == 1, "one still waits"
        signals.notify(7, 9)
        await settled()
        assert woken == [9]
    async with waiters(signals, *[2] * leavers):
        assert len(signals) == 1
    assert len(signals) == 0
