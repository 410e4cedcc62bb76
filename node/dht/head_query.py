"""Head query: asks the holders of a key for its heads, merges their answers into this store, and repairs the holders.

The order matters: what the holders answered is durable here before it is shown, gaps in the history are filled before
a head is called a sibling, and holders that lack a head get it after the answer (read repair).
"""

import logging

import trio

from node.dht import history_backfill
from node.dht.base import Answer, Backend, Provenance
from node.dht.hedged_query import QueryResult
from node.dht.ingest import Ingest
from node.dht.replica_query import ReplicaQuery, is_majority
from node.store.base import Store
from node.swarm.delivery import Delivery
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.envelope import Envelope, Notice, order_key
from protocols.errors import BzzzError, Unavailable
from protocols.messages import ENVELOPES_MAX, EnvelopesReply, GetByDigest, GetHeads, HeadsReply

log = logging.getLogger(__name__)

Heads = tuple[Envelope | Notice, ...]


class HeadQuery:
    """`read_quorum` holders must have answered before a head is shown without a mark."""

    def __init__(
        self,
        store: Store,
        rpc: Rpc,
        delivery: Delivery,
        members: Members,
        *,
        query: ReplicaQuery,
        ingest: Ingest,
        read_quorum: int,
    ) -> None:
        self._store = store
        self._rpc = rpc
        self._delivery = delivery
        self._members = members
        self._query = query
        self._ingest = ingest
        self._read_quorum = read_quorum

    async def run(self, key: bytes, local: Heads, deadline: float) -> Answer:
        """The heads of a key as the holders and this node, which has `local`, know them together.

        Raises `Unavailable` when too few holders answered to say that there is none.
        """
        have = tuple(head.digest for head in local if isinstance(head, Envelope))[:ENVELOPES_MAX]
        result, wanted = await self._ask(key, have, deadline)
        heads, shortfall = await self._merge(key, result, have, deadline)
        if not heads and not is_majority(result, wanted):
            raise self._query.unanswered(result, wanted)
        named = {peer: r.digests for peer, r in result.answers.items() if isinstance(r, HeadsReply)}
        if missing := await self._count_missing(heads, named):
            shortfall = shortfall or f"this node cannot take {missing} heads that the holders named; its log says why"
            if not heads:
                message = f"there is something, and it cannot be shown: {shortfall}"
                raise Unavailable(message, answered=len(result.answers))
        heads = await self._without_gaps(key, heads, named, deadline)
        self._repair(heads, named, wanted)
        top = heads[0].digest if heads else b""
        replicas = sum(top in digests for digests in named.values()) + any(head.digest == top for head in local)
        needed = min(self._read_quorum, len(wanted))
        if len(result.answers) < needed:
            shortfall = f"{len(result.answers)} of {needed} holders answered"
        siblings = max(0, len(heads) - 1)
        return Answer(heads, Provenance(Backend.REAL, "swarm", 0.0, replicas, siblings, bool(shortfall), shortfall))

    async def _ask(self, key: bytes, have: tuple[bytes, ...], deadline: float) -> tuple[QueryResult, tuple[str, ...]]:
        def is_enough(result: QueryResult) -> bool:
            is_found = have or any(isinstance(r, HeadsReply) and r.digests for r in result.answers.values())
            if is_found:
                return len(result.answers) >= min(self._read_quorum, len(wanted))
            return is_majority(result, wanted)

        wanted = self._members.wanted(key)
        result = await self._query.ask(wanted, lambda _: GetHeads(key, have), is_enough, deadline)
        return result, wanted

    async def _merge(
        self, key: bytes, result: QueryResult, have: tuple[bytes, ...], deadline: float
    ) -> tuple[Heads, str]:
        """Merge the answers; return the heads then, and why these may be fewer than the holders know, or ''."""
        replies = [(peer, r) for peer, r in result.answers.items() if isinstance(r, HeadsReply)]
        encoded = [(peer, envelope) for peer, reply in replies for envelope in reply.envelopes]
        shortfall = ""
        try:
            await self._ingest.check_and_merge(key, encoded)
            for peer, reply in replies:
                await self._fetch_rest(key, peer, reply, have, deadline)
        except BzzzError as error:
            shortfall = f"this node cannot keep what the holders answered: {error.message}"
        return await self._store.heads(key), shortfall

    async def _fetch_rest(
        self, key: bytes, peer: str, reply: HeadsReply, have: tuple[bytes, ...], deadline: float
    ) -> None:
        """Fetch the heads that did not fit into a peer's answer: many siblings, or large ones."""
        missing = [digest for digest in reply.digests if digest not in have]
        received = len(reply.envelopes)
        while received and received < len(missing):
            missing = [d for d in missing if not isinstance(await self._store.by_digest(d), Envelope)]
            if not missing:
                return
            timeout = max(0.0, deadline - trio.current_time())
            more = await self._rpc.call(peer, GetByDigest(tuple(missing)), timeout=timeout)
            envelopes = more.envelopes if isinstance(more, EnvelopesReply) else ()
            received = len(envelopes)
            await self._ingest.check_and_merge(key, [(peer, envelope) for envelope in envelopes])

    async def _count_missing(self, heads: Heads, named: dict[str, tuple[bytes, ...]]) -> int:
        """How many of the heads that peers named are not known here, even after the merge."""
        known = {head.digest for head in heads}
        others = {digest for digests in named.values() for digest in digests if digest not in known}
        return len(await self._store.unknown(sorted(others))) if others else 0

    async def _without_gaps(
        self, key: bytes, heads: Heads, named: dict[str, tuple[bytes, ...]], deadline: float
    ) -> Heads:
        """The heads that remain when a peer that knows later ones has sent which versions superseded those here."""
        current = {digest for digests in named.values() for digest in digests}
        only_here = [head for head in heads if head.digest not in current]
        peers = [peer for peer, digests in named.items() if digests]
        if not only_here or not peers:
            return heads
        try:
            await history_backfill.fill(self._rpc, self._ingest, key, peers[0], only_here, deadline=deadline)
        except BzzzError as error:
            log.info("whether %d heads were superseded is not known now: %s", len(only_here), error.message)
        return await self._store.heads(key)

    def _repair(self, heads: Heads, named: dict[str, tuple[bytes, ...]], wanted: tuple[str, ...]) -> None:
        """Send the holders that answered the heads that they lack. The answer does not wait for that."""
        for peer, digests in named.items():
            for head in sorted(heads, key=order_key):
                if peer in wanted and head.digest not in digests and isinstance(head, Envelope):
                    self._delivery.deliver(peer, head, lambda _: None)
