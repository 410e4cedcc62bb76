"""The values and contents that this node has for the DHT: those of its store.

The value of the key of an address is the encoded envelope of its latest readable head. A value that a peer puts is an
envelope, checked and merged as one that a member hands over: whatever valid version it is, it is kept. Peers that are
no members write and read here too; they count towards no quorum, and there are no hints for them.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from node.dht.readable_heads import ReadableHeads
from node.services.writes.envelope_inspector import FORGED, EnvelopeInspector
from node.store.base import Store
from node.store.log import Incoming, Origin
from node.swarm.peer_policy import PeerPolicy
from protocols.cid import digest_of_multihash
from protocols.clock import ms_of
from protocols.envelope import Envelope
from protocols.errors import BzzzError, Malformed
from protocols.kademlia.messages import Record
from protocols.policy.reputation import Offence
from protocols.policy.signature_cache import SignatureCache

_YEAR_10000_MS = 253_402_300_800_000
"""RFC 3339 has four digits for the year."""


class KademliaRecords:
    """The `Records` of `node/swarm/kademlia/server.py`."""

    def __init__(
        self,
        store: Store,
        *,
        readable: ReadableHeads,
        verified: SignatureCache,
        peer_policy: PeerPolicy,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._readable = readable
        self._inspector = EnvelopeInspector(verified, now_ms)
        self._peer_policy = peer_policy
        self._now_ms = now_ms

    async def get(self, key: bytes) -> Record | None:
        """What this node has under a key; None for a key that is none of an address."""
        view = await self._readable.view(key, await self._store.heads(key))
        if not view.heads:
            return None
        head = view.heads[0]
        envelope = head if isinstance(head, Envelope) else await self._store.by_digest(head.digest)
        if not isinstance(envelope, Envelope):
            return None
        return Record(key, envelope.encoded, rfc3339(ms_of(envelope.version)))

    async def put(self, peer: str, record: Record) -> Record:
        """Keep a value that a peer puts. Returns the same, or what is there when that is later.

        Raises the `BzzzError` for which it is refused; a forged value is blamed on the peer.
        """
        try:
            envelope = self._inspector.inspect(record.value)
        except BzzzError as error:
            if isinstance(error, FORGED):
                self._peer_policy.blame_for(peer, [record.value], were_asked_for=False)
            raise
        if envelope.key != record.key:
            what = f"put {envelope.address} under a key that is not that of this address"
            self._peer_policy.blame(peer, Offence.BAD_ENVELOPE, what)
            raise Malformed("the key of a value is not that of its address")
        await self._store.merge([Incoming(envelope, Origin.PEER)], now_ms=self._now_ms())
        heads = await self._store.heads(record.key)
        if any(head.digest == envelope.digest for head in heads):
            return record
        return await self.get(record.key) or record

    async def holds(self, key: bytes) -> bool:
        """Whether a key is the multihash of a content that is in the store, and can be read now."""
        digest = digest_of_multihash(key)
        try:
            return digest is not None and await self._store.has_content(digest)
        except BzzzError:  # who else provides it can be answered all the same
            return False


def rfc3339(ms: int) -> str:
    """A time in Unix milliseconds as RFC 3339 writes it, with nine digits behind the second as go and js do."""
    ms = min(ms, _YEAR_10000_MS - 1)
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03}000000Z"
