"""Signals of acknowledgements: which waiters are woken when, and that a cancelled waiter leaves nothing behind."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from node.store.sqlite.write_cache import AcknowledgementSignals

settled = trio.testing.wait_all_tasks_blocked


@asynccontextmanager
async def waiters(signals: AcknowledgementSignals, *counts: int) -> AsyncIterator[list[int]]:
    """One waiter for each count, all for write 7; the counts of those that were woken."""
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


async def test_no_waiter_is_woken_before_there_are_enough_acknowledgements_for_one() -> None:
    signals = AcknowledgementSignals()
    async with waiters(signals, 3, 2) as woken:
        signals.notify(7, 1)
        signals.notify(8, 5)
        await settled()
        assert woken == []
        signals.notify(7, 2)
        await settled()
        assert sorted(woken) == [2, 3], "each checks its own count again"
    assert len(signals) == 0


async def test_a_change_without_a_count_wakes_every_waiter() -> None:
    signals = AcknowledgementSignals()
    async with waiters(signals, 3) as woken:
        signals.notify(7)
        await settled()
        assert woken == [3]


@pytest.mark.parametrize("leavers", [1, 2])
async def test_a_cancelled_waiter_leaves_nothing_behind(leavers: int) -> None:
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
