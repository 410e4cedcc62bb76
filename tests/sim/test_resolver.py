"""The resolver in whole swarms: cached and shared answers keep the guarantees of the store."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from netsim.virtual.nodes import VirtualSwarm
from node.config.changes import read_change
from node.dht import history_query
from node.dht.base import Answer, Consistency
from node.node import Node
from node.services.writes.peer_server import PeerServer
from node.store.log import Incoming, Origin
from protocols.envelope import Envelope
from protocols.errors import BzzzError, Deleted, NotFound, OutOfRange, Unavailable
from protocols.messages import GetVersions
from protocols.placement import nearest
from protocols.ucxl import Address, parse
from tests.sim.swarms import (
    Call,
    content,
    envelope,
    heads_at,
    hints_delivered,
    key,
    met,
    over_seeds,
    put,
    running,
    swarm_of,
    thing,
    within,
    wrap_calls,
)
from tests.until import until

REPLICATION = 2
FEW = {"replication": REPLICATION}
"""Each address is held by two nodes, so that most nodes are no holders."""


def at(temporal: str, number: object = 0) -> Address:
    return parse(str(thing(number)).replace("*^", temporal))


def foreign(swarm: VirtualSwarm, name: str = "n1") -> int:
    """The number of an address that this node does not hold, whichever node writes it."""
    peers = [machine.peer for machine in swarm.nodes.values()]
    mine = swarm[name].peer
    return next(number for number in range(1000) if mine not in nearest(key(number), peers, REPLICATION + 1))


def writer_of(swarm: VirtualSwarm, number: int) -> Node:
    """A holder of an address."""
    peers = [machine.peer for machine in swarm.nodes.values()]
    holder = nearest(key(number), peers, 1)[0]
    return next(node for node in running(swarm) if node.peer_id == holder)


async def change(node: Node, **data: object) -> None:
    await node.flags.change(read_change({"reason": "a test", **data}, author="tester"))


async def read(node: Node, address: Address, **how: object) -> Answer:
    return await node.resolver.resolve(address, **how)  # type: ignore[arg-type]


async def text_at(node: Node, address: Address) -> bytes:
    head = (await read(node, address)).heads[0]
    assert isinstance(head, Envelope)
    return head.content


@contextmanager
def asked(swarm: VirtualSwarm, reader: str = "n1", *, names: str = "heads versions by_digest") -> Iterator[list[str]]:
    """Gives the names of the other nodes, once for each read of their stores: that is how often they are asked."""
    reads: list[str] = []
    is_over = False
    for machine in swarm.nodes.values():
        if machine.name == reader:
            continue

        async def record(call: Call, name: str = machine.name) -> object:
            if not is_over:
                reads.append(name)
            return await call()

        wrap_calls(machine.store, names, record)
    yield reads
    is_over = True


def make_slow(swarm: VirtualSwarm, reader: str = "n1", *, seconds: float = 0.03) -> None:
    """Delay the answers of the other nodes."""

    async def slow(call: Call) -> object:
        await trio.sleep(seconds)
        return await call()

    for machine in swarm.nodes.values():
        if machine.name != reader:
            wrap_calls(machine.store, "heads versions", slow)


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


# -- cached answers and their ages ------------------------------------------------------------------------------------


async def ages(seed: int) -> None:
    async with swarm_of(seed, 4, **FEW) as swarm:
        number, reader = foreign(swarm), swarm["n1"].running
        await put(writer_of(swarm, number), number, b"one")
        await hints_delivered(swarm)
        await content(reader, number)
        asked_at = trio.current_time()
        for seconds in (1.0, 2.0, 1.9):
            await trio.sleep(seconds)
            with asked(swarm) as reads:
                provenance = (await read(reader, thing(number))).provenance
            assert reads == []
            assert provenance.source == "swarm", "the source of the cached answer"
            assert provenance.age_ms is not None
            age = (trio.current_time() - asked_at) * 1000.0
            assert age - 1.0 <= provenance.age_ms <= age + 60.0, "as old as when the holders were asked"
        await trio.sleep(0.3)
        provenance = (await read(reader, thing(number))).provenance
        assert (provenance.source, provenance.age_ms) == ("swarm", 0.0), "over read_freshness: asked again"
        assert reader.resolver.counts.expired == 1


def test_a_cached_answer_gives_its_age_and_is_never_older_than_allowed() -> None:
    over_seeds(ages)


async def time_to_live(seed: int) -> None:
    async with swarm_of(seed, 4, **FEW, cache_ttl_ms=1_000) as swarm:
        number, reader = foreign(swarm), swarm["n1"].running
        await put(writer_of(swarm, number), number, b"one")
        await hints_delivered(swarm)
        for seconds, hits in ((0.0, 0), (0.9, 1), (0.2, 1), (0.9, 2)):
            await trio.sleep(seconds)
            assert await content(reader, number) == b"one"
            assert reader.resolver.counts.hits == hits
        await change(reader, cache_ttl="100ms")
        for seconds, hits in ((0.0, 2), (0.05, 3), (0.06, 3)):
            await trio.sleep(seconds)
            await content(reader, number)
            assert reader.resolver.counts.hits == hits, "the flag is followed while the node runs"
        await change(reader, cache_enabled=False)
        await content(reader, number)
        await content(reader, number)
        assert reader.resolver.counts.hits == 3
        assert reader.resolver.counts.entries == 0


def test_cached_answers_live_as_long_as_the_flag_says() -> None:
    over_seeds(time_to_live)


async def held_and_temporal(seed: int) -> None:
    """A holder caches temporal answers until the address changes: a new answer would be the same."""
    async with swarm_of(seed, 3) as swarm:
        reader, other = swarm["n1"].running, swarm["n2"].running
        for text in (b"one", b"two"):
            await put(other, 0, text)
        await hints_delivered(swarm)
        for _ in range(4):
            assert await text_at(reader, at("*~")) == b"one"
            provenance = (await read(reader, at("~~1"))).provenance
            assert provenance.age_ms is not None
            assert provenance.age_ms <= 5_000.0
            await trio.sleep(20.0)
        assert (reader.resolver.counts.misses, reader.resolver.counts.hits) == (2, 6)
        await put(other, 0, b"three")
        await until(lambda: reader.resolver.counts.entries == 0, seconds=1.0)
        assert await text_at(reader, at("~~1")) == b"two"
        assert reader.resolver.counts.invalidated == 2


def test_a_temporal_answer_of_a_holder_is_cached_until_the_key_changes() -> None:
    over_seeds(held_and_temporal)


async def alone(seed: int) -> None:
    async with swarm_of(seed, 1, backend="mock") as swarm:
        node = swarm["n1"].running
        await put(node, 0, b"one")
        for _ in range(3):
            assert await text_at(node, at("*~")) == b"one"
            with pytest.raises(OutOfRange):
                await read(node, at("*~2"))
            assert await content(node) == b"one"
        assert (node.resolver.counts.misses, node.resolver.counts.hits) == (2, 4), "a head is here anyway"
        await put(node, 0, b"two")
        assert await text_at(node, at("*~2")) == b"two"
        await trio.sleep(299.0)
        assert await text_at(node, at("*~2")) == b"two"
        await trio.sleep(2.0)
        hits = node.resolver.counts.hits
        assert await text_at(node, at("*~2")) == b"two"
        assert node.resolver.counts.hits == hits, "after five minutes it is looked up again"


def test_the_mock_backend_caches_answers_that_take_several_store_reads() -> None:
    over_seeds(alone)


# -- invalidation -----------------------------------------------------------------------------------------------------


async def local_writes(seed: int) -> None:
    """A writer reads its own write, whatever is cached or being looked up."""
    rng = random.Random(seed)
    async with swarm_of(seed, 4, **FEW) as swarm:
        number, node = foreign(swarm), swarm["n1"].running
        await put(writer_of(swarm, number), number, b"start")
        is_over = False

        async def read_on() -> None:
            while not is_over:
                await content(node, number)
                await text_at(node, at("~~0", number))
                await trio.sleep(rng.random() * 0.004)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(read_on)
            for turn in range(100):
                text = b"%d" % turn
                await put(node, number, text)
                assert await content(node, number) == text
                assert await text_at(node, at("~~0", number)) == text
                await trio.sleep(rng.random() * 0.01)
            is_over = True
        counts = node.resolver.counts
        assert counts.invalidated
        assert counts.hits or counts.coalesced


def test_a_writer_reads_its_own_write_whatever_was_cached() -> None:
    over_seeds(local_writes)


async def by_a_peer(seed: int) -> None:
    """A peer's write drops the cached answers as soon as it is merged."""
    async with swarm_of(seed, 3) as swarm:
        reader, peer = swarm["n1"].running, swarm["n2"].running
        await put(peer, 0, b"one")
        await hints_delivered(swarm)
        for turn in range(2, 12):
            with pytest.raises(OutOfRange):
                await read(reader, at(f"*~{turn}"))
            assert await text_at(reader, at("~~0")) != b"%d" % turn
            await put(peer, 0, b"%d" % turn)
            expected = [b"%d" % turn]
            while await heads_at(reader) != expected:  # by small steps: the read comes right after the merge
                await trio.sleep(0.0001)
            assert await text_at(reader, at("~~0")) == b"%d" % turn
            assert await text_at(reader, at(f"*~{turn}")) == b"%d" % turn
        assert reader.resolver.counts.invalidated >= 20


