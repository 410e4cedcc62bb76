"""The reprovider: what it announces, in which order, how often, and after a restart."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from node.services.writes.reprovider import CONTENT_SECONDS, LOOK_SECONDS, PAGE, RECENT_MAX, Reprovider
from node.store.log import Incoming, Origin
from node.store.members import Member
from node.store.memory.store import MemoryStore
from node.swarm.kademlia.kademlia import Kademlia
from node.swarm.members import Members
from protocols.cid import multihash
from protocols.envelope import Envelope, seal
from protocols.keys import PrivateKey
from protocols.placement import nearest

Clock = trio.testing.MockClock
OWN, *OTHERS = [PrivateKey.from_seed(bytes([number]) * 32) for number in range(8)]
HOUR = 3600.0
INTERVAL = 22 * HOUR


def envelope(number: int) -> Envelope:
    return seal(
        OWN,
        address=f"ucxl://a:r@p:t/*^/{number}",
        content=b"%d" % number,
        content_type="text/plain",
        version=number + 1,
        parents=(),
    )


def key(number: int) -> bytes:
    return multihash(envelope(number).content_digest)


class Announcer:
    def __init__(self) -> None:
        self.announced: list[tuple[float, bytes]] = []
        self.is_heard = True

    async def announce(self, keys: Sequence[bytes], *, timeout: float) -> int:
        self.announced += [(trio.current_time(), key) for key in keys]
        await trio.sleep(0.1)
        return 20 * len(keys) if self.is_heard else 0

    def keys(self) -> list[bytes]:
        return [key for _, key in self.announced]

    def times(self, wanted: bytes) -> list[float]:
        return [at for at, key in self.announced if key == wanted]


class Rig:
    def __init__(self) -> None:
        self.store = MemoryStore(log_id="0" * 16)
        self.announcer = Announcer()
        self.table: list[None] = [None] * 21
        self.members = Members(OWN.peer_id, replication=3)
        for other in OTHERS:
            member = Member(peer=other.peer_id, name="", addresses=(), first_seen_ms=0, last_seen_ms=0)
            self.members.put(member).is_connected = True
        self.is_on = True

    async def keep(self, *numbers: int, origin: Origin = Origin.LOCAL) -> None:
        for number in numbers:
            await self.store.merge([Incoming(envelope(number), origin)], now_ms=1)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """One run of the node over the store."""
        kademlia = SimpleNamespace(announcer=self.announcer, routing=SimpleNamespace(table=self.table))
        task = Reprovider(
            self.store,
            self.members,
            cast("Kademlia", kademlia),
            interval_seconds=INTERVAL,
            now_ms=lambda: 10**12 + int(trio.current_time() * 1000),
            is_on=lambda: self.is_on,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            yield
            nursery.cancel_scope.cancel()


async def test_what_is_written_is_announced_soon_and_again_in_each_interval(autojump_clock: Clock) -> None:
    rig = Rig()
    await rig.keep(1, 2)
    async with rig.running():
        await trio.sleep(1)
        assert rig.announcer.keys() == [key(2), key(1)]
        await rig.keep(3)
        await trio.sleep(2 * LOOK_SECONDS)
        assert rig.announcer.keys()[2:] == [key(3)]
        await trio.sleep(0.9 * INTERVAL)
        assert len(rig.announcer.announced) == 3
        await trio.sleep(10.1 * INTERVAL)
    for number in (1, 2, 3):
        assert 10 <= len(rig.announcer.times(key(number))) <= 12


async def test_of_many_contents_the_latest_come_first_at_a_bounded_rate_and_none_is_left_out(
    autojump_clock: Clock,
) -> None:
    rig, count = Rig(), 2 * RECENT_MAX
    await rig.keep(*range(count))
    async with rig.running():
        await trio.sleep(RECENT_MAX * CONTENT_SECONDS)
        assert rig.announcer.keys()[:RECENT_MAX] == [key(count - 1 - number) for number in range(RECENT_MAX)]
        await trio.sleep(1.02 * INTERVAL)
        assert set(rig.announcer.keys()) == {key(number) for number in range(count)}
        again = [rig.announcer.times(key(number))[0] for number in range(RECENT_MAX)]
        assert max(again) - min(again) > 0.4 * INTERVAL, "the work is spread over the interval"
        times = [at for at, _ in rig.announcer.announced]
        most = max(sum(start <= at < start + HOUR for at in times) for start in times[::PAGE])
        assert most <= HOUR / CONTENT_SECONDS + PAGE


async def test_a_restart_goes_on_where_it_was(autojump_clock: Clock) -> None:
    rig = Rig()
    await rig.keep(*range(200))
    async with rig.running():
        await trio.sleep(HOUR)
        assert len(rig.announcer.announced) == 200
    for _ in range(5):
        async with rig.running():
            await trio.sleep(HOUR)
    assert len(rig.announcer.announced) == 200, "nothing is announced again because the node started"
    await trio.sleep(3 * INTERVAL)
    async with rig.running():
        await trio.sleep(HOUR)
    late = rig.announcer.keys()[200:]
    assert len(set(late)) == 200, "all of it, after it was away for longer than records last"
    assert len(late) <= 200 + PAGE


@pytest.mark.parametrize("change", [lambda rig: rig.table.pop(), lambda rig: setattr(rig, "is_on", False)])
async def test_a_small_dht_and_a_node_that_does_not_use_the_swarm_announce_nothing(
    change: Callable[[Rig], Any], autojump_clock: Clock
) -> None:
    rig = Rig()
    change(rig)
    await rig.keep(1)
    async with rig.running():
        await trio.sleep(HOUR)
        assert not rig.announcer.announced
        rig.is_on = True
        rig.table += [None]
        await trio.sleep(2 * LOOK_SECONDS)
        assert rig.announcer.keys() == [key(1)]


async def test_what_others_wrote_is_announced_by_the_nearest_live_holders(autojump_clock: Clock) -> None:
    rig = Rig()
    numbers = range(60)
    await rig.keep(*numbers, origin=Origin.PEER)
    async with rig.running():
        await trio.sleep(HOUR)
    peers = [OWN.peer_id, *(other.peer_id for other in OTHERS)]
    near = {key(number) for number in numbers if OWN.peer_id in nearest(envelope(number).key, peers, 2)}
    assert set(rig.announcer.keys()) == near
    assert 0 < len(near) < len(numbers)


async def test_what_nobody_took_is_announced_again_soon(autojump_clock: Clock) -> None:
    rig = Rig()
    await rig.keep(1)
    rig.announcer.is_heard = False
    async with rig.running():
        await trio.sleep(5 * LOOK_SECONDS)
        assert len(rig.announcer.announced) >= 4
        rig.announcer.is_heard = True
        await trio.sleep(2 * LOOK_SECONDS)
        heard = len(rig.announcer.announced)
        await trio.sleep(HOUR)
        assert len(rig.announcer.announced) == heard
