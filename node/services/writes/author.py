"""Author: makes a signed version of a write request, and hands it to the DHT.

It holds the key's lock (`key_locks.py`) while it reads the parents, checks the conditions, takes a version from the
clock and has the envelope merged. The lock is free again as soon as the version is a head here: the next writer does
not wait until the swarm acknowledges.
"""

from collections.abc import Callable, Mapping

import trio

from node.dht.base import Receipt
from node.dht.dispatch import DispatchDHT, OperationContext
from node.services.writes.earlier_writes import EarlierWrites
from node.services.writes.key_locks import HeldLock, KeyLocks
from node.services.writes.receipts import Receipts
from node.services.writes.write_parents import WriteParents
from node.services.writes.write_request import WriteRequest
from node.store.base import Store
from node.swarm.reconciliation import Reconciliation
from protocols.clock import HybridClock, check_not_ahead
from protocols.envelope import Envelope, decode, seal, verify
from protocols.errors import Indeterminate, InvalidAddress, InvalidPayload, NotLater, TooLarge
from protocols.header import ENCODED_BYTES_MAX, REISSUES
from protocols.keys import PrivateKey
from protocols.ucxl import Address, parse, require_one

LOCK_SECONDS = 0.01
"""How long a write may wait for other writes of its key at least."""


