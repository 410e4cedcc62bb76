"""A member that lies about versions in every answer takes no address away, and its lies are blamed on it."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from netsim.virtual.byzantine import ByzantineNode
from netsim.virtual.lies import Lie
from netsim.virtual.nodes import VirtualSwarm
from node.dht.base import Consistency
from node.node import Node
from protocols.envelope import Envelope, verify
from protocols.heads import heads_tag
from protocols.ucxl import Address, parse
from tests.sim.swarms import hints_delivered, names, over_seeds, put, running, swarm_of, thing
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
