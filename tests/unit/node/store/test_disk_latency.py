"""Disk latency: what a commit takes, and which part of a late one was late."""

import pytest
import trio
import trio.testing

from node.store.disk_latency import DiskLatency


@pytest.fixture
def clock(mock_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    mock_clock.autojump_threshold = 0
    return mock_clock


async def test_commits_and_syncs_are_observed_and_reported(clock: trio.testing.MockClock) -> None:
    disk, seen = DiskLatency(), list[float]()
    disk.subscribe(seen.append)
    disk.begin()
    await trio.sleep(0.3)
    disk.end(sync_seconds=0.2)
    assert seen == [pytest.approx(0.3)]
    assert [disk.commits.sum, disk.syncs.sum] == pytest.approx([0.3, 0.2])
    disk.begin()
    disk.fail()
    assert (len(seen), disk.committing_since) == (1, None)


async def test_a_late_write_names_the_disk_the_queue_or_the_process(clock: trio.testing.MockClock) -> None:
    disk, started = DiskLatency(), trio.current_time()
    await trio.sleep(5.0)
    assert "no commit is under way" in disk.why_late(started, started + 5.0)
    assert "noticed the end of the wait 4000 ms late" in disk.why_late(started, started + 1.0)
    disk.begin()
    await trio.sleep(1.0)
    assert "in the queue behind other writes" in disk.why_late(started, started + 6.0)
    await trio.sleep(4.0)
    assert disk.why_late(started + 5.0, started + 10.0) == (
        "the disk has not confirmed the commit that is under way for 5.0 s"
    )
