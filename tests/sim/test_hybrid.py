"""Hybrid under faults: no call waits for the swarm past its deadline, and no reader sees time go back."""

import contextlib
import random

import pytest
import trio

from netsim.virtual.links import Link
from node.dht.base import Backend, Consistency
from protocols.envelope import Envelope, order_key
from protocols.errors import ClockAhead, Indeterminate, NotFound, StorageFull, Unavailable
from protocols.policy.breaker import BreakerState
from protocols.ucxl import parse
from tests.sim.swarms import (
    READING,
    WRITING,
    Call,
    breaker_state,
    counted,
    get,
    heads_at,
    hints_delivered,
    key,
    met,
    names,
    over_seeds,
    put,
    running,
    swarm_of,
    thing,
    within,
    wrap_calls,
)
from tests.until import until

DEADLINE = 0.1


# -- deadlines --------------------------------------------------------------------------------------------------------


async def peers_freeze_during_calls(seed: int) -> None:
    """All peers freeze at some moment while calls of every kind are under way, and thaw after a while."""
    rng = random.Random(seed)
    async with swarm_of(seed, 5, replication=rng.choice((2, 3, 20))) as swarm:
        node = swarm["n1"].running
        for number in range(10):
            await put(swarm[f"n{number % 5 + 1}"].running, number)
        await hints_delivered(swarm)
        is_over = False

        async def caller(number: int) -> None:
            draw = random.Random(f"{seed}/{number}")
            while not is_over:
                which = draw.randrange(12)
                with within(DEADLINE):
                    try:
                        match draw.randrange(8):
                            case 0 | 1:
                                await put(node, which, b"%d" % number)
                            case 2:
                                await get(node, which)
                            case 3:
                                await get(node, which, Consistency.SWARM)
                            case 4:
                                await node.resolver.resolve(parse(str(thing(which)).replace("*^", "*~")))
                            case 5:
                                await node.resolver.history(thing(which), consistency=Consistency.SWARM)
                            case 6:
                                await put(node, which, any_match=True)
                            case 7:
                                await put(node, which, parents=(bytes([which]) * 32, bytes([which + 1]) * 32))
                    except (Unavailable, NotFound):
                        pass
                    except Exception as error:
                        if type(error).__name__ not in ("Conflict", "UnknownParents"):
                            raise
                await trio.sleep(draw.random() * 0.2)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(caller, number)
            await trio.sleep(0.5 + rng.random() * 0.1)
            for machine in list(swarm.nodes.values())[1:]:
                swarm.net.freeze(machine.peer)
                await trio.sleep(rng.random() * 0.01)
            await trio.sleep(rng.choice((1.0, 4.0, 8.0)))
            for machine in list(swarm.nodes.values())[1:]:
                swarm.net.thaw(machine.peer)
            await trio.sleep(2.0)
            is_over = True
        await met(swarm)
        await hints_delivered(swarm)


def test_no_call_exceeds_its_deadline_when_all_peers_freeze_during_it() -> None:
    over_seeds(peers_freeze_during_calls, range(4))


async def breaker_opens_and_closes(seed: int) -> None:
    rng = random.Random(seed)
    async with swarm_of(seed, 4) as swarm:
        node = swarm["n1"].running
        assert (await put(node)).is_replicated
        others = [m for m in swarm.nodes.values() if m.name != "n1"]
        for machine in others:
            swarm.net.freeze(machine.peer)
        for number in range(3):
            assert breaker_state(node) is BreakerState.CLOSED
            with within(DEADLINE):
                assert not (await put(node, number)).is_replicated
        assert breaker_state(node) is BreakerState.OPEN
        for number in range(20):
            with within(0.0):
                receipt = await put(node, number)
                assert (receipt.backend, receipt.is_replicated) == (Backend.MOCK, False)
            with within(0.0):
                assert (await get(node, number)).heads
            with within(0.0), pytest.raises(Unavailable):
                await get(node, "unknown")
            with within(0.0), pytest.raises(Unavailable):
                await get(node, number, Consistency.SWARM)
        await trio.sleep(rng.choice((0.5, 2.0, 4.5)))
        for machine in others:
            swarm.net.thaw(machine.peer)
        await until(lambda: breaker_state(node) is BreakerState.CLOSED, seconds=2.0, what="the breaker is closed")
        await hints_delivered(swarm, seconds=5.0)
        assert (await put(node, "after")).is_replicated


