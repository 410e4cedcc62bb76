"""The scrubber: it goes through the store again and again, and asks for what is damaged until it is there."""

from typing import Any, cast

import pytest
import trio
import trio.testing

from node.dht.base import DHT
from node.services.observe.scrubber import FETCH_SECONDS, PAGE_SECONDS, ROUND_SECONDS, Scrubber
from node.store.base import Store
from node.store.damage import Damage
from protocols.errors import Unavailable


class PagedStore:
    """A store of 3 pages with 10 versions each."""

    def __init__(self) -> None:
        self.damage = Damage(is_possible=True)
        self.checked: list[tuple[float, int]] = []
        self.is_failing = False

    async def check(self, *, after: int) -> int | None:
        self.checked.append((trio.current_time(), after))
        if self.is_failing:
            raise Unavailable("the disk failed")
        return after + 10 if after < 30 else None


class Holders:
    """Answers a version once it is asked for the second time."""

    def __init__(self, damage: Damage) -> None:
        self._damage = damage
        self.asked: list[bytes] = []

    async def get_version(self, key: bytes, digest: bytes, **_: Any) -> None:
        self.asked.append(digest)
        if self.asked.count(digest) < 2:
            raise Unavailable("no holder answers")
        del self._damage.set_aside[digest]


async def _run(store: PagedStore, holders: Holders, seconds: float) -> None:
    scrubber = Scrubber(cast(Store, store), cast(DHT, holders))
    with trio.move_on_after(seconds):
        await scrubber.run()


async def test_the_whole_store_is_checked_again_and_again(autojump_clock: trio.testing.MockClock) -> None:
    store = PagedStore()
    await _run(store, Holders(store.damage), ROUND_SECONDS + 10 * PAGE_SECONDS)
    assert [after for _, after in store.checked][:8] == [0, 10, 20, 30, 0, 10, 20, 30]
    times = [at for at, _ in store.checked]
    assert times[4] - times[3] == pytest.approx(ROUND_SECONDS + PAGE_SECONDS)


async def test_a_failing_disk_does_not_end_the_check(autojump_clock: trio.testing.MockClock) -> None:
    store = PagedStore()
    store.is_failing = True
    await _run(store, Holders(store.damage), 300)
    assert len(store.checked) > 1
    assert {after for _, after in store.checked} == {0}


async def test_damaged_versions_are_asked_for_until_a_holder_answers(autojump_clock: trio.testing.MockClock) -> None:
    store = PagedStore()
    store.damage.set_aside.update({b"a": b"key", b"b": b"key"})
    holders = Holders(store.damage)
    await _run(store, holders, 5 * FETCH_SECONDS)
    assert holders.asked == [b"a", b"b", b"a", b"b"]
    assert store.damage.set_aside == {}


async def test_a_store_without_files_is_left_alone() -> None:
    store = PagedStore()
    store.damage = Damage(is_possible=False)
    with trio.fail_after(30):
        await Scrubber(cast(Store, store), cast(DHT, Holders(store.damage))).run()
    assert store.checked == []
