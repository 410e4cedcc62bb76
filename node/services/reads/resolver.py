"""Resolver: finds the version that a UCXL address with its temporal part refers to."""

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import trio

from node.config.flags import Flags
from node.dht.base import Answer, Consistency, Extent, VersionHistory
from node.dht.call_health import CallHealth
from node.dht.dispatch import DispatchDHT, OperationContext
from node.dht.readable_heads import ReadableHeads
from node.services.reads import temporal_walk
from node.services.reads.resolver_cache import ResolverCache
from node.store.base import Store
from node.store.versions import Version, VersionRef
from protocols.envelope import Envelope, Notice, order_key
from protocols.errors import Deleted, NotFound, OutOfRange, Unavailable
from protocols.policy.cache import CacheCounts
from protocols.temporal import Head, Temporal
from protocols.ucxl import Address, require_one

PAGE = 1000
PARENTS_MAX = 8_192
"""Parents of all versions in one page of a history, or in a list of siblings; it ends before it has more."""
SIDE_BY_SIDE = 64
"""Versions whose content is asked for at once, after the first that a temporal part named had none."""
MISSING_MAX = 1_000
"""Missing parents that are named; of more it is only said that there are more."""

V = TypeVar("V", Version, Envelope | Notice)

_AUTO = Consistency.AUTO


