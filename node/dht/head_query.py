"""Head query: asks the holders of a key for its heads, merges their answers into this store, and repairs the holders.

The order matters: what the holders answered is durable here before it is shown, gaps in the history are filled before
a head is called a sibling, the content of heads is asked for before they are left out of the answer
(`readable_heads.py`), and holders that lack a head get it after the answer (read repair). While this node is reconciled
after a loss, or may have to be (`node/swarm/reconciliation.py`), all holders are asked instead of a few, and the first
one is waited for.
"""

import logging
from collections.abc import Awaitable, Callable

import trio

from node.dht import history_backfill
from node.dht.base import Answer, Backend, Provenance
from node.dht.content_query import ContentQuery
from node.dht.hedged_query import QueryResult
from node.dht.ingest import Ingest
from node.dht.readable_heads import Heads, ReadableHeads, ReadableView
from node.dht.replica_query import ReplicaQuery, is_majority
from node.store.base import Store
from node.swarm.delivery import Delivery
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.envelope import Envelope, order_key
from protocols.errors import BzzzError, StorageFull, Unavailable
from protocols.messages import ENVELOPES_MAX, EnvelopesReply, GetByDigest, GetHeads, HeadsReply

log = logging.getLogger(__name__)

CONTACT_SECONDS = 0.1
"""How long a holder is waited for when a key must be asked for and no holder is there yet, as after a start."""
ASK_AGAIN_SECONDS = 0.03
"""What is left of the deadline, when holders were found that nobody had asked, to ask them."""
GAP_PEERS = 2
"""Peers that are asked which versions superseded those here: the first may not know it, or lie."""


