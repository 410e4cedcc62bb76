"""Ingest: envelopes and notices from peers are decoded, verified, checked against the request and merged.

Nothing of an answer is shown before it is durable: otherwise a later read could go back in time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import trio

from node.store.base import Store
from node.store.log import Incoming, Origin
from node.swarm.peer_policy import PeerPolicy
from protocols.clock import check_not_ahead
from protocols.envelope import Envelope, Notice, decode
from protocols.errors import BadSignature, BzzzError, Malformed, TooLarge, Unavailable
from protocols.policy.reputation import Offence
from protocols.policy.signature_cache import SignatureCache

PARENTS_MAX = 1_024
"""Parents of the versions in one commit of what peers answered, except for a single version."""


class Ingest:
    """Merges what peers answered into the store. Invalid items are left out, counted and logged."""

    def __init__(
        self,
        store: Store,
        *,
        verified: SignatureCache,
        now_ms: Callable[[], int],
        store_deadline_seconds: float = 5.0,
        peer_policy: PeerPolicy | None = None,
    ) -> None:
        """`peer_policy` blames peers for answers that no author can have signed. A disk may take
        `store_deadline_seconds` to store what they answered."""
        self._store_deadline_seconds = store_deadline_seconds
        self._peer_policy = peer_policy or PeerPolicy()
        self._store = store
        self._verified = verified
        self._now_ms = now_ms

    async def check_and_merge(self, key: bytes, envelopes: Iterable[tuple[str, bytes]]) -> None:
        """Merge the valid ones of the encoded envelopes that peers (named first) answered about a key.

        Raises `StorageFull` or `Unavailable` when they cannot be stored: then they must not be shown.
        """
        await self.merge(self.check(key, envelopes).values())

    def check(self, key: bytes, envelopes: Iterable[tuple[str, bytes]]) -> dict[bytes, Envelope]:
        """Return the valid envelopes by digest; nothing is stored."""
        valid: dict[bytes, Envelope] = {}
        invalid: dict[str, list[bytes]] = {}
        refused: dict[str, list[BzzzError]] = {}
        now_ms = self._now_ms()
        for peer, encoded in envelopes:
            try:
                envelope = decode(encoded)
                if envelope.digest in valid:
                    continue
                self._verified.check(envelope)
                check_not_ahead(envelope.version, now_ms)
            except BzzzError as error:
                if isinstance(error, BadSignature | Malformed | TooLarge):
                    invalid.setdefault(peer, []).append(encoded)
                else:
                    refused.setdefault(peer, []).append(error)
                continue
            if envelope.key != key:
                what = f"answered with {envelope.address}, which was not asked for"
                self._peer_policy.limit_counters.count("answers_wrong")
                self._peer_policy.blame(peer, Offence.WRONG_ANSWER, what)
                continue
            valid[envelope.digest] = envelope
        for peer, encoded_envelopes in invalid.items():
            self._peer_policy.blame_for(peer, encoded_envelopes, were_asked_for=True)
        self._log_refused("envelopes", refused)
        return valid

    async def merge(self, envelopes: Iterable[Envelope]) -> None:
        """Merge checked envelopes. Raises like `check_and_merge`."""
        incoming = [Incoming(envelope, Origin.PEER) for envelope in envelopes]
        await self._commit(incoming)

    async def merge_notices(self, key: bytes, notices: Iterable[tuple[str, Notice]]) -> int:
        """Merge notices of versions whose content is not fetched; return how many were refused.

        Raises like `check_and_merge`.
        """
        now_ms = self._now_ms()
        refused_digests: set[bytes] = set()
        refused: dict[str, list[BzzzError]] = {}
        new: dict[bytes, Notice] = {}
        for peer, notice in notices:
            try:
                check_not_ahead(notice.version, now_ms)
            except BzzzError as error:
                refused.setdefault(peer, []).append(error)
                refused_digests.add(notice.digest)
                continue
            if notice.key == key:
                new.setdefault(notice.digest, notice)
        self._log_refused("notices", refused)
        unknown = await self._store.unknown(tuple(new))
        incoming = [Incoming(new[digest], Origin.PEER) for digest in unknown]
        await self._commit(incoming)
        return len(refused_digests)

    async def _commit(self, incoming: Sequence[Incoming]) -> None:
        if not incoming:
            return
        started, seconds = trio.current_time(), self._store_deadline_seconds
        with trio.move_on_after(seconds):
            for part in parts_of(incoming):
                await self._store.merge(part, now_ms=self._now_ms())
            return
        why = self._store.disk.why_late(started, started + seconds)
        raise Unavailable(f"it was not stored within {seconds:.1f} s: {why}")

    def _log_refused(self, what: str, refused: Mapping[str, Sequence[BzzzError]]) -> None:
        """One line for each peer, however many were refused: a flood of answers must not flood the log."""
        for peer, errors in refused.items():
            line = f"left out {len(errors)} of the {what} that it answered with; the first: {errors[0].message}"
            self._peer_policy.limit_counters.hit("answers_left_out", peer, line, times=len(errors), line="offences")


def parts_of(incoming: Sequence[Incoming]) -> Iterator[Sequence[Incoming]]:
    """Parts with `PARENTS_MAX` parents each: each is looked up, and other writes wait for a commit meanwhile."""
    start, count = 0, 0
    for end, each in enumerate(incoming):
        count += len(each.item.parents)
        if count > PARENTS_MAX and end > start:
            yield incoming[start:end]
            start, count = end, len(each.item.parents)
    yield incoming[start:]
