"""Dispatch: hands each call to the backend that the flags name when the call begins.

A change of flags makes new backends over the same store, breaker, members and connections, which keep their state. A
call under way stays with the backend it began in. So no call fails because of a change, and none is answered partly by
one backend and partly by another.

Rollout: a key outside the rollout is answered by this machine alone, and its hints are held back
(`Flags.holds_back`). Shadow reads: a sample of the reads that this machine answered is asked of the swarm as well, in
the background; a shadow read is a mismatch when the swarm knew a head that the answer did not have. Its answers are
merged, as those of any read; its outcome never reaches a caller.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import trio

from node.config.flags import Flags
from node.dht.base import DHT, Answer, Backend, Consistency, Extent, Freshness, Provider, Receipt, VersionHistory
from node.dht.call_metrics import CallMetrics, MeteredDHT
from node.store.base import Store
from protocols.cid import multihash
from protocols.envelope import Envelope
from protocols.errors import BzzzError

SHADOWS_MAX = 16
"""Shadow reads under way at once; further ones are skipped, and counted as such."""

_AUTO = Consistency.AUTO


class OperationContext(NamedTuple):
    """The backend and the deadline of one operation, for all of its calls."""

    dht: DHT
    deadline: float
    """On trio's clock."""

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline; 0 when it has passed."""
        return max(0.0, self.deadline - trio.current_time())


class DispatchDHT:
    """`make_backends` makes the backends that flags ask for; `may_ask` says whether a shadow read may ask the swarm.

    The outcomes of calls are counted in `call_metrics`; shadow reads, which no caller made, are not among them.
    """

    def __init__(
        self,
        flags: Flags,
        make_backends: Callable[[Flags], Mapping[Backend, DHT]],
        *,
        store: Store,
        may_ask: Callable[[], bool] = lambda: False,
        call_metrics: CallMetrics | None = None,
    ) -> None:
        self._make_backends = make_backends
        self._store = store
        self._may_ask = may_ask
        self._nursery: trio.Nursery | None = None
        self._shadow_count = 0
        self._sampled_percent = 0.0
        self.switches = 0
        """How many changes of flags changed the backend in force."""
        self.shadow_reads = 0
        self.shadow_mismatches = 0
        self.shadow_failures = 0
        self.shadow_skipped = 0
        self._call_metrics = call_metrics or CallMetrics()
        self._install(flags)

    def _install(self, flags: Flags) -> None:
        backends = self._make_backends(flags)
        self._unmetered_real = backends.get(Backend.REAL)
        self._flags = flags
        self._backends = {backend: self._metered(dht) for backend, dht in backends.items()}
        self._chosen = self._backends[Backend(flags.in_force)]

    def _metered(self, dht: DHT) -> DHT:
        return MeteredDHT(dht, self._call_metrics, self_counted=getattr(dht, "self_counted", frozenset()))

    def use_flags(self, flags: Flags) -> None:
        """Calls that begin from now on follow these flags."""
        is_switch = flags.in_force != self._flags.in_force
        self._install(flags)
        self.switches += is_switch

    @property
    def backend(self) -> Backend:
        """The backend in force, for the keys inside the rollout."""
        return Backend(self._flags.in_force)

    @property
    def asks_swarm(self) -> bool:
        return self._chosen.asks_swarm

    @property
    def deadline_seconds(self) -> float:
        return self._chosen.deadline_seconds

    @property
    def store_deadline_seconds(self) -> float:
        return self._chosen.store_deadline_seconds

    @property
    def commits_first(self) -> bool:
        return self._chosen.commits_first

    @property
    def write_quorum(self) -> int:
        return self._chosen.write_quorum

    def freshness(self, key: bytes) -> Freshness:
        return self._for(key).freshness(key)

    def begin(self, key: bytes, timeout: float | None = None, *, at: float | None = None) -> OperationContext:
        """The backend and the deadline of an operation on a key that begins now (or began `at`, on trio's clock).

        The deadline is that backend's own, or `timeout` seconds: what is long enough for one backend is too short for
        another, so the two are fixed together.
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
                self._nursery = None  # before it closes: a read that ends now must not start a task in it

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
        extent: Extent | None = None, timeout: float | None = None,
    ) -> VersionHistory:  # fmt: skip
        return await self._for(key).history(
            key, consistency=consistency, after=after, limit=limit, extent=extent, timeout=timeout
        )

    async def get_content(
        self, content_digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        dht = self._for(multihash(content_digest))
        return await dht.get_content(content_digest, consistency=consistency, timeout=timeout)

    async def provide(self, key: bytes, *, timeout: float | None = None) -> int:
        return await self._for(key).provide(key, timeout=timeout)

    async def find_providers(self, key: bytes, *, timeout: float | None = None) -> tuple[Provider, ...]:
        return await self._for(key).find_providers(key, timeout=timeout)

    # -- shadow reads -----------------------------------------------------------------------------------------

    def _compare(self, key: bytes, answer: Answer) -> None:
        """Begin a shadow read if this read is in the sample: every n-th is, which needs no random number."""
        self._sampled_percent += self._flags.shadow_percent
        if self._sampled_percent < 100.0:
            return
        self._sampled_percent -= 100.0
        real = self._unmetered_real
        if real is None or self._nursery is None or self._shadow_count >= SHADOWS_MAX or not self._may_ask():
            self.shadow_skipped += 1
            return
        self._shadow_count += 1
        self._nursery.start_soon(self._shadow_read, real, key, frozenset(head.digest for head in answer.heads))

    async def _shadow_read(self, real: DHT, key: bytes, answered: frozenset[bytes]) -> None:
        try:
            heads = (await real.get(key)).heads
            missing = [head.digest for head in heads if head.digest not in answered]
            # A version that this node wrote itself since then is no mismatch: only own writes have a standing.
            foreign = [digest for digest in missing if await self._store.standing(digest=digest) is None]
            self.shadow_reads += 1
            self.shadow_mismatches += bool(foreign)
        except BzzzError:
            self.shadow_failures += 1
        finally:
            self._shadow_count -= 1
