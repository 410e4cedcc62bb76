"""Health of whole nodes: certain facts count at once, observations after several in a row, and recoveries soon."""

import pytest
import trio

from netsim.virtual.nodes import VirtualSwarm
from node.config.changes import read_change
from node.config.settings import Settings
from node.dht.base import Consistency
from node.node import Node
from node.services.observe.health_report import ComponentHealth
from protocols.errors import Indeterminate, StorageFull, Unavailable
from protocols.policy.breaker import BreakerState
from tests.sim.swarms import Disk, get, hints_delivered, over_seeds, put, running, swarm_of
from tests.until import until

NEVER_MS = 3_600_000
"""The longest interval: what happens within seconds did not wait for it."""


def component(node: Node, name: str) -> ComponentHealth:
    (found,) = [component for component in node.health().components if component.component == name]
    return found


def status(node: Node) -> str:
    return node.health().status


async def healthy(swarm: VirtualSwarm, *, seconds: float = 10.0) -> None:
    def all_healthy() -> bool:
        return all(status(node) == "healthy" for node in running(swarm))

    await until(all_healthy, seconds=seconds, what="every node is healthy")


async def a_frozen_peer(seed: int) -> None:
    async with swarm_of(seed, 4, health_check_interval_ms=NEVER_MS) as swarm:
        node = swarm["n1"].running
        await healthy(swarm)
        swarm.net.freeze(swarm["n3"].peer)
        await until(lambda: status(node) == "degraded", seconds=5.0)
        (reason,) = node.health().reasons
        assert reason.startswith("1 connected members do not answer: n3 (no answer to a ")
        swarm.net.thaw(swarm["n3"].peer)
        await healthy(swarm)


def test_a_frozen_peer_is_named_and_its_return_is_noticed_at_once() -> None:
    over_seeds(a_frozen_peer)


async def one_late_answer(seed: int) -> None:
    """Suspicion takes effect at once, so that no call waits; the report does not follow a single late answer."""
    async with swarm_of(seed, 2 + seed % 2, health_check_interval_ms=NEVER_MS) as swarm:
        node = swarm["n1"].running
        await healthy(swarm)
        assert node.breaker is not None
        for _ in range(20):
            # Private: the RPC reports a missed deadline to its service, and here no real one is missed.
            node.breaker._rpc._service.missed(swarm["n2"].peer, "no answer to a Heads within 85 ms")
            assert sum(peer.is_suspect for peer in node.peers()) == 1
            assert status(node) == "healthy"
            await until(lambda: not any(peer.is_suspect for peer in node.peers()), seconds=1.0)
            assert status(node) == "healthy"
            await trio.sleep(1.0)


def test_one_late_answer_does_not_degrade_health() -> None:
    over_seeds(one_late_answer)


async def the_breaker_is_a_fact(seed: int) -> None:
    async with swarm_of(seed, 3, health_check_interval_ms=NEVER_MS) as swarm:
        node = swarm["n1"].running
        breaker = node.breaker
        assert breaker is not None
        await healthy(swarm)
        for name in ("n2", "n3"):
            swarm.net.freeze(swarm[name].peer)
        number = 0
        while breaker.state is BreakerState.CLOSED:
            await put(node, number := number + 1)
        assert any("operations unanswered in" in reason and "asked n" in reason for reason in node.health().reasons)
        assert component(node, "dht").error_count == 0, "the writes are kept here, so none of them failed"
        for name in ("n2", "n3"):
            swarm.net.thaw(swarm[name].peer)
        await until(lambda: breaker.is_closed)
        assert not any("breaker" in reason for reason in node.health().reasons), "that it closed counts at once too"
        await healthy(swarm)


def test_health_follows_the_breaker_at_once() -> None:
    over_seeds(the_breaker_is_a_fact)


async def a_read_without_answer(seed: int) -> None:
    async with swarm_of(seed, 3, health_check_interval_ms=NEVER_MS) as swarm:
        node = swarm["n1"].running
        await healthy(swarm)
        for name in ("n2", "n3"):
            swarm.net.freeze(swarm[name].peer)
        before = node.dht._call_metrics.requests()  # private: what the page of metrics shows, without its text
        with pytest.raises(Unavailable):
            await get(node, "nothing")
        after = node.dht._call_metrics.requests()
        assert after == {**before, ("hybrid", "get", "unavailable"): 1}
        assert component(node, "dht").error_count == 1


def test_a_read_that_no_peer_answers_counts_once() -> None:
    over_seeds(a_read_without_answer)


