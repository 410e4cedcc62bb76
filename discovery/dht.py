"""The rendezvous finder: nodes of one swarm provide a key of the DHT, and look up who provides it.

It helps a node that has met only a few others: those who should hold the key know more. Each node provides the key of
its network and one for each of its capabilities (`protocols/rendezvous.py`), and does so again long before that
expires. It looks them up when it has its first peer, and again, more and more rarely, while it has few.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from discovery.finder import AdvertisedNode, FinderHealth, Sightings
from protocols.capabilities import Capability
from protocols.errors import BzzzError
from protocols.policy.address_scope import Scope, scope_of
from protocols.policy.backoff import backoff
from protocols.policy.sighting import Sighting, Source
from protocols.rendezvous import key_of_capability, key_of_network

SETTLE_SECONDS = 2.0
"""How long after a change of the peers or the capabilities the DHT is asked: other changes may follow at once."""
PEERS_FEW = 4
"""With fewer reachable peers the keys are looked up."""
CONTACTS_SECONDS = 5.0
"""How often a node without any peer looks whether it has one in the DHT."""
LOOK_BASE_SECONDS, LOOK_CAP_SECONDS = 10.0, 600.0
CALL_SECONDS = 5.0
KEYS_MAX = 65
LOOKED_UP_MAX = 9
"""Keys that are looked up at once: that of the network, and those of the first capabilities."""


class KeyProvider(Protocol):
    """A peer that says that it provides a key."""

    @property
    def peer(self) -> str: ...
    @property
    def addresses(self) -> tuple[str, ...]: ...


class ProviderDHT(Protocol):
    """The calls of a DHT that are used here. They may raise any `BzzzError`."""

    async def provide(self, key: bytes, *, timeout: float | None = None) -> int:
        """Announce that this node provides a key; return how many peers recorded it."""
        ...

    async def find_providers(self, key: bytes, *, timeout: float | None = None) -> Sequence[KeyProvider]: ...


class RendezvousFinder:
    """`capabilities` are those of this node now, `reachable` counts its members, `changed` waits until one of the two
    may be another. `contacts` counts the peers of the DHT, members or not. Keys are provided again after
    `provide_seconds`, more or less."""

    def __init__(
        self,
        dht: ProviderDHT,
        this_node: AdvertisedNode,
        *,
        capabilities: Callable[[], Sequence[Capability]],
        reachable: Callable[[], int],
        contacts: Callable[[], int],
        changed: Callable[[], Awaitable[None]],
        chance: Callable[[], float],
        provide_seconds: float,
    ) -> None:
        self._dht = dht
        self._this_node = this_node
        self._capabilities = capabilities
        self._reachable = reachable
        self._contacts = contacts
        self._provide_seconds = provide_seconds
        self._changed = changed
        self._chance = chance
        self._provided: dict[bytes, float] = {}
        """By key, when it is to be provided again."""
        self._failures: dict[bytes, int] = {}
        """By key, how often in a row no peer took it."""
        self._calls: Counter[str] = Counter()
        self._found = 0
        self._errors = 0
        self._latency = 0.0
        self._looked_at: float | None = None

    def health(self) -> FinderHealth:
        return FinderHealth(
            kind="dht",
            needs_peers=True,
            errors=self._errors,
            latency_seconds=self._latency,
            looked_at=self._looked_at,
            counts={"provided": self._calls["provide"], "looked_up": self._calls["look up"], "found": self._found},
        )

    async def run(self, sightings: Sightings) -> None:
        self._provided.clear()  # the peers that recorded it before may be gone
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._provide)
            nursery.start_soon(self._look, sightings)

    def _keys(self) -> list[bytes]:
        keys = [key_of_network(self._this_node.network)]
        keys += [key_of_capability(self._this_node.network, capability) for capability in self._capabilities()]
        return list(dict.fromkeys(keys))[:KEYS_MAX]

    # -- providing --------------------------------------------------------------------------------------------

    async def _provide(self) -> None:
        while True:
            await self._until_askable()
            await trio.sleep(SETTLE_SECONDS)
            keys = self._keys()
            self._provided = {key: at for key, at in self._provided.items() if key in keys}
            self._failures = {key: count for key, count in self._failures.items() if key in keys}
            for key in keys:
                if self._provided.get(key, 0.0) <= trio.current_time():
                    await self._provide_key(key)
            with trio.move_on_at(min(self._provided.values(), default=trio.current_time() + LOOK_CAP_SECONDS)):
                await self._changed()

    async def _provide_key(self, key: bytes) -> None:
        """Provide a key; again soon when no peer took it, and while there are few peers: one that starts again has
        forgotten it."""
        recorded = 0
        self._calls["provide"] += 1
        try:
            recorded = await self._dht.provide(key, timeout=CALL_SECONDS)
        except BzzzError:
            self._errors += 1
        self._failures[key] = 0 if recorded else self._failures.get(key, 0) + 1
        if recorded:
            wait = LOOK_CAP_SECONDS if self._reachable() < PEERS_FEW else self._provide_seconds
            wait *= 0.75 + 0.5 * self._chance()
        else:
            wait = backoff(self._failures[key], base=LOOK_BASE_SECONDS, cap=LOOK_CAP_SECONDS, chance=self._chance())
        self._provided[key] = trio.current_time() + wait

    async def _until_askable(self) -> None:
        """Wait until there is a peer to ask: a member, or another peer of the DHT."""
        while not self._reachable() and not self._contacts():
            with trio.move_on_after(CONTACTS_SECONDS):
                await self._changed()

    # -- looking up -------------------------------------------------------------------------------------------

    async def _look(self, sightings: Sightings) -> None:
        """Look the keys up at the first peer, and then while there are few."""
        rounds = 0
        while True:
            await self._until_askable()
            if rounds and self._reachable() >= PEERS_FEW:
                rounds = 1
                await self._changed()
                continue
            rounds += 1
            await trio.sleep(SETTLE_SECONDS)
            for key in self._keys()[:LOOKED_UP_MAX]:
                await self._look_up(key, sightings)
            await trio.sleep(backoff(rounds, base=LOOK_BASE_SECONDS, cap=LOOK_CAP_SECONDS, chance=self._chance()))

    async def _look_up(self, key: bytes, sightings: Sightings) -> None:
        started = trio.current_time()
        found: Sequence[KeyProvider] = ()
        self._calls["look up"] += 1
        try:
            found = await self._dht.find_providers(key, timeout=CALL_SECONDS)
        except BzzzError:
            self._errors += 1
        self._looked_at = trio.current_time()
        self._latency = self._looked_at - started
        for provider in found:
            addresses = tuple(each for each in provider.addresses if _leads_to(provider.peer, each))
            if addresses and provider.peer != self._this_node.peer_id:
                self._found += 1
                sightings.saw(
                    Sighting(peer=provider.peer, addresses=addresses, source=Source.DHT, reporter=Source.DHT.value)
                )


def _leads_to(peer: str, address: str) -> bool:
    """Whether an address may lead to a peer: who said so may be on any machine, so no loopback address does."""
    return address.endswith(f"/p2p/{peer}") and scope_of(address) is not Scope.LOOPBACK
