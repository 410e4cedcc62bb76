"""Notices on the wire: pages that are bounded in bytes, and holders that forge or alter them."""

from typing import Any

import pytest

from netsim.virtual.nodes import VirtualSwarm
from node.dht import history_backfill
from node.dht.base import Consistency
from node.node import Node
from node.services.writes import peer_server
from node.services.writes.peer_server import PeerServer
from protocols.envelope import Notice
from protocols.messages import GetVersions, VersionsReply
from protocols.placement import nearest
from tests.sim.swarms import heads_at, hints_delivered, over_seeds, put, running, swarm_of, thing


def writer_and_stranger(swarm: VirtualSwarm) -> tuple[Node, Node]:
    """A holder of the key, and a node that is none."""
    nodes = {node.peer_id: node for node in running(swarm)}
    writer = nodes[nearest(thing().key, tuple(nodes), 1)[0]]
    holders = (writer.peer_id, *writer.members.wanted(thing().key))
    return writer, next(node for peer, node in nodes.items() if peer not in holders)


async def short_pages(seed: int) -> None:
    async with swarm_of(seed, 5, backend=("real", "hybrid")[seed % 2], replication=2) as swarm:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(peer_server, "ANSWER_BYTES_MAX", 1_200)
            patch.setattr(history_backfill, "PAGE", 8)
            writer, stranger = writer_and_stranger(swarm)
            digests = [(await put(writer, 0, b"%d" % number)).digest for number in range(3)]
            await hints_delivered(swarm)
            await stranger.resolver.resolve(thing(), consistency=Consistency.SWARM)
            digests += [(await put(writer, 0, b"%d" % number)).digest for number in range(3, 30)]
            await hints_delivered(swarm)
            pages: list[VersionsReply] = []
            serve = PeerServer._versions  # private: the pages that are sent

            async def recorded(self: PeerServer, request: GetVersions) -> Any:
                reply = await serve(self, request)
                assert isinstance(reply, VersionsReply)
                pages.append(reply)
                return reply

            patch.setattr(PeerServer, "_versions", recorded)
            answer = await stranger.resolver.resolve(thing(), consistency=Consistency.SWARM)
            assert [head.digest for head in answer.heads] == [digests[-1]], "the gap was filled"
            assert await heads_at(stranger) == [b"29"]
            history = await stranger.resolver.history(thing(), consistency=Consistency.SWARM)
            assert [version.digest for version in history.versions] == digests
            assert history.is_complete
            assert len(pages) > 10
            assert max(sum(map(len, page.notices)) for page in pages) <= 1_200


def test_pages_that_are_shorter_than_was_asked_for_are_followed_by_others() -> None:
    over_seeds(short_pages, range(4))


def forged(notice: Notice, number: int) -> bytes:
    encoded = notice.encoded
    match number % 3:
        case 0:
            return encoded.replace(notice.signature, bytes(64))
        case 1:
            return encoded.replace(notice.content_digest, bytes(32))
        case _:
            return encoded[:-1]


async def forged_notices(seed: int) -> None:
    async with swarm_of(seed, 5, backend=("real", "hybrid")[seed % 2], replication=2) as swarm:
        writer, stranger = writer_and_stranger(swarm)
        liar = next(node for node in running(swarm) if node.peer_id == writer.members.wanted(thing().key)[0])
        digests = [(await put(writer, 0, b"%d" % number)).digest for number in range(6)]
        await hints_delivered(swarm)
        serve = PeerServer._versions  # private: what one node answers

        async def lying(self: PeerServer, request: GetVersions) -> Any:
            reply = await serve(self, request)
            if self._store is not liar.store:
                return reply
            versions = await self._store.versions(request.key)
            return VersionsReply(tuple(forged(each.notice, n) for n, each in enumerate(versions)), 6, 6)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PeerServer, "_versions", lying)
            history = await stranger.resolver.history(thing(), consistency=Consistency.SWARM)
        assert [version.digest for version in history.versions] == digests, "those of the honest holder, and no other"
        counts = stranger.peer_policy.limit_counters.counts
        assert counts.envelopes_refused >= 4, "one that differs in its signature alone, and is known, is not looked at"
        assert counts.offences >= 4


def test_notices_that_no_author_signed_are_refused_and_their_sender_is_blamed() -> None:
    over_seeds(forged_notices, range(4))


async def pages_without_end(seed: int) -> None:
    """A holder that claims versions without end, and shows none of them."""
    async with swarm_of(seed, 5, backend=("real", "hybrid")[seed % 2], replication=2) as swarm:
        writer, stranger = writer_and_stranger(swarm)
        liar = next(node for node in running(swarm) if node.peer_id == writer.members.wanted(thing().key)[0])
        digests = [(await put(writer, 0, b"0")).digest]
        await hints_delivered(swarm)
        await stranger.resolver.resolve(thing(), consistency=Consistency.SWARM)
        digests.append((await put(writer, 0, b"1")).digest)
        await hints_delivered(swarm)
        serve = PeerServer._versions  # private: what one node answers
        asked = 0

        async def lying(self: PeerServer, request: GetVersions) -> Any:
            nonlocal asked
            if self._store is not liar.store:
                return await serve(self, request)
            asked += 1
            return VersionsReply((), 1 << 62, request.after)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PeerServer, "_versions", lying)
            answer = await stranger.resolver.resolve(thing(), consistency=Consistency.SWARM)
            assert answer.heads[0].digest == digests[-1]
            history = await stranger.resolver.history(thing(), consistency=Consistency.SWARM)
        assert [version.digest for version in history.versions] == digests
        assert 0 < asked <= 4


def test_a_holder_that_promises_versions_and_shows_none_is_left_out() -> None:
    over_seeds(pages_without_end, range(4))