def test_a_peers_write_drops_the_cached_answer_as_soon_as_it_is_merged() -> None:
    over_seeds(by_a_peer)


async def while_looking(seed: int) -> None:
    """A look-up under way when its key changed is not cached."""
    async with swarm_of(seed, 4, **FEW) as swarm:
        number, node = foreign(swarm), swarm["n1"].running
        await put(writer_of(swarm, number), number, b"old")
        await hints_delivered(swarm)
        make_slow(swarm)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(text_at, node, at("~~0", number))
            await until(lambda: node.resolver.counts.misses == 1)
            await node.store.merge([Incoming(envelope(number, b"new", at_ms=1), Origin.PEER)], now_ms=node.now_ms())
            assert await text_at(node, at("~~0", number)) == b"new", "it does not join the look-up"
        assert await text_at(node, at("~~0", number)) == b"new"
        assert await content(node, number) == b"new"


def test_a_look_up_under_way_when_its_key_changed_is_not_cached() -> None:
    over_seeds(while_looking)


async def tombstones(seed: int) -> None:
    async with swarm_of(seed, 4, **FEW) as swarm:
        number, reader = foreign(swarm), swarm["n1"].running
        await put(writer_of(swarm, number), number, b"one")
        await put(writer_of(swarm, number), number, b"", deleted=True)
        await hints_delivered(swarm)
        for _ in range(3):
            with pytest.raises(Deleted) as raised:
                await content(reader, number)
            assert raised.value.details["deleted"]
            assert await text_at(reader, at("*~", number)) == b"one"
        assert reader.resolver.counts.hits >= 2
        await put(reader, number, b"again")
        assert await content(reader, number) == b"again"


