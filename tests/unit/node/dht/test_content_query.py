"""Content query: what is found is what was asked for, and that no holder has it is said by a majority alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from node.dht.content_query import ContentQuery, FoundContent
from node.dht.hedged_query import Unanswered
from node.dht.ingest import Ingest
from node.dht.replica_query import ReplicaQuery
from node.store.members import Member
from node.store.memory.store import MemoryStore
from node.swarm.members import Members
from node.swarm.peer_policy import PeerPolicy
from protocols.clock import AHEAD_MS_MAX, version
from protocols.envelope import Envelope, seal
from protocols.keys import PrivateKey
from protocols.messages import EnvelopesReply
from protocols.policy.signature_cache import SignatureCache
from protocols.ucxl import key_of
from tests.unit.one_end import OneEnd, RecordingService, rpc_over

NOW_MS = 1_700_000_000_000
ADDRESS = "ucxl://agent:role@project:task/*^/thing"
KEY = key_of(ADDRESS)
AUTHOR = PrivateKey.from_seed(b"\x01" * 32)
A, B, C = HOLDERS = [PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in (2, 3, 4)]


def envelope(number: int, at_ms: int = 0, address: str = ADDRESS) -> Envelope:
    return seal(
        AUTHOR, address=address, content=b"%d" % number, content_type="text/plain",
        version=version(NOW_MS + at_ms, number), parents=(),
    )  # fmt: skip


class Rig:
    """A query over the holders A, B and C, each of which answers with these envelopes."""

    def __init__(self, net: OneEnd, query: ContentQuery, peer_policy: PeerPolicy) -> None:
        self.net = net
        self.peer_policy = peer_policy
        self._query = query

    async def run(
        self, digests: list[bytes], answers: dict[str, list[Envelope]], *, asks_all: bool = False
    ) -> FoundContent:
        found: list[FoundContent] = []

        async def ask() -> None:
            found.append(await self._query.run(KEY, digests, trio.current_time() + 1.0, asks_all=asks_all))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            for peer, envelopes in answers.items():
                await self.net.until_sent(peer, 1)
                reply = EnvelopesReply(tuple(each.encoded for each in envelopes))
                self.net.answer(peer, self.net.requests(peer)[-1].id, reply)
        return found[0]

    def points(self) -> int:
        return self.peer_policy.limit_counters.counts.as_dict().get("offences", 0)


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    net, peer_policy = OneEnd(), PeerPolicy()
    ingest = Ingest(
        MemoryStore(log_id="ab" * 8), verified=SignatureCache(), now_ms=lambda: NOW_MS, peer_policy=peer_policy
    )
    members = Members(AUTHOR.peer_id, replication=20)
    async with rpc_over(net, RecordingService()) as rpc:
        net.come(*HOLDERS)
        for peer in HOLDERS:
            members.put(Member(peer=peer, name=peer, addresses=(), first_seen_ms=0, last_seen_ms=0)).is_connected = True
        query = ReplicaQuery(rpc, members, at_first=3)
        yield Rig(net, ContentQuery(members, query=query, ingest=ingest), peer_policy)


async def test_it_ends_when_all_are_found_and_counts_who_had_each(autojump_clock: trio.testing.MockClock) -> None:
    one, two = envelope(1), envelope(2)
    async with rig() as r:
        found = await r.run([one.digest, two.digest], {A: [one], B: [one, two]})
        assert found == FoundContent({one.digest: one, two.digest: two}, {one.digest: 2, two.digest: 1}, None)
        assert trio.current_time() == 0.0


async def test_that_no_holder_has_it_is_said_by_a_majority_alone(autojump_clock: trio.testing.MockClock) -> None:
    one = envelope(1)
    async with rig() as r:
        assert await r.run([one.digest], {A: [], B: []}) == FoundContent({}, {}, None)
    async with rig() as r:
        assert isinstance((await r.run([one.digest], {A: []})).unfound, Unanswered)


async def test_it_asks_every_holder_for_what_a_reader_would_miss(autojump_clock: trio.testing.MockClock) -> None:
    one = envelope(1)
    async with rig() as r:
        found = await r.run([one.digest], {A: [], B: [], C: [one]}, asks_all=True)
        assert found.envelopes == {one.digest: one}


async def test_what_was_not_asked_for_is_not_found_and_another_key_is_blamed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    one, other, elsewhere = envelope(1), envelope(2), envelope(3, address=ADDRESS + "2")
    async with rig() as r:
        found = await r.run([one.digest, elsewhere.digest], {A: [other], B: [elsewhere]})
        assert found.envelopes == {}
        assert r.points() == 1


async def test_what_a_holder_has_and_this_node_cannot_take_is_not_absent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ahead = envelope(1, AHEAD_MS_MAX + 1_000)
    async with rig() as r:
        found = await r.run([ahead.digest], {A: [ahead], B: [], C: []}, asks_all=True)
        assert found.envelopes == {}
        assert found.unfound is not None
        assert "cannot take it" in found.unfound.message
