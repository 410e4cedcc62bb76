"""The hybrid backend: asks the swarm within a deadline, and answers from this machine's store otherwise.

A write is merged with its hints first, so that it is durable here in any case; then the swarm has until the deadline to
acknowledge it. A read is answered from the store when the store is fresh enough, else from the swarm, and from the
store, marked as degraded, when the swarm does not answer. While the breaker is open no call waits for the swarm.

Guarantees of `auto`: monotone on one node, bounded staleness; not linearizable. A version that is not here is absent
only when the holders say so; otherwise the answer is `Unavailable`.
"""

from collections.abc import Awaitable, Callable
from math import inf

import trio

from node.config.flags import Flags
from node.dht.base import Answer, Backend, Consistency, Extent, Freshness, Provenance, Provider, Receipt, VersionHistory
from node.dht.call_metrics import CallMetrics, outcome_of_error, outcome_of_read
from node.dht.circuit_breaker import CircuitBreaker
from node.dht.commit import merge_in_time
from node.dht.handoff import Handoff, HandoffResult
from node.dht.hedged_query import Unanswered
from node.dht.mock import MockDHT
from node.dht.readable_heads import ReadableHeads
from node.dht.real import RealDHT, local_answer
from node.store.base import Store
from node.store.hints import Standing
from node.store.log import Incoming, Origin
from node.swarm.members import Members
from protocols.envelope import Envelope, Notice
from protocols.errors import Indeterminate, Unavailable

WRITE_QUORUM = 1
"""How many peers must acknowledge a write where the flags name no quorum."""
RESERVE_SECONDS = 0.015
"""Kept back from the deadline for this node's own work when a call waits for the swarm."""
AGE_STEP_SECONDS = 0.01
"""The precision of the ages of local answers: a new provenance for each would double the cost of a local read."""

_AUTO = Consistency.AUTO


