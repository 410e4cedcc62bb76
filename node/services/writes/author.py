"""Author: makes a signed version of a write request, and hands it to the DHT.

It holds the key's lock (`key_locks.py`) while it reads the parents, checks the conditions, takes a version from the
clock and has the envelope merged. The lock is free again as soon as the version is a head here: the next writer does
not wait until the swarm acknowledges.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import trio

from node.dht.base import Consistency, Receipt
from node.dht.dispatch import DispatchDHT, OperationContext
from node.services.writes.key_locks import HeldLock, KeyLocks
from node.store.base import Store
from node.store.hints import Standing
from protocols.clock import HybridClock, check_not_ahead
from protocols.envelope import Envelope, Notice, decode, seal, verify
from protocols.errors import (
    Conflict,
    Indeterminate,
    InvalidAddress,
    InvalidPayload,
    NotFound,
    NotLater,
    TooLarge,
    Unavailable,
    UnknownParents,
)
from protocols.header import ENCODED_BYTES_MAX, PARENTS_MAX, REISSUES
from protocols.heads import heads_tag
from protocols.keys import PrivateKey
from protocols.log_lineage import LogPosition
from protocols.ucxl import Address, parse, require_one

HEADS_SHOWN = 4
"""How many heads a message names."""
COMMIT_SECONDS = 0.03
"""Kept back for the commit when the swarm is asked about a write first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRequest:
    """A version that a caller wants written, with the conditions for it."""

    address: Address
    content: bytes = b""
    content_type: str = "application/octet-stream"
    meta: Mapping[str, str] = field(default_factory=dict)
    parents: tuple[bytes, ...] | None = None
    """The versions it is written on top of; None: the heads that this node knows."""
    if_match: tuple[bytes, ...] | None = None
    """Write only when every head is one of these, or when one of these is the tag of all heads
    (`protocols.heads.heads_tag`). The heads become the parents, unless `parents` names others."""
    any_match: bool = False
    """Write only when there is a head that is no tombstone (`If-Match: *`)."""
    must_be_absent: bool = False
    """Write only when there is no head but tombstones."""
    deleted: bool = False
    idempotency_key: str | None = None
    timeout: float | None = None
    """Seconds, in place of the backend's own deadline."""

    @property
    def is_conditional(self) -> bool:
        return self.if_match is not None or self.any_match or self.must_be_absent


