"""Write parents: the heads that a write is made on top of, its conditions on them, and its parents.

These are the heads that a reader of this node would be given. The other holders are asked for them before a conditional
write, and before any write while this store may lack heads that they have (`node/swarm/reconciliation.py`). When the
holders do not answer within the deadline, the write is made on what is known here, and its receipt says so.
"""

from collections.abc import Iterable

from node.dht.base import Consistency
from node.dht.dispatch import OperationContext
from node.services.writes.write_request import WriteRequest
from node.store.base import Store
from node.swarm.reconciliation import Reconciliation
from protocols.envelope import Envelope, Notice
from protocols.errors import Conflict, Indeterminate, Unavailable, UnknownParents
from protocols.header import PARENTS_MAX
from protocols.heads import heads_tag

HEADS_SHOWN = 4
"""How many heads a message names."""
COMMIT_SECONDS = 0.03
"""Kept back for the commit when the swarm is asked about a write first."""


class WriteParents:
    """`ask_first` is called before the lock of the key is taken, the rest under it."""

    def __init__(self, store: Store, reconciliation: Reconciliation) -> None:
        self._store = store
        self._reconciliation = reconciliation

    async def ask_first(self, key: bytes, write: WriteRequest, operation: OperationContext) -> str | None:
        """Ask the other holders for the heads of a key where that is due; what they answer is in the store then.

        It takes what is left of the deadline, so it is done before other writes of the key have to wait. Returns why
        others may have later versions all the same, '' when all were asked; None when it was not due.
        """
        if not (write.goes_by_heads and operation.dht.asks_swarm and self._reconciliation.must_ask(key)):
            return None
        why_ask = self._reconciliation.why_ask()
        try:
            where = (await operation.dht.get(key, timeout=operation.seconds_left)).provenance
            why = where.reason if where.is_degraded else ""
        except Unavailable as error:
            why = error.message
        return f"{why_ask}, and its other holders could not all be asked: {why}" if why else ""

    async def checked_heads(
        self, key: bytes, write: WriteRequest, operation: OperationContext, doubt: str | None
    ) -> tuple[Envelope | Notice, ...]:
        """The heads for this write; `doubt` is what `ask_first` returned. Raises `Conflict` when they do not meet its
        conditions."""
        is_asked = doubt is not None
        heads = await self._here(key, operation, is_final=is_asked) if is_asked or not write.is_conditional else None
        if heads is None:
            heads = await self._readable(key, operation)
        if not write.is_conditional:
            return heads
        return await self._meeting_conditions(key, write, heads, doubt or "")

    async def _here(
        self, key: bytes, operation: OperationContext, *, is_final: bool
    ) -> tuple[Envelope | Notice, ...] | None:
        """The heads that a reader is given from this store; None when it lacks content that others may have, unless the
        answer `is_final`."""
        heads = await self._store.heads(key)
        if all(isinstance(head, Envelope) for head in heads):
            return heads
        here = await operation.dht.get(key, consistency=Consistency.LOCAL)
        return here.heads if is_final or not here.without_content else None

    async def _meeting_conditions(
        self, key: bytes, write: WriteRequest, heads: tuple[Envelope | Notice, ...], doubt: str
    ) -> tuple[Envelope | Notice, ...]:
        """The heads, of the readable ones or all, that meet the conditions. Raises `Conflict` when none do."""
        alive = [head for head in heads if not head.deleted]
        but = f" ({doubt})" if doubt else ""
        known = {"heads": [head.digest.hex() for head in heads]}
        if write.must_be_absent and alive:
            raise Conflict(f"there is something at this address already; PUT writes a new version of it{but}", **known)
        if write.any_match and not alive:
            raise Conflict(f"there is nothing at this address to write a new version of{but}", **known)
        if write.if_match is None:
            return heads
        for each in (await self._store.heads(key), heads):  # a caller who names a head without content means it
            if _matches(write.if_match, each):
                return each
        raise Conflict(
            f"If-Match does not name the heads that there are now ({_in_words(heads)}); read again, then decide{but}",
            **known,
        )

    async def _readable(self, key: bytes, operation: OperationContext) -> tuple[Envelope | Notice, ...]:
        """The heads that a reader is given; without the swarm this machine's: if another node knew more, a sibling is
        kept."""
        try:
            return (await operation.dht.get(key, timeout=_left_to_ask(operation))).heads
        except Unavailable:
            return (await operation.dht.get(key, consistency=Consistency.LOCAL)).heads

    async def parents(
        self,
        key: bytes,
        heads: Iterable[Envelope | Notice],
        named: tuple[bytes, ...] | None,
        operation: OperationContext,
    ) -> dict[bytes, int | None]:
        """The parents of a write, with their versions; None for a parent that is not known here while the swarm cannot
        be asked: it is accepted unchecked. Raises `UnknownParents`."""
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
