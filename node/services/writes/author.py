"""Turns a wish to write into a signed version, and hands it to the DHT.

While one write of a key is being made (its parents read, its conditions checked, its version drawn, the envelope
merged) no other one of that key is: two callers of one node never make siblings by accident. The key is free again as
soon as the version is a head here; whether the swarm acknowledges is nobody else's wait.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import trio

from node.dht.base import Consistency, Receipt
from node.dht.dispatch import DispatchDHT, OperationContext
from node.store.base import Store
from node.store.hints import Standing
from protocols.clock import HybridClock, check_not_ahead
from protocols.envelope import ENCODED_BYTES_MAX, PARENTS_MAX, REISSUES, Envelope, Notice, decode, seal, verify
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
from protocols.keys import PrivateKey
from protocols.ucxl import Address, parse, require_one

COMMIT_SECONDS = 0.03
"""Kept back for the commit when the swarm is asked about a write first."""
UNCERTAIN_MAX = 4096
"""Uncertain writes that are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRequest:
    """What a caller wants to be written."""

    address: Address
    content: bytes = b""
    content_type: str = "application/octet-stream"
    meta: Mapping[str, str] = field(default_factory=dict)
    parents: tuple[bytes, ...] | None = None
    """The versions it was written on top of; None: the heads that this node knows."""
    if_match: tuple[bytes, ...] | None = None
    """Only when one of these is the head, and the only one."""
    any_match: bool = False
    """Only when there is something (`If-Match: *`)."""
    must_be_absent: bool = False
    """Only when there is nothing, or a tombstone."""
    deleted: bool = False
    idempotency_key: str | None = None
    timeout: float | None = None
    """Seconds, in place of the backend's own deadline."""

    @property
    def is_conditional(self) -> bool:
        return self.if_match is not None or self.any_match or self.must_be_absent


@dataclass(slots=True)
class _Turn:
    lock: trio.Lock = field(default_factory=trio.Lock)
    waiting: int = 0


