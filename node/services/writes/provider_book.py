"""Which peers provide a key, as they say themselves: kept in the store until it expires, so many for each peer."""

from collections.abc import Callable

import trio

from node.store.base import Store
from node.swarm.peer_policy import PeerPolicy
from protocols.errors import TooManyRequests
from protocols.policy.source_rates import SourceRates

TTL_MS_MAX = 48 * 3600 * 1000
RATE, BURST = 1 / 60.0, 256.0
"""Keys a second that one peer may provide in the long run, and at once: each is a row of the store for two days."""


class ProviderBook:
    def __init__(self, store: Store, peer_policy: PeerPolicy, *, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._limit_counters = peer_policy.limit_counters
        self._now_ms = now_ms
        self._rates = SourceRates(rate=RATE, burst=BURST)

    async def add(self, peer: str, key: bytes, *, ttl_ms: int = TTL_MS_MAX) -> None:
        """A peer says that it provides a key. Raises `TooManyRequests` when it provides too many."""
        if not self._rates.may(peer, trio.current_time()):
            self._limit_counters.hit("requests_refused", peer, "provides too many keys")
            raise TooManyRequests("this peer provides too many keys: wait before it provides more")
        await self._store.provide(key, peer, expires_ms=self._now_ms() + min(ttl_ms, TTL_MS_MAX))

    async def peers(self, key: bytes) -> list[str]:
        """The peers that provide a key now, sorted."""
        return await self._store.providers(key, now_ms=self._now_ms())
