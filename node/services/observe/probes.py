"""Active probes: small real questions to the store, the resolver and the swarm, on keys that nobody uses.

A probe asks for what is not there, by a key that is made for it and never written: nothing of it enters the log, and no
cache keeps it for anybody else. Each ends within `PROBE_SECONDS`, or what a far peer may take.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

import trio

from node.dht.base import Consistency
from node.services.reads.resolver import Resolver
from node.store.base import Store
from node.swarm.members import Members
from node.swarm.rpc import CallAbandoned, Rpc
from protocols.errors import BzzzError, NotFound
from protocols.messages import GetHeads
from protocols.policy.rtt import TIMEOUT_SECONDS_MAX
from protocols.ucxl import parse

PROBE_SECONDS = 1.0
"""How long a store or a resolver may take before that counts as no answer."""
PEER_SECONDS = 0.5
"""How long a peer may take; longer when its answers usually take long."""
PEERS_ASKED = 3


class ProbeResult(NamedTuple):
    """What came of a probe: how long it took, and why it is bad, or ''."""

    seconds: float
    failing: str = ""


class Probes:
    """Asks when told to. `rpc` is None where there is no swarm."""

    def __init__(self, *, own: str, store: Store, resolver: Resolver, members: Members, rpc: Rpc | None) -> None:
        self._own = own
        self._store = store
        self._resolver = resolver
        self._members = members
        self._rpc = rpc
        self._count = 0
        self._turn = 0

    def _ephemeral(self) -> bytes:
        """32 bytes that are the hash of nothing: another at each call, and no chance is drawn for them."""
        self._count += 1
        return hashlib.sha256(f"bzzz health probe\0{self._own}\0{self._store.log_id}\0{self._count}".encode()).digest()

    async def store(self) -> ProbeResult:
        """Look up a version that is not there: through the store's own queue of readers."""
        digest = self._ephemeral()
        return await self._timed(lambda: self._store.by_digest(digest), "the store did not answer a look-up")

    async def write(self) -> None:
        """Have the store commit something of no meaning, so that it finds out whether it can write again.

        Where a reader stands, and that a version is staged no longer which never was: neither is in the log. However
        it ends, the store's `last_failure` tells.
        """
        with suppress(BzzzError):
            await self._store.set_cursor("health", self._store.last_sequence)
            await self._store.unstage(self._ephemeral())

    async def resolver(self) -> ProbeResult:
        """Resolve an address at which nothing is, from this store alone."""
        address = parse(f"ucxl://health:probe@bzzz:health/*^/{self._ephemeral().hex()}")

        async def resolve() -> None:
            with suppress(NotFound):
                await self._resolver.resolve(address, consistency=Consistency.LOCAL)

        return await self._timed(resolve, "the resolver did not answer")

    async def _timed(self, ask: Callable[[], Awaitable[object]], silent: str) -> ProbeResult:
        started = trio.current_time()
        failing = ""
        try:
            with trio.move_on_after(PROBE_SECONDS) as scope:
                await ask()
            if scope.cancelled_caught:
                failing = f"{silent} within {PROBE_SECONDS:g} s"
        except BzzzError as error:
            failing = error.message
        return ProbeResult(trio.current_time() - started, failing)

    async def swarm(self) -> ProbeResult | None:
        """Ask a few members for what nobody has; each time others. One answer is enough, and tells how long it takes.

        None: there was nobody to ask, or we were late ourselves, and nothing was learned.
        """
        reachable = self._members.reachable()
        if self._rpc is None or not reachable:
            return None
        self._turn = (self._turn + 1) % len(reachable)
        peers = (reachable[self._turn :] + reachable[: self._turn])[:PEERS_ASKED]
        key = b"/ucxl/" + urlsafe_b64encode(self._ephemeral()).rstrip(b"=")
        took: list[float] = []
        silent: list[str] = []
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(self._ask, self._rpc, peer, key, took, silent)
        if took:
            return ProbeResult(sorted(took)[(len(took) - 1) // 2])
        if not silent:
            return None
        names = ", ".join(map(self._members.name_of, silent))
        return ProbeResult(0.0, f"no member answers a probe; asked {names}")

    async def _ask(self, rpc: Rpc, peer: str, key: bytes, took: list[float], silent: list[str]) -> None:
        started, trips = trio.current_time(), rpc.round_trips
        least = TIMEOUT_SECONDS_MAX if trips.median(peer) is None else PEER_SECONDS  # it may be as far as can be
        try:
            await rpc.call(peer, GetHeads(key, ()), timeout=trips.timeout(peer, least=least))
        except CallAbandoned:
            pass
        except BzzzError:
            silent.append(peer)
        else:
            took.append(trio.current_time() - started)
