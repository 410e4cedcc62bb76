"""History query: merges the notices of the versions of a key that the holders know into this store.

A short history is one page. Of a long one only what this node lacks is fetched: when it knows the heads of a holder and
every parent that a version names, it knows all versions of that holder, because each of them is a head or an ancestor
of one. Else it reads the holder's pages from the newest on, until that is true, or until it has what a caller needs.
"""

import trio

from node.dht.base import Extent
from node.dht.hedged_query import QueryResult
from node.dht.ingest import Ingest
from node.dht.replica_query import Question, ReplicaQuery
from node.store.base import Store
from node.swarm.members import Members
from protocols.envelope import Envelope
from protocols.errors import StorageFull, Unavailable
from protocols.messages import ENVELOPES_MAX, GetHeads, GetVersions, HeadsReply, VersionsReply

PAGE = ENVELOPES_MAX
REST_PAGES = 4
"""Pages of the histories of holders that are longer than those of a majority: the next read continues."""


class HistoryQuery:
    """Asks all holders that can be reached."""

    def __init__(self, store: Store, members: Members, *, query: ReplicaQuery, ingest: Ingest) -> None:
        self._store = store
        self._members = members
        self._query = query
        self._ingest = ingest

    async def merge(self, key: bytes, extent: Extent | None, deadline: float) -> str:
        """Merge the notices; return why these may be fewer than a majority of the holders knows, or ''.

        Raises `Unavailable` when no holder answers.
        """
        wanted = self._members.wanted(key)
        peers = tuple(self._members.reachable_of(wanted))
        if not peers:
            raise Unavailable("none of the members that should hold this can be reached", asked=0, wanted=len(wanted))
        pages = await self._ask_pages(key, dict.fromkeys(peers, (0, PAGE)), deadline)
        totals = {peer: page.total for peer, page in pages.items()}
        if shortfall := await self._merge_pages(key, pages):
            return shortfall
        longer = {peer: total for peer, total in totals.items() if total > PAGE}
        complete = len(totals) - len(longer)
        is_enough = extent is not None and not extent.is_from_end and extent.length <= PAGE
        if is_enough:
            complete = len(totals)
        elif longer:
            try:
                enough = len(wanted) // 2 + 1 - complete
                complete += await self._merge_longer(key, longer, extent, deadline, enough)
            except Unavailable as error:
                return f"the history is long, and not all of it came in time: {error.message}"
            except StorageFull as error:
                return _cannot_keep(error)
        deciding = self._members.deciding(key)
        if 2 * sum(peer in pages for peer in deciding) <= len(deciding):
            return "most of those that answered hold in the place of others, and may not have been given it yet"
        return "" if complete * 2 > len(wanted) else f"{complete} of the {len(wanted)} holders sent all they know"

    async def _merge_longer(
        self, key: bytes, totals: dict[str, int], extent: Extent | None, deadline: float, enough: int
    ) -> int:
        """Merge what is missing from histories of several pages; return how many holders sent all that is needed.

        Once `enough` have, the others are asked for `REST_PAGES` at most, in half of the time that is left: a history
        that does not end leaves time for what else the caller needs, and does not fill this store.
        """
        heads = await self._merge_heads(key, tuple(totals), deadline)
        ends = {peer: total for peer, total in totals.items() if peer in heads}
        needed = extent.length if extent is not None and extent.is_from_end else None
        rest = REST_PAGES
        while open_ends := {
            peer: end for peer, end in ends.items() if end > PAGE and (needed is None or totals[peer] - end < needed)
        }:
            if await self._knows_all(key, heads):
                return len(heads)
            done = len(ends) - len(open_ends)
            if done >= enough and not rest:
                return done
            if done >= enough:
                deadline = (deadline + trio.current_time()) / 2 if rest == REST_PAGES else deadline
                rest -= 1
            ranges = {peer: (max(PAGE, end - PAGE), end - max(PAGE, end - PAGE)) for peer, end in open_ends.items()}
            try:
                pages = await self._ask_pages(key, ranges, deadline)
            except Unavailable:
                if done >= enough:
                    return done
                raise
            if shortfall := await self._merge_pages(key, pages):
                raise Unavailable(shortfall)
            for peer in open_ends:
                if peer in pages:
                    ends[peer] = ranges[peer][0]
                else:
                    del ends[peer]
        return len(ends)

    async def _merge_heads(self, key: bytes, peers: tuple[str, ...], deadline: float) -> dict[str, tuple[bytes, ...]]:
        """The digests of the heads of each holder; what came with them is merged."""
        local = await self._store.heads(key)
        have = tuple(head.digest for head in local if isinstance(head, Envelope))[:ENVELOPES_MAX]
        result = await self._ask({peer: GetHeads(key, have) for peer in peers}, deadline)
        replies = {peer: reply for peer, reply in result.answers.items() if isinstance(reply, HeadsReply)}
        await self._ingest.check_and_merge(key, [(p, each) for p, reply in replies.items() for each in reply.envelopes])
        return {peer: reply.digests for peer, reply in replies.items()}

    async def _knows_all(self, key: bytes, heads: dict[str, tuple[bytes, ...]]) -> bool:
        """Whether this node knows the heads of all these holders, and every version before them."""
        if any(len(digests) >= ENVELOPES_MAX for digests in heads.values()):
            return False  # there may be more
        digests = tuple(dict.fromkeys(digest for digests in heads.values() for digest in digests))
        return not await self._store.unknown(digests) and not await self._store.missing_parents(key, limit=1)

    async def _ask_pages(
        self, key: bytes, ranges: dict[str, tuple[int, int]], deadline: float
    ) -> dict[str, VersionsReply]:
        """Ask each holder for a page: from one version on, so many. Where an answer has fewer, because they would have
        been too many bytes, the holder is asked for the rest; one that does not give it is left out."""
        pages: dict[str, VersionsReply] = {}
        rest = {peer: (after, after + limit) for peer, (after, limit) in ranges.items()}
        while rest:
            questions: dict[str, Question] = {
                peer: GetVersions(key, after, end - after) for peer, (after, end) in rest.items()
            }
            try:
                result = await self._ask(questions, deadline)
            except Unavailable:
                if not pages:
                    raise
                result = QueryResult()
            asked, rest = rest, {}
            for peer, (after, end) in asked.items():
                reply = result.answers.get(peer)
                if not isinstance(reply, VersionsReply):
                    pages.pop(peer, None)
                    continue
                earlier = pages[peer].notices if peer in pages else ()
                pages[peer] = reply._replace(notices=earlier + reply.notices)
                if reply.until < min(end, reply.total):
                    rest[peer] = (reply.until, end)
                    if reply.until <= after:
                        del pages[peer], rest[peer]
        return pages

    async def _ask(self, questions: dict[str, Question], deadline: float) -> QueryResult:
        peers = tuple(questions)
        return await self._query.ask(
            peers, questions.__getitem__, lambda result: len(result.answers) >= len(peers), deadline, len(peers)
        )

    async def _merge_pages(self, key: bytes, pages: dict[str, VersionsReply]) -> str:
        """Merge the notices; return why that could not be done, or ''."""
        notices = [(peer, notice) for peer, page in pages.items() for notice in page.notices]
        try:
            refused = await self._ingest.merge_notices(key, notices)
        except (StorageFull, Unavailable) as error:
            return _cannot_keep(error)
        return f"this node cannot take {refused} versions that the holders named; its log says why" if refused else ""


def _cannot_keep(error: StorageFull | Unavailable) -> str:
    return f"this node cannot keep what the holders answered: {error.message}"