class Author:
    """Signs with `key`. A write ends in the backend, and by the deadline, that it began with."""

    def __init__(
        self,
        dht: DispatchDHT,
        store: Store,
        key: PrivateKey,
        *,
        now_ms: Callable[[], int],
        must_ask: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        """`must_ask` says whether this store may lack heads of a key that the other holders have."""
        self._must_ask = must_ask
        self.clock = HybridClock(store.latest_version())
        self._dht = dht
        self._store = store
        self._key = key
        self._now_ms = now_ms
        self.locks = KeyLocks(store)

    # -- writing ----------------------------------------------------------------------------------------------

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
        async with self.locks.hold(
            key,
            operation.deadline,
            disk_seconds=self._dht.store_deadline_seconds,
            idempotency_key=write.idempotency_key,
        ) as lock:
            operation = operation._replace(deadline=lock.deadline)
            if earlier := await self._earlier(write.idempotency_key, address, write):
                return earlier
            if staged := await self._uncertain_write(write.idempotency_key, address, write):
                return await self._put(staged, write.idempotency_key, started, operation, lock)
            heads = await self._checked_heads(key, write, operation)
            parents = await self._parents(key, heads, write.parents, operation)
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
            return receipt._replace(is_conditional=write.is_conditional)

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
            address=parse(envelope.address), if_match=if_match, any_match=any_match, must_be_absent=must_be_absent
        )
        async with self.locks.hold(
            envelope.key,
            operation.deadline,
            disk_seconds=self._dht.store_deadline_seconds,
            idempotency_key=idempotency_key,
        ) as lock:
            operation = operation._replace(deadline=lock.deadline)
            if earlier := await self._earlier(idempotency_key, envelope.address, envelope):
                return earlier
            await self._uncertain_write(idempotency_key, envelope.address, envelope)
            if not await self._is_held(envelope):
                heads = await self._checked_heads(envelope.key, condition, operation)
                parents = await self._parents(envelope.key, heads, envelope.parents, operation)
                _check_later(envelope, parents)
            receipt = await self._put(envelope, idempotency_key, started, operation, lock)
        self.clock.observe(envelope.version)
        return receipt._replace(is_conditional=condition.is_conditional)

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
            siblings=await self._siblings(envelope.key, envelope.digest),
        )

    async def _siblings(self, key: bytes, digest: bytes) -> int:
        """How many other heads there are beside this version; 0 when it is no head, or when the disk cannot say."""
        try:
            heads = await self._store.heads(key)
        except Unavailable:
            return 0
        return len(heads) - 1 if len(heads) > 1 and any(head.digest == digest for head in heads) else 0

    async def _earlier(
        self, idempotency_key: str | None, address: str, again: WriteRequest | Envelope
    ) -> Receipt | None:
        """The receipt of an earlier write with this idempotency key; `Conflict` if that was a different write."""
        if idempotency_key is None:
            return None
        digest = await self._store.idempotent(idempotency_key)
        if digest is None:
            return None
        earlier = await self._store.by_digest(digest)
        if earlier is not None:
            _check_same(earlier, address, again)
        return await self.receipt(digest=digest)

    async def _uncertain_write(
        self, idempotency_key: str | None, address: str, again: WriteRequest | Envelope
    ) -> Envelope | None:
        """The envelope of an earlier write with this idempotency key that the swarm may have: a new envelope with the
        same content would be a second effect of one request. `Conflict` if that was a different write."""
        staged = await self._store.staged_under(idempotency_key) if idempotency_key is not None else None
        if staged is not None:
            _check_same(staged, address, again)
        return staged

    async def _checked_heads(
        self, key: bytes, write: WriteRequest, operation: OperationContext
    ) -> tuple[Envelope | Notice, ...]:
        """The heads that this write is made on top of: those that a reader would be given now. Raises `Conflict` when
        they do not meet its conditions."""
        if not write.is_conditional and not self._must_ask(key):
            heads = await self._store.heads(key)
            if all(isinstance(head, Envelope) for head in heads):
                return heads
            here = await operation.dht.get(key, consistency=Consistency.LOCAL)
            if not here.without_content:
                return here.heads
        heads = await self._readable(key, operation)
        alive = [head for head in heads if not head.deleted]
        known = {"heads": [head.digest.hex() for head in heads]}
        if write.must_be_absent and alive:
            raise Conflict("there is something at this address already; PUT writes a new version of it", **known)
        if write.any_match and not alive:
            raise Conflict("there is nothing at this address to write a new version of", **known)
        if write.if_match is None:
            return heads
        for each in (await self._store.heads(key), heads):  # whoever names a head without content means it
            if _matches(write.if_match, each):
                return each
        raise Conflict(
            f"If-Match does not name the heads that there are now ({_in_words(heads)}); read again, then decide",
            **known,
        )

    async def _readable(self, key: bytes, operation: OperationContext) -> tuple[Envelope | Notice, ...]:
        """The heads that a reader is given; without the swarm this machine's: if another node knew more, a sibling is
        kept."""
        try:
            return (await operation.dht.get(key, timeout=_left_to_ask(operation))).heads
        except Unavailable:
            return (await operation.dht.get(key, consistency=Consistency.LOCAL)).heads

    async def _parents(
        self,
        key: bytes,
        heads: Iterable[Envelope | Notice],
        named: tuple[bytes, ...] | None,
        operation: OperationContext,
    ) -> dict[bytes, int | None]:
        """The parents of a write, with their versions; None for a parent that is not known here while the swarm cannot
        be asked: it is accepted unchecked."""
        known: dict[bytes, int | None] = {head.digest: head.version for head in heads}
        if named is None:
            return dict(list(known.items())[:PARENTS_MAX])
        return {digest: known.get(digest) or await self._version_of(key, digest, operation) for digest in named}

    async def _version_of(self, key: bytes, digest: bytes, operation: OperationContext) -> int | None:
        parent = await self._store.by_digest(digest)
        if parent is None and operation.dht.asks_swarm:
            try:
                answer = await operation.dht.get_version(
                    key, digest, consistency=Consistency.AUTO, timeout=_left_to_ask(operation)
                )
            except (Unavailable, Indeterminate):
                return None
            parent = answer.heads[0] if answer.heads else None
        if parent is None or parent.key != key:
            raise UnknownParents(
                f"no node knows a version {digest.hex()} of this address; name versions from its history",
                parent=digest.hex(),
            )
        return parent.version

    # -- receipts ---------------------------------------------------------------------------------------------

    async def receipt(
        self, *, log_id: str | None = None, sequence: int | None = None, digest: bytes | None = None
    ) -> Receipt:
        """The current receipt of a write of this node. Raises `NotFound` for one that is not in this node's logs."""
        if log_id is not None and sequence is not None:
            self._check_position(LogPosition(log_id, sequence))
        standing = await self._store.standing(digest=digest, sequence=sequence)
        if standing is None:
            what = f"digest {digest.hex()}" if digest is not None else f"sequence {sequence}"
            raise NotFound(f"this node wrote nothing with {what}")
        return await self._receipt(standing, digest)

    def _check_position(self, named: LogPosition) -> None:
        """Raise `NotFound` unless this store has the entry. The sequence alone may be that of another write."""
        store = self._store
        if store.log_of(named.sequence) == named.log_id:
            return
        ended = next((log.sequence for log in store.former_logs if log.log_id == named.log_id), None)
        if ended is not None and named.sequence > ended:
            raise NotFound(
                f"of its former log {named.log_id} this node has the entries up to {ended}, not {named.sequence}: its "
                "data directory was replaced by an older copy, or lost its latest writes; ask by digest",
                log=store.log_id,
            )
        raise NotFound(
            f"this node's log is {store.log_id}, and entry {named.sequence} is not of {named.log_id:.64}: ask the node "
            "that gave the receipt, or ask by digest",
            log=store.log_id,
        )

    async def replicated(self, digest: bytes, *, timeout: float) -> Receipt:
        """Wait until the write quorum has a write of this node, or for `timeout` seconds; return the receipt then."""
        receipt = await self.receipt(digest=digest)
        with trio.move_on_after(timeout):
            while not receipt.is_replicated and receipt.quorum:
                await self._store.replicated(digest, receipt.quorum)
                receipt = await self.receipt(digest=digest)
        return receipt

    async def _receipt(self, standing: Standing, requested: bytes | None) -> Receipt:
        written = await self._store.by_digest(standing.digest)
        if written is None:
            raise Unavailable(
                f"version {standing.digest.hex()} is damaged in this node's store, and is asked of the holders again; "
                "try again soon"
            )  # fmt: skip
        log_id = self._store.log_of(standing.sequence)
        receipt = Receipt.of(written, standing, log_id=log_id, quorum=self._dht.write_quorum, requested=requested)
        return receipt._replace(siblings=await self._siblings(written.key, written.digest))


