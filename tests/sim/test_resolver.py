"""The resolver in whole swarms: look-ups that callers share, histories with gaps, long ones, and deadlines."""

from typing import Any

import pytest
import trio

from node.dht import history_query
from node.dht.base import Consistency
from node.services.writes.peer_server import PeerServer
from node.store.log import Incoming, Origin
from protocols.errors import OutOfRange, Unavailable
from protocols.messages import GetVersions
from protocols.placement import nearest
from protocols.ucxl import parse
from tests.sim.reading import FEW, REPLICATION, asked, at, change, foreign, make_slow, read, writer_of
from tests.sim.swarms import (
    content,
    envelope,
    hints_delivered,
    met,
    over_seeds,
    put,
    running,
    swarm_of,
    thing,
    within,
)
from tests.until import until

# -- shared look-ups --------------------------------------------------------------------------------------------------


async def shared(seed: int) -> None:
    async with swarm_of(seed, 4, **FEW) as swarm:
        number, reader = foreign(swarm), swarm["n1"].running
        await put(writer_of(swarm, number), number, b"one")
        await hints_delivered(swarm)
        texts: list[bytes] = []

        async def ask() -> None:
            texts.append(await content(reader, number))

        with asked(swarm) as reads:
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(ask)
        assert texts == [b"one"] * 50
        assert len(reads) <= REPLICATION + 1, "one look-up for all of them"
        counts = reader.resolver.counts
        assert (counts.misses, counts.coalesced, counts.hits) == (1, 49, 0)
        assert await content(reader, number) == b"one"
        assert reader.resolver.counts.hits == 1


def test_concurrent_reads_of_one_key_are_one_look_up() -> None:
    over_seeds(shared)


async def cancelled_leader(seed: int) -> None:
    async with swarm_of(seed, 4, **FEW) as swarm:
        number, reader = foreign(swarm), swarm["n1"].running
        await put(writer_of(swarm, number), number, b"one")
        await hints_delivered(swarm)
        make_slow(swarm)
        leader = trio.CancelScope()
        spent: list[float] = []

        async def lead() -> None:
            with leader:
                await content(reader, number)

        async def follow() -> None:
            assert await content(reader, number) == b"one"
            spent.append(trio.current_time() - started)

        async with trio.open_nursery() as nursery:
            started = trio.current_time()
            nursery.start_soon(lead)
            await until(lambda: reader.resolver.counts.misses == 1)
            for _ in range(3):
                nursery.start_soon(follow)
            await until(lambda: reader.resolver.counts.coalesced == 3)
            assert not spent
            leader.cancel()
        assert leader.cancelled_caught
        assert len(spent) == 3
        assert max(spent) < 0.06, "a caller had to start again"
        assert reader.resolver.counts.misses == 1


def test_cancelling_the_first_caller_neither_fails_nor_delays_the_others() -> None:
    over_seeds(cancelled_leader)


async def short_timeout(seed: int) -> None:
    """A caller with a short timeout makes its own look-up: the timeout is no error of the others."""
    async with swarm_of(seed, 4, **FEW) as swarm:
        number, reader = foreign(swarm), swarm["n1"].running
        await put(writer_of(swarm, number), number, b"one")
        await hints_delivered(swarm)
        make_slow(swarm)
        texts: list[bytes] = []

        async def read_in_a_hurry() -> None:
            with pytest.raises(Unavailable):
                await read(reader, thing(number), timeout=0.02)

        async def read_as_usual() -> None:
            texts.append(await content(reader, number))

        async with trio.open_nursery() as nursery:
            for reading in (read_in_a_hurry, read_as_usual, read_as_usual, read_in_a_hurry):
                nursery.start_soon(reading)
        assert texts == [b"one", b"one"]
        assert (reader.resolver.counts.misses, reader.resolver.counts.coalesced) == (3, 1)


def test_a_caller_with_a_short_timeout_neither_fails_nor_delays_the_others() -> None:
    over_seeds(short_timeout)


# -- gaps -------------------------------------------------------------------------------------------------------------


async def gaps(seed: int) -> None:
    """A holder that lacks an earlier version asks the others for it, and reports it when they do not answer."""
    async with swarm_of(seed, 3) as swarm:
        first = envelope(0, b"one")
        second = envelope(0, b"two", parents=(first.digest,), at_ms=5)
        third = envelope(0, b"three", parents=(second.digest,), at_ms=9)
        for name, known in (("n1", (third,)), ("n2", (first, second, third)), ("n3", (second, third))):
            store = swarm[name].store
            await store.merge([Incoming(one, Origin.PEER) for one in known], now_ms=swarm[name].clock.now_ms())
        reader = swarm["n1"].running
        others = swarm.peers("n2", "n3")
        for peer in others:
            swarm.net.freeze(peer)
        answer = await read(reader, at("~~0"))
        assert answer.provenance.is_degraded
        assert "earlier version" in answer.provenance.reason
        with pytest.raises(Unavailable, match="may not be all"):
            await read(reader, at("~~2"))
        listed = await reader.resolver.history(thing(), consistency=Consistency.LOCAL)
        assert listed.missing == (second.digest,)
        for peer in others:
            swarm.net.thaw(peer)
        await met(swarm)
        await until(lambda: reader.breaker is not None and reader.breaker.is_closed)

        async def is_found() -> bool:
            """The first question after the thaw may wait behind what the holders missed."""
            try:
                return (await read(reader, at("~~2"))).heads == (first,)
            except Unavailable:
                return False

        await until(is_found, seconds=5.0)
        answer = await read(reader, at("~~2"))
        assert answer.heads == (first,)
        assert not answer.provenance.is_degraded
        assert (await reader.resolver.history(thing())).missing == ()


