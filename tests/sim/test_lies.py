"""A member that lies about versions in every answer takes no address away, and its lies are blamed on it."""

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from netsim.virtual.byzantine import ByzantineNode
from netsim.virtual.lies import Lie
from netsim.virtual.nodes import VirtualSwarm
from node.dht.base import Consistency
from node.node import Node
from node.services.writes.peer_server import PeerServer
from node.store.log import Incoming, Origin
from protocols.envelope import Envelope, verify
from protocols.heads import heads_tag
from protocols.messages import EnvelopesReply, HeadsReply, Reply, VersionsReply
from protocols.placement import nearest
from protocols.ucxl import Address, parse
from tests.sim.swarms import envelope, hints_delivered, names, over_seeds, put, running, swarm_of, thing, within
from tests.until import until

BLAMED = (Lie.ALTERED, Lie.ELSEWHERE, Lie.CHANGED)
"""Lies that no honest node can have passed on."""
ADDRESSES = range(3)


@asynccontextmanager
async def swarm_with_liar(seed: int, *lies: Lie, **settings: object) -> AsyncIterator[VirtualSwarm]:
    """Four nodes that work, and one that lies, all connected."""
    async with swarm_of(seed, 4, **settings) as swarm:
        machine = swarm.add("liar")
        program = ByzantineNode(
            machine.key,
            swarm.net.attach(machine.peer, name="liar"),
            addresses=[swarm.net.address_of(peer) for peer in swarm.peers(*names(4))],
            now_ms=machine.clock.now_ms,
            seed=seed,
            lies=lies,
            attacks=False,
        )
        assert swarm.nursery is not None
        scope = await swarm.nursery.start(program.run)
        await until(lambda: all(liar_at(node, machine.peer) for node in running(swarm)), what="all know the liar")
        yield swarm
        scope.cancel()


def liar_at(node: Node, liar: str) -> bool:
    return any(peer.peer == liar and peer.is_connected for peer in node.peers())


def at(temporal: str, number: int) -> Address:
    return parse(str(thing(number)).replace("*^", temporal))


async def read(node: Node, address: Address, consistency: Consistency = Consistency.AUTO) -> bytes:
    head = (await node.resolver.resolve(address, consistency=consistency)).heads[0]
    assert isinstance(head, Envelope)
    return head.content


async def check_history(swarm: VirtualSwarm, node: Node, number: int, written: list[bytes]) -> None:
    """All that was written is in it, and nothing that its author did not sign."""
    history = await node.resolver.history(thing(number), consistency=Consistency.SWARM)
    for version in history.versions:
        verify(version.notice)
        assert version.author == swarm["liar"].peer or version.digest in written
    assert {*written} <= {version.digest for version in history.versions}


