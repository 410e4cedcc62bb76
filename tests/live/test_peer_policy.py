"""Peer policy of a whole node over libp2p: misbehaving peers, allow and deny lists, and members from before."""

import contextlib
import logging
import os
import random
import time
from collections.abc import AsyncIterator

import msgpack
import pytest
import trio

from node import app
from node.config.settings import Settings
from node.environment import Environment
from node.node import Node
from node.services.writes.write_request import WriteRequest
from node.store.memory.store import MemoryStore
from node.swarm.base import DialFailed
from node.swarm.libp2p.host import Host
from node.swarm.peer_policy import PeerPolicy
from node.swarm.rpc import Rpc
from protocols.clock import version
from protocols.envelope import seal
from protocols.errors import BzzzError
from protocols.keys import PrivateKey
from protocols.messages import (
    GetHeads,
    GetMembers,
    HeadsReply,
    Hello,
    MembersReply,
    Merge,
    MergeReply,
    Pong,
    Reply,
    Request,
)
from protocols.ucxl import parse
from tests.live.swarm_peers import LOOPBACK
from tests.until import until

NETWORK = "bzzz"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@contextlib.asynccontextmanager
async def a_node(
    name: str = "node",
    *,
    store: MemoryStore | None = None,
    key: PrivateKey | None = None,
    listen: tuple[str, ...] = LOOPBACK,
    bootstrap: tuple[str, ...] = (),
    deny: tuple[str, ...] = (),
) -> AsyncIterator[Node]:
    key, peer_policy = key or PrivateKey.from_seed(os.urandom(32)), PeerPolicy(deny=deny)
    world = Environment(
        key=key,
        network=Host(key, listen, peer_policy=peer_policy),
        store=store or MemoryStore(log_id=os.urandom(8).hex()),
        now_ms=now_ms,
        chance=random.random,
        peer_policy=peer_policy,
    )
    async with trio.open_nursery() as nursery:
        settings = Settings(name=name, network=NETWORK, bootstrap=bootstrap)
        yield await nursery.start(app.run, world, settings)
        nursery.cancel_scope.cancel()


async def until_met(node: Node, *peers: str) -> None:
    await until(lambda: {peer.peer for peer in node.peers() if peer.is_connected} >= set(peers))


class Rogue:
    """A peer that says hello correctly; what it does after that is the test's choice."""

    def __init__(self, host: Host, rpc: Rpc) -> None:
        self.host = host
        self.rpc = rpc
        self.thawed = trio.Event()
        self.thawed.set()

    def connected(self, peer: str, address: str, dialled: bool) -> None: ...

    def disconnected(self, peer: str, reason: str) -> None: ...

    def heard(self, peer: str) -> None: ...

    def missed(self, peer: str, evidence: str) -> None: ...

    def is_idle(self, peer: str) -> bool:
        return False

    async def connect_idle(self, peer: str) -> str:
        return "this is no node"

    def freeze(self) -> None:
        """Answer nothing until `thawed` is set."""
        self.thawed = trio.Event()

    async def serve(self, peer: str, request: Request, trace: str) -> Reply:
        await self.thawed.wait()
        match request:
            case Hello():
                return self.hello()
            case GetMembers():
                return MembersReply(())
            case GetHeads():
                return HeadsReply((), ())
            case _:
                return Pong(now_ms(), 0, 0)

    def hello(self) -> Hello:
        return Hello(NETWORK, "rogue", "0" * 16, now_ms(), self.host.addresses)

    async def join(self, node: Node) -> None:
        await self.host.dial(node.addresses(), timeout=20)
        await self.rpc.call(node.peer_id, self.hello(), timeout=20)

    async def send_envelopes(self, node: Node, *encoded: bytes) -> MergeReply:
        reply = await self.rpc.call(node.peer_id, Merge(encoded), timeout=20)
        assert isinstance(reply, MergeReply)
        return reply


@contextlib.asynccontextmanager
async def a_rogue(key: PrivateKey | None = None) -> AsyncIterator[Rogue]:
    host = Host(key or PrivateKey.from_seed(os.urandom(32)), LOOPBACK)
    rpc = Rpc(host)
    rogue = Rogue(host, rpc)
    async with trio.open_nursery() as nursery:
        await nursery.start(rpc.run, rogue)
        yield rogue
        nursery.cancel_scope.cancel()


AUTHOR = PrivateKey.from_seed(bytes(32))


def envelope(content: bytes, *, ahead_ms: int = 0) -> bytes:
    return seal(
        AUTHOR,
        address="ucxl://agent:role@project:task/*^/thing",
        content=content,
        content_type="text/plain",
        version=version(now_ms() + ahead_ms, 0),
        parents=(),
    ).encoded


def forged(number: int) -> bytes:
    """An envelope that its author did not sign."""
    header, signature, content = msgpack.unpackb(envelope(b"forged %d" % number))
    return bytes(msgpack.packb([header, bytes([signature[0] ^ 1]) + signature[1:], content]))


