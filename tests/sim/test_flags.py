"""Flags that change during calls: no call fails, nothing is lost, and hints that are held back wait."""

import random

import pytest
import trio

from node.config.changes import read_change
from node.config.flags import share_of
from node.dht.base import Backend, Consistency, Durability
from node.node import Node
from protocols.errors import InvalidPayload, Unavailable
from protocols.policy.breaker import BreakerState
from tests.sim.swarms import (
    breaker_state,
    content,
    counted,
    get,
    heads_at,
    hints_delivered,
    key,
    over_seeds,
    put,
    swarm_of,
    within,
)
from tests.until import until

REAL_DEADLINE = 1.0


async def change(node: Node, **data: object) -> None:
    await node.flags.change(read_change(data, author="tester"))


# -- no call fails ----------------------------------------------------------------------------------------------------

CHANGES = (
    {"backend": "mock"}, {"backend": "hybrid"}, {"backend": "real"}, {"backend": "hybrid", "fallback_on_error": False},
    {"fallback_on_error": None}, {"rollout_percent": 50}, {"rollout_percent": 0}, {"rollout_percent": 100},
    {"deadline_ms": 200}, {"write_quorum": 2}, {"write_quorum": None, "read_quorum": 1}, {"threshold_errors": 1},
    {"override": "mock", "reason": "r", "expires_in": "40ms"}, {"override": "closed", "reason": "r"},
    {"override": None}, {"dht_enabled": False}, {"dht_enabled": True}, {"shadow_percent": 100},
    {"read_freshness_ms": 0}, {"read_freshness_ms": 5000},
)  # fmt: skip


async def flipped_under_calls(seed: int) -> None:
    """Flags change every few milliseconds during calls of every kind. The swarm is healthy, so no call may fail."""
    rng = random.Random(seed)
    async with swarm_of(seed, 5) as swarm:
        node = swarm["n1"].running
        written: dict[int, bytes] = {}
        calls = 0
        is_over = False
        for number in range(8):
            written[number] = b"%d" % number
            await put(node, number, written[number])
        await hints_delivered(swarm)

        async def caller(mine: int) -> None:
            nonlocal calls
            draw = random.Random(f"{seed}/{mine}")
            while not is_over:
                match draw.randrange(5):
                    case 0 | 1:
                        text = b"%d/%d" % (mine, calls)
                        with within(REAL_DEADLINE):
                            await put(node, mine, text)
                        written[mine] = text
                        assert await content(node, mine) == text, "a writer sees its own write"
                    case 2:
                        assert await content(node, mine) == written[mine], "no read goes back in time"
                    case 3:
                        with within(REAL_DEADLINE):
                            assert (await get(node, draw.randrange(8))).heads
                    case 4:
                        with within(REAL_DEADLINE):
                            assert (await node.dht.history(key(mine))).total
                calls += 1
                await trio.sleep(draw.random() * 0.01)

        async with trio.open_nursery() as nursery:
            for mine in range(8):
                nursery.start_soon(caller, mine)
            for _ in range(150):
                await change(node, **rng.choice(CHANGES))
                await trio.sleep(rng.random() * 0.01)
            is_over = True
        assert calls > 300
        assert node.dht.switches > 3
        for name, value in (("override", None), ("backend", "hybrid"), ("rollout_percent", 100), ("dht_enabled", True)):
            await change(node, **{name: value})
        await hints_delivered(swarm, seconds=20.0)
        for number, text in written.items():
            for machine in swarm.nodes.values():
                assert await heads_at(machine.running, number) == [text], f"{number} at {machine.name}"


def test_no_call_fails_or_goes_back_in_time_while_flags_change_under_it() -> None:
    over_seeds(flipped_under_calls, range(4))