async def a_full_disk_without_writes(seed: int) -> None:
    """A failed node gets no calls any more: it must find out itself that it can write again."""
    async with swarm_of(seed, 1, health_check_interval_ms=NEVER_MS, backend=("mock", "hybrid")[seed % 2]) as swarm:
        node = swarm["n1"].running
        disk = Disk.under(swarm["n1"].store)
        await put(node)
        disk.is_full = True
        with pytest.raises(StorageFull):
            await put(node)
        assert component(node, "store").status == "failed"
        await trio.sleep(60.0)
        assert component(node, "store").status == "failed"
        assert component(node, "store").error_count > 1
        disk.is_full = False
        await until(lambda: component(node, "store").status == "healthy", seconds=5.0)
        assert node.store.last_sequence == 1, "the trial write is in the log"


def test_a_disk_with_room_again_is_noticed_without_a_write() -> None:
    over_seeds(a_full_disk_without_writes, range(2))


async def a_stalled_disk(seed: int) -> None:
    async with swarm_of(seed, 1, health_check_interval_ms=NEVER_MS, backend=("mock", "hybrid")[seed % 2]) as swarm:
        node = swarm["n1"].running
        disk = Disk.under(swarm["n1"].store)
        await put(node)
        disk.stall()

        async def put_without_success() -> None:
            with pytest.raises(Indeterminate) as raised:
                await put(node)
            assert "the disk has not confirmed" in raised.value.message

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put_without_success)
            await trio.sleep(1.1)
            assert component(node, "store").status == "degraded"
            await trio.sleep(5.0)
            assert component(node, "store").status == "failed"
        disk.resume()
        await until(lambda: component(node, "store").status == "healthy", seconds=0.1)


async def a_slow_disk(seed: int) -> None:
    """One slow commit is no evidence; several in a row degrade the store, with the figure, until as many quick ones."""
    async with swarm_of(seed, 1, health_check_interval_ms=NEVER_MS) as swarm:
        node = swarm["n1"].running
        disk = Disk.under(swarm["n1"].store)
        disk.seconds = 0.31
        await put(node, 0)
        assert component(node, "store").status == "healthy"
        for number in range(3):
            await put(node, number)
        assert component(node, "store").status == "degraded"
        assert component(node, "store").reasons == ("the disk takes 310 ms",)
        disk.seconds = 0.0
        for number in range(8):
            await put(node, number)
        assert component(node, "store").status == "healthy"


def test_a_slow_disk_is_degraded_with_its_figure() -> None:
    over_seeds(a_slow_disk, range(2))


def test_a_stalled_disk_is_reported_while_it_is_stalled() -> None:
    over_seeds(a_stalled_disk, range(2))


async def probes(seed: int) -> None:
    """Every component is probed at each interval, which a flag sets, and no probe is in any log."""
    async with swarm_of(seed, 3, backend=("hybrid", "real")[seed % 2]) as swarm:
        node = swarm["n1"].running
        await put(node)
        await hints_delivered(swarm)
        await healthy(swarm)
        sequences = [each.store.last_sequence for each in running(swarm)]

        async def longest_unchecked(name: str, seconds: float) -> float:
            most = 0.0
            for _ in range(int(seconds * 2)):
                await trio.sleep(0.5)
                most = max(most, (node.now_ms() - component(node, name).last_check_ms) / 1000.0)
            return most

        for name in ("dht", "store", "resolver"):
            assert 25.0 < await longest_unchecked(name, 100.0) < 31.0
            assert component(node, name).latency_ms >= 0.0
        assert 0.0 < component(node, "dht").latency_ms < 10.0
        await node.flags.change(read_change({"health_check_interval_ms": 1_000, "reason": "a closer look"}, author="t"))
        for name in ("dht", "store", "resolver"):
            assert await longest_unchecked(name, 10.0) < 2.1
        assert [each.store.last_sequence for each in running(swarm)] == sequences
        assert component(node, "dht").error_count == 0


def test_components_are_probed_at_each_interval_and_probes_leave_no_trace() -> None:
    over_seeds(probes, range(2))


async def failing_calls(seed: int) -> None:
    """Calls that fail repeatedly are reported until calls succeed again, or until there were none for a while."""
    async with swarm_of(seed, 3, health_check_interval_ms=NEVER_MS) as swarm:
        node = swarm["n1"].running
        await healthy(swarm)
        await node.flags.change(read_change({"override": "open", "reason": "works", "expires_in": "20s"}, author="t"))
        for _ in range(3):
            assert not any("calls fail" in reason for reason in node.health().reasons)
            with pytest.raises(Unavailable):
                await get(node, "nothing", Consistency.SWARM)
        assert any(reason.startswith("calls fail, the last with: ") for reason in node.health().reasons)
        assert component(node, "dht").error_count == 3
        if seed % 2:
            for _ in range(2):
                await put(node)
        else:
            await trio.sleep(10.1)
        assert not any("calls fail" in reason for reason in node.health().reasons)