async def slow_store_first(seed: int) -> None:
    """This machine's store is slow once, and all peers froze a moment ago."""
    async with swarm_of(seed, 3, read_freshness_ms=0) as swarm:
        node = swarm["n1"].running
        await put(node)
        await hints_delivered(swarm)
        is_cold = True

        async def cold_once(call: Call) -> object:
            nonlocal is_cold
            if is_cold:
                is_cold = False
                await trio.sleep(0.06)
            return await call()

        wrap_calls(swarm["n1"].store, "heads", cold_once)
        for name in ("n2", "n3"):
            swarm.net.freeze(swarm[name].peer)
        with within(DEADLINE):
            answer = await get(node)
        assert not is_cold
        assert answer.heads and answer.provenance.is_degraded


def test_time_that_a_read_spends_on_this_machine_counts_to_its_deadline() -> None:
    over_seeds(slow_store_first)


def test_the_breaker_opens_after_three_and_closes_soon_after_the_swarm_is_back() -> None:
    over_seeds(breaker_opens_and_closes)


async def long_frozen(seed: int) -> None:
    rng = random.Random(seed)
    async with swarm_of(seed, 4) as swarm:
        node = swarm["n1"].running
        others = [m for m in swarm.nodes.values() if m.name != "n1"]
        for machine in others:
            swarm.net.freeze(machine.peer)
        for number in range(8):
            with within(DEADLINE):
                await put(node, number)
        await trio.sleep(20.0 + rng.random() * 40.0)
        for machine in others:
            swarm.net.thaw(machine.peer)
        back = await until(lambda: any(p.is_connected for p in node.peers()), seconds=6.0, what="a peer is back")
        assert back <= 6.0
        await until(lambda: breaker_state(node) is BreakerState.CLOSED, seconds=2.0, what="the breaker is closed")
        await hints_delivered(swarm, seconds=10.0)


def test_a_node_rejoins_a_swarm_that_was_gone_for_long() -> None:
    over_seeds(long_frozen)


# -- partitions -------------------------------------------------------------------------------------------------------


async def siblings(seed: int) -> None:
    """Both sides of a partition write the same addresses; afterwards every node has both, until the next write."""
    rng = random.Random(seed)
    async with swarm_of(seed, 5) as swarm:
        left = rng.sample(names(5), rng.randrange(1, 5))
        right = [name for name in names(5) if name not in left]
        for number in range(5):
            await put(swarm["n1"].running, number, b"before")
        await hints_delivered(swarm)
        swarm.net.partition(swarm.peers(*left), swarm.peers(*right))
        await trio.sleep(rng.random() * 10)
        for number in range(5):
            await put(swarm[rng.choice(left)].running, number, b"left")
            await put(swarm[rng.choice(right)].running, number, b"right")
        await trio.sleep(rng.random() * 10)
        swarm.net.heal()
        await met(swarm)
        await hints_delivered(swarm)
        for number in range(5):
            for machine in swarm.nodes.values():
                answer = await get(machine.running, number)
                assert answer.provenance.siblings == 1
                assert sorted(h.content for h in answer.heads if isinstance(h, Envelope)) == [b"left", b"right"]
            receipt = await put(swarm[rng.choice(names(5))].running, number, b"both")
            assert len(receipt.parents) == 2
            await hints_delivered(swarm)
            for machine in swarm.nodes.values():
                assert await heads_at(machine.running, number) == [b"both"]
                assert (await machine.running.resolver.history(thing(number))).total == 4


def test_siblings_of_a_partition_both_stay_until_the_next_write_unites_them() -> None:
    over_seeds(siblings)


