"""Ingest: envelopes and notices from peers are decoded, verified, checked against the request and merged.

Nothing of an answer is shown before it is durable: otherwise a later read could go back in time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import trio

from node.store.base import Store
from node.store.log import Incoming, Origin
from node.swarm.peer_policy import PeerPolicy
from protocols.clock import check_not_ahead
from protocols.envelope import Envelope, Notice, decode, decode_notice
from protocols.errors import BadSignature, BzzzError, Malformed, TooLarge, Unavailable
from protocols.policy.reputation import Offence
from protocols.policy.signature_cache import SignatureCache

PARENTS_MAX = 256
"""Parents of the versions in one commit of what peers answered, except for a single version."""
CHECKED_AT_ONCE = 16
"""Notices decoded, or signatures checked (50 microseconds each), before other tasks get their turn."""


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
        faults = _Faults()
        for peer, encoded in envelopes:
            with faults.caught(peer, encoded):
                envelope = decode(encoded)
                if envelope.digest not in valid and self._is_valid(peer, key, envelope, faults):
                    valid[envelope.digest] = envelope
        self._report("envelopes", faults)
        return valid

    def _is_valid(self, peer: str, key: bytes, item: Envelope | Notice, faults: "_Faults") -> bool:
        """Whether its author signed it, for this key. Raises `BadSignature` or `ClockAhead`."""
        self._verified.check(item)
        check_not_ahead(item.version, self._now_ms())
        if item.key != key:
            faults.elsewhere.setdefault(peer, []).append(item.address)
        return item.key == key

    async def merge(self, envelopes: Iterable[Envelope]) -> None:
        """Merge checked envelopes. Raises like `check_and_merge`."""
        incoming = [Incoming(envelope, Origin.PEER) for envelope in envelopes]
        await self._commit(incoming)

    async def merge_notices(self, key: bytes, notices: Iterable[tuple[str, bytes]]) -> int:
        """Merge encoded notices of versions whose content is not fetched; return how many cannot be taken for now.

        The notice of a version that is known is not verified, as nothing of it is taken. Raises like
        `check_and_merge`.
        """
        faults = _Faults()
        decoded: list[tuple[str, bytes, Notice]] = []
        for at, (peer, encoded) in enumerate(notices, start=1):
            with faults.caught(peer, encoded):
                decoded.append((peer, encoded, decode_notice(encoded)))
            if not at % CHECKED_AT_ONCE:
                await trio.lowlevel.checkpoint()
        unknown = set(await self._store.unknown(list(dict.fromkeys([notice.digest for *_, notice in decoded]))))
        valid: dict[bytes, Envelope | Notice] = {}
        for at, (peer, encoded, notice) in enumerate([each for each in decoded if each[2].digest in unknown], start=1):
            with faults.caught(peer, encoded):
                if notice.digest not in valid and self._is_valid(peer, key, notice, faults):
                    valid[notice.digest] = notice if notice.content_size else notice.with_content(b"")
            if not at % CHECKED_AT_ONCE:
                await trio.lowlevel.checkpoint()
        self._report("notices", faults)
        await self._commit([Incoming(item, Origin.PEER) for item in valid.values()])
        return len(faults.refused_items)

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

    def _report(self, what: str, faults: "_Faults") -> None:
        """Blame the peers for what no author can have signed; one log line for each peer, however much was refused."""
        policy = self._peer_policy
        for peer, encoded in faults.invalid.items():
            policy.blame_for(peer, encoded, were_asked_for=True)
        for peer, addresses in faults.elsewhere.items():
            policy.limit_counters.count("answers_wrong", len(addresses))
            policy.blame(peer, Offence.WRONG_ANSWER, f"answered with {addresses[0]}, which was not asked for")
        for peer, errors in faults.refused.items():
            line = f"left out {len(errors)} of the {what} that it answered with; the first: {errors[0].message}"
            policy.limit_counters.hit("answers_left_out", peer, line, times=len(errors), line="offences")


class _Faults:
    """What was wrong with the answers of some peers, by peer."""

    def __init__(self) -> None:
        self.invalid: dict[str, list[bytes]] = {}
        """Items that no author can have signed like that."""
        self.refused: dict[str, list[BzzzError]] = {}
        """Why others cannot be taken for now."""
        self.refused_items: set[bytes] = set()
        self.elsewhere: dict[str, list[str]] = {}
        """The addresses of items of another key."""

    @contextmanager
    def caught(self, peer: str, encoded: bytes) -> Iterator[None]:
        """Take note of the error that checking an item raises."""
        try:
            yield
        except (BadSignature, Malformed, TooLarge):
            self.invalid.setdefault(peer, []).append(encoded)
        except BzzzError as error:
            self.refused.setdefault(peer, []).append(error)
            self.refused_items.add(encoded)


def parts_of(incoming: Sequence[Incoming]) -> Iterator[Sequence[Incoming]]:
    """Parts with `PARENTS_MAX` parents each: each is looked up, and other writes wait for a commit meanwhile."""
    start, count = 0, 0
    for end, each in enumerate(incoming):
        count += len(each.item.parents)
        if count > PARENTS_MAX and end > start:
            yield incoming[start:end]
            start, count = end, len(each.item.parents)
    yield incoming[start:]