def test_a_version_missing_from_a_history_is_fetched_or_reported() -> None:
    over_seeds(gaps)


async def distributed(seed: int) -> None:
    async with swarm_of(seed, 3) as swarm:
        reader = swarm["n1"].running
        await put(swarm["n2"].running, 0, b"one")
        await hints_delivered(swarm)
        await trio.sleep(2.0)
        with asked(swarm, names="versions") as reads:
            assert (await read(reader, at("*~"))).provenance.source == "local"
            assert reads == [], "a holder without gaps answers from its own history"
            await change(reader, use_distributed_resolver=True)
            assert (await read(reader, at("*~"))).provenance.source == "swarm"
            assert set(reads) == {"n2", "n3"}
            reads.clear()
            assert (await reader.resolver.history(thing())).is_complete
            assert set(reads) == {"n2", "n3"}
        for peer in swarm.peers("n2", "n3"):
            swarm.net.freeze(peer)
        history = await reader.resolver.history(thing())
        assert (history.total, history.is_complete, history.provenance.is_degraded) == (1, False, True)
        with pytest.raises(Unavailable):
            await reader.resolver.history(thing("unheard-of"))


def test_the_distributed_resolver_asks_the_holders_for_every_history() -> None:
    over_seeds(distributed)


# -- deadlines --------------------------------------------------------------------------------------------------------


async def long_history(seed: int) -> None:
    """A read of a history ends by its deadline, however long the history is."""
    async with swarm_of(seed, 3, backend=("mock", "real", "hybrid")[seed % 3]) as swarm:
        node = swarm["n1"].running
        for content in (b"1", b"2"):
            await put(node, 0, content)
        walk, versions = node.store.walk, node.store.versions

        async def slow_walk(*args: Any, **named: Any) -> Any:
            await trio.sleep(1.0)
            return await walk(*args, **named)

        async def slow_versions(*args: Any, **named: Any) -> Any:
            await trio.sleep(1.0)
            return await versions(*args, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(node.store, "walk", slow_walk)
            patch.setattr(node.store, "versions", slow_versions)
            for part in ("~~1", "*~1", "^^1"):
                address = parse(f"ucxl://sim:tester@bzzz:nodes/{part}/0")
                with within(0.3), pytest.raises(Unavailable):
                    await node.resolver.resolve(address, timeout=0.3)
                assert (await node.resolver.resolve(address)).heads, "without a timeout a slow disk fails nothing"
            with within(0.3), pytest.raises(Unavailable):
                await node.resolver.history(thing(), timeout=0.3)


def test_a_read_of_a_history_ends_by_its_deadline() -> None:
    over_seeds(long_history)


# -- long histories ---------------------------------------------------------------------------------------------------


async def pages_of_the_swarm(seed: int) -> None:
    """A node that is no holder fetches of a long history what a read needs, and later only what it lacks."""
    async with swarm_of(seed, 6, backend=("real", "hybrid")[seed % 2], replication=2) as swarm:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(history_query, "PAGE", 4)
            nodes = {node.peer_id: node for node in running(swarm)}
            writer = nodes[nearest(thing().key, tuple(nodes), 1)[0]]
            holders = (writer.peer_id, *writer.members.wanted(thing().key))
            digests = [(await put(writer, 0, b"%d" % number)).digest for number in range(30)]
            await hints_delivered(swarm)
            asked: list[GetVersions] = []
            serve = PeerServer.serve

            def counted(self: PeerServer, peer: str, request: Any, trace: str) -> Any:
                if isinstance(request, GetVersions):
                    asked.append(request)
                return serve(self, peer, request, trace)

            patch.setattr(PeerServer, "serve", counted)
            others = [node for peer, node in nodes.items() if peer not in holders]
            for reader, parts in zip(others, ((("~~1", -2), ("*~3", 2), ("^^2", 2)), (("~~6", -7),), ()), strict=True):
                for part, number in parts:
                    asked.clear()
                    answer = await reader.resolver.resolve(
                        parse(f"ucxl://sim:tester@bzzz:nodes/{part}/0"), consistency=Consistency.SWARM
                    )
                    assert answer.heads[0].digest == digests[number]
                    assert len(asked) <= 6, "more of the history was fetched than the read needs"
                for part in ("~~40", "*~41"):
                    with pytest.raises(OutOfRange):
                        await reader.resolver.resolve(
                            parse(f"ucxl://sim:tester@bzzz:nodes/{part}/0"), consistency=Consistency.SWARM
                        )
                history = await reader.resolver.history(thing(), consistency=Consistency.SWARM)
                assert [version.digest for version in history.versions] == digests
                assert history.is_complete
                assert history.missing == ()
                new = await put(writer, 0, b"new")
                digests.append(new.digest)
                await hints_delivered(swarm)
                asked.clear()
                history = await reader.resolver.history(thing(), consistency=Consistency.SWARM)
                assert [version.digest for version in history.versions] == digests
                assert history.is_complete
                assert len(asked) <= 4, "what is known is fetched again"
                await trio.sleep(1.0)


def test_of_a_long_history_the_swarm_is_asked_for_what_is_needed() -> None:
    over_seeds(pages_of_the_swarm, range(4))