class HybridDHT:
    """Made of the two other backends and the circuit breaker. Deadline, quorum and freshness are those of the flags.

    Without a fallback in the flags, an answer that would be pending or degraded is an error: `Unavailable` when nothing
    was written, `Indeterminate` when it was and the swarm did not acknowledge it in time. Gets that this store answers
    take microseconds, so this class counts them in `call_metrics` itself.
    """

    backend = Backend.HYBRID
    asks_swarm = True
    commits_first = True
    self_counted = frozenset({"get"})

    def __init__(
        self,
        *,
        store: Store,
        mock: MockDHT,
        real: RealDHT,
        breaker: CircuitBreaker,
        members: Members,
        readable: ReadableHeads,
        offer: Handoff,
        now_ms: Callable[[], int],
        flags: Flags,
        call_metrics: CallMetrics | None = None,
    ) -> None:
        self._store = store
        self._mock = mock
        self._real = real
        self._breaker = breaker
        self._members = members
        self._readable = readable
        self._offer = offer
        self._now_ms = now_ms
        self.write_quorum = flags.write_quorum or WRITE_QUORUM
        self.deadline_seconds = flags.deadline_ms / 1000.0
        self.store_deadline_seconds = flags.store_deadline_ms / 1000.0
        self._age_max_seconds = flags.read_freshness_ms / 1000.0
        self._has_fallback = flags.has_fallback
        self._time = trio.lowlevel.current_clock().current_time
        self._call_metrics = call_metrics or CallMetrics()
        self._gets = self._call_metrics.sampled_calls(Backend.HYBRID, "get")
        self._recent_age = -1.0
        self._recent_provenance = Provenance(Backend.HYBRID, "local", 0.0, 1, 0, False)

    def _deadline_after(self, timeout: float | None) -> float:
        return trio.current_time() + (self.deadline_seconds if timeout is None else timeout)

    # -- put --------------------------------------------------------------------------------------------------

    async def put(
        self,
        envelope: Envelope,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        on_merged: Callable[[], None] | None = None,
    ) -> Receipt:
        started = trio.current_time()
        wanted = self._members.wanted(envelope.key)
        if not self._has_fallback:
            self._require_holders(wanted)
        incoming = Incoming(envelope, Origin.LOCAL, wanted, (), idempotency_key)
        sequence, is_new = await merge_in_time(
            self._store, incoming, seconds=self.store_deadline_seconds, now_ms=self._now_ms()
        )
        deadline = self._deadline_after(timeout)  # the swarm's, from the commit on
        self._real.holder_search.wrote(envelope.key)
        if on_merged is not None:
            on_merged()
        is_first = is_new and not envelope.parents and await self._is_only_version(envelope)
        handed_off = self._offer(sequence, envelope if is_new else None, wanted, is_first=is_first)
        try:
            standing = await self._acknowledged(envelope, wanted, handed_off, sequence, deadline - RESERVE_SECONDS)
        except Unavailable:  # the disk cannot read the standing; the write is durable all the same
            standing = Standing(sequence, envelope.digest, (), len(wanted), self._now_ms())
        is_replicated = len(standing.acknowledged) >= self.write_quorum
        if not is_replicated and not self._has_fallback:
            raise Indeterminate(
                f"{len(standing.acknowledged)} of {self.write_quorum} holders acknowledged the write in time; it is "
                "kept here and will be handed to them. Ask for it by its digest",
                digest=envelope.digest.hex(),
                address=envelope.address,
            )
        return Receipt.of(
            envelope,
            standing,
            log_id=self._store.log_of(standing.sequence),
            quorum=self.write_quorum,
            elapsed_seconds=trio.current_time() - started,
        )

    async def _is_only_version(self, envelope: Envelope) -> bool:
        """Whether this version, which was merged just now and has no parents, is the only one here of its address.

        An earlier one would be another head, or an ancestor of one. A store that cannot answer now is no failure of the
        write.
        """
        try:
            heads = await self._store.heads(envelope.key)
        except Unavailable:
            return False
        return [head.digest for head in heads] == [envelope.digest]

    def _require_holders(self, wanted: tuple[str, ...]) -> None:
        if not self._breaker.is_closed:
            raise Unavailable(f"the breaker is {self._breaker.state}: {self._breaker.why}; nothing was written")
        if not any(self._members.is_reachable(peer) for peer in wanted):
            raise Unavailable(
                f"none of the {len(wanted)} members that should hold this can be reached; nothing was written"
            )

    async def _acknowledged(
        self, envelope: Envelope, wanted: tuple[str, ...], handed_off: HandoffResult, sequence: int, until: float
    ) -> Standing:
        """The standing of the write, at `until` at the latest; at once when it is on its way to no holder."""
        if wanted and self._breaker.is_closed:
            generation, since = self._breaker.generation, trio.current_time()
            count = min(self.write_quorum, len(handed_off.holders))
            standing = None
            if count:
                with trio.move_on_at(until):
                    standing = await self._store.replicated(envelope.digest, count)
            if not count:
                self._breaker.unasked(generation, "no holder can be reached")
            elif standing is not None:
                self._breaker.succeeded(generation)
                return standing
            elif handed_off.is_next:
                evidence = "no peer acknowledged a write"
                self._breaker.unanswered(
                    generation, since=since, until=until, evidence=evidence, asked=handed_off.holders
                )
        standing = await self._store.standing(digest=envelope.digest)
        return standing or Standing(sequence, envelope.digest, (), len(wanted), self._now_ms())

    # -- get --------------------------------------------------------------------------------------------------

    async def get(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        started = self._time()
        if consistency is _AUTO:  # the same as `get_here`, but its coroutine would cost a fifth of such a read
            gets = self._gets
            gets.until_sample -= 1
            sample_started = None if gets.until_sample else await gets.begin_sample()
            try:
                heads = await self._store.heads(key)
            except BaseException as error:
                self._count_failed_get(error)
                raise
            if (here := self._answer_here(heads, key, started, sample_started)) is not None:
                return here
        with self._call_metrics.timing(Backend.HYBRID, "get") as timing:
            if consistency is Consistency.LOCAL:
                answer = await self._readable_here(key)
            else:
                deadline = started + (self.deadline_seconds if timeout is None else timeout)
                found = await self._without_lost_content(key, started) if consistency is _AUTO else None
                answer = found or await self._from_swarm(key, consistency, deadline)
            timing.outcome = outcome_of_read(answer.provenance)
            return answer

    def freshness(self, key: bytes) -> Freshness:
        since = self._members.fresh_since(key)
        return Freshness(-inf if since is None else since, self._age_max_seconds)

    async def get_here(self, key: bytes) -> Answer | None:
        started = self._time()
        gets = self._gets
        gets.until_sample -= 1
        sample_started = None if gets.until_sample else await gets.begin_sample()
        try:
            heads = await self._store.heads(key)
        except BaseException as error:
            self._count_failed_get(error)
            raise
        return self._answer_here(heads, key, started, sample_started)

    def _count_failed_get(self, error: BaseException) -> None:
        self._gets.counted_elsewhere += 1
        self._call_metrics.count(Backend.HYBRID, "get", outcome_of_error(error))

    def _answer_here(
        self, heads: tuple[Envelope | Notice, ...], key: bytes, started: float, sample_started: float | None
    ) -> Answer | None:
        """The answer of this store; None where it may not answer now, or lacks the content of a head."""
        is_whole = heads and type(heads[0]) is Envelope
        if is_whole and len(heads) > 1:
            is_whole = all(type(head) is Envelope for head in heads)
        if not is_whole or (provenance := self._fresh(key, started)) is None:
            self._gets.counted_elsewhere += 1
            return None
        if sample_started is not None:
            self._gets.end_sample(sample_started)
        return Answer(heads, provenance if len(heads) == 1 else provenance._replace(siblings=len(heads) - 1))

    async def _without_lost_content(self, key: bytes, started: float) -> Answer | None:
        """The answer of this store where it may answer, and lacks content alone that no holder had a moment ago."""
        provenance = self._fresh(key, started)
        if provenance is None or not (heads := await self._store.heads(key)):
            return None
        view = await self._readable.view(key, heads)
        is_known = bool(view.heads) and self._readable.were_asked(key, view.missing)
        return view.answer(provenance) if is_known else None

    async def _readable_here(self, key: bytes, why: str = "") -> Answer:
        """What this store has; `why` says why no other was asked, if one should have been."""
        view = await self._readable.view(key, await self._store.heads(key))
        return view.answer(self._local(view.heads, key, why).provenance)

    async def _from_swarm(self, key: bytes, consistency: Consistency, deadline: float) -> Answer:
        """The swarm's answer; this store's, where the swarm has none and `consistency` allows it."""

        async def ask(seconds: float) -> Answer:
            return await self._real.get(key, timeout=seconds)

        try:
            return await self._through_breaker(ask, deadline)
        except Unavailable as error:
            if consistency is Consistency.SWARM or not self._has_fallback:
                raise
            answer = await self._readable_here(key, f"answered from this machine: {error.message}")
            if not answer.heads:
                raise
            return answer

    def _fresh(self, key: bytes, now: float) -> Provenance | None:
        """The provenance of an answer from this store; None when the store may not answer for this key now."""
        since = self._members.fresh_since(key)
        if since is None:
            return None
        age = now - since
        if age > self._age_max_seconds:
            return None
        if not 0.0 <= age - self._recent_age < AGE_STEP_SECONDS:
            self._recent_age = age
            self._recent_provenance = Provenance(Backend.HYBRID, "local", max(0.0, age) * 1000.0, 1, 0, False)
        return self._recent_provenance

    def _local(self, heads: tuple[Envelope, ...] | tuple[object, ...], key: bytes, why: str = "") -> Answer:
        answer = local_answer(heads, Backend.HYBRID)  # type: ignore[arg-type]  # heads as the store gave them
        age = self._members.age_seconds(key)
        provenance = answer.provenance._replace(
            age_ms=None if age is None else age * 1000.0, is_degraded=bool(why), reason=why
        )
        return Answer(answer.heads, provenance)

    async def _through_breaker(self, operation: Callable[[float], Awaitable[Answer]], deadline: float) -> Answer:
        """Ask the swarm within the deadline, and report the outcome to the breaker. Raises `Unavailable`."""
        if not len(self._members):
            raise Unavailable("no other member of the swarm is known yet", members=0)
        self._require_closed()
        generation, since, until = self._breaker.generation, trio.current_time(), deadline - RESERVE_SECONDS
        if until <= since:
            raise Unavailable("nothing was left of the deadline to ask the swarm")
        try:
            answer = await operation(until - since)
        except (Unavailable, Indeterminate) as error:
            if error.details.get("asked") == 0:
                self._breaker.unasked(generation, error.message)
            else:
                peers = error.peers if isinstance(error, Unanswered) else ()
                evidence = "no peer answered a read" if peers else error.message
                self._breaker.unanswered(generation, since=since, until=until, evidence=evidence, asked=peers)
            raise
        self._breaker.succeeded(generation)
        return answer._replace(provenance=answer.provenance._replace(backend=Backend.HYBRID))

    def _require_closed(self) -> None:
        """Raise `Unavailable` while the breaker lets no call to the swarm."""
        if not self._breaker.is_closed:
            raise Unavailable(
                f"the breaker is {self._breaker.state}: {self._breaker.why}", breaker=str(self._breaker.state)
            )

    async def get_version(
        self, key: bytes, digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        deadline = self._deadline_after(timeout)
        found = await self._store.by_digest(digest)
        if isinstance(found, Envelope) or consistency is Consistency.LOCAL:
            return self._local((found,) if found is not None and found.key == key else (), key)

        async def ask(seconds: float) -> Answer:
            return await self._real.get_version(key, digest, timeout=seconds)

        return await self._through_breaker(ask, deadline)

    async def history(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, after: int = 0, limit: int = 1000,
        extent: Extent | None = None, timeout: float | None = None,
    ) -> VersionHistory:  # fmt: skip
        deadline = self._deadline_after(timeout)
        is_fresh = self._fresh(key, self._time()) is not None
        if consistency is Consistency.LOCAL or (consistency is Consistency.AUTO and is_fresh):
            history = await self._mock.history(key, after=after, limit=limit)
            if history.total or consistency is Consistency.LOCAL:
                age = self._members.age_seconds(key)
                age_ms = None if age is None else age * 1000.0
                where = history.provenance._replace(backend=Backend.HYBRID, age_ms=age_ms)
                return history._replace(provenance=where)

        async def gather(seconds: float) -> Answer:
            return Answer((), await self._real.gather_history(key, extent=extent, timeout=seconds))

        try:
            provenance = (await self._through_breaker(gather, deadline)).provenance
        except Unavailable as error:
            history = await self._mock.history(key, after=after, limit=limit)
            if consistency is Consistency.SWARM or not self._has_fallback or not history.total:
                raise
            why = f"answered from this machine: {error.message}"
            provenance = Provenance(Backend.HYBRID, "local", None, 1, 0, True, why)
            return history._replace(is_complete=False, provenance=provenance)
        history = await self._mock.history(key, after=after, limit=limit)
        return history._replace(is_complete=not provenance.is_degraded, provenance=provenance)

    # -- contents and providers -------------------------------------------------------------------------------

    async def get_content(
        self, content_digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        """The outcome says nothing of the swarm as a whole: the breaker is asked, and not told."""
        if consistency is not Consistency.SWARM:
            here = await self._mock.get_content(content_digest)
            if here.heads or consistency is Consistency.LOCAL:
                return here._replace(provenance=here.provenance._replace(backend=Backend.HYBRID))
        self._require_closed()
        seconds = self.deadline_seconds if timeout is None else timeout
        answer = await self._real.get_content(content_digest, consistency=Consistency.SWARM, timeout=seconds)
        return answer._replace(provenance=answer.provenance._replace(backend=Backend.HYBRID))

    async def provide(self, key: bytes, *, timeout: float | None = None) -> int:
        if not self._breaker.is_closed:
            return await self._mock.provide(key)
        return await self._real.provide(key, timeout=self.deadline_seconds if timeout is None else timeout)

    async def find_providers(self, key: bytes, *, timeout: float | None = None) -> tuple[Provider, ...]:
        if self._breaker.is_closed:
            try:
                return await self._real.find_providers(
                    key, timeout=self.deadline_seconds if timeout is None else timeout
                )
            except Unavailable:
                pass
        return await self._mock.find_providers(key)