async def monotone(seed: int) -> None:
    """A reader of one node sees each address go forward only, whatever is cut, frozen or crashed meanwhile."""
    rng = random.Random(seed)
    async with swarm_of(seed, 4, replication=rng.choice((1, 2, 20))) as swarm:
        seen: dict[tuple[str, int], tuple[int, str, bytes]] = {}
        is_over = False

        async def write(name: str) -> None:
            while not is_over:
                await put(swarm[name].running, rng.randrange(4), rng.randbytes(8))
                await trio.sleep(rng.random() * 0.3)

        async def read(name: str) -> None:
            while not is_over:
                number = rng.randrange(4)
                consistency = rng.choice((Consistency.AUTO, Consistency.AUTO, Consistency.SWARM, Consistency.LOCAL))
                before = seen.get((name, number))
                if swarm[name].node is not None:
                    try:
                        with within(DEADLINE):
                            answer = await get(swarm[name].running, number, consistency)
                    except (Unavailable, AssertionError) as error:
                        if isinstance(error, AssertionError) and swarm[name].node is not None:
                            raise
                    else:
                        if answer.heads:
                            now = order_key(answer.heads[0])
                            assert before is None or now >= before, f"{name} went back in time at {number}"
                            seen[name, number] = max(now, seen.get((name, number), now))
                        else:
                            assert before is None, f"{name} forgot that there is a {number}"
                await trio.sleep(rng.random() * 0.1)

        async with trio.open_nursery() as nursery:
            for name in ("n1", "n2"):
                nursery.start_soon(write, name)
            for name in names(4):
                nursery.start_soon(read, name)
            for _ in range(5):
                await trio.sleep(rng.random() * 2)
                victim = rng.choice(names(4))
                match rng.randrange(4):
                    case 0:
                        swarm.net.partition(swarm.peers(victim))
                    case 1:
                        swarm.net.freeze(swarm[victim].peer)
                    case 2:
                        swarm.net.cut(swarm[victim].peer, swarm[rng.choice([n for n in names(4) if n != victim])].peer)
                    case 3:
                        swarm.net.set_link(Link(latency_seconds=0.03, jitter_seconds=0.08))
                await trio.sleep(rng.random() * 4)
                swarm.net.heal()
                swarm.net.thaw(swarm[victim].peer)
                swarm.net.set_link(Link())
            is_over = True
        await met(swarm)
        await hints_delivered(swarm)
        for number in range(4):
            heads = {tuple(sorted(h.digest for h in (await get(node, number)).heads)) for node in running(swarm)}
            assert len(heads) == 1, "the nodes ended up different"


def test_a_reader_of_one_node_never_sees_a_key_go_back_in_time() -> None:
    over_seeds(monotone, range(4))


async def steps_while_open(seed: int) -> None:
    """While the breaker is open, for whatever reason, nothing spins."""
    async with swarm_of(seed, 3) as swarm:
        node = swarm["n1"].running
        # Frames of the peers arrive here, and none from here: each frame is a sign of life, and no ping is answered.
        for name in ("n2", "n3"):
            swarm.net.cut(swarm["n1"].peer, swarm[name].peer)
        for number in range(5):
            with within(DEADLINE):
                await put(node, number)
        with counted(at_most=15_000):
            await trio.sleep(60.0)
        swarm.net.heal()
        await met(swarm)
        await hints_delivered(swarm)
        assert breaker_state(node) is BreakerState.CLOSED


def test_a_cut_in_one_direction_makes_nothing_spin() -> None:
    over_seeds(steps_while_open)


# -- without fallback -------------------------------------------------------------------------------------------------