def test_calls_that_fail_repeatedly_are_reported() -> None:
    over_seeds(failing_calls, range(2))


async def alone(seed: int) -> None:
    """A node without any source of peers is alone by choice, and well. One whose bootstrap node is dead is not."""
    async with VirtualSwarm.open(seed, ("n1",), settings=Settings()) as swarm:
        node = swarm["n1"].running
        await trio.sleep(30.0)
        assert status(node) == "healthy"
        assert component(node, "discovery").reasons[0].startswith("alone by choice: ")
        assert "kept on this machine alone" in component(node, "dht").reasons[0]
        await swarm["n1"].crash()
        swarm.add("n2")
        lost = await swarm.start("n2")
        await trio.sleep(30.0)
        assert status(lost) == "degraded"
        failure, why = component(lost, "discovery").reasons
        assert failure.startswith("alone by failure: none of the 1 configured ")
        assert why.startswith("the bootstrap node /memory/")


def test_a_node_says_whether_it_is_alone_by_choice_or_by_failure() -> None:
    over_seeds(alone, range(1))


async def apart(seed: int) -> None:
    """Two members that cannot reach each other, while a third reaches both, say so. One that is gone is no fault."""
    async with swarm_of(seed, 4, health_check_interval_ms=NEVER_MS) as swarm:
        n1, n2 = swarm["n1"].running, swarm["n2"].running
        await healthy(swarm)
        swarm.net.cut(n1.peer_id, n2.peer_id)
        swarm.net.cut(n2.peer_id, n1.peer_id)
        for node, other in ((n1, "n2"), (n2, "n1")):
            says = f"connected with other members, and not with this node: {other} ("
            await until(lambda node=node, says=says: says in " ".join(node.health().reasons), seconds=60.0)
            assert status(node) == "degraded"
        assert status(swarm["n3"].running) == "healthy"
        swarm.net.heal()
        await healthy(swarm)
        await swarm["n2"].crash()
        for _ in range(60):
            await trio.sleep(1.0)
            for node in running(swarm):
                assert not any("not with this node" in reason for reason in node.health().reasons)
        assert component(n1, "dht").reasons == ("1 of the 3 members known is away: n2",)
        assert status(n1) == "healthy"


def test_members_that_others_reach_and_this_node_does_not_are_a_fault() -> None:
    over_seeds(apart)


async def never_met(seed: int) -> None:
    """Of three nodes two never meet. Each hears the other announce itself, so that the word of the third counts."""
    async with swarm_of(seed, 2, health_check_interval_ms=NEVER_MS) as swarm:
        swarm.add("n3")
        n1, n3 = swarm["n1"].peer, swarm["n3"].peer
        swarm.net.cut(n1, n3)
        swarm.net.cut(n3, n1)
        if not seed:
            await swarm["n1"].running.flags.change(read_change({"discovery_announce": False}, author="ada"))
        await swarm.start("n3")
        said = "n3 (n2 alone says so; " if seed else f"{n3[-8:]} (n2 alone says so; "
        await until(lambda: said in " ".join(swarm["n1"].running.health().reasons), seconds=60.0)
        assert status(swarm["n1"].running) == ("degraded" if seed else "healthy")
        await swarm["n3"].crash()
        await until(lambda: said not in " ".join(swarm["n1"].running.health().reasons), seconds=60.0)
        assert status(swarm["n1"].running) == "healthy"


def test_a_node_that_only_one_member_reaches_is_a_fault_when_it_has_spoken_for_itself() -> None:
    over_seeds(never_met, range(2))


async def real_without_a_swarm(seed: int) -> None:
    async with swarm_of(seed, 3, backend="real", health_check_interval_ms=NEVER_MS) as swarm:
        node = swarm["n1"].running
        await healthy(swarm)
        for name in ("n2", "n3"):
            swarm.net.freeze(swarm[name].peer)
        await until(lambda: status(node) == "failed", seconds=10.0)
        for name in ("n2", "n3"):
            swarm.net.thaw(swarm[name].peer)
        await healthy(swarm, seconds=15.0)


def test_real_fails_with_its_swarm_and_recovers_with_it() -> None:
    over_seeds(real_without_a_swarm)
