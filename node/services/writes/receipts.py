"""Receipts: how durable a write of this node is now, found by its digest or by its place in the log."""

import trio

from node.dht.base import Receipt
from node.dht.dispatch import DispatchDHT
from node.store.base import Store
from node.store.hints import Standing
from protocols.errors import NotFound, Unavailable
from protocols.log_lineage import LogPosition


class Receipts:
    """Of one node, for the writes in its logs."""

    def __init__(self, dht: DispatchDHT, store: Store) -> None:
        self._dht = dht
        self._store = store

    async def find(
        self, *, log_id: str | None = None, sequence: int | None = None, digest: bytes | None = None
    ) -> Receipt:
        """The current receipt of a write of this node. Raises `NotFound` for one that is not in this node's logs."""
        if log_id is not None and sequence is not None:
            self._check_position(LogPosition(log_id, sequence))
        standing = await self._store.standing(digest=digest, sequence=sequence)
        if standing is None:
            what = f"digest {digest.hex()}" if digest is not None else f"sequence {sequence}"
            raise NotFound(f"this node wrote nothing with {what}")
        return await self._of(standing, digest)

    async def replicated(self, digest: bytes, *, timeout: float) -> Receipt:
        """Wait until the write quorum has a write of this node, or for `timeout` seconds; return the receipt then."""
        receipt = await self.find(digest=digest)
        with trio.move_on_after(timeout):
            while not receipt.is_replicated and receipt.quorum:
                await self._store.replicated(digest, receipt.quorum)
                receipt = await self.find(digest=digest)
        return receipt

    async def siblings(self, key: bytes, digest: bytes) -> int:
        """How many other heads there are beside this version; 0 when it is no head, or when the disk cannot say."""
        try:
            heads = await self._store.heads(key)
        except Unavailable:
            return 0
        return len(heads) - 1 if len(heads) > 1 and any(head.digest == digest for head in heads) else 0

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

    async def _of(self, standing: Standing, requested: bytes | None) -> Receipt:
        written = await self._store.by_digest(standing.digest)
        if written is None:
            raise Unavailable(
                f"version {standing.digest.hex()} is damaged in this node's store, and is asked of the holders again; "
                "try again soon"
            )  # fmt: skip
        log_id = self._store.log_of(standing.sequence)
        receipt = Receipt.of(written, standing, log_id=log_id, quorum=self._dht.write_quorum, requested=requested)
        return receipt._replace(siblings=await self.siblings(written.key, written.digest))
