"""The rendezvous finder: when keys are provided and looked up, and what becomes of the answers."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import NamedTuple

import trio
import trio.testing

from discovery.dht import KEYS_MAX, LOOKED_UP_MAX, PEERS_FEW, SETTLE_SECONDS, RendezvousFinder
from protocols.capabilities import Capability, Role
from protocols.errors import Unavailable
from protocols.rendezvous import key_of_capability, key_of_network
from tests.unit.announcing import FakeNode
from tests.unit.sightings import Seen
from tests.until import until

PROVIDE_SECONDS = 22 * 3600.0
NETWORK = key_of_network("bzzz")
PLANNER = key_of_capability("bzzz", Role("planner"))


class Found(NamedTuple):
    peer: str
    addresses: tuple[str, ...]


class FakeRecords:
    """A DHT with `holders` peers that should hold each key."""

    def __init__(self) -> None:
        self.holders = 1
        self.is_down = False
        self.provided: list[tuple[float, bytes]] = []
        self.looked_up: list[tuple[float, bytes]] = []
        self.found: list[Found] = []

    async def provide(self, key: bytes, *, timeout: float | None = None) -> int:
        self.provided.append((trio.current_time(), key))
        self._fail()
        return self.holders

    async def find_providers(self, key: bytes, *, timeout: float | None = None) -> list[Found]:
        self.looked_up.append((trio.current_time(), key))
        self._fail()
        return self.found

    def _fail(self) -> None:
        if self.is_down:
            raise Unavailable("no peer answers")

    def times_provided(self) -> Counter[bytes]:
        return Counter(key for _, key in self.provided)


class Rig:
    def __init__(self) -> None:
        self.dht = FakeRecords()
        self.peers = 1
        self.contacts = 0
        self.capabilities: tuple[Capability, ...] = ()
        self.seen = Seen()
        self._changed = trio.Event()
        self.finder = RendezvousFinder(
            self.dht,
            FakeNode(),
            capabilities=lambda: self.capabilities,
            reachable=lambda: self.peers,
            contacts=lambda: self.contacts,
            changed=lambda: self._changed.wait(),
            chance=lambda: 0.5,
            provide_seconds=PROVIDE_SECONDS,
        )

    def change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def running(*, peers: int = 1, capabilities: tuple[Capability, ...] = ()) -> AsyncIterator[Rig]:
    rig = Rig()
    rig.peers, rig.capabilities = peers, capabilities
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.finder.run, rig.seen)
        yield rig
        nursery.cancel_scope.cancel()


async def test_keys_are_provided_once_there_is_a_peer_and_again_later(autojump_clock: trio.testing.MockClock) -> None:
    async with running(peers=0, capabilities=(Role("planner"),)) as rig:
        await trio.sleep(60)
        assert (rig.dht.provided, rig.dht.looked_up) == ([], [])
        rig.peers = PEERS_FEW
        rig.change()
        await until(lambda: rig.dht.times_provided() == {NETWORK: 1, PLANNER: 1})
        await trio.sleep(0.99 * PROVIDE_SECONDS)
        assert rig.dht.times_provided() == {NETWORK: 1, PLANNER: 1}
        await trio.sleep(0.02 * PROVIDE_SECONDS)
        assert rig.dht.times_provided() == {NETWORK: 2, PLANNER: 2}


async def test_a_node_that_knows_a_peer_of_the_dht_and_no_member_provides_and_looks_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(peers=0) as rig:
        await trio.sleep(60)
        assert (rig.dht.provided, rig.dht.looked_up) == ([], [])
        rig.contacts = 1
        await until(lambda: rig.dht.provided and rig.dht.looked_up)
        assert trio.current_time() < 70


async def test_a_new_capability_is_provided_at_once_and_the_others_are_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(peers=PEERS_FEW) as rig:
        await until(lambda: rig.dht.times_provided() == {NETWORK: 1})
        rig.capabilities = (Role("planner"),)
        rig.change()
        await until(lambda: rig.dht.times_provided() == {NETWORK: 1, PLANNER: 1}, seconds=5)


async def test_a_key_that_no_peer_recorded_is_provided_again_soon(autojump_clock: trio.testing.MockClock) -> None:
    async with running(peers=PEERS_FEW) as rig:
        rig.dht.holders = 0
        await trio.sleep(65)
        assert rig.dht.times_provided()[NETWORK] == 4, "at 2, 12, 29 and 61 s"
        rig.dht.is_down = True
        await trio.sleep(65)
        assert rig.finder.health().errors == 1
        await trio.sleep(3600)
        assert 5 <= rig.finder.health().errors <= 12, "more and more rarely"


async def test_while_there_are_few_peers_keys_are_provided_more_often_because_one_that_restarts_forgets(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(peers=PEERS_FEW - 1) as rig:
        await trio.sleep(6 * 3600)
        assert 30 <= rig.dht.times_provided()[NETWORK] <= 40, "every ten minutes"


async def test_keys_are_looked_up_at_the_first_peer_and_more_rarely_while_there_are_few(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as rig:
        await until(lambda: len(rig.dht.looked_up) == 6, seconds=3600)
        times = [at for at, _ in rig.dht.looked_up]
        waits = [after - before for before, after in pairwise(times)]
        assert times[0] == SETTLE_SECONDS
        assert waits == sorted(waits)
        assert max(waits) <= 600.0


async def test_with_enough_peers_keys_are_looked_up_once_and_again_when_peers_leave(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(peers=PEERS_FEW) as rig:
        await trio.sleep(3600)
        assert len(rig.dht.looked_up) == 1
        rig.peers = 1
        rig.change()
        await until(lambda: len(rig.dht.looked_up) == 2, seconds=3)


async def test_providers_are_sighted_with_the_addresses_that_name_them(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as rig:
        rig.dht.found = [
            Found("12D3KooWbob", ("/ip4/192.0.2.2/tcp/1/p2p/12D3KooWbob", "/ip4/192.0.2.2/tcp/1/p2p/12D3KooWeve")),
            Found("12D3KooWeve", ("/ip4/127.0.0.1/tcp/1/p2p/12D3KooWeve",)),
            Found("12D3KooWfay", ()),
            Found(FakeNode.peer_id, (f"/ip4/192.0.2.1/tcp/1/p2p/{FakeNode.peer_id}",)),
        ]
        await until(lambda: rig.seen.sightings)
        assert [(each.peer, each.addresses) for each in rig.seen.sightings] == [
            ("12D3KooWbob", ("/ip4/192.0.2.2/tcp/1/p2p/12D3KooWbob",))
        ]
        assert rig.seen.sightings[0].is_hearsay


async def test_many_capabilities_cost_a_bounded_number_of_calls(autojump_clock: trio.testing.MockClock) -> None:
    async with running(capabilities=tuple(Role(f"r{number}") for number in range(200))) as rig:
        await trio.sleep(5)
        assert len(rig.dht.provided) == KEYS_MAX
        assert len(rig.dht.looked_up) == LOOKED_UP_MAX
