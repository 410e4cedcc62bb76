"""Probes: small requests to the store, the resolver and the swarm, for keys that no caller uses.

Each probe makes a key of its own and asks for it; nothing is ever written there. So nothing of a probe enters the log,
and no cache keeps its answer for a caller. Each ends within `PROBE_SECONDS`, or the time that a far peer may take.
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
"""How long the store or the resolver may take before that counts as no answer."""
PEER_SECONDS = 0.5
"""How long a peer may take; longer when its round trips are long."""
PEERS_ASKED = 3


class ProbeResult(NamedTuple):
    """How long a probe took, and why it failed, or ''."""

    seconds: float
    failing: str = ""


class Probes:
    """One method for each probe. `rpc` is None where there is no swarm."""

    def __init__(self, *, own: str, store: Store, resolver: Resolver, members: Members, rpc: Rpc | None) -> None:
        self._own = own
        self._store = store
        self._resolver = resolver
        self._members = members
        self._rpc = rpc
        self._count = 0
        self._first = 0

    def _unused_digest(self) -> bytes:
        """32 bytes that are the digest of no version: new ones at each call, without drawing from chance."""
        self._count += 1
        return hashlib.sha256(f"bzzz health probe\0{self._own}\0{self._store.log_id}\0{self._count}".encode()).digest()

    async def store(self) -> ProbeResult:
        """Look up a version that does not exist, through the store's own queue of readers."""
        digest = self._unused_digest()
        return await self._timed(lambda: self._store.by_digest(digest), "the store did not answer a look-up")

    async def write(self) -> None:
        """Have the store commit something without meaning, so that it finds out whether it can write again.

        It is a cursor that nothing reads, and the unstaging of a version that was never staged: neither is in the log.
        The result is in the store's `last_failure`.
        """
        with suppress(BzzzError):
            await self._store.set_cursor("health", self._store.last_sequence)
            await self._store.unstage(self._unused_digest())

    async def resolver(self) -> ProbeResult:
        """Resolve an address without versions, from this store alone."""
        address = parse(f"ucxl://health:probe@bzzz:health/*^/{self._unused_digest().hex()}")

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
        """Ask a member for a key that none has, another one each time, and when it is silent a few others. One answer
        is enough.

        None: no member could be asked, or this process was late itself: nothing was learned.
        """
        reachable = self._members.kept() or self._members.answering()
        if self._rpc is None or not reachable:
            return None
        self._first = (self._first + 1) % len(reachable)
        peers = (reachable[self._first :] + reachable[: self._first])[:PEERS_ASKED]
        key = b"/ucxl/" + urlsafe_b64encode(self._unused_digest()).rstrip(b"=")
        seconds: list[float] = []
        silent: list[str] = []
        for asked in (peers[:1], peers[1:]):
            async with trio.open_nursery() as nursery:
                for peer in asked:
                    nursery.start_soon(self._ask, self._rpc, peer, key, seconds, silent)
            if seconds:
                return ProbeResult(sorted(seconds)[(len(seconds) - 1) // 2])
        if not silent:
            return None
        names = ", ".join(map(self._members.name_of, silent))
        return ProbeResult(0.0, f"no member answers a probe; asked {names}")

    async def _ask(self, rpc: Rpc, peer: str, key: bytes, seconds: list[float], silent: list[str]) -> None:
        started, round_trips = trio.current_time(), rpc.round_trips
        least = (
            TIMEOUT_SECONDS_MAX if round_trips.median(peer) is None else PEER_SECONDS
        )  # it may be as far away as any peer
        try:
            await rpc.call(peer, GetHeads(key, ()), timeout=round_trips.timeout(peer, least=least))
        except CallAbandoned:
            pass
        except BzzzError:
            silent.append(peer)
        else:
            seconds.append(trio.current_time() - started)