async def lied_to(seed: int, *lies: Lie) -> None:
    rng = random.Random(seed)
    backend, replication = ("hybrid", "real")[seed % 2], (3, 20)[seed // 2 % 2]
    async with swarm_with_liar(seed, *lies, backend=backend, replication=replication) as swarm:
        texts: dict[int, list[bytes]] = {number: [] for number in ADDRESSES}
        digests: dict[int, list[bytes]] = {number: [] for number in ADDRESSES}
        for turn in range(12):
            number = rng.choice(ADDRESSES)
            text = b"%d of %d" % (turn, number)
            writer = swarm[rng.choice(names(4))].running
            tag = None
            if texts[number]:  # a client that reads, changes and writes
                heads = (await writer.dht.get(thing(number).key)).heads
                tag = (heads_tag(head.digest for head in heads),)
                assert [head.digest for head in heads] == digests[number][-1:]
            receipt = await put(writer, number, text, if_match=tag)
            assert receipt.parents == tuple(digests[number][-1:]), "what was read, and nothing that cannot be read"
            texts[number].append(text)
            digests[number].append(receipt.digest)
            await hints_delivered(swarm)
            reader = swarm[rng.choice(names(4))].running
            await check_history(swarm, reader, number, digests[number])
            for consistency in Consistency:
                if consistency is not Consistency.LOCAL or reader is writer:
                    assert await read(reader, thing(number), consistency) == text
            for temporal, place in (("~~1", -2), ("*~", 0), ("2999-01-01T00:00:00Z", -1)):
                if len(texts[number]) > 1:
                    assert await read(reader, at(temporal, number), Consistency.SWARM) == texts[number][place]

        async def is_blamed() -> bool:
            for node in running(swarm):
                for each in filter(digests.get, ADDRESSES):
                    await check_history(swarm, node, each, digests[each])
            return any(node.peer_policy.limit_counters.counts.offences for node in running(swarm))

        if any(lie in BLAMED for lie in lies) and replication > 4:  # with fewer holders it may be asked nothing
            await until(is_blamed)
        elif not any(lie in BLAMED for lie in lies):
            assert not await is_blamed(), "an honest node may have passed it on"


@pytest.mark.parametrize("lie", Lie)
def test_no_lie_about_versions_takes_an_address_away(lie: Lie) -> None:
    over_seeds(lambda seed: lied_to(seed, lie), range(4))


def test_all_lies_together_take_no_address_away() -> None:
    over_seeds(lambda seed: lied_to(seed, *Lie), range(6))


# -- single lies of a holder, told again and again ------------------------------------------------------------------


@contextmanager
def lying(liar: Node, **answers: Callable[[Any], Reply]) -> Iterator[None]:
    """One node answers these methods of its peer server with lies."""
    with pytest.MonkeyPatch.context() as patch:
        for name, lie in answers.items():
            right = getattr(PeerServer, name)  # private: what one node answers

            async def answer(
                self: PeerServer, request: Any, right: Any = right, lie: Callable[[Any], Reply] = lie
            ) -> Reply:
                reply: Reply = lie(request) if self._store is liar.store else await right(self, request)
                return reply

            patch.setattr(PeerServer, name, answer)
        yield


def roles(swarm: VirtualSwarm) -> tuple[Node, Node, Node]:
    """The writer of an address, which holds it; another holder; and a node that is none."""
    nodes = {node.peer_id: node for node in running(swarm)}
    writer = nodes[nearest(thing().key, tuple(nodes), 1)[0]]
    holders = writer.members.wanted(thing().key)
    stranger = next(node for peer, node in nodes.items() if peer not in (writer.peer_id, *holders))
    return writer, nodes[holders[0]], stranger


async def without_end(seed: int) -> None:
    """A holder that claims a history without end leaves time for the content."""
    async with swarm_of(seed, 6, replication=3) as swarm:
        writer, liar, stranger = roles(swarm)
        for text in (b"one", b"two", b"three"):
            await put(writer, 0, text)
        await hints_delivered(swarm)
        made_up = tuple(bytes([number]) * 32 for number in range(3))
        with (
            lying(
                liar,
                _versions=lambda request: VersionsReply((), 1_000_000, request.after + request.limit),
                _heads=lambda request: HeadsReply(made_up, ()),
            ),
            within(0.1),
        ):
            assert await read(stranger, at("2999-01-01T00:00:00Z", 0), Consistency.SWARM) == b"three"


def test_a_history_without_end_leaves_time_for_the_content() -> None:
    over_seeds(without_end)


async def many_without_content(seed: int) -> None:
    """Sixty versions without content are asked for a few times, and not one after the other."""
    async with swarm_of(seed, 4) as swarm:
        reader = swarm["n1"].running
        await put(reader, 0, b"one")
        latest = await put(reader, 0, b"two")
        await hints_delivered(swarm)
        chain = [envelope(0, b"lost 0", parents=[latest.digest], at_ms=5)]
        for number in range(1, 60):
            chain.append(envelope(0, b"lost %d" % number, parents=[chain[-1].digest], at_ms=5 + number))
        now_ms = swarm["n1"].clock.now_ms()
        await reader.store.merge([Incoming(each.notice, Origin.PEER) for each in chain], now_ms=now_ms)
        with within(0.02):
            assert await read(reader, at("~~1", 0)) == b"one"


def test_versions_without_content_are_asked_for_side_by_side() -> None:
    over_seeds(many_without_content)


async def superseded(seed: int) -> None:
    """A holder that answers first and knows of no history leaves no superseded version as a sibling."""
    async with swarm_of(seed, 5, replication=2) as swarm:
        writer, liar, stranger = roles(swarm)
        await put(writer, 0, b"one")
        await hints_delivered(swarm)
        assert await read(stranger, thing(), Consistency.SWARM) == b"one"
        for text in (b"two", b"three"):
            await put(writer, 0, text)
        await hints_delivered(swarm)
        with lying(liar, _versions=lambda request: VersionsReply((), 0, 0)):
            answer = await stranger.resolver.resolve(thing(), consistency=Consistency.SWARM)
        assert answer.provenance.siblings == 0


def test_a_holder_without_history_leaves_no_superseded_version_as_a_sibling() -> None:
    over_seeds(superseded, range(8))


async def junk(seed: int) -> None:
    """A holder that answers every question with something else keeps no read busy."""
    async with swarm_of(seed, 5, replication=2) as swarm:
        writer, liar, stranger = roles(swarm)
        await put(writer, 0, b"one")
        await hints_delivered(swarm)
        other = envelope(0, b"something else")
        made_up = tuple(bytes([number]) * 32 for number in range(3))
        with (
            lying(
                liar,
                _heads=lambda request: HeadsReply(made_up, (other.encoded,)),
                _by_digest=lambda digests: EnvelopesReply((other.encoded,)),
            ),
            within(0.03),
        ):
            answer = await stranger.resolver.resolve(thing(), consistency=Consistency.SWARM)
        contents = {head.content for head in answer.heads if isinstance(head, Envelope)}
        assert contents == {b"one", b"something else"}


def test_a_holder_that_answers_with_something_else_keeps_no_read_busy() -> None:
    over_seeds(junk)
