"""A whole node over libp2p: what it does with peers that misbehave, with its lists, and with whom it met before."""

import contextlib
import logging
import os
import random
import time
from collections.abc import AsyncIterator

import pytest
import trio

from node import app
from node.config.settings import Settings
from node.node import Node
from node.services.writes.author import WriteRequest
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
    world = app.Environment(
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
    while not {peer.peer for peer in node.peers() if peer.is_connected} >= set(peers):
        await trio.sleep(0.01)


class Rogue:
    """A peer that says hello as one should, and then whatever the test likes."""

    def __init__(self, host: Host, rpc: Rpc) -> None:
        self.host = host
        self.rpc = rpc
        self.thawed = trio.Event()
        self.thawed.set()

    def connected(self, peer: str, address: str, dialled: bool) -> None: ...

    def disconnected(self, peer: str, reason: str) -> None: ...

    def heard(self, peer: str) -> None: ...

    def missed(self, peer: str, evidence: str) -> None: ...

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
        await self.host.dial(node.addresses(), timeout=5)
        await self.rpc.call(node.peer_id, self.hello(), timeout=5)

    async def hand_in(self, node: Node, *encoded: bytes) -> MergeReply:
        reply = await self.rpc.call(node.peer_id, Merge(encoded), timeout=5)
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
    """As its author would have written it, had he."""
    encoded = envelope(b"forged %d" % number)
    return encoded[:-1] + bytes([encoded[-1] ^ 1])


async def test_one_bad_envelope_is_refused_and_who_makes_them_up_loses_its_place() -> None:
    async with a_node() as node, a_node(bootstrap=node.addresses()) as friend, a_rogue() as rogue:
        await until_met(node, friend.peer_id)
        await rogue.join(node)
        reply = await rogue.hand_in(node, forged(0), envelope(b"honest"))
        assert [(at, refusal.code) for at, refusal in reply.refusals] == [(0, "UCXL-422-UNPROCESSABLE")]
        assert node.counters()["envelopes_refused"] == 1
        assert rogue.host.connected_peers() == (node.peer_id,), "an honest peer may hand on what another one made up"
        with pytest.raises((BzzzError, DialFailed)):
            for number in range(100):
                if not rogue.host.connected_peers():
                    await rogue.join(node)
                await rogue.hand_in(node, *(forged(number * 1000 + at) for at in range(4)))
        while node.peer_policy.complaint(rogue.host.peer_id) == "":
            with contextlib.suppress(BzzzError, DialFailed):
                await rogue.join(node)
                await rogue.hand_in(node, *(forged(int.from_bytes(os.urandom(4))) for _ in range(4)))
        with pytest.raises(DialFailed):
            await rogue.host.dial(node.addresses(), timeout=5)
        assert node.counters()["places_lost"] == 1
        assert [peer.peer for peer in node.peers() if peer.is_connected] == [friend.peer_id]
        assert friend.counters()["offences"] == 0


async def test_a_clock_that_is_ahead_and_an_envelope_that_is_known_are_no_misbehaviour() -> None:
    async with a_node() as node, a_rogue() as rogue:
        await rogue.join(node)
        known = envelope(b"known")
        for _ in range(30):
            ahead = [envelope(b"%d" % number, ahead_ms=600_000) for number in range(20)]
            reply = await rogue.hand_in(node, known, *ahead)
            assert len(reply.refusals) == 20
        assert node.counters()["offences"] == 0
        assert rogue.host.connected_peers() == (node.peer_id,)


async def test_who_is_denied_while_it_runs_is_no_member_any_more_and_may_come_again() -> None:
    async with (
        a_node() as node,
        a_node(bootstrap=node.addresses()) as other,
        a_node(bootstrap=node.addresses()) as third,
    ):
        await until_met(node, other.peer_id, third.peer_id)
        await until_met(third, other.peer_id)
        node.peer_policy.set_lists(deny=[other.peer_id])
        assert {peer.peer for peer in node.peers()} == {third.peer_id}
        while any(peer.is_connected for peer in other.peers() if peer.peer == node.peer_id):
            await trio.sleep(0.01)
        assert {member.peer for member in node.store.members()} <= {third.peer_id, other.peer_id}
        await until_met(node, third.peer_id)
        assert {peer.peer for peer in node.peers()} == {third.peer_id}, "others may speak of it, and it stays out"
        node.peer_policy.set_lists(deny=[])
        await until_met(node, other.peer_id, third.peer_id)


async def test_whom_a_node_met_it_finds_again_after_a_restart_by_its_own_address_book() -> None:
    store, key = MemoryStore(log_id="0" * 16), PrivateKey.from_seed(os.urandom(32))
    async with a_node("other") as other:
        async with a_node(store=store, key=key, bootstrap=other.addresses()) as node:
            await until_met(node, other.peer_id)
        (member,) = store.members()
        assert member.addresses == other.addresses()
        async with a_node(store=store, key=key) as node:
            await until_met(node, other.peer_id)
        async with a_node(store=store, key=key, deny=(other.peer_id,)) as node:
            assert node.peers() == []
            while store.members():
                await trio.sleep(0.01)


async def test_who_is_of_another_swarm_has_one_line_however_often_it_says_hello(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with a_node() as node, a_rogue() as rogue:
        await rogue.host.dial(node.addresses(), timeout=5)
        elsewhere = rogue.hello()._replace(network="elsewhere")
        for _ in range(400):
            rogue.rpc.ask(node.peer_id, elsewhere, lambda reply: None)
        while rogue.host.connected_peers():
            await trio.sleep(0.01)
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
            with trio.fail_after(2):
                while not is_suspect():
                    await trio.sleep(0.01)
            assert rogue.host.connected_peers() == (node.peer_id,)
            rogue.thawed.set()
            with trio.fail_after(1):
                while is_suspect():
                    await trio.sleep(0.01)