class Resolver:
    """Reads through the DHT. A temporal read is answered from the history of the address.

    Local resolution, the default: a holder that has everything the others wrote uses its own history, and asks the
    other holders when that has gaps. Distributed resolution (`use_distributed_resolver`): the holders are asked for the
    history at every temporal read; this machine's own history is used, marked as degraded, when they do not answer.

    A read of several calls to the DHT has one deadline, and stays with the backend that it began in. While `run` runs,
    recent answers are cached (`resolver_cache.py`).
    """

    def __init__(
        self,
        dht: DispatchDHT,
        store: Store,
        *,
        flags: Flags,
        readable: ReadableHeads | None = None,
    ) -> None:
        self._dht = dht
        self._store = store
        self._readable = readable or ReadableHeads(store)
        self._time = trio.lowlevel.current_clock().current_time
        self.call_health = CallHealth()
        """Of the look-ups that neither the cache nor one read of the store could answer."""
        self._cache = ResolverCache(store, flags)
        self.use_flags(flags)

    @property
    def counts(self) -> CacheCounts:
        """How often the cache had an answer, and why it dropped some."""
        return self._cache.counts

    @property
    def lost_content(self) -> int:
        """How many versions readers were not given lately, because no holder had their content."""
        return self._readable.count()

    def use_flags(self, flags: Flags) -> None:
        """Calls that begin from now on follow these flags."""
        self._flags = flags
        self._cache.use_flags(flags)

    async def run(self) -> None:
        """Cache answers, and share look-ups, until cancelled."""
        await self._cache.run()

    async def resolve(
        self,
        address: Address,
        *,
        consistency: Consistency = Consistency.AUTO,
        digest: bytes | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """The version that an address refers to, first in `heads` and with its content; siblings after it.

        With `digest` it is the version of that name. Raises `NotFound`, `Deleted` (a tombstone; its digest is in the
        details), `OutOfRange`, `Unavailable`.
        """
        key, started = require_one(address).key, self._time()
        is_head = digest is None and isinstance(address.temporal, Head)
        answer = await self._dht.get_here(key) if is_head and consistency is _AUTO else None
        if answer is None:
            answer = await self._resolve(address, key, consistency, digest, timeout)
        first = answer.heads[0] if answer.heads else None
        if not isinstance(first, Envelope):
            operation = self._dht.begin(key, timeout, at=started)
            answer = await self._with_content(address, key, answer, consistency, operation)
            first = answer.heads[0]
        if first.deleted and digest is None:
            provenance = answer.provenance
            raise Deleted(
                f"{address.text} was deleted; its history is still there",
                deleted=True,
                digest=first.digest.hex(),
                version=first.version,
                heads=[head.digest.hex() for head in answer.heads],
                siblings=provenance.siblings,
                backend=provenance.backend.value,
                source=provenance.source,
                degraded=provenance.is_degraded,
                reason=provenance.reason,
            )
        return answer

    async def _resolve(
        self, address: Address, key: bytes, consistency: Consistency, digest: bytes | None, timeout: float | None
    ) -> Answer:
        """A read that may take more than one read of the store."""
        operation = self._dht.begin(key, timeout)
        part = address.temporal if digest is None else digest
        is_head = isinstance(part, Head)
        freshness = operation.dht.freshness(key)
        is_cached = self._cache.is_on and freshness.age_max_seconds > 0.0
        if consistency is _AUTO and is_cached and not (is_head and freshness.is_final):
            return await self._cache.get(
                key,
                part,
                freshness,
                lambda: self._look_up(address, key, part, _AUTO, operation, timeout),
                is_shared=timeout is None,
            )
        if not is_head:
            return await self._look_up(address, key, part, consistency, operation, timeout)
        answer = await self._dht.get(key, consistency=consistency, timeout=timeout)
        return await self._with_content(address, key, answer, consistency, operation)

    async def _look_up(
        self,
        address: Address,
        key: bytes,
        part: Temporal | bytes,
        consistency: Consistency,
        operation: OperationContext,
        timeout: float | None,
    ) -> Answer:
        with self.call_health:
            if isinstance(part, bytes):
                answer = await self._version(key, part, consistency, operation)
            elif isinstance(part, Head):
                answer = await operation.dht.get(key, consistency=consistency, timeout=operation.seconds_left)
            else:
                with _in_time(operation, timeout):
                    answer = await self._from_history(address, key, consistency, operation)
            return await self._with_content(address, key, answer, consistency, operation)

    async def _with_content(
        self, address: Address, key: bytes, answer: Answer, consistency: Consistency, operation: OperationContext
    ) -> Answer:
        """The answer, with the content of its first version. Raises `NotFound` when it is empty; `Unavailable` when
        something is known, and no holder was asked for its content."""
        if not answer.heads:
            reason, is_local = answer.provenance.reason, answer.provenance.source == "local"
            if answer.without_content and is_local:
                raise Unavailable(f"nothing can be read at {address.text} on this machine: {reason}")
            but = f", but {reason}" if reason else ""
            raise NotFound(f"nothing is known at {address.text}{but}", address=address.text)
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
        """A version that is known to exist: that no holder has its content is `Unavailable`, not `NotFound`."""
        answer = await self._version(key, digest, consistency, operation)
        if not answer.heads or not isinstance(answer.heads[0], Envelope):
            raise Unavailable(
                f"the version {digest.hex()} is known here, but no node that holds its content answered",
                digest=digest.hex(),
            )
        return answer.heads[0]

    # -- over the history -------------------------------------------------------------------------------------

    async def _from_history(
        self, address: Address, key: bytes, consistency: Consistency, operation: OperationContext
    ) -> Answer:
        history = await self._whole_history(key, consistency, operation, temporal_walk.extent_of(address.temporal))
        if history.missing and history.provenance.source == "local" and consistency is _AUTO:
            history = await self._without_gaps(key, history, operation)
        provenance = history.provenance
        if not history.total:
            raise NotFound(f"nothing is known at {address.canonical}", address=address.canonical)
        try:
            envelope, left_out = await self._find(key, address.temporal, consistency, operation)
        except OutOfRange as error:
            if history.is_complete or consistency is Consistency.LOCAL:
                raise
            raise Unavailable(
                f"{error.message}; that may not be all of them: {provenance.reason}", **error.details
            ) from error
        if left_out:
            words = f"{left_out} {'version' if left_out == 1 else 'versions'} without content not counted"
            reason = f"{provenance.reason}; {words}" if provenance.reason else words
            provenance = provenance._replace(is_degraded=True, reason=reason)
        return Answer((envelope,), provenance._replace(siblings=0))

    async def _find(
        self, key: bytes, temporal: Temporal, consistency: Consistency, operation: OperationContext
    ) -> tuple[Envelope, int]:
        """The version with its content, and how many were left out before it because no holder has their content.

        A version that is counted and ends no readable head is asked for first, the latest of them before the others:
        once its content is here, all before it count. Raises `OutOfRange`; `Unavailable` when too few holders answered.
        """
        without: set[VersionRef] = set()
        had: set[bytes] = set()
        count = 1
        while True:
            missing = (await self._readable.view(key, await self._store.heads(key))).missing
            lost = {VersionRef(*order_key(version)): None for version in missing if version.digest not in had}
            found = await temporal_walk.find(self._store, key, temporal, without, lost.keys(), count)
            asked = [version for version in lost if version in found.passed]
            if asked and count > 1:  # most likely the others have none either
                asked += [version for version in lost if version not in found.passed and version not in without]
            asked = asked[:count] or list(found.versions)
            contents = await self._contents(key, asked, consistency, operation, lost)
            first = contents[asked[0]]
            if first is not None and not found.passed:
                return first, found.left_out
            absent = {version for version, envelope in contents.items() if envelope is None}
            without |= absent
            had |= {version.digest for version in contents.keys() - absent}
            count = SIDE_BY_SIDE if absent else 1

    async def _contents(
        self,
        key: bytes,
        versions: Sequence[VersionRef],
        consistency: Consistency,
        operation: OperationContext,
        lost: Container[VersionRef],
    ) -> dict[VersionRef, Envelope | None]:
        """Versions with their content, asked for side by side; None for one whose content no holder has.

        While the holders do not answer, those in `lost` have none either, where the flags allow this machine to answer
        alone. Raises `Unavailable` when nothing is known of the first one; others like that are left out.
        """
        found: dict[VersionRef, Envelope | None] = {}
        errors: dict[VersionRef, Unavailable] = {}

        async def fetch(version: VersionRef) -> None:
            try:
                answer = await self._version(key, version.digest, consistency, operation)
            except Unavailable as error:
                if version in lost and self._flags.has_fallback:
                    found[version] = None
                else:
                    errors[version] = error
            else:
                head = answer.heads[0] if answer.heads else None
                found[version] = head if isinstance(head, Envelope) else None

        async with trio.open_nursery() as nursery:
            for version in versions:
                nursery.start_soon(fetch, version)
        if versions[0] in errors:
            raise errors[versions[0]]
        return found

    async def _whole_history(
        self, key: bytes, consistency: Consistency, operation: OperationContext, extent: Extent | None
    ) -> VersionHistory:
        """Where the history comes from and what is missing from the whole of it, with no more than its first version:
        the others are read from the store, as far as they are needed."""
        history = await self._page(key, consistency, operation, after=0, limit=1, extent=extent)
        return _missing_from(history, await self._store.missing_parents(key, limit=MISSING_MAX))

    async def _without_gaps(self, key: bytes, history: VersionHistory, operation: OperationContext) -> VersionHistory:
        """This machine's history has gaps: return that of the holders, or this one, marked as degraded."""
        why = ""
        if operation.dht.asks_swarm and not history.provenance.is_degraded:
            try:
                return await self._whole_history(key, Consistency.SWARM, operation, None)
            except Unavailable as error:
                why = f", and the holders could not be asked: {error.message}"
        provenance = history.provenance
        provenance = provenance._replace(is_degraded=True, reason=provenance.reason + why)
        is_complete = not operation.dht.asks_swarm
        return history._replace(is_complete=is_complete, provenance=provenance)

    async def _with_missing(self, key: bytes, history: VersionHistory) -> VersionHistory:
        """The history, with the parents of its versions that are not known here."""
        missing = set(await self._store.missing_parents(key, limit=MISSING_MAX))
        if not missing:
            return history
        parents = dict.fromkeys(parent for version in history.versions for parent in version.notice.parents)
        return _missing_from(history, [parent for parent in parents if parent in missing])

    async def _page(
        self, key: bytes, consistency: Consistency, operation: OperationContext, *, after: int, limit: int,
        extent: Extent | None = None,
    ) -> VersionHistory:  # fmt: skip
        """One page of the history, from the holders when the flags ask for distributed resolution."""
        is_distributed = self._flags.use_distributed_resolver and consistency is _AUTO
        if not is_distributed or not operation.dht.asks_swarm:
            return await operation.dht.history(
                key, consistency=consistency, after=after, limit=limit, extent=extent, timeout=operation.seconds_left
            )
        try:
            return await operation.dht.history(
                key,
                consistency=Consistency.SWARM,
                after=after,
                limit=limit,
                extent=extent,
                timeout=operation.seconds_left,
            )
        except Unavailable as error:
            history = await operation.dht.history(key, consistency=Consistency.LOCAL, after=after, limit=limit)
            if not self._flags.has_fallback or not history.total:
                raise
            why = f"answered from this machine: {error.message}"
            provenance = history.provenance._replace(is_degraded=True, reason=why)
            return history._replace(is_complete=False, provenance=provenance)

    async def history(
        self,
        address: Address,
        *,
        consistency: Consistency = Consistency.AUTO,
        after: int = 0,
        limit: int = PAGE,
        timeout: float | None = None,
    ) -> VersionHistory:
        """The versions of an address, earliest first. Raises `NotFound` when there is none."""
        key = require_one(address).key
        operation = self._dht.begin(key, timeout)
        with _in_time(operation, timeout):
            history = await self._page(key, consistency, operation, after=after, limit=limit)
            if not history.total:
                raise NotFound(f"nothing is known at {address.canonical}", address=address.canonical)
            return await self._with_missing(key, history._replace(versions=that_fit(history.versions)))


@contextmanager
def _in_time(operation: OperationContext, timeout: float | None) -> Iterator[None]:
    """Raise `Unavailable` when a read takes longer than its caller allows, or than a disk may take."""
    deadline = operation.deadline
    if timeout is None:
        deadline = max(deadline, trio.current_time() + operation.dht.store_deadline_seconds)
    with trio.move_on_at(deadline) as scope:
        yield
    if scope.cancelled_caught:
        raise Unavailable(
            "the deadline passed while this node read the history of the address; allow more time, or ask for less"
        )


def _missing_from(history: VersionHistory, missing: Sequence[bytes]) -> VersionHistory:
    """The history, from which these parents are missing; its provenance says so."""
    if not missing:
        return history
    provenance = history.provenance
    count = f"{len(missing)} or more" if len(missing) >= MISSING_MAX else f"{len(missing)}"
    are = "version is" if len(missing) == 1 else "versions are"
    words = f"{count} earlier {are} named as parents and not known here"
    reason = f"{provenance.reason}; {words}" if provenance.reason else words
    return history._replace(missing=tuple(missing), provenance=provenance._replace(reason=reason))


def that_fit(versions: tuple[V, ...]) -> tuple[V, ...]:
    """The first of these versions, with `PARENTS_MAX` parents together: a version may have 256."""
    count = 0
    for number, version in enumerate(versions):
        count += len(version.parents)
        if count > PARENTS_MAX and number:
            return versions[:number]
    return versions