async def no_fallback(seed: int) -> None:
    """Errors in place of pending and degraded: `Unavailable` only when nothing was written, and in time."""
    rng = random.Random(seed)
    async with swarm_of(seed, 3, fallback_on_error=False) as swarm:
        node = swarm["n1"].running
        await put(node, 0, b"kept")
        for name in ("n2", "n3"):
            swarm.net.freeze(swarm[name].peer)
        written: list[str] = []
        for number in range(12):
            with within(DEADLINE):
                try:
                    await put(node, number, b"new", idempotency_key=str(number))
                except Indeterminate as error:
                    written.append(error.details["digest"])
                except Unavailable as error:
                    assert "nothing was written" in error.message
                else:
                    pytest.fail("no peer can have acknowledged it")
            with within(DEADLINE), pytest.raises(Unavailable):
                await get(node, "nothing")
        assert written
        assert node.store.last_sequence == len(written) + 1
        await trio.sleep(rng.random() * 10)
        for name in ("n2", "n3"):
            swarm.net.thaw(swarm[name].peer)
        await met(swarm)
        await until(lambda: breaker_state(node) is BreakerState.CLOSED)
        await hints_delivered(swarm)
        for number in range(12):
            assert (await put(node, number, b"new", idempotency_key=str(number))).is_replicated
        await hints_delivered(swarm)
        for each in running(swarm):
            assert {change.digest.hex() for change in await each.store.log(after=0)} >= set(written)
            assert await each.store.count_versions(key(1)) == 1


def test_without_fallback_errors_say_truly_what_was_written() -> None:
    over_seeds(no_fallback)


# -- a disk that fails at anything ------------------------------------------------------------------------------------


async def bad_sectors(seed: int) -> None:
    """Any call of the store may fail, reading or writing: calls fail with it, and no node ends; afterwards every
    acknowledged write is there."""
    rng = random.Random(seed)
    backend = ("hybrid", "hybrid", "real")[seed % 3]
    settings = {"backend": backend, "replication": rng.choice((2, 20)), "forget_after_hours": 20 / 3600}
    async with swarm_of(seed, 4, **settings) as swarm:
        is_bad = True

        async def fail_sometimes(call: Call) -> object:
            if is_bad and rng.random() < 0.1:
                raise Unavailable("the disk failed")
            return await call()

        for machine in swarm.nodes.values():
            wrap_calls(machine.store, f"{READING} {WRITING}", fail_sometimes)
        acknowledged: list[tuple[int, bytes]] = []
        for number in range(150):
            node = swarm[rng.choice(names(4))].node or swarm["n1"].running
            with contextlib.suppress(Unavailable, StorageFull, Indeterminate, NotFound, ClockAhead):
                match rng.randrange(5):
                    case 0:
                        await get(node, number % 5, rng.choice((Consistency.AUTO, Consistency.SWARM)))
                    case 1:
                        await node.resolver.history(thing(number % 5))
                    case _:
                        acknowledged.append((number % 5, (await put(node, number % 5)).digest))
            await trio.sleep(rng.random() * 0.2)
            if number % 25 == 10:
                swarm.net.partition(swarm.peers(rng.choice(names(4))))
                if rng.random() < 0.5:
                    swarm["n1"].clock.jump(365 * 24 * 3600 * 1000)
            if number % 25 == 20:
                swarm.net.heal()
                swarm["n1"].clock.offset_ms = 0
            if number in (50, 75):
                await swarm["n4"].crash()
            if number in (70, 110):
                await swarm.start("n4")
        assert acknowledged
        is_bad = False
        swarm.net.heal()
        swarm["n1"].clock.offset_ms = 0
        await met(swarm)
        await trio.sleep(12.0)
        await hints_delivered(swarm)
        for number, digest in acknowledged:
            writers = [node for node in running(swarm) if await node.store.standing(digest=digest)]
            assert writers, "an acknowledged write is gone"
            now = (await writers[0].receipts.find(digest=digest)).digest
            for node in running(swarm):
                answer = await node.dht.get_version(key(number), now)
                assert [head.digest for head in answer.heads] == [now]
        for number in range(5 if backend == "hybrid" else 0):  # in real, some nodes may have uncertain writes
            heads = {tuple(sorted(h.digest for h in (await get(node, number)).heads)) for node in running(swarm)}
            assert len(heads) == 1


def test_failing_store_calls_end_no_node_and_lose_nothing() -> None:
    over_seeds(bad_sectors)