async def without_fallback(seed: int) -> None:
    """Hybrid without fallback fails when it cannot reach the swarm; a switch to mock must not make it fail."""
    rng = random.Random(seed)
    async with swarm_of(seed, 3, fallback_on_error=False) as swarm:
        node = swarm["n1"].running
        for number in range(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(put, node, number % 7, b"%d" % number)
                await trio.sleep(rng.random() * 0.004)
                await change(node, backend=rng.choice(("mock", "hybrid", "real")))
        assert node.dht.switches > 3


def test_a_call_ends_in_the_backend_it_began_in() -> None:
    over_seeds(without_fallback)


# -- what is held back ------------------------------------------------------------------------------------------------


async def rolled_out(seed: int) -> None:
    """A share of the addresses is in the rollout; the hints of the others wait, and are delivered later."""
    async with swarm_of(seed, 3, rollout_percent=40) as swarm:
        machine = swarm["n1"]
        node = machine.running
        numbers = list(range(60))
        held = {number for number in numbers if share_of(key(number)) >= 40}
        assert 20 < len(held) < 50
        for number in numbers:
            receipt = await put(node, number, b"%d" % number)
            expected = Durability.LOCAL if number in held else Durability.AT_RISK
            assert receipt.durability in (expected, Durability.REPLICATED)
            assert (receipt.quorum == 0) == (number in held)
        await until(lambda: node.store.pending().count == 2 * len(held), seconds=5.0, what="the others are delivered")
        await trio.sleep(40.0)
        assert node.store.pending().count == 2 * len(held), "hints that are held back were delivered or lost"
        for number in numbers:
            assert await heads_at(swarm["n2"].running, number) == ([] if number in held else [b"%d" % number])
            assert await content(node, number) == b"%d" % number
        await machine.crash()
        node = await swarm.start("n1")
        await trio.sleep(5.0)
        assert node.store.pending().count == 2 * len(held), "the same keys after a restart"
        await change(node, rollout_percent=100)
        await hints_delivered(swarm, seconds=5.0)
        assert await heads_at(swarm["n2"].running, min(held)) == [b"%d" % min(held)]


def test_a_rollout_holds_the_same_keys_back_until_they_are_let_through() -> None:
    over_seeds(rolled_out, range(3))


async def mock_and_back(seed: int) -> None:
    async with swarm_of(seed, 3) as swarm:
        node, other = swarm["n1"].running, swarm["n2"].running
        await change(node, backend="mock")
        for number in range(20):
            assert (await put(node, number)).durability is Durability.LOCAL
        assert (await put(other, "another")).is_replicated, "the host stays, and serves others"
        await hints_delivered_by(other)
        assert await heads_at(node, "another") == [b"content"]
        await trio.sleep(35.0)
        assert node.store.pending().count == 40
        assert await heads_at(other, 1) == []
        await change(node, backend="hybrid")
        await hints_delivered(swarm, seconds=2.0)
        assert await heads_at(other, 1) == [b"content"]
        await change(node, sync_enabled=False)
        receipt = await put(node, "unsynced")
        assert receipt.durability is Durability.PENDING
        assert node.breaker is not None
        assert node.breaker.state is BreakerState.CLOSED, "no peer was asked, which is no evidence against the swarm"
        await trio.sleep(5.0)
        assert node.store.pending().count == 2
        await change(node, sync_enabled=True)
        await hints_delivered(swarm, seconds=2.0)


async def hints_delivered_by(node: Node) -> None:
    await until(lambda: not node.store.pending().count, what="its hints are delivered")


def test_a_node_switched_to_mock_serves_peers_and_keeps_its_hints() -> None:
    over_seeds(mock_and_back, range(3))


async def idle_while_held(seed: int) -> None:
    """Hints that are held back are not read all the time."""
    async with swarm_of(seed, 3) as swarm:
        node = swarm["n1"].running
        await change(node, backend="mock")
        for number in range(500):
            await put(node, number)
        await trio.sleep(2.0)
        with counted(at_most=4000):
            await trio.sleep(20.0)


def test_a_node_with_many_hints_held_back_does_not_spin() -> None:
    over_seeds(idle_while_held, range(2))


# -- overrides --------------------------------------------------------------------------------------------------------


async def forced(seed: int) -> None:
    async with swarm_of(seed, 3) as swarm:
        node = swarm["n1"].running
        breaker = node.breaker
        assert breaker is not None
        await put(node, "here")
        await change(node, override="open", reason="works on the switch", expires_in="5s")
        assert breaker_state(node) is BreakerState.OPEN
        assert node.dht.backend is Backend.HYBRID
        assert "works on the switch" in breaker.why
        with within(0.0):
            assert not (await put(node)).is_replicated
            assert (await get(node, "here")).heads
        with pytest.raises(Unavailable, match="works on the switch"):
            await get(node, "here", Consistency.SWARM)
        await change(node, backend="real")
        with within(0.0), pytest.raises(Unavailable, match="works on the switch"):
            await put(node)
        with within(0.0), pytest.raises(Unavailable, match="works on the switch"):
            await get(node, "unknown")
        await change(node, backend="hybrid")
        report = node.health()
        assert report.status == "degraded"
        assert any("tester forces open" in reason for reason in report.reasons)
        await until(lambda: breaker.state is BreakerState.CLOSED, seconds=6.0, what="it ends by itself")
        assert node.flags.current.override is None
        assert (await put(node)).is_replicated

        for machine in ("n2", "n3"):
            swarm.net.freeze(swarm[machine].peer)
        await change(node, override="closed", reason="the breaker is wrong")
        for number in range(5):
            with within(0.1):
                await put(node, number)
        assert breaker_state(node) is BreakerState.CLOSED
        await change(node, override=None)
        assert breaker_state(node) is not BreakerState.CLOSED, "it follows again what it learned meanwhile"
        acts = [line for line in await node.audit.lines() if b"breaker.changed" in line]
        assert len(acts) >= 2


def test_the_breaker_follows_an_override_and_then_what_it_learned_meanwhile() -> None:
    over_seeds(forced, range(3))


async def alone(seed: int) -> None:
    async with swarm_of(seed, 1, backend="mock") as swarm:
        node = swarm["n1"].running
        for data in ({"backend": "hybrid"}, {"backend": "real"}, {"override": "open", "reason": "x"}):
            with pytest.raises(InvalidPayload, match="started with backend mock"):
                await change(node, **data)
        await change(node, override="mock", reason="harmless")
        assert node.flags.current.backend == "mock"


def test_a_node_without_a_network_cannot_be_switched_to_the_swarm() -> None:
    over_seeds(alone, range(1))


# -- shadow reads -----------------------------------------------------------------------------------------------------


async def shadowed(seed: int) -> None:
    async with swarm_of(seed, 3) as swarm:
        node = swarm["n1"].running
        await put(node, "same")
        await put(node, "stale", b"old")
        await hints_delivered(swarm)
        await change(node, backend="mock", shadow_percent=100)
        for _ in range(10):
            await get(node, "same")
            await trio.sleep(0.05)
        dht = node.dht
        assert (dht.shadow_reads, dht.shadow_mismatches, dht.shadow_failures) == (10, 0, 0)
        swarm.net.partition(swarm.peers("n1"), swarm.peers("n2", "n3"))
        await put(swarm["n2"].running, "stale", b"new")
        await get(node, "stale")
        await until(lambda: dht.shadow_failures + dht.shadow_skipped > 0, what="a shadow read that cannot be made")
        (dht_health,) = [component for component in node.health().components if component.component == "dht"]
        assert dht_health.error_count == 0, "a shadow read counts as a failed call"
        swarm.net.heal()
        await until(lambda: sum(p.is_connected and not p.is_suspect for p in node.peers()) == 2)


def test_shadow_reads_are_compared_and_change_no_answer() -> None:
    over_seeds(shadowed, range(3))


async def stale_is_counted(seed: int) -> None:
    """n1 knows an old head only, because the writer of the new one holds it back."""
    async with swarm_of(seed, 3, replication=2) as swarm:
        node, writer = swarm["n1"].running, swarm["n2"].running
        await put(node, "x", b"old")
        await hints_delivered(swarm)
        await change(writer, sync_enabled=False)
        await put(writer, "x", b"new")
        await change(node, backend="mock", shadow_percent=50)
        answers = [await content(node, "x") for _ in range(2)]
        assert answers == [b"old", b"old"], "the answer is that of mock"
        await until(lambda: node.dht.shadow_reads == 1, what="one of two is compared")
        assert node.dht.shadow_mismatches == 1


def test_a_shadow_read_with_an_unknown_head_is_counted_as_a_mismatch() -> None:
    over_seeds(stale_is_counted, range(3))
