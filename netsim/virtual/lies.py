"""Lies about versions: what a byzantine node answers when it is asked for heads, notices or content.

It knows the versions that other nodes sent it. `Lie` has what can be said that is not true; each answer is drawn from
those that it is made with. Everything else about a byzantine node is in `byzantine.py`.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from enum import StrEnum

from protocols.clock import version
from protocols.envelope import Envelope, decode, seal
from protocols.errors import BzzzError
from protocols.keys import PrivateKey
from protocols.messages import (
    ContentReply,
    EnvelopesReply,
    GetByDigest,
    GetContent,
    GetHeads,
    GetVersions,
    HeadsReply,
    VersionsReply,
)

KNOWN_MAX = 64
"""Versions that it remembers of one key, and of its own lies."""
CHAIN_MAX = 5
AHEAD_MS_MAX = 50_000


class Lie(StrEnum):
    INVENTED = "digests that it invented are heads"
    ALTERED = "notices of versions of others, with another author, other parents or another number"
    UNSERVED = "notices of versions that it signed, and whose content it never answers"
    ELSEWHERE = "notices of another address than the one that was asked for"
    CHANGED = "notices of versions that it signed, and whose content it answers changed"
    NOTHING = "there is nothing"


class Lies:
    """`key` is that of the byzantine node: it can sign in its own name alone."""

    def __init__(
        self, key: PrivateKey, rng: random.Random, *, now_ms: Callable[[], int], lies: Collection[Lie] = tuple(Lie)
    ) -> None:
        self._key = key
        self._rng = rng
        self._now_ms = now_ms
        self._lies = sorted(lies)
        self._known: defaultdict[bytes, list[Envelope]] = defaultdict(list)
        """By key: the latest versions that peers sent."""
        self._own: dict[bytes, Envelope] = {}
        """By digest: versions that it signed, and whose content it answers changed."""

    def learn(self, encoded: Iterable[bytes]) -> None:
        """Peers sent these envelopes."""
        for each in encoded:
            try:
                envelope = decode(each)
            except BzzzError:  # another byzantine node sent it
                continue
            self._known[envelope.key] = [*self._known[envelope.key], envelope][-KNOWN_MAX:]

    # -- answers ----------------------------------------------------------------------------------------------

    def heads(self, request: GetHeads) -> HeadsReply:
        known = self._known[request.key]
        match self._rng.choice(self._lies):
            case Lie.INVENTED:
                return HeadsReply(tuple(self._rng.randbytes(32) for _ in range(self._rng.randint(1, 40))), ())
            case Lie.UNSERVED if known:
                return HeadsReply((self._signed(known)[-1].digest,), ())
            case Lie.CHANGED if known:
                one = self._served(known)
                return HeadsReply((one.digest,), (_with_changed_content(one),))
            case Lie.ELSEWHERE if others := self._elsewhere(request.key):
                return HeadsReply((others[-1].digest,), (others[-1].encoded,))
            case _:
                return HeadsReply((), ())

    def versions(self, request: GetVersions) -> VersionsReply:
        known = self._known[request.key]
        notices = [each.notice.encoded for each in known if self._rng.random() < 0.5]
        match self._rng.choice(self._lies):
            case Lie.ALTERED if known:
                notices += [self._altered(self._rng.choice(known)) for _ in range(3)]
            case Lie.UNSERVED if known:
                notices += [each.notice.encoded for each in self._signed(known)]
            case Lie.ELSEWHERE:
                notices += [each.notice.encoded for each in self._elsewhere(request.key)[:3]]
            case Lie.CHANGED if known:
                notices.append(self._served(known).notice.encoded)
            case Lie.NOTHING:
                notices = []
        total = self._rng.choice((0, len(notices), 1_000_000))
        return VersionsReply(tuple(notices[: request.limit]), total, min(total, request.after + request.limit))

    def by_digest(self, request: GetByDigest) -> EnvelopesReply:
        """The content of no version but its own, and that changed."""
        asked = [self._own[digest] for digest in request.digests if digest in self._own]
        return EnvelopesReply(tuple(map(_with_changed_content, asked)))

    def content(self, request: GetContent) -> ContentReply:
        """Another content than the one that was asked for: one that it knows, or one that it changed."""
        known = [each for versions in self._known.values() for each in versions]
        others = [each for each in known if each.content_digest != request.content_digest]
        if not known:
            return ContentReply(self._rng.randbytes(200))
        one = self._rng.choice(others or known)
        return ContentReply(one.encoded if others and self._rng.random() < 0.5 else _with_changed_content(one))

    # -- what they are made of --------------------------------------------------------------------------------

    def _elsewhere(self, key: bytes) -> list[Envelope]:
        return [each for other, known in sorted(self._known.items()) if other != key for each in known]

    def _altered(self, victim: Envelope) -> bytes:
        """A notice that its author did not sign: of a header with another author, parent, or version."""
        old, new = self._rng.choice(
            (
                (victim.author.encode(), self._key.peer_id.encode()),
                ((victim.parents or (victim.content_digest,))[0], self._rng.randbytes(32)),
                (victim.version.to_bytes(8, "big"), self._later(victim).to_bytes(8, "big")),
            )
        )
        return victim.notice.encoded.replace(old, new)

    def _signed(self, known: list[Envelope]) -> list[Envelope]:
        """A chain of versions in its own name on top of what it knows, or before it, or beside it."""
        latest = max(known, key=lambda each: each.version)
        parents = self._rng.choice((tuple(each.digest for each in known), (latest.digest,), ()))
        at = self._rng.choice((self._later(latest), self._later(latest), 1 + self._rng.randrange(1 << 20)))
        chain: list[Envelope] = []
        for number in range(self._rng.randint(1, CHAIN_MAX)):
            named = (chain[-1].digest,) if chain else parents
            chain.append(self._seal(latest.address, at + number, self._rng.randbytes(8), named))
        return chain

    def _served(self, known: list[Envelope]) -> Envelope:
        latest = max(known, key=lambda each: each.version)
        one = self._seal(latest.address, self._later(latest), b"to be changed", (latest.digest,))
        self._own[one.digest] = one
        while len(self._own) > KNOWN_MAX:
            del self._own[next(iter(self._own))]
        return one

    def _later(self, envelope: Envelope) -> int:
        """A version that is later, and that nodes accept most of the time."""
        return max(envelope.version + 1, version(self._now_ms() + self._rng.randrange(AHEAD_MS_MAX), 0))

    def _seal(self, address: str, at: int, content: bytes, parents: Iterable[bytes]) -> Envelope:
        return seal(self._key, address=address, content=content, content_type="text/plain", version=at, parents=parents)


def _with_changed_content(envelope: Envelope) -> bytes:
    """The encoded envelope with another content of the same length."""
    return envelope.encoded[: -len(envelope.content)] + bytes(byte ^ 1 for byte in envelope.content)
