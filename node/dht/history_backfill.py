"""History backfill: fetches the versions between two versions of a key that this node knows.

A node that is no holder of a key learns only of the heads at the moment of a read. It never sees a version that
superseded one of these and was itself superseded before the next read. Without backfill the older version would stay a
head here forever, and a plain read would report siblings that no other node has. The notices of a holder fill the
gap; their content is not fetched.
"""

from collections.abc import Iterable

import trio

from node.dht.ingest import Ingest
from node.swarm.rpc import Rpc
from protocols.envelope import Ordered, decode_notice, order_key
from protocols.errors import BzzzError
from protocols.messages import GetVersions, VersionsReply

PAGE = 64
"""Notices in one request. Most gaps are small, and they are at the end of the history."""


async def fill(rpc: Rpc, ingest: Ingest, key: bytes, peer: str, heads: Iterable[Ordered], *, deadline: float) -> None:
    """Merge the notices that a peer has of a key, from the oldest of these heads on. Raises what the call and the
    store raise."""
    oldest = min(map(order_key, heads))
    first = await _page(rpc, key, peer, 0, PAGE, deadline)
    if first.until >= first.total:
        await _merge(ingest, key, peer, first, oldest)
        return
    end = first.total
    while end:
        after = begin = max(0, end - PAGE)
        is_newer = True
        while after < end:
            page = await _page(rpc, key, peer, after, end - after, deadline)
            is_newer = await _merge(ingest, key, peer, page, oldest) and is_newer
            if page.until <= after:  # it has no such versions
                return
            after = page.until
        if not is_newer:
            return
        end = begin


async def _merge(ingest: Ingest, key: bytes, peer: str, page: VersionsReply, oldest: tuple[int, str, bytes]) -> bool:
    """Merge the notices that are newer than the oldest head; return whether all are."""
    newer = [notice for notice in page.notices if _is_newer(notice, oldest)]
    await ingest.merge_notices(key, [(peer, notice) for notice in newer])
    return len(newer) == len(page.notices)


def _is_newer(notice: bytes, oldest: tuple[int, str, bytes]) -> bool:
    try:
        return order_key(decode_notice(notice)) > oldest
    except BzzzError:  # the ingest says what is wrong with it
        return True


async def _page(rpc: Rpc, key: bytes, peer: str, after: int, limit: int, deadline: float) -> VersionsReply:
    timeout = max(0.0, deadline - trio.current_time())
    reply = await rpc.call(peer, GetVersions(key, after, limit), timeout=timeout)
    return reply if isinstance(reply, VersionsReply) else VersionsReply((), 0, 0)