async def test_one_bad_envelope_is_refused_and_a_peer_that_forges_many_is_banned() -> None:
    async with a_node() as node, a_node(bootstrap=node.addresses()) as friend, a_rogue() as rogue:
        await until_met(node, friend.peer_id)
        await rogue.join(node)
        reply = await rogue.send_envelopes(node, forged(0), envelope(b"honest"))
        assert [(at, refusal.code) for at, refusal in reply.refusals] == [(0, "UCXL-422-UNPROCESSABLE")]
        assert node.counters()["envelopes_refused"] == 1
        assert rogue.host.connected_peers() == (node.peer_id,), "one forged envelope may come from an honest peer, too"
        with pytest.raises((BzzzError, DialFailed)):
            for number in range(100):
                if not rogue.host.connected_peers():
                    await rogue.join(node)
                await rogue.send_envelopes(node, *(forged(number * 1000 + at) for at in range(4)))
        while node.peer_policy.complaint(rogue.host.peer_id) == "":
            with contextlib.suppress(BzzzError, DialFailed):
                await rogue.join(node)
                await rogue.send_envelopes(node, *(forged(int.from_bytes(os.urandom(4))) for _ in range(4)))
        with pytest.raises(DialFailed):
            await rogue.host.dial(node.addresses(), timeout=20)
        assert node.counters()["places_lost"] == 1
        assert [peer.peer for peer in node.peers() if peer.is_connected] == [friend.peer_id]
        assert friend.counters()["offences"] == 0


async def test_envelopes_ahead_of_the_clock_or_known_already_are_no_offence() -> None:
    async with a_node() as node, a_rogue() as rogue:
        await rogue.join(node)
        known = envelope(b"known")
        for _ in range(30):
            ahead = [envelope(b"%d" % number, ahead_ms=600_000) for number in range(20)]
            reply = await rogue.send_envelopes(node, known, *ahead)
            assert len(reply.refusals) == 20
        assert node.counters()["offences"] == 0
        assert rogue.host.connected_peers() == (node.peer_id,)


async def test_a_peer_on_the_deny_list_is_no_member_until_it_is_taken_off() -> None:
    async with (
        a_node() as node,
        a_node(bootstrap=node.addresses()) as other,
        a_node(bootstrap=node.addresses()) as third,
    ):
        await until_met(node, other.peer_id, third.peer_id)
        await until_met(third, other.peer_id)
        node.peer_policy.set_lists(deny=[other.peer_id])
        assert {peer.peer for peer in node.peers() if peer.is_member} == {third.peer_id}
        assert {peer.peer for peer in node.peers() if peer.state == "refused"} == {other.peer_id}
        await until(lambda: not any(peer.is_connected for peer in other.peers() if peer.peer == node.peer_id))
        assert {member.peer for member in node.store.members()} <= {third.peer_id, other.peer_id}
        await until_met(node, third.peer_id)
        members = {peer.peer for peer in node.peers() if peer.is_member}
        assert members == {third.peer_id}, "the reports of members do not bring it back"
        node.peer_policy.set_lists(deny=[])
        await until_met(node, other.peer_id, third.peer_id)


async def test_a_node_finds_its_members_after_a_restart_by_its_own_address_book() -> None:
    store, key = MemoryStore(log_id="0" * 16), PrivateKey.from_seed(os.urandom(32))
    async with a_node("other") as other:
        async with a_node(store=store, key=key, bootstrap=other.addresses()) as node:
            await until_met(node, other.peer_id)
        (member,) = store.members()
        assert member.addresses == other.addresses()
        async with a_node(store=store, key=key) as node:
            await until_met(node, other.peer_id)
        async with a_node(store=store, key=key, deny=(other.peer_id,)) as node:
            assert not any(peer.is_member for peer in node.peers())
            await until(lambda: not store.members())


async def test_a_peer_of_another_swarm_is_one_log_line_however_often_it_says_hello(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with a_node() as node, a_rogue() as rogue:
        await rogue.host.dial(node.addresses(), timeout=20)
        elsewhere = rogue.hello()._replace(network="elsewhere")
        for _ in range(400):
            rogue.rpc.ask(node.peer_id, elsewhere, lambda reply: None)
        await until(lambda: not rogue.host.connected_peers())
        lines = [record.getMessage() for record in caplog.records if record.name.startswith("node.")]
        assert len([line for line in lines if "is of another swarm (elsewhere): parted" in line]) == 1
        assert len([line for line in lines if rogue.host.peer_id in line]) < 10
        assert node.counters()["other_swarms"] == 1
        assert node.counters()["connections_forfeited"] + node.counters()["places_lost"] > 0


async def test_a_frozen_peer_is_suspect_at_its_first_missed_deadline_and_trusted_at_its_first_answer() -> None:
    async with a_node() as node, a_rogue() as rogue:
        await rogue.join(node)

        def is_suspect() -> bool:
            return any(peer.is_suspect for peer in node.peers())

        for _ in range(2):
            rogue.freeze()
            await node.author.write(
                WriteRequest(address=parse("ucxl://agent:role@project:task/*^/thing"), content=b"for it")
            )
            await until(is_suspect, seconds=2.0)
            assert rogue.host.connected_peers() == (node.peer_id,)
            rogue.thawed.set()
            await until(lambda: not is_suspect(), seconds=1.0)
