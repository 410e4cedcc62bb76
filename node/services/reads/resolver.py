"""From a UCXL address with its temporal part to the version it means."""

from collections.abc import Iterable

import trio

from node.config.flags import Flags
from node.dht.base import Answer, Consistency, VersionHistory
from node.dht.call_health import CallHealth
from node.dht.dispatch import DispatchDHT, OperationContext
from node.services.reads.resolver_cache import ResolverCache
from node.store.base import Store
from node.store.batch_get import by_digests
from node.store.versions import Version
from protocols.clock import ms_of
from protocols.envelope import Envelope
from protocols.errors import Deleted, NotFound, OutOfRange, Unavailable
from protocols.policy.cache import CacheCounts
from protocols.temporal import Head, Temporal, pick
from protocols.ucxl import Address, require_one

PAGE = 1000

_AUTO = Consistency.AUTO


class Resolver:
    """Reads through the DHT. A temporal read is answered over the versions that this node knows, or can be told of.

    Local, as it is made: a holder that lacks nothing the others wrote goes by what it has, and asks the other holders
    where that has gaps. Distributed (`use_distributed_resolver`): the holders are asked for the history of every
    temporal read, and this machine's answers for them, marked, when they do not.

    What takes several calls to the DHT takes one deadline in all, and stays with the backend that it began in. What
    is kept of the answers, and for how long, is in `resolver_cache.py`; it is kept while `run` runs.
    """

    def __init__(
        self,
        dht: DispatchDHT,
        store: Store,
        *,
        flags: Flags,
    ) -> None:
        self._dht = dht
        self._store = store
        self._time = trio.lowlevel.current_clock().current_time
        self.record = CallHealth()
        """What became of the look-ups that neither memory nor one look into the store answered."""
        self._resolver_cache = ResolverCache(store, flags)
        self.use_flags(flags)

    @property
    def counts(self) -> CacheCounts:
        """What the kept answers were good for."""
        return self._resolver_cache.counts

    def use_flags(self, flags: Flags) -> None:
        """Calls that begin from now on go by these flags."""
        self._flags = flags
        self._resolver_cache.use_flags(flags)

    async def run(self) -> None:
        """Keep answers, and share look-ups, until cancelled."""
        await self._resolver_cache.run()

    async def resolve(
        self,
        address: Address,
        *,
        consistency: Consistency = Consistency.AUTO,
        digest: bytes | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """The version an address means, first in `heads` and with its content; siblings after it.

        Raises `NotFound`, `Deleted` (a tombstone; its digest is in the details), `OutOfRange`, `Unavailable`.
        """
        key, started = require_one(address).key, self._time()
        is_head = digest is None and isinstance(address.temporal, Head)
        here = await self._dht.get_here(key) if is_head and consistency is _AUTO else None
        if here is not None and (not here.heads or isinstance(here.heads[0], Envelope)):
            answer = here
        else:
            answer = await self._resolve(address, key, consistency, digest, timeout)
        first = answer.heads[0] if answer.heads else None
        if not isinstance(first, Envelope):
            operation = self._dht.begin(key, timeout, at=started)
            answer = await self._with_content(address, key, answer, consistency, operation)
            first = answer.heads[0]
        if first.deleted and digest is None:
            where = answer.provenance
            raise Deleted(
                f"{address.text} was deleted; its history is still there",
                deleted=True,
                digest=first.digest.hex(),
                version=first.version,
                siblings=where.siblings,
                backend=where.backend.value,
                source=where.source,
                degraded=where.is_degraded,
                reason=where.reason,
            )
        return answer

    async def _resolve(
        self, address: Address, key: bytes, consistency: Consistency, digest: bytes | None, timeout: float | None
    ) -> Answer:
        """What takes more than one look into the store, or may."""
        operation = self._dht.begin(key, timeout)
        part = address.temporal if digest is None else digest
        is_head = isinstance(part, Head)
        freshness = operation.dht.freshness(key)
        is_cached = self._resolver_cache.is_on and freshness.age_max_seconds > 0.0
        if consistency is _AUTO and is_cached and not (is_head and freshness.is_final):
            return await self._resolver_cache.answer(
                key,
                part,
                freshness,
                lambda: self._look_up(address, key, part, _AUTO, operation),
                is_shared=timeout is None,
            )
        if not is_head:
            return await self._look_up(address, key, part, consistency, operation)
        answer = await self._dht.get(key, consistency=consistency, timeout=timeout)
        return await self._with_content(address, key, answer, consistency, operation)

    async def _look_up(
        self,
        address: Address,
        key: bytes,
        part: Temporal | bytes,
        consistency: Consistency,
        operation: OperationContext,
    ) -> Answer:
        with self.record:
            if isinstance(part, bytes):
                answer = await self._version(key, part, consistency, operation)
            elif isinstance(part, Head):
                answer = await operation.dht.get(key, consistency=consistency, timeout=operation.seconds_left)
            else:
                answer = await self._at(address, key, consistency, operation)
            return await self._with_content(address, key, answer, consistency, operation)

    async def _with_content(
        self, address: Address, key: bytes, answer: Answer, consistency: Consistency, operation: OperationContext
    ) -> Answer:
        """The answer, its first version with its content. Raises `NotFound` when it is empty."""
        if not answer.heads:
            raise NotFound(f"nothing is known at {address.text}", address=address.text)
        first = answer.heads[0]
        if isinstance(first, Envelope):
            return answer
        return answer._replace(
            heads=(await self._content(key, first.digest, consistency, operation), *answer.heads[1:])
        )

    async def _version(
        self, key: bytes, digest: bytes, consistency: Consistency, operation: OperationContext
    ) -> Answer:
        return await operation.dht.get_version(key, digest, consistency=consistency, timeout=operation.seconds_left)

    async def _content(
        self, key: bytes, digest: bytes, consistency: Consistency, operation: OperationContext
    ) -> Envelope:
        """A version that is known to exist. That nobody who was asked has it is no proof that it does not."""
        held = await self._version(key, digest, consistency, operation)
        if not held.heads or not isinstance(held.heads[0], Envelope):
            raise Unavailable(
                f"the version {digest.hex()} is known here, but nobody who holds its content answered",
                digest=digest.hex(),
            )
        return held.heads[0]

    # -- over the history -------------------------------------------------------------------------------------

    async def _at(self, address: Address, key: bytes, consistency: Consistency, operation: OperationContext) -> Answer:
        history = await self._whole(key, consistency, operation)
        where = history.provenance
        if not history.versions:
            raise NotFound(f"nothing is known at {address.canonical}", address=address.canonical)
        try:
            chosen = history.versions[pick(address.temporal, [ms_of(v.version) for v in history.versions])]
        except OutOfRange as error:
            if history.is_complete or consistency is Consistency.LOCAL:
                raise
            raise Unavailable(
                f"{error.message}; that may not be all of them: {where.reason}", versions=len(history.versions)
            ) from error
        envelope = await self._content(key, chosen.digest, consistency, operation)
        return Answer((envelope,), where._replace(siblings=0))

    async def _whole(self, key: bytes, consistency: Consistency, operation: OperationContext) -> VersionHistory:
        """The whole history that counts: a version that was reissued is there once, as what stands in for it."""
        history = await self._known(key, consistency, operation)
        if history.missing and history.provenance.source == "local" and consistency is _AUTO:
            history = await self._without_gaps(key, history, operation)
        return history._replace(versions=tuple(v for v in history.versions if v.reissued_as is None))

    async def _known(self, key: bytes, consistency: Consistency, operation: OperationContext) -> VersionHistory:
        """What the backend tells, and what is missing from it in words."""
        history = await self._page(key, consistency, operation, after=0, limit=PAGE)
        versions: list[Version] = list(history.versions)
        while len(versions) < history.total:
            page = await self._store.versions(key, after=len(versions), limit=PAGE)
            if not page:
                break
            versions.extend(page)
        return await self._with_missing(history._replace(versions=tuple(versions)))

    async def _without_gaps(self, key: bytes, history: VersionHistory, operation: OperationContext) -> VersionHistory:
        """This machine's history has gaps: what the holders know; or what is here, marked."""
        why = ""
        if operation.dht.asks_swarm and not history.provenance.is_degraded:
            try:
                return await self._known(key, Consistency.SWARM, operation)
            except Unavailable as error:
                why = f", and the holders could not be asked: {error.message}"
        where = history.provenance
        where = where._replace(is_degraded=True, reason=where.reason + why)
        is_complete = not operation.dht.asks_swarm
        return history._replace(is_complete=is_complete, provenance=where)

    async def _with_missing(self, history: VersionHistory) -> VersionHistory:
        """Say which versions these were written on top of and nobody has told of."""
        shown = {version.digest for version in history.versions}
        named = [parent for version in history.versions for parent in version.parents if parent not in shown]
        missing = await self._unknown(named)
        if not missing:
            return history
        where = history.provenance
        are = "version is" if len(missing) == 1 else "versions are"
        words = f"{len(missing)} earlier {are} named as parents and not known here"
        reason = f"{where.reason}; {words}" if where.reason else words
        return history._replace(missing=missing, provenance=where._replace(reason=reason))

    async def _unknown(self, digests: Iterable[bytes]) -> tuple[bytes, ...]:
        asked = tuple(digests)
        found = await by_digests(self._store, asked) if asked else {}
        return tuple(digest for digest, version in found.items() if version is None)

    async def _page(
        self, key: bytes, consistency: Consistency, operation: OperationContext, *, after: int, limit: int
    ) -> VersionHistory:
        """Part of the history, from where the flags say that it comes from."""
        is_distributed = self._flags.use_distributed_resolver and consistency is _AUTO
        if not is_distributed or not operation.dht.asks_swarm:
            return await operation.dht.history(
                key, consistency=consistency, after=after, limit=limit, timeout=operation.seconds_left
            )
        try:
            return await operation.dht.history(
                key, consistency=Consistency.SWARM, after=after, limit=limit, timeout=operation.seconds_left
            )
        except Unavailable as error:
            history = await operation.dht.history(key, consistency=Consistency.LOCAL, after=after, limit=limit)
            if not self._flags.has_fallback or not history.total:
                raise
            why = f"answered from this machine: {error.message}"
            where = history.provenance._replace(is_degraded=True, reason=why)
            return history._replace(is_complete=False, provenance=where)

    async def history(
        self,
        address: Address,
        *,
        consistency: Consistency = Consistency.AUTO,
        after: int = 0,
        limit: int = PAGE,
        timeout: float | None = None,
    ) -> VersionHistory:
        """The versions of an address, the first one first. Raises `NotFound` when there is none."""
        key = require_one(address).key
        operation = self._dht.begin(key, timeout)
        history = await self._page(key, consistency, operation, after=after, limit=limit)
        if not history.total:
            raise NotFound(f"nothing is known at {address.canonical}", address=address.canonical)
        return await self._with_missing(history)
