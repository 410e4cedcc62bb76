"""The announce finder: when it announces, what it takes from others, and what it drops, counts and blames."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from discovery import announce
from discovery.announce import HEARTBEAT_SECONDS, AnnounceFinder
from protocols.announce import decode, seal
from protocols.capabilities import Capability, Label, Role
from protocols.keys import PrivateKey
from protocols.policy.announcements import BURST
from protocols.policy.sighting import Source
from tests.unit.announcing import OWN, START_MS, FakeNode, FakeSwarm, now_ms
from tests.unit.sightings import Seen
from tests.until import until

FORWARDER = "12D3KooWforwarder"
BOB, EVE = (PrivateKey.from_seed(bytes([number]) * 32) for number in (2, 3))


class Rig:
    def __init__(self) -> None:
        self.swarm = FakeSwarm()
        self.node = FakeNode()
        self.capabilities: tuple[Capability, ...] = ()
        self.is_on = True
        self.seen = Seen()
        self.finder = AnnounceFinder(
            OWN,
            self.node,
            self.swarm,
            capabilities=lambda: self.capabilities,
            now_ms=now_ms,
            chance=lambda: 0.5,
            is_on=lambda: self.is_on,
        )

    @property
    def offered(self) -> dict[str, tuple[Capability, ...]]:
        return {each.name: each.capabilities for each in self.finder.announcements()}


@asynccontextmanager
async def running() -> AsyncIterator[Rig]:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.finder.run, rig.seen)
        await until(lambda: rig.swarm.published)
        yield rig
        nursery.cancel_scope.cancel()


def of(key: PrivateKey = BOB, **changes: Any) -> bytes:
    """An announcement of another node, encoded."""
    facts: dict[str, Any] = {
        "network": "bzzz", "name": "bob", "addresses": [f"/ip4/192.0.2.2/tcp/4001/p2p/{key.peer_id}"],
        "capabilities": [Role("critic")], "sequence": 1, "expires_ms": now_ms() + 100_000,
    }  # fmt: skip
    return seal(key, **{**facts, **changes}).encoded


# -- announcing -------------------------------------------------------------------------------------------------------


async def test_a_node_announces_at_start_on_change_and_as_a_heartbeat(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        rig.capabilities = (Role("planner"),)
        rig.finder.changed()
        await until(lambda: len(rig.swarm.published) == 2)
        assert trio.current_time() < 0.1
        assert rig.swarm.published[1].capabilities == (Role("planner"),)
        await trio.sleep(2.01 * HEARTBEAT_SECONDS)
        assert len(rig.swarm.published) == 4
        sequences = [each.sequence for each in rig.swarm.published]
        assert sequences == sorted(set(sequences))
        assert all(each.expires_ms > now_ms() for each in rig.swarm.published[2:])


async def test_new_addresses_are_announced_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        there = f"/ip4/192.0.2.9/tcp/4001/p2p/{OWN.peer_id}"
        await trio.testing.wait_all_tasks_blocked()
        rig.node.move(there)
        await until(lambda: rig.swarm.published[-1].addresses == (there,), seconds=1)


async def test_many_changes_are_announced_together(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        for number in range(100):
            rig.capabilities = (Label("n", str(number)),)
            rig.finder.changed()
            await trio.sleep(0.01)
        await until(lambda: rig.swarm.published[-1].capabilities == (Label("n", "99"),))
        assert len(rig.swarm.published) <= BURST


async def test_a_node_announces_again_once_it_has_met_its_first_peer(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        for key in (BOB, EVE):
            rig.finder.met(key.peer_id, of(key), clock_ms=now_ms())
        await until(lambda: len(rig.swarm.published) == 2)
        assert trio.current_time() < 0.1
        assert rig.swarm.published[0] == rig.swarm.published[1], "it is the same announcement"
        assert rig.finder.own() == rig.swarm.published[1].encoded


async def test_a_farewell_is_announced(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        await rig.finder.leave()
        assert len(rig.swarm.published) == 1, "nobody is there to be told"
        rig.finder.met(BOB.peer_id, b"", clock_ms=now_ms())
        await rig.finder.leave()
        assert rig.swarm.published[-1].is_farewell
        assert rig.swarm.published[-1].sequence > rig.swarm.published[0].sequence


async def test_a_larger_swarm_has_a_slower_heartbeat(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        keys = [PrivateKey.from_seed(number.to_bytes(32)) for number in range(1, 101)]
        for key in keys:
            rig.finder.met(key.peer_id, of(key, expires_ms=now_ms() + 5 * 10**7), clock_ms=now_ms())
        await trio.sleep(11_900.0)
        assert len(rig.swarm.published) == 2
        await trio.sleep(200.0)
        assert len(rig.swarm.published) == 3
        assert rig.swarm.published[-1].expires_ms - now_ms() == pytest.approx(36_000_000, rel=0.02)


async def test_what_could_not_be_announced_is_announced_soon(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        rig.swarm.is_down = True
        rig.capabilities = (Role("planner"),)
        rig.finder.changed()
        await until(lambda: rig.finder.health().errors == 2, seconds=10)
        rig.swarm.is_down = False
        await until(lambda: rig.swarm.published[-1].capabilities == (Role("planner"),), seconds=10)


async def test_an_earlier_process_whose_clock_was_ahead_is_outdone(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        rig.finder.met(BOB.peer_id, of(), clock_ms=now_ms())
        later = START_MS + 10**9
        await rig.finder.learned(BOB.peer_id, [of(OWN, sequence=later)])
        await until(lambda: rig.swarm.published[-1].sequence > later)
        assert rig.swarm.refused == []


async def test_a_finder_that_is_off_neither_announces_nor_listens(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        rig.is_on = False
        assert rig.finder.own() == b""
        assert rig.swarm.received is not None
        assert rig.swarm.received(BOB.peer_id, of(), FORWARDER) is None
        rig.finder.met(EVE.peer_id, of(EVE), clock_ms=now_ms())
        await rig.finder.learned(BOB.peer_id, [of()])
        assert rig.offered == {}
        assert rig.finder.known() == ()


# -- listening --------------------------------------------------------------------------------------------------------


async def test_what_comes_by_the_topic_is_kept_passed_on_and_sighted(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        data = of()
        assert rig.finder.received(BOB.peer_id, data, FORWARDER) is True
        assert rig.finder.received(BOB.peer_id, data, FORWARDER) is None, "a second time it goes no further"
        assert rig.offered == {"bob": (Role("critic"),)}
        (sighting,) = rig.seen.sightings
        assert (sighting.peer, sighting.source, sighting.is_hearsay) == (BOB.peer_id, Source.ANNOUNCE, True)
        assert rig.finder.known() == (data,)
        assert rig.swarm.refused == []


async def test_what_a_hello_brought_is_passed_on_when_the_topic_brings_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as rig:
        data = of()
        rig.finder.met(BOB.peer_id, data, clock_ms=now_ms())
        assert rig.offered == {"bob": (Role("critic"),)}
        assert rig.finder.received(BOB.peer_id, data, FORWARDER) is True


async def test_a_peer_that_is_told_of_in_an_exchange_is_kept_and_sighted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as rig:
        await rig.finder.learned(BOB.peer_id, [of(EVE, name="eve")])
        assert set(rig.offered) == {"eve"}
        assert [sighting.peer for sighting in rig.seen.sightings] == [EVE.peer_id]


async def test_what_was_known_before_it_ran_is_sighted_when_it_runs(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig()
    rig.finder.met(BOB.peer_id, of(), clock_ms=now_ms())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.finder.run, rig.seen)
        await until(lambda: rig.seen.sightings)
        nursery.cancel_scope.cancel()


async def test_a_farewell_ends_what_a_node_offers_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        before = of()
        rig.finder.received(BOB.peer_id, before, FORWARDER)
        assert rig.finder.received(BOB.peer_id, of(sequence=2, expires_ms=0), FORWARDER) is True
        assert rig.offered == {}
        assert rig.seen.left == [(BOB.peer_id, Source.ANNOUNCE)]
        assert rig.finder.received(BOB.peer_id, before, FORWARDER) is None
        assert rig.offered == {}


async def test_what_is_not_renewed_is_gone_when_it_expires(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        rig.finder.received(BOB.peer_id, of(), FORWARDER)
        await trio.sleep(99.0)
        assert rig.offered
        await trio.sleep(1.0)
        assert not rig.offered


async def test_a_clock_that_is_off_and_known_to_be_off_is_no_obstacle(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        hour = 3_600_000
        late = of(expires_ms=now_ms() - hour + 100_000)
        assert rig.finder.received(BOB.peer_id, late, FORWARDER) is None
        assert rig.swarm.refused == [("announcements_late", "")], "nobody is blamed for a clock"
        rig.swarm.offsets[BOB.peer_id] = -float(hour)
        assert rig.finder.received(BOB.peer_id, late, FORWARDER) is True
        rig.finder.met(EVE.peer_id, of(EVE, name="eve", expires_ms=now_ms() + hour + 100_000), clock_ms=now_ms() + hour)
        await trio.sleep(99.0)
        assert set(rig.offered) == {"bob", "eve"}
        await trio.sleep(1.0)
        assert not rig.offered


# -- bad input --------------------------------------------------------------------------------------------------------


async def test_what_no_honest_node_announces_is_refused_counted_and_blamed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    forged = decode(of(sequence=5))
    bad = [
        b"\xc1",
        of(EVE),
        of(network="other"),
        bytes(announce.EXCHANGE_BYTES_MAX),
        forged.encoded[:-1] + bytes([forged.encoded[-1] ^ 1]),
    ]
    async with running() as rig:
        for data in bad:
            assert rig.finder.received(BOB.peer_id, data, FORWARDER) is False
            rig.finder.met(BOB.peer_id, data, clock_ms=now_ms())
        assert rig.swarm.refused == [("announcements_forged", BOB.peer_id)] * (2 * len(bad))
        assert rig.offered == {}
        assert rig.seen.sightings == []


async def test_a_source_that_floods_is_stopped(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        answers = [rig.finder.received(BOB.peer_id, of(sequence=number), FORWARDER) for number in range(1, 101)]
        assert answers.count(True) <= BURST + 1
        assert answers[-1] is False
        assert rig.swarm.refused[-1] == ("announcements_flooded", "")
        assert rig.finder.received(EVE.peer_id, of(EVE), FORWARDER) is True


async def test_a_peer_that_is_not_allowed_here_is_not_heard(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        rig.swarm.denied.add(EVE.peer_id)
        assert rig.finder.received(EVE.peer_id, of(EVE), FORWARDER) is None
        await rig.finder.learned(BOB.peer_id, [of(EVE)])
        assert rig.offered == {}
        assert rig.seen.sightings == []


async def test_an_exchange_with_lies_costs_its_source_and_brings_the_rest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as rig:
        await rig.finder.learned(BOB.peer_id, [b"", of(EVE, name="eve"), of(network="other")])
        assert set(rig.offered) == {"eve"}
        assert rig.swarm.refused == [("announcements_forged", BOB.peer_id)] * 2