class Author:
    """Writes in the name of `key`. A write ends in the backend, and by the deadline, that it began with."""

    def __init__(
        self,
        dht: DispatchDHT,
        store: Store,
        key: PrivateKey,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self.clock = HybridClock(store.latest_version())
        self._dht = dht
        self._store = store
        self._key = key
        self._now_ms = now_ms
        self._turns: dict[bytes, _Turn] = {}
        self._unsettled: dict[bytes, None] = {}
        """Keys of writes that the disk did not confirm in time: they may still become versions."""

    # -- writing ----------------------------------------------------------------------------------------------

    async def write(self, write: WriteRequest) -> Receipt:
        """Sign and write a version. Raises `InvalidAddress`, `Conflict`, `UnknownParents`, `NotLater`, `TooLarge`,
        and what the DHT raises."""
        started = trio.current_time()
        operation = self._dht.begin(write.address.key, write.timeout)
        address = require_one(write.address).canonical
        key = write.address.key
        if REISSUES in write.meta:
            raise InvalidPayload(
                f"the name {REISSUES!r} in meta is kept for a node that mends its clock: it ends a version that others "
                "wrote through this node; name the versions that you write on top of as parents",
                field="meta", provided=REISSUES,
            )  # fmt: skip
        if len(write.content) >= ENCODED_BYTES_MAX:
            raise TooLarge(
                f"the content has {len(write.content)} bytes; the whole envelope may have {ENCODED_BYTES_MAX}",
                size_bytes=len(write.content),
                size_bytes_max=ENCODED_BYTES_MAX,
            )
        async with self.turn(key, operation.deadline) as free:
            if earlier := await self._earlier(write.idempotency_key, address, write):
                return earlier
            if staged := await self._uncertain_write(write.idempotency_key, address, write):
                return await self._put(staged, write.idempotency_key, started, operation, free)
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
            return await self._put(envelope, write.idempotency_key, started, operation, free)

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
    ) -> Receipt:
        """Write a ready envelope that its author signed. Sending the same one again is harmless."""
        started = trio.current_time()
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
        async with self.turn(envelope.key, operation.deadline) as free:
            if earlier := await self._earlier(idempotency_key, envelope.address, envelope):
                return earlier
            if not isinstance(await self._store.by_digest(envelope.digest), Envelope):
                heads = await self._checked_heads(envelope.key, condition, operation)
                parents = await self._parents(envelope.key, heads, envelope.parents, operation)
                _check_later(envelope, parents)
            receipt = await self._put(envelope, idempotency_key, started, operation, free)
        self.clock.observe(envelope.version)
        return receipt

    async def _put(
        self,
        envelope: Envelope,
        idempotency_key: str | None,
        started: float,
        operation: OperationContext,
        on_merged: Callable[[], None],
    ) -> Receipt:
        timeout = max(0.001, operation.seconds_left)
        try:
            receipt = await operation.dht.put(
                envelope, idempotency_key=idempotency_key, timeout=timeout, on_merged=on_merged
            )
        except (Indeterminate, trio.Cancelled):
            self._unsettled[envelope.key] = None
            raise
        return receipt._replace(elapsed_ms=(trio.current_time() - started) * 1000.0)

    @contextlib.asynccontextmanager
    async def turn(self, key: bytes, deadline: float) -> AsyncIterator[Callable[[], None]]:
        """One's turn at a key. Gives a function that passes it on before the block ends; a second call is harmless.

        Raises `Unavailable` when it did not come before `deadline` (trio's clock).
        """
        turn = self._turns.setdefault(key, _Turn())
        turn.waiting += 1
        held = False

        def free() -> None:
            nonlocal held
            if held:
                held = False
                turn.lock.release()

        try:
            is_settled = False
            with trio.move_on_at(deadline):
                await turn.lock.acquire()
                held = True
                await self._settle(key)
                is_settled = True
            if not is_settled:
                raise Unavailable("earlier writes of this address are still under way; nothing was written")
            yield free
        finally:
            free()
            turn.waiting -= 1
            if not turn.waiting:
                self._turns.pop(key, None)

    async def _settle(self, key: bytes) -> None:
        """Wait until it is decided what became of earlier writes of this key that the disk did not confirm in time.

        Otherwise the next one would not know of them, and be their sibling.
        """
        if key not in self._unsettled and len(self._unsettled) < UNCERTAIN_MAX:
            return
        settled = tuple(self._unsettled)
        await self._store.settled()
        for each in settled:
            self._unsettled.pop(each, None)

    async def _earlier(
        self, idempotency_key: str | None, address: str, again: WriteRequest | Envelope
    ) -> Receipt | None:
        """The receipt of the write that was made under this key before. Raises `Conflict` if it was another one."""
        if idempotency_key is None:
            return None
        digest = await self._store.idempotent(idempotency_key)
        if digest is None:
            return None
        earlier = await self._store.by_digest(digest)
        if earlier is not None:
            _check_same(earlier, address, again)
        return await self.receipt(digest=digest)

    async def _uncertain_write(self, idempotency_key: str | None, address: str, again: WriteRequest) -> Envelope | None:
        """The very envelope that was written under this key before, when the swarm may have it: another one, with
        the same content, would be a second effect of one wish."""
        staged = await self._store.staged_under(idempotency_key) if idempotency_key is not None else None
        if staged is not None:
            _check_same(staged, address, again)
        return staged

    async def _checked_heads(
        self, key: bytes, write: WriteRequest, operation: OperationContext
    ) -> tuple[Envelope | Notice, ...]:
        """The heads this write goes on top of, its conditions held against them. Raises `Conflict`."""
        heads = await self._store.heads(key)
        if not write.is_conditional:
            return heads
        if operation.dht.asks_swarm:
            # Alone, what this machine knows decides; if another one knew more, a sibling is kept.
            with contextlib.suppress(Unavailable):
                heads = (await operation.dht.get(key, timeout=_left_to_ask(operation))).heads
        alive = [head for head in heads if not head.deleted]
        known = {"heads": [head.digest.hex() for head in heads]}
        if write.must_be_absent and alive:
            raise Conflict("there is something at this address already; PUT writes a new version of it", **known)
        if write.any_match and not alive:
            raise Conflict("there is nothing at this address to write a new version of", **known)
        if write.if_match is not None and not (len(heads) == 1 and heads[0].digest in write.if_match):
            raise Conflict("the head is not the one named in If-Match any more; read again, then decide", **known)
        return heads

    async def _parents(
        self,
        key: bytes,
        heads: Iterable[Envelope | Notice],
        named: tuple[bytes, ...] | None,
        operation: OperationContext,
    ) -> dict[bytes, int | None]:
        """The digests a write names as its parents, with their versions.

        None for one that is not known here while the swarm cannot be asked: it is taken on trust.
        """
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
                f"nobody knows a version {digest.hex()} of this address; name versions from its history",
                parent=digest.hex(),
            )
        return parent.version

    # -- receipts ---------------------------------------------------------------------------------------------

    async def receipt(
        self, *, log_id: str | None = None, sequence: int | None = None, digest: bytes | None = None
    ) -> Receipt:
        """How a write of this node stands now. Raises `NotFound` for one that is not in this node's log."""
        if log_id is not None and log_id != self._store.log_id:
            raise NotFound(
                f"this node's log is {self._store.log_id}, not {log_id}: ask the node that gave the receipt, "
                "or ask by digest",
                log=self._store.log_id,
            )
        standing = await self._store.standing(digest=digest, sequence=sequence)
        if standing is None:
            what = f"digest {digest.hex()}" if digest is not None else f"sequence {sequence}"
            raise NotFound(f"this node wrote nothing with {what}")
        return await self._receipt(standing, digest)

    async def replicated(self, digest: bytes, *, timeout: float) -> Receipt:
        """Wait until the write quorum has a write of this node, or the time is over; the receipt as it is then."""
        receipt = await self.receipt(digest=digest)
        with trio.move_on_after(timeout):
            while not receipt.is_replicated and receipt.quorum:
                await self._store.replicated(digest, receipt.quorum)
                receipt = await self.receipt(digest=digest)
        return receipt

    async def _receipt(self, standing: Standing, asked: bytes | None) -> Receipt:
        written = await self._store.by_digest(standing.digest)
        assert written is not None, standing
        return Receipt.of(written, standing, log_id=self._store.log_id, quorum=self._dht.write_quorum, requested=asked)


