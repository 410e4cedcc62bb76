"""Holder search: lookups are shared, bounded in number, and end no later for a caller than its deadline."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from node.store.members import Member
from node.swarm.kademlia.holder_search import AGAIN_SECONDS, GREET_SECONDS, PAUSE_SECONDS, HolderSearch
from node.swarm.members import Members
from protocols.kademlia.contact import Contact
from protocols.kademlia.lookup_events import LookupOutcome, Result
from protocols.keys import PrivateKey
from protocols.ucxl import key_of

Clock = trio.testing.MockClock
OWN, *PEERS = (PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in range(1, 14))
KEYS = [key_of(f"ucxl://a:b@c:d/*^/{number}") for number in range(200)]


def member(peer: str) -> Member:
    return Member(peer=peer, name="", addresses=(), first_seen_ms=0, last_seen_ms=0)


class Lookups:
    """Looks up for a second; what it finds is greeted half a second later."""

    def __init__(self, members: Members) -> None:
        self.keys: list[bytes] = []
        self.finds: tuple[str, ...] = ()
        self.greets: tuple[str, ...] = ()
        self._members = members

    async def find_node(self, key: bytes) -> Result:
        self.keys.append(key)
        await trio.sleep(1.0)
        for peer in self.greets:
            self._members.put(member(peer))
        closest = tuple(Contact(peer) for peer in (*self.finds, OWN))
        return Result(
            outcome=LookupOutcome.SETTLED, closest=closest, answered=(), failed=(), lied=(), pending=(), requests=1,
            hops=1, seconds=1.0,
        )  # fmt: skip


@asynccontextmanager
async def searching(count: int, *, contacts: int = 0) -> AsyncIterator[tuple[HolderSearch, Lookups]]:
    members = Members(OWN, replication=3, connections_kept=6, members=map(member, PEERS[:count]))
    lookups = Lookups(members)
    search = HolderSearch(members, lookups.find_node, contacts=lambda: contacts)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(search.run)
        await trio.testing.wait_all_tasks_blocked()
        yield search, lookups
        nursery.cancel_scope.cancel()


async def test_in_a_small_swarm_nothing_is_looked_up(autojump_clock: Clock) -> None:
    async with searching(6) as (search, lookups):
        assert await search.search(KEYS[0], 10.0) is False
        search.wrote(KEYS[0])
        await trio.sleep(AGAIN_SECONDS)
        assert lookups.keys == []


async def test_a_node_that_knows_few_members_of_a_large_swarm_looks_up(autojump_clock: Clock) -> None:
    async with searching(2, contacts=40) as (search, lookups):
        lookups.finds = lookups.greets = tuple(PEERS[2:5])
        assert await search.search(KEYS[0], 10.0) is True
        assert search.found == 3


async def test_calls_for_one_neighbourhood_share_a_lookup_and_none_waits_beyond_its_deadline(
    autojump_clock: Clock,
) -> None:
    async with searching(8) as (search, lookups):
        lookups.finds = lookups.greets = tuple(PEERS[8:9])
        found: list[bool] = []

        async def call(deadline: float) -> None:
            found.append(await search.search(KEYS[0], deadline))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, 0.2)
            nursery.start_soon(call, 5.0)
        assert trio.current_time() == 1.0
        assert len(lookups.keys) == 1
        assert found[0] is False, "nothing is known yet at its deadline"
        assert await search.search(KEYS[0], 10.0) is False, "it was looked up a moment ago"
        await trio.sleep(AGAIN_SECONDS)
        await search.search(KEYS[0], trio.current_time() + 60.0)
        assert len(lookups.keys) == 2


async def test_what_a_lookup_finds_and_is_no_node_of_this_swarm_is_not_waited_for_long(autojump_clock: Clock) -> None:
    async with searching(8) as (search, lookups):
        lookups.finds = ("a stranger",)
        assert await search.search(KEYS[0], 60.0) is False
        assert trio.current_time() == 1.0 + GREET_SECONDS


async def test_writes_cause_one_lookup_after_another_for_each_neighbourhood(autojump_clock: Clock) -> None:
    async with searching(12) as (search, lookups):
        for key in KEYS:
            search.wrote(key)
        await trio.sleep(AGAIN_SECONDS / 2)
        most = 2 * 12 // 3
        assert 2 < len(lookups.keys) <= most, "two hundred keys are in few neighbourhoods"
        for key in KEYS:
            search.wrote(key)
        await trio.sleep(most * (1.0 + PAUSE_SECONDS))
        assert len(lookups.keys) <= most
