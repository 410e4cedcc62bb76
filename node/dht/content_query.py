"""Content query: asks the holders of a key for versions by their digests."""

from collections.abc import Collection
from typing import NamedTuple

from node.dht.hedged_query import QueryResult
from node.dht.ingest import Ingest
from node.dht.replica_query import ReplicaQuery, is_majority
from node.swarm.members import Members
from protocols.envelope import Envelope, decode
from protocols.errors import BzzzError, Unavailable
from protocols.messages import ENVELOPES_MAX, EnvelopesReply, GetByDigest


class FoundContent(NamedTuple):
    """The versions that holders answered with, by digest, and how many holders had each."""

    envelopes: dict[bytes, Envelope]
    replicas: dict[bytes, int]
    unfound: Unavailable | None
    """Why it is not known whether a holder has the versions that were not found: too few answered, or what they sent
    cannot be taken here. None: no holder has them."""


class ContentQuery:
    """Nothing that is found is stored by it; content that is not the one of its digest is refused, and blamed."""

    def __init__(self, members: Members, *, query: ReplicaQuery, ingest: Ingest) -> None:
        self._members = members
        self._query = query
        self._ingest = ingest

    async def run(
        self, key: bytes, digests: Collection[bytes], deadline: float, *, asks_all: bool = False
    ) -> FoundContent:
        """Ask for the first `ENVELOPES_MAX` of these versions until all are found, or a majority of the holders has
        answered; with `asks_all` until every holder that can be reached has. Raises `Unavailable` when none answers."""
        asked = tuple(digests)[:ENVELOPES_MAX]
        checked: dict[str, dict[bytes, Envelope]] = {}

        def is_enough(result: QueryResult) -> bool:
            for peer, reply in result.answers.items():
                if peer not in checked and isinstance(reply, EnvelopesReply):
                    checked[peer] = self._ingest.check(key, [(peer, envelope) for envelope in reply.envelopes])
            is_over = not asks_all and is_majority(result, wanted, deciding)
            return is_over or all(any(digest in found for found in checked.values()) for digest in asked)

        wanted, deciding = self._members.wanted(key), self._members.deciding(key)
        result = await self._query.ask(wanted, lambda _: GetByDigest(asked), is_enough, deadline)
        envelopes = {digest: found[digest] for found in checked.values() for digest in asked if digest in found}
        replicas = {digest: sum(digest in found for found in checked.values()) for digest in envelopes}
        unfound = self._unfound({*asked} - {*envelopes}, result, wanted, deciding)
        return FoundContent(envelopes, replicas, unfound)

    def _unfound(
        self, digests: set[bytes], result: QueryResult, wanted: tuple[str, ...], deciding: tuple[str, ...]
    ) -> Unavailable | None:
        if not digests:
            return None
        if not is_majority(result, wanted, deciding):
            return self._query.unanswered(result, wanted)
        replies = [reply.envelopes for reply in result.answers.values() if isinstance(reply, EnvelopesReply)]
        if any(_digest(encoded) in digests for envelopes in replies for encoded in envelopes):
            return Unavailable("a holder sent it, and this node cannot take it; its log says why")
        return None


def _digest(encoded: bytes) -> bytes | None:
    """The digest of an envelope that was sent; None for other bytes."""
    try:
        return decode(encoded).digest
    except BzzzError:
        return None
