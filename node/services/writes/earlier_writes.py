"""Earlier writes: what an idempotency key was used for before, so that a repeated request has one effect."""

from hashlib import sha256

from node.dht.base import Receipt
from node.services.writes.receipts import Receipts
from node.services.writes.write_request import WriteRequest
from node.store.base import Store
from protocols.envelope import Envelope, Notice
from protocols.errors import Conflict


class EarlierWrites:
    """Used under the lock of the idempotency key. Both methods raise `Conflict` for the key of a different write."""

    def __init__(self, store: Store, receipts: Receipts) -> None:
        self._store = store
        self._receipts = receipts

    async def finished(
        self, idempotency_key: str | None, address: str, again: WriteRequest | Envelope
    ) -> Receipt | None:
        """The receipt of an earlier write with this key."""
        if idempotency_key is None:
            return None
        digest = await self._store.idempotent(idempotency_key)
        if digest is None:
            return None
        earlier = await self._store.by_digest(digest)
        if earlier is not None:
            _check_same(earlier, address, again)
        return await self._receipts.find(digest=digest)

    async def uncertain(
        self, idempotency_key: str | None, address: str, again: WriteRequest | Envelope
    ) -> Envelope | None:
        """The envelope of an earlier write with this key that the swarm may have: a new envelope with the same content
        would be a second effect of one request."""
        staged = await self._store.staged_under(idempotency_key) if idempotency_key is not None else None
        if staged is not None:
            _check_same(staged, address, again)
        return staged


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
