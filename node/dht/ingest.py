"""What came from peers, taken in: decoded, verified, checked against what was asked for, merged, and only then seen."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from node.store.base import Store
from node.store.batch_get import by_digests
from node.store.log import Incoming, Origin
from node.swarm.peer_policy import PeerPolicy
from protocols.clock import check_not_ahead
from protocols.envelope import Envelope, Notice, decode
from protocols.errors import BadSignature, BzzzError, Malformed, TooLarge
from protocols.policy.reputation import Offence
from protocols.policy.signature_cache import SignatureCache


class Ingest:
    """Takes envelopes and notices from peers into the store. What a peer sent wrong is left out, counted and said."""

    def __init__(
        self,
        store: Store,
        *,
        verified: SignatureCache,
        now_ms: Callable[[], int],
        peer_policy: PeerPolicy | None = None,
    ) -> None:
        """`peer_policy` hears of peers that answer with what no author can have signed."""
        self._peer_policy = peer_policy or PeerPolicy()
        self._store = store
        self._verified = verified
        self._now_ms = now_ms

    async def learn(self, key: bytes, envelopes: Iterable[tuple[str, bytes]]) -> dict[bytes, Envelope]:
        """Merge what peers (named first) answered about a key; answer what is good, by digest, once it is durable.

        Raises `StorageFull` or `Unavailable` when it cannot be kept: then it must not be shown either, or a later
        read would go back in time.
        """
        good = self.sift(key, envelopes)
        await self.keep(good.values())
        return good

    def sift(self, key: bytes, envelopes: Iterable[tuple[str, bytes]]) -> dict[bytes, Envelope]:
        """What is good of it, by digest; nothing is kept."""
        good: dict[bytes, Envelope] = {}
        bad: dict[str, list[bytes]] = {}
        refused: dict[str, list[BzzzError]] = {}
        now_ms = self._now_ms()
        for peer, encoded in envelopes:
            try:
                envelope = decode(encoded)
                if envelope.digest in good:
                    continue
                self._verified.check(envelope)
                check_not_ahead(envelope.version, now_ms)
            except BzzzError as error:
                if isinstance(error, BadSignature | Malformed | TooLarge):
                    bad.setdefault(peer, []).append(encoded)
                else:
                    refused.setdefault(peer, []).append(error)
                continue
            if envelope.key != key:
                what = f"answered with {envelope.address}, which was not asked for"
                self._peer_policy.limit_counters.count("answers_wrong")
                self._peer_policy.blame(peer, Offence.WRONG_ANSWER, what)
                continue
            good[envelope.digest] = envelope
        for peer, ones in bad.items():
            self._peer_policy.blame_for(peer, ones, were_asked_for=True)
        self._say_left_out("envelopes", refused)
        return good

    async def keep(self, good: Iterable[Envelope]) -> int:
        """Merge it; answer how many were left out (none). Raises like `learn`."""
        incoming = [Incoming(envelope, Origin.PEER) for envelope in good]
        if incoming:
            await self._store.merge(incoming, now_ms=self._now_ms())
        return 0

    async def note(self, key: bytes, notices: Iterable[tuple[str, Notice]]) -> int:
        """Merge the notices of versions whose content stays elsewhere; answer how many were left out.

        Raises like `learn`.
        """
        now_ms = self._now_ms()
        left_out: set[bytes] = set()
        refused: dict[str, list[BzzzError]] = {}
        new: dict[bytes, Notice] = {}
        for peer, notice in notices:
            try:
                check_not_ahead(notice.version, now_ms)
            except BzzzError as error:
                refused.setdefault(peer, []).append(error)
                left_out.add(notice.digest)
                continue
            if notice.key == key:
                new.setdefault(notice.digest, notice)
        self._say_left_out("notices", refused)
        known = await by_digests(self._store, new)
        incoming = [Incoming(notice, Origin.PEER) for digest, notice in new.items() if known[digest] is None]
        if incoming:
            await self._store.merge(incoming, now_ms=now_ms)
        return len(left_out)

    def _say_left_out(self, what: str, refused: Mapping[str, Sequence[BzzzError]]) -> None:
        """Once for each peer, however many there were: who is flooded must not flood the log."""
        for peer, errors in refused.items():
            said = f"left out {len(errors)} of the {what} that it answered with; the first: {errors[0].message}"
            self._peer_policy.limit_counters.hit("answers_left_out", peer, said, times=len(errors), line="offences")
