"""The DHT that a node's callers hold: hands each call to the backend that the flags name when it begins.

A change of flags makes new backends over the same store, gate, members and connections, which keep their memory; a
call that is under way stays with the backend it began in and ends there. So no call fails because of a change, and
none is answered half by one backend and half by another.

Rollout: a key whose share is not reached yet is answered by this machine alone, and what is owed of it is kept (see
`Flags.holds_back`). Shadow reads: a sample of the reads that this machine answered is asked of the swarm as well, in
the background, and counted where the swarm knew a head that the answer did not have. What it tells is kept, as by any
read; what a shadow read comes to, the caller never sees.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import trio

from node.config.flags import Flags
from node.dht.base import DHT, Answer, Backend, Consistency, Freshness, Provider, Receipt, VersionHistory
from node.dht.call_metrics import CallMetrics, MeteredDHT
from node.store.base import Store
from protocols.envelope import Envelope
from protocols.errors import BzzzError

SHADOWS_MAX = 16
"""Shadow reads under way at once; what comes beyond is not compared, and counted as skipped."""

_AUTO = Consistency.AUTO


class OperationContext(NamedTuple):
    """What an operation of several calls goes by from its beginning to its end."""

    dht: DHT
    deadline: float
    """On trio's clock."""

    @property
    def left(self) -> float:
        """Seconds until the deadline; 0 when it is over."""
        return max(0.0, self.deadline - trio.current_time())


class DispatchDHT:
    """`make` makes the backends that flags ask for; `may_ask` says whether the swarm may be asked for a shadow read.

    What calls come to is counted in `call_metrics`; shadow reads, which nobody called for, are not among them.
    """

    def __init__(
        self,
        flags: Flags,
        make: Callable[[Flags], Mapping[Backend, DHT]],
        *,
        store: Store,
        may_ask: Callable[[], bool] = lambda: False,
        call_metrics: CallMetrics | None = None,
    ) -> None:
        self._make = make
        self._store = store
        self._may_ask = may_ask
        self._nursery: trio.Nursery | None = None
        self._shadows = 0
        self._sampled = 0.0
        self.switches = 0
        """How often the backend in force was another after a change."""
        self.shadow_reads = 0
        self.shadow_mismatches = 0
        self.shadow_failures = 0
        self.shadow_skipped = 0
        self._call_metrics = call_metrics or CallMetrics()
        self._take(flags)

    def _take(self, flags: Flags) -> None:
        backends = self._make(flags)
        self._bare_real = backends.get(Backend.REAL)
        self._flags = flags
        self._backends = {backend: self._metered(dht) for backend, dht in backends.items()}
        self._chosen = self._backends[Backend(flags.in_force)]

    def _metered(self, dht: DHT) -> DHT:
        return MeteredDHT(dht, self._call_metrics, counts_itself=getattr(dht, "counts_itself", frozenset()))

    def turn(self, flags: Flags) -> None:
        """Calls that begin from now on go by these flags."""
        is_other = flags.in_force != self._flags.in_force
        self._take(flags)
        self.switches += is_other

    @property
    def backend(self) -> Backend:
        """The backend in force, for the keys that the rollout has reached."""
        return Backend(self._flags.in_force)

    @property
    def asks_swarm(self) -> bool:
        return self._chosen.asks_swarm

    @property
    def deadline_seconds(self) -> float:
        return self._chosen.deadline_seconds

    @property
    def write_quorum(self) -> int:
        return self._chosen.write_quorum

    def freshness(self, key: bytes) -> Freshness:
        return self._for(key).freshness(key)

    def begin(self, key: bytes, timeout: float | None = None, *, at: float | None = None) -> OperationContext:
        """The backend for an operation on a key that begins now (or began `at`, on trio's clock), and until when it
        may take: as long as that backend gives a call, or `timeout` seconds.

        Both hold to its end: what is long enough for one backend is too short for another.
        """
        dht = self._for(key)
        seconds = dht.deadline_seconds if timeout is None else timeout
        return OperationContext(dht, (trio.current_time() if at is None else at) + seconds)

    def _for(self, key: bytes) -> DHT:
        if self._flags.rollout_percent >= 100.0 or self._flags.lets_through(key):
            return self._chosen
        return self._backends[Backend.MOCK]

    async def run(self) -> None:
        """Make shadow reads until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # before it closes: reads may still end

    # -- the calls --------------------------------------------------------------------------------------------

    async def put(
        self,
        envelope: Envelope,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        on_merged: Callable[[], None] | None = None,
    ) -> Receipt:
        return await self._for(envelope.key).put(
            envelope, idempotency_key=idempotency_key, timeout=timeout, on_merged=on_merged
        )

    async def get_here(self, key: bytes) -> Answer | None:
        answer = await self._for(key).get_here(key)
        if answer is not None and self._flags.shadow_percent:
            self._compare(key, answer)
        return answer

    async def get(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        answer = await self._for(key).get(key, consistency=consistency, timeout=timeout)
        if self._flags.shadow_percent and consistency is _AUTO and answer.provenance.source == "local":
            self._compare(key, answer)
        return answer

    async def get_version(
        self, key: bytes, digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        return await self._for(key).get_version(key, digest, consistency=consistency, timeout=timeout)

    async def history(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, after: int = 0, limit: int = 1000,
        timeout: float | None = None,
    ) -> VersionHistory:  # fmt: skip
        return await self._for(key).history(key, consistency=consistency, after=after, limit=limit, timeout=timeout)

    async def provide(self, key: bytes, *, timeout: float | None = None) -> int:
        return await self._for(key).provide(key, timeout=timeout)

    async def find_providers(self, key: bytes, *, timeout: float | None = None) -> tuple[Provider, ...]:
        return await self._for(key).find_providers(key, timeout=timeout)

    # -- shadow reads -----------------------------------------------------------------------------------------

    def _compare(self, key: bytes, answer: Answer) -> None:
        """Begin a shadow read, if this one is of the sample: every so many-th, which needs no chance."""
        self._sampled += self._flags.shadow_percent
        if self._sampled < 100.0:
            return
        self._sampled -= 100.0
        real = self._bare_real
        if real is None or self._nursery is None or self._shadows >= SHADOWS_MAX or not self._may_ask():
            self.shadow_skipped += 1
            return
        self._shadows += 1
        self._nursery.start_soon(self._shadow, real, key, frozenset(head.digest for head in answer.heads))

    async def _shadow(self, real: DHT, key: bytes, answered: frozenset[bytes]) -> None:
        try:
            heads = (await real.get(key)).heads
            lacked = [head.digest for head in heads if head.digest not in answered]
            # What this node wrote itself since then is no mismatch: only its own writes have a standing.
            foreign = [digest for digest in lacked if await self._store.standing(digest=digest) is None]
            self.shadow_reads += 1
            self.shadow_mismatches += bool(foreign)
        except BzzzError:
            self.shadow_failures += 1
        finally:
            self._shadows -= 1
