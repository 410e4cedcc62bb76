"""Cached answers in whole swarms: they give their age, a change drops them, and some answers are never cached."""

import random

import pytest
import trio

from node.dht.base import Consistency
from node.store.log import Incoming, Origin
from protocols.errors import BzzzError, Deleted, NotFound, OutOfRange
from tests.sim.reading import FEW, asked, at, change, foreign, make_slow, read, text_at, writer_of
from tests.sim.swarms import (
    content,
    envelope,
    heads_at,
    hints_delivered,
    met,
    over_seeds,
    put,
    swarm_of,
    thing,
)
from tests.until import until

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