def _matches(named: tuple[bytes, ...], heads: tuple[Envelope | Notice, ...]) -> bool:
    """Whether these digests, or tags of sets of heads, name all heads that there are."""
    digests = {head.digest for head in heads}
    return bool(digests) and (digests <= set(named) or heads_tag(digests) in named)


def _in_words(heads: tuple[Envelope | Notice, ...]) -> str:
    """The digests of a few heads, for a message; the details of the error have all."""
    if not heads:
        return "there is none"
    words = ", ".join(head.digest.hex() for head in heads[:HEADS_SHOWN])
    return f"{words} and {len(heads) - HEADS_SHOWN} more" if len(heads) > HEADS_SHOWN else words


def _left_to_ask(operation: OperationContext) -> float:
    """How many seconds the swarm may be asked about a write before it is made."""
    return max(0.0, operation.seconds_left - COMMIT_SECONDS)


def _check_same(earlier: Envelope | Notice, address: str, again: WriteRequest | Envelope) -> None:
    """Refuse an idempotency key of another write: this one's content would be acknowledged, and written nowhere."""
    if earlier.address != address:
        raise Conflict(
            f"this Idempotency-Key was used for {earlier.address}; take another one", digest=earlier.digest.hex()
        )
    if not _is_same_write(earlier, again):
        raise Conflict(
            "this Idempotency-Key was used for a write of something else to this address; take another one",
            digest=earlier.digest.hex(),
        )


def _is_same_write(earlier: Envelope | Notice, again: WriteRequest | Envelope) -> bool:
    """A second try may differ in content type and meta, but not in the content."""
    if isinstance(again, Envelope):
        return earlier.digest == again.digest
    return (earlier.content_digest, earlier.deleted) == (sha256(again.content).digest(), again.deleted)


def _check_later(envelope: Envelope, parents: Mapping[bytes, int | None]) -> None:
    for digest, version in parents.items():
        if version is not None and version >= envelope.version:
            raise NotLater(
                f"version {envelope.version} is not later than its parent {version} ({digest.hex()}); "
                "read again and write a later one",
                version=envelope.version,
                parent=digest.hex(),
            )