def _left_to_ask(operation: OperationContext) -> float:
    """How long the swarm may be asked about a write before it is written."""
    return max(0.0, operation.seconds_left - COMMIT_SECONDS)


def _check_same(earlier: Envelope | Notice, address: str, again: WriteRequest | Envelope) -> None:
    """Refuse a key that stands for another write: its content would be acknowledged, and written nowhere."""
    if earlier.address != address:
        raise Conflict(
            f"this Idempotency-Key was used for {earlier.address}; take another one", digest=earlier.digest.hex()
        )
    if not _says_the_same(earlier, again):
        raise Conflict(
            "this Idempotency-Key was used for a write of something else to this address; take another one",
            digest=earlier.digest.hex(),
        )


def _says_the_same(earlier: Envelope | Notice, again: WriteRequest | Envelope) -> bool:
    """As far as is known here. A second try may differ in what is said about the content, but not in the content."""
    if isinstance(again, Envelope):
        return earlier.digest == again.digest
    if not isinstance(earlier, Envelope):
        return earlier.deleted == again.deleted
    return (earlier.content, earlier.deleted) == (again.content, again.deleted)


def _check_later(envelope: Envelope, parents: Mapping[bytes, int | None]) -> None:
    for digest, version in parents.items():
        if version is not None and version >= envelope.version:
            raise NotLater(
                f"version {envelope.version} is not later than its parent {version} ({digest.hex()}); "
                "read again and write a later one",
                version=envelope.version,
                parent=digest.hex(),
            )