def test_a_cached_tombstone_is_still_a_tombstone() -> None:
    over_seeds(tombstones)


# -- absence ----------------------------------------------------------------------------------------------------------


async def nothing(seed: int) -> None:
    async with swarm_of(seed, 4, **FEW) as swarm:
        number, reader = foreign(swarm), swarm["n1"].running
        for seconds, is_asked in ((0.0, True), (0.4, False), (0.4, False), (0.4, True)):
            await trio.sleep(seconds)
            with asked(swarm, names="heads") as reads, pytest.raises(NotFound) as raised:
                await content(reader, number)
            assert bool(reads) is is_asked
            assert ("age_ms" in raised.value.details) is not is_asked, "a cached absence gives its age"
        await put(reader, number, b"here")
        assert await content(reader, number) == b"here"
        other = foreign(swarm) + 1000
        with pytest.raises(NotFound):
            await content(reader, other)
        await put(writer_of(swarm, other), other, b"there")
        await hints_delivered(swarm)
        await trio.sleep(1.0)
        assert await content(reader, other) == b"there"


def test_absence_is_cached_for_a_second_and_not_over_a_write() -> None:
    over_seeds(nothing)


# -- answers that are not cached --------------------------------------------------------------------------------------


async def the_swarm_is_asked(seed: int) -> None:
    async with swarm_of(seed, 4, **FEW) as swarm:
        number, reader = foreign(swarm), swarm["n1"].running
        await put(writer_of(swarm, number), number, b"one")
        await hints_delivered(swarm)
        await content(reader, number)
        before = reader.resolver.counts
        for _ in range(3):
            with asked(swarm) as reads:
                provenance = (await read(reader, thing(number), consistency=Consistency.SWARM)).provenance
                assert (provenance.source, provenance.age_ms) == ("swarm", 0.0)
                await read(reader, at("~~0", number), consistency=Consistency.SWARM)
            assert len(reads) >= 2
        assert reader.resolver.counts == before
        await change(reader, backend="real")
        for _ in range(3):
            with asked(swarm) as reads:
                assert (await read(reader, thing(number))).provenance.source == "swarm"
            assert reads, "the real backend asks"


def test_consistency_swarm_and_the_real_backend_always_ask() -> None:
    over_seeds(the_swarm_is_asked)


