"""Disk latency: what a commit takes, and which part of a late one was late."""

import pytest
import trio
import trio.testing

from node.store.commit_work import CommitWork, Spent
from node.store.disk_latency import DiskLatency


@pytest.fixture
def clock(mock_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    mock_clock.autojump_threshold = 0
    return mock_clock


class Work(CommitWork):
    """A commit that spent its time as a test says."""

    def __init__(self, spent: Spent, *, is_ended: bool = False) -> None:
        super().__init__()
        self._spent, self._has_ended = spent, is_ended

    @property
    def is_ended(self) -> bool:
        return self._has_ended

    @property
    def sync_seconds(self) -> float:
        return self._spent.disk

    def spent(self) -> Spent:
        return self._spent


async def test_commits_and_syncs_are_observed_and_reported(clock: trio.testing.MockClock) -> None:
    for spent, is_of_disk in ((Spent(0.2, 0.05, 0.05), True), (Spent(0.1, 0.15, 0.05), False)):
        disk, seen = DiskLatency(Work(spent)), dict[float, bool]()
        disk.subscribe(seen.__setitem__)
        disk.begin()
        await trio.sleep(0.3)
        disk.end()
        assert list(seen.values()) == [is_of_disk]
        assert [*seen, disk.commits.sum, disk.syncs.sum] == pytest.approx([0.3, 0.3, spent.disk])
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


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (Work(Spent(4.0, 0.5, 0.5)), "the disk has not confirmed the commit that is under way for 5.0 s"),
        (
            Work(Spent(0.5, 4.0, 0.5)),
            "this machine was too busy: of the 5.0 s of the commit that is under way its thread waited 4.0 s for a "
            "processor, and 0.5 s for the disk",
        ),
        (
            Work(Spent(0.5, 0.5, 4.0)),
            "this process was too busy: of the 5.0 s of the commit that is under way its thread waited 0.5 s for the "
            "disk",
        ),
        (
            Work(Spent(0.5, 0.5, 4.0), is_ended=True),
            "this process was too busy: the commit was made, and its result not taken in 5.0 s",
        ),
    ],
)
async def test_a_late_commit_names_the_disk_the_processor_or_the_process(
    work: Work, words: str, clock: trio.testing.MockClock
) -> None:
    disk, started = DiskLatency(work), trio.current_time()
    disk.begin()
    await trio.sleep(5.0)
    assert disk.why_late(started, started + 5.0) == words