class Author:
    """Signs with `key`. A write ends in the backend, and by the deadline, that it began with.

    `reconciliation` says whether this store may lack heads of a key that the other holders have.
    """

    def __init__(
        self,
        dht: DispatchDHT,
        store: Store,
        key: PrivateKey,
        receipts: Receipts,
        *,
        now_ms: Callable[[], int],
        reconciliation: Reconciliation,
    ) -> None:
        self.clock = HybridClock(store.latest_version())
        self.locks = KeyLocks(store)
        self._dht = dht
        self._store = store
        self._key = key
        self._receipts = receipts
        self._earlier = EarlierWrites(store, receipts)
        self._parents = WriteParents(store, reconciliation)
        self._now_ms = now_ms

    async def write(self, write: WriteRequest, *, began: float | None = None) -> Receipt:
        """Sign and write a version. `began` is when its deadline began, on trio's clock, if that was before now.

        Raises `InvalidAddress`, `Conflict`, `UnknownParents`, `NotLater`, `TooLarge`, and what the DHT raises.
        """
        started = trio.current_time() if began is None else began
        operation = self._dht.begin(write.address.key, write.timeout, at=started)
        address = require_one(write.address).canonical
        key = write.address.key
        if REISSUES in write.meta:
            raise InvalidPayload(
                f"the name {REISSUES!r} in meta is reserved for versions that a node issues again after its clock was "
                "set right; name the versions that you write on top of as parents",
                field="meta", provided=REISSUES,
            )  # fmt: skip
        if len(write.content) >= ENCODED_BYTES_MAX:
            raise TooLarge(
                f"the content has {len(write.content)} bytes; the whole envelope may have {ENCODED_BYTES_MAX}",
                size_bytes=len(write.content),
                size_bytes_max=ENCODED_BYTES_MAX,
            )
        doubt = await self._parents.ask_first(key, write, operation)
        async with self._lock(key, operation, write.idempotency_key) as lock:
            operation = operation._replace(deadline=lock.deadline)
            if earlier := await self._earlier.finished(write.idempotency_key, address, write):
                return earlier
            if staged := await self._earlier.uncertain(write.idempotency_key, address, write):
                return await self._put(staged, write.idempotency_key, started, operation, lock)
            heads = await self._parents.checked_heads(key, write, operation, doubt)
            parents = await self._parents.parents(key, heads, write.parents, operation)
            version = self.clock.read(self._now_ms(), after=[after for after in parents.values() if after])
            envelope = seal(
                self._key,
                address=address,
                content=write.content,
                content_type=write.content_type,
                version=version,
                parents=parents,
                meta=write.meta,
                deleted=write.deleted,
            )
            receipt = await self._put(envelope, write.idempotency_key, started, operation, lock)
            return receipt._replace(is_conditional=write.is_conditional, may_be_sibling=doubt or "")

    async def write_envelope(
        self,
        encoded: bytes,
        *,
        address: Address | None = None,
        if_match: tuple[bytes, ...] | None = None,
        any_match: bool = False,
        must_be_absent: bool = False,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        began: float | None = None,
    ) -> Receipt:
        """Write an envelope that its author signed already. Sending the same one again is harmless."""
        started = trio.current_time() if began is None else began
        envelope = decode(encoded)
        operation = self._dht.begin(envelope.key, timeout, at=started)
        if address is not None and require_one(address).canonical != envelope.address:
            raise InvalidAddress(
                f"the envelope is for {envelope.address}, and it was sent to {address.canonical}",
                field="address",
                provided=address.canonical,
                expected=envelope.address,
            )
        verify(envelope)
        check_not_ahead(envelope.version, self._now_ms())
        condition = WriteRequest(
            address=parse(envelope.address), parents=envelope.parents,
            if_match=if_match, any_match=any_match, must_be_absent=must_be_absent,
        )  # fmt: skip
        doubt = await self._parents.ask_first(envelope.key, condition, operation)
        async with self._lock(envelope.key, operation, idempotency_key) as lock:
            operation = operation._replace(deadline=lock.deadline)
            if earlier := await self._earlier.finished(idempotency_key, envelope.address, envelope):
                return earlier
            await self._earlier.uncertain(idempotency_key, envelope.address, envelope)
            if not await self._is_held(envelope):
                heads = await self._parents.checked_heads(envelope.key, condition, operation, doubt)
                _check_later(envelope, await self._parents.parents(envelope.key, heads, envelope.parents, operation))
            receipt = await self._put(envelope, idempotency_key, started, operation, lock)
        self.clock.observe(envelope.version)
        return receipt._replace(is_conditional=condition.is_conditional, may_be_sibling=doubt or "")

    def _lock(self, key: bytes, operation: OperationContext, idempotency_key: str | None) -> HeldLock:
        """The lock for a write. One whose deadline has passed while others were asked has a moment to get it."""
        deadline = max(operation.deadline, trio.current_time() + LOCK_SECONDS)
        disk_seconds = self._dht.store_deadline_seconds
        return self.locks.hold(key, deadline, disk_seconds=disk_seconds, idempotency_key=idempotency_key)

    async def _is_held(self, envelope: Envelope) -> bool:
        """Whether this version is here with its content. An address without a head has no version, and heads are kept
        in memory: the first version of an address needs one look into the file and not two."""
        if not await self._store.heads(envelope.key):
            return False
        return isinstance(await self._store.by_digest(envelope.digest), Envelope)

    async def _put(
        self,
        envelope: Envelope,
        idempotency_key: str | None,
        started: float,
        operation: OperationContext,
        lock: HeldLock,
    ) -> Receipt:
        timeout = max(0.001, operation.seconds_left)
        if operation.dht.commits_first:
            lock.begin_commit()
        try:
            receipt = await operation.dht.put(
                envelope, idempotency_key=idempotency_key, timeout=timeout, on_merged=lock.release
            )
        except (Indeterminate, trio.Cancelled):
            self.locks.mark_uncertain(envelope.key, idempotency_key)
            raise
        return receipt._replace(
            elapsed_ms=(trio.current_time() - started) * 1000.0,
            siblings=await self._receipts.siblings(envelope.key, envelope.digest),
        )


def _check_later(envelope: Envelope, parents: Mapping[bytes, int | None]) -> None:
    for digest, version in parents.items():
        if version is not None and version >= envelope.version:
            raise NotLater(
                f"version {envelope.version} is not later than its parent {version} ({digest.hex()}); "
                "read again and write a later one",
                version=envelope.version,
                parent=digest.hex(),
            )