async def degraded(seed: int) -> None:
    async with swarm_of(seed, 4, **FEW) as swarm:
        number, reader = foreign(swarm), swarm["n1"].running
        await put(writer_of(swarm, number), number, b"one")
        await hints_delivered(swarm)
        assert await content(reader, number) == b"one"
        await trio.sleep(6.0)
        others = [machine.peer for machine in swarm.nodes.values() if machine.name != "n1"]
        for peer in others:
            swarm.net.freeze(peer)
        for address in (thing(number), at("~~0", number)):
            answer = await read(reader, address)
            assert answer.provenance.is_degraded
            assert answer.provenance.reason
        assert not reader.resolver.counts.entries
        for peer in others:
            swarm.net.thaw(peer)
        await met(swarm)
        await until(lambda: reader.breaker is not None and reader.breaker.is_closed)
        for address in (thing(number), at("~~0", number)):
            assert not (await read(reader, address)).provenance.is_degraded


def test_a_degraded_answer_is_not_cached() -> None:
    over_seeds(degraded)


# -- flags that change ------------------------------------------------------------------------------------------------


async def of_another_backend(seed: int) -> None:
    """Hybrid must not use an answer that mock cached: mock answers from this machine alone."""
    async with swarm_of(seed, 4, **FEW) as swarm:
        number, reader = foreign(swarm), swarm["n1"].running
        await put(reader, number, b"one")
        await hints_delivered(swarm)
        await change(reader, backend="mock")
        for _ in range(2):
            assert await text_at(reader, at("~~0", number)) == b"one"
        assert reader.resolver.counts.hits == 1
        await put(writer_of(swarm, number), number, b"two")
        await hints_delivered(swarm)
        assert await text_at(reader, at("~~0", number)) == b"one", "mock does not ask"
        await change(reader, backend="hybrid")
        assert await text_at(reader, at("~~0", number)) == b"two"
        assert await content(reader, number) == b"two"
        await change(reader, backend="mock")
        assert await text_at(reader, at("~~0", number)) == b"two"


def test_an_answer_of_one_backend_is_not_given_for_another() -> None:
    over_seeds(of_another_backend)


CHANGES: tuple[dict[str, object], ...] = (
    {"backend": "mock"}, {"backend": "hybrid"}, {"backend": "real"}, {"backend": "hybrid"},
    {"rollout_percent": 50}, {"rollout_percent": 100}, {"cache_enabled": False}, {"cache_enabled": True},
    {"cache_ttl": "3ms"}, {"cache_ttl": "5m"}, {"use_distributed_resolver": True}, {"use_distributed_resolver": False},
    {"read_freshness_ms": 0}, {"read_freshness_ms": 5_000}, {"override": "mock", "expires_in": "40ms"},
)  # fmt: skip


async def flipped(seed: int) -> None:
    """No reader of one node sees an address go back in time, and a writer sees its writes, while flags change."""
    rng = random.Random(seed)
    async with swarm_of(seed, 5, **FEW) as swarm:
        node = swarm["n1"].running
        things = range(6)
        is_over = False
        for number in things:
            await put(node, number, b"start")
        await hints_delivered(swarm)

        async def reader(number: int) -> None:
            draw = random.Random(f"{seed}/{number}")
            seen = (0, "", b"")
            while not is_over:
                address = draw.choice((thing(number), at("~~0", number)))
                try:
                    head = (await read(node, address)).heads[0]
                except BzzzError:
                    continue
                finally:
                    await trio.sleep(draw.random() * 0.003)
                now = (head.version, head.author, head.digest)
                assert now >= seen, f"{address} went back in time"
                seen = now

        async def writer(name: str) -> None:
            draw = random.Random(f"{seed}/{name}")
            while not is_over:
                number = draw.choice(things)
                try:
                    receipt = await put(swarm[name].running, number, b"%s %d" % (name.encode(), draw.randrange(10**6)))
                    if name == "n1":
                        head = (await read(node, thing(number))).heads[0]
                        assert head.version >= receipt.version, "a writer sees its own write"
                except BzzzError:
                    pass
                await trio.sleep(draw.random() * 0.02)

        async with trio.open_nursery() as nursery:
            for number in things:
                nursery.start_soon(reader, number)
            for name in ("n1", "n2", "n4"):
                nursery.start_soon(writer, name)
            for _ in range(120):
                await change(node, **rng.choice(CHANGES))
                await trio.sleep(rng.random() * 0.02)
            is_over = True
        counts = node.resolver.counts
        assert counts.hits
        assert counts.invalidated


def test_no_key_goes_back_in_time_while_flags_and_values_change() -> None:
    over_seeds(flipped, range(4))


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
