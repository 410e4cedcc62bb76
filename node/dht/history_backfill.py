"""Gaps: what came between two versions that this node knows, told by somebody who saw all of it.

Who does not hold a key learns of it only what is a head at the moment of asking. What superseded an earlier one, and
was itself superseded since, it never sees: so the earlier one would stay a head here for ever, and a plain read would
tell of siblings that nobody else knows. A holder's notices since then fill the gap; their content stays where it is.
"""

from collections.abc import Iterable

import trio

from node.dht.ingest import Ingest
from node.swarm.rpc import Rpc
from protocols.envelope import Notice, Ordered, order_key
from protocols.messages import GetVersions, VersionsReply

PAGE = 64
"""Notices asked for at once. Most gaps are small, and they are at the end of the history."""


async def close(rpc: Rpc, ingest: Ingest, key: bytes, peer: str, heads: Iterable[Ordered], *, deadline: float) -> None:
    """Note what a peer knows of a key after the oldest of these heads. Raises what the call and the store raise."""
    oldest = min(map(order_key, heads))
    first = await _page(rpc, key, peer, 0, PAGE, deadline)
    since = list(first.notices)
    if first.total > PAGE:
        since = []
        end = first.total
        while end and (not since or order_key(since[0]) > oldest):
            after = max(0, end - PAGE)
            page = await _page(rpc, key, peer, after, end - after, deadline)
            since[:0] = page.notices
            end = after
    notices: list[Notice] = [notice for notice in since if order_key(notice) > oldest]
    await ingest.note(key, [(peer, notice) for notice in notices])


async def _page(rpc: Rpc, key: bytes, peer: str, after: int, limit: int, deadline: float) -> VersionsReply:
    left = max(0.0, deadline - trio.current_time())
    reply = await rpc.call(peer, GetVersions(key, after, limit), timeout=left)
    return reply if isinstance(reply, VersionsReply) else VersionsReply((), 0)