class HeadQuery:
    """`read_quorum` holders must have answered before a head is shown without a mark. `find_holders` looks for others
    before a key is called absent, until a time, and says whether there are (`node/swarm/kademlia/holder_search.py`)."""

    def __init__(
        self,
        store: Store,
        rpc: Rpc,
        delivery: Delivery,
        members: Members,
        *,
        readable: ReadableHeads,
        query: ReplicaQuery,
        contents: ContentQuery,
        ingest: Ingest,
        read_quorum: int,
        find_holders: Callable[[bytes, float], Awaitable[bool]],
    ) -> None:
        self._store = store
        self._rpc = rpc
        self._delivery = delivery
        self._members = members
        self._readable = readable
        self._query = query
        self._contents = contents
        self._ingest = ingest
        self._read_quorum = read_quorum
        self._find_holders = find_holders

    async def run(self, key: bytes, local: Heads, deadline: float) -> Answer:
        """The readable heads of a key as the holders and this node, which has the heads `local`, know them together.

        Raises `Unavailable` when too few holders answered to say that there is none.
        """
        before = await self._readable.view(key, local)
        have = tuple(head.digest for head in before.heads)[:ENVELOPES_MAX]
        must_ask_all = self._members.reconciliation.must_ask(key)
        result, wanted = await self._ask(key, have, deadline, must_ask_all=must_ask_all)
        deciding = self._members.deciding(key)
        if (
            not have
            and _is_absent(result, wanted, deciding)
            and await self._find_holders(key, deadline - ASK_AGAIN_SECONDS)
        ):
            result, wanted = await self._ask(key, have, deadline, must_ask_all=must_ask_all)
            deciding = self._members.deciding(key)
        heads, shortfall = await self._merge(key, result, have, deadline)
        named = {peer: r.digests for peer, r in result.answers.items() if isinstance(r, HeadsReply)}
        heads = await self._without_gaps(key, heads, named, deadline)
        view, unknown = await self._with_content(key, heads, named, deadline)
        if not view.heads and not is_majority(result, wanted, deciding):
            raise self._query.unanswered(result, wanted)
        if not view.heads and shortfall:
            raise Unavailable(f"there is something, and it cannot be shown: {shortfall}", answered=len(result.answers))
        self._repair(view.heads, named, wanted)
        if unknown and view.heads:
            shortfall = shortfall or f"holders named {unknown} heads that no holder sends, or that cannot be taken here"
        if must_ask_all and not shortfall and len(named) == len(wanted):
            self._members.reconciliation.asked(key)
        needed = min(self._read_quorum, len(wanted))
        if len(result.answers) < needed:
            shortfall = f"{len(result.answers)} of {needed} holders answered"
        top = view.heads[0].digest if view.heads else b""
        replicas = sum(top in digests for digests in named.values()) + any(head.digest == top for head in before.heads)
        return view.answer(Provenance(Backend.REAL, "swarm", 0.0, replicas, 0, bool(shortfall), shortfall))

    async def _with_content(
        self, key: bytes, heads: Heads, named: dict[str, tuple[bytes, ...]], deadline: float
    ) -> tuple[ReadableView, int]:
        """The readable heads, after the holders were asked for the content of those heads that this node does not hold,
        and then of the versions before these; and how many heads that holders named are not known even now.

        Raises `Unavailable` when nothing is readable, and it is not certain that no holder has any content.
        """
        unknown = await self._unknown(heads, named)
        view = await self._readable.view(key, heads)
        if not view.missing and not unknown:
            return view, 0
        unfound: Unavailable | None = None
        current = {head.digest for head in heads}
        for is_head in (True, False):
            asked = [version.digest for version in view.missing if (version.digest in current) is is_head]
            asked += unknown if is_head else []
            if asked:
                try:
                    content = await self._contents.run(key, asked, deadline, asks_all=True)
                    await self._ingest.merge(content.envelopes.values())
                    unfound = content.unfound
                except (StorageFull, Unavailable) as error:
                    unfound = Unavailable(error.message)
                view = await self._readable.view(key, await self._store.heads(key))
        self._readable.asked(key, view.missing)
        if not view.heads and unfound is not None:
            raise Unavailable(f"there is something, and it cannot be shown: {unfound.message}")
        return view, len(await self._store.unknown(unknown)) if unknown else 0

    async def _ask(
        self, key: bytes, have: tuple[bytes, ...], deadline: float, *, must_ask_all: bool
    ) -> tuple[QueryResult, tuple[str, ...]]:
        def is_enough(result: QueryResult) -> bool:
            if must_ask_all:
                return len(result.answers) == len(wanted)
            is_found = have or any(isinstance(r, HeadsReply) and r.envelopes for r in result.answers.values())
            if is_found:
                return len(result.answers) >= min(self._read_quorum, len(wanted))
            return is_majority(result, wanted, deciding)

        wanted, deciding = self._members.wanted(key), self._members.deciding(key)
        if must_ask_all:
            await self._first_contact(wanted, deadline)
        at_first = len(wanted) if must_ask_all else None
        result = await self._query.ask(wanted, lambda _: GetHeads(key, have), is_enough, deadline, at_first)
        return result, wanted

    async def _first_contact(self, wanted: tuple[str, ...], deadline: float) -> None:
        """Wait until a holder can be asked, for `CONTACT_SECONDS` at most."""
        with trio.move_on_at(min(deadline, trio.current_time() + CONTACT_SECONDS)):
            while not any(map(self._members.is_reachable, wanted)):
                await self._members.changed()

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
        before = len(missing) + 1
        if not 0 < len(reply.envelopes) < len(missing):
            return
        while missing := [d for d in missing if not isinstance(await self._store.by_digest(d), Envelope)]:
            if len(missing) == before:
                return  # the peer has none of them
            before = len(missing)
            timeout = max(0.0, deadline - trio.current_time())
            more = await self._rpc.call(peer, GetByDigest(tuple(missing)), timeout=timeout)
            envelopes = more.envelopes if isinstance(more, EnvelopesReply) else ()
            await self._ingest.check_and_merge(key, [(peer, envelope) for envelope in envelopes])

    async def _unknown(self, heads: Heads, named: dict[str, tuple[bytes, ...]]) -> list[bytes]:
        """The heads that holders named and that are not known here, even after the merge."""
        known = {head.digest for head in heads}
        others = {digest for digests in named.values() for digest in digests if digest not in known}
        return await self._store.unknown(sorted(others)) if others else []

    async def _without_gaps(
        self, key: bytes, heads: Heads, named: dict[str, tuple[bytes, ...]], deadline: float
    ) -> Heads:
        """The heads that remain when peers that know later ones have sent which versions superseded those here."""
        current = {digest for digests in named.values() for digest in digests}
        peers = [peer for peer, digests in named.items() if digests]
        for peer in peers[:GAP_PEERS]:
            only_here = [head for head in heads if head.digest not in current]
            if not only_here:
                break
            try:
                await history_backfill.fill(self._rpc, self._ingest, key, peer, only_here, deadline=deadline)
            except BzzzError as error:
                log.info("whether %d heads were superseded is not known now: %s", len(only_here), error.message)
            heads = await self._store.heads(key)
        return heads

    def _repair(self, heads: Heads, named: dict[str, tuple[bytes, ...]], wanted: tuple[str, ...]) -> None:
        """Send the holders that answered the heads that they lack. The answer does not wait for that."""
        for peer, digests in named.items():
            for head in sorted(heads, key=order_key):
                if peer in wanted and head.digest not in digests and isinstance(head, Envelope):
                    self._delivery.deliver(peer, head, lambda _: None)


def _is_absent(result: QueryResult, wanted: tuple[str, ...], deciding: tuple[str, ...]) -> bool:
    """Whether most of the holders answered, and none named a version."""
    named = any(
        isinstance(reply, HeadsReply) and (reply.digests or reply.envelopes) for reply in result.answers.values()
    )
    return not named and is_majority(result, wanted, deciding)
