"""Peer server: answers the requests of peers, as the `RpcService` of `node/swarm/rpc.py`.

A peer that has not said hello, or is of another swarm, gets no other answer. Envelopes that peers send are decoded,
verified and merged here, and acknowledged after the commit; each one that is refused is refused with its reason.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import accumulate

import trio

from node.dht.ingest import parts_of
from node.dht.readable_heads import ReadableHeads
from node.services.membership.neighbours import Neighbours
from node.services.writes.envelope_inspector import FORGED, EnvelopeInspector
from node.store.base import Store
from node.store.log import Incoming, Merged, Origin
from node.swarm.deferred_reply import DeferredReply
from node.swarm.peer_policy import PeerPolicy
from protocols.envelope import Envelope, Notice
from protocols.errors import BzzzError, Forbidden, Unavailable
from protocols.messages import (
    ENVELOPES_MAX,
    ContentReply,
    EnvelopesReply,
    GetByDigest,
    GetContent,
    GetHeads,
    GetMembers,
    GetMissing,
    GetVersions,
    HeadsReply,
    Hello,
    Merge,
    MergeReply,
    MissingReply,
    Ping,
    Refusal,
    Reply,
    Request,
    VersionsReply,
)
from protocols.policy.signature_cache import SignatureCache
from protocols.replication.claims import Claims

ANSWER_BYTES_MAX = 4 << 20
"""Envelopes or notices in one answer; further ones are left out, and can be asked for by digest or place."""
NOTICE_BYTES = 80
"""What a notice has beside its header, at most."""
VERIFIED_AT_ONCE = 16
"""Signatures checked (50 microseconds each) before other tasks get their turn."""


class PeerServer:
    """Answers requests from the store. Its plain functions are quick, run on the trio thread and do not raise."""

    def __init__(
        self,
        store: Store,
        neighbours: Neighbours,
        *,
        verified: SignatureCache,
        now_ms: Callable[[], int],
        on_frame: Callable[[str], None],
        readable: ReadableHeads | None = None,
        peer_policy: PeerPolicy | None = None,
        on_sequence: Callable[[str, int], None] = lambda _, __: None,
    ) -> None:
        """`on_frame` is called with the peer of each frame. `peer_policy` blames peers for envelopes that no author can
        have signed. `on_sequence` is called with the last sequence that a peer tells of its log."""
        self._on_sequence = on_sequence
        self._store = store
        self._readable = readable or ReadableHeads(store)
        self._peer_policy = peer_policy or PeerPolicy()
        self._inspector = EnvelopeInspector(verified, now_ms)
        self._neighbours = neighbours
        self._now_ms = now_ms
        self._on_frame = on_frame
        self._claims = Claims()
        self._large: dict[str, trio.Lock] = {}
        """By peer: held while one of its large messages is checked, so that it is one at a time."""

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        self._neighbours.connected(peer, address, dialled)

    def disconnected(self, peer: str, reason: str) -> None:
        self._large.pop(peer, None)
        self._neighbours.disconnected(peer, reason)

    def heard(self, peer: str) -> None:
        self._neighbours.heard(peer)
        self._on_frame(peer)

    def missed(self, peer: str, evidence: str) -> None:
        self._neighbours.missed(peer, evidence)

    def is_idle(self, peer: str) -> bool:
        return self._neighbours.is_idle(peer)

    async def connect_idle(self, peer: str) -> str:
        return await self._neighbours.connect_idle(peer)

    def serve(self, peer: str, request: Request, trace: str) -> Reply | DeferredReply | Awaitable[Reply]:
        if isinstance(request, Hello):
            return self._neighbours.answer_hello(peer, request)
        if not self._neighbours.has_greeted(peer):
            raise Forbidden("say hello first: this node speaks with members of its own swarm only")
        match request:
            case Ping():
                return self._neighbours.answer_ping(peer, request)
            case Merge():
                self._on_sequence(peer, request.sequence)
                return self._merge(peer, request.envelopes)
            case GetHeads():
                return self._heads(request)
            case GetVersions():
                return self._versions(request)
            case GetByDigest():
                return self._by_digest(request.digests)
            case GetMembers():
                return self._neighbours.answer_members(peer, request)
            case GetContent():
                return self._content(request.content_digest)
            case GetMissing():
                return self._missing(peer, request.digests)

    def _merge(self, peer: str, encoded: Sequence[bytes]) -> DeferredReply | Awaitable[Reply]:
        progress = _MergeProgress(len(encoded), lambda: self._store.last_sequence)
        if len(encoded) >= VERIFIED_AT_ONCE:
            return self._merge_large(peer, encoded, progress)
        self._check_and_merge(peer, encoded, 0, progress)
        progress.all_checked()
        return progress.reply

    async def _merge_large(self, peer: str, encoded: Sequence[bytes], progress: "_MergeProgress") -> Reply:
        """A large message, one part at a time: a checked part is committed while the next one is checked.

        Of each peer one large message at a time: a hundred side by side would each take a turn before any other task.
        """
        async with self._large.setdefault(peer, trio.Lock()):
            for start in range(0, len(encoded), VERIFIED_AT_ONCE):
                if not self._neighbours.has_greeted(peer):
                    self._large.pop(peer, None)
                    raise Unavailable("the connection that this came by is over")
                self._check_and_merge(peer, encoded[start : start + VERIFIED_AT_ONCE], start, progress)
                await trio.lowlevel.checkpoint()
        progress.all_checked()
        return await progress.reply.wait()

    def _check_and_merge(self, peer: str, encoded: Sequence[bytes], start: int, progress: "_MergeProgress") -> None:
        """Check some envelopes of a message, the first of them at `start` in it, and merge the valid ones."""
        incoming: list[Incoming] = []
        invalid: list[bytes] = []
        for at, encoded_envelope in enumerate(encoded, start=start):
            try:
                incoming.append(Incoming(self._inspector.inspect(encoded_envelope), Origin.PEER))
            except BzzzError as error:
                progress.refusals.append((at, Refusal.of(error)))
                if isinstance(error, FORGED):
                    invalid.append(encoded_envelope)
        if invalid:
            self._peer_policy.blame_for(peer, invalid, were_asked_for=False)
        for part in parts_of(incoming) if incoming else ():
            progress.parts += 1
            self._store.merge_in_background(part, now_ms=self._now_ms(), peer=peer, on_done=progress.part_done)

    async def _heads(self, request: GetHeads) -> Reply:
        """What a reader would be given here comes first, with its content; then the heads without content."""
        heads = await self._store.heads(request.key)
        view = await self._readable.view(request.key, heads)
        digests = tuple(dict.fromkeys(head.digest for head in (*view.heads, *heads)))[:ENVELOPES_MAX]
        lacking = [head for head in view.heads[:ENVELOPES_MAX] if head.digest not in request.have]
        held = await self._held(head.digest for head in lacking) if view.missing else lacking
        return HeadsReply(digests, _encoded_that_fit(held))

    async def _versions(self, request: GetVersions) -> Reply:
        limit = min(request.limit, ENVELOPES_MAX)
        versions = await self._store.versions(request.key, after=request.after, limit=limit)
        sizes = accumulate(len(version.notice.header) + NOTICE_BYTES for version in versions)
        fitting = [version for version, size in zip(versions, sizes, strict=True) if size <= ANSWER_BYTES_MAX]
        return VersionsReply(
            tuple(version.notice.encoded for version in fitting if version.reissued_as is None),
            await self._store.count_versions(request.key),
            request.after + len(fitting),
        )

    async def _by_digest(self, digests: tuple[bytes, ...]) -> Reply:
        return EnvelopesReply(_encoded_that_fit(await self._held(digests)))

    async def _held(self, digests: Iterable[bytes]) -> list[Envelope]:
        """Those of these versions that are held, as many as fit into an answer and one more."""
        found: list[Envelope] = []
        size = 0
        for digest in digests:
            envelope = await self._store.by_digest(digest)
            if isinstance(envelope, Envelope):
                found.append(envelope)
                size += envelope.encoded_size
            if size > ANSWER_BYTES_MAX:  # further ones would not fit into the answer, and would only take memory
                break
        return found

    async def _content(self, content_digest: bytes) -> Reply:
        envelope = await self._store.by_content(content_digest)
        return ContentReply(envelope.encoded if envelope is not None else b"")

    async def _missing(self, asker: str, digests: Sequence[bytes]) -> Reply:
        lacking = await self._store.without_content(digests)
        return MissingReply(*self._claims.take(asker, lacking, trio.current_time()))


class _MergeProgress:
    """The progress of one message of envelopes: it is answered when all are checked and all parts are committed."""

    def __init__(self, total: int, last_sequence: Callable[[], int]) -> None:
        self._last_sequence = last_sequence
        self.reply = DeferredReply()
        self.refusals: list[tuple[int, Refusal]] = []
        self.parts = 1
        """How much is not done yet: the checking, and each part that is being merged."""
        self._total = total
        self._error: BaseException | None = None

    def all_checked(self) -> None:
        self._count_down()

    def part_done(self, merged: list[Merged] | BaseException) -> None:
        """A part was committed, or failed."""
        if isinstance(merged, BaseException):
            self._error = self._error or merged
        self._count_down()

    def _count_down(self) -> None:
        self.parts -= 1
        if not self.parts:
            self.reply.resolve(self._error or MergeReply(self._total, tuple(self.refusals), self._last_sequence()))


def _encoded_that_fit(items: Iterable[Envelope | Notice]) -> tuple[bytes, ...]:
    """The encoded envelopes among the items, as many as fit into one answer."""
    encoded: list[bytes] = []
    size = 0
    for item in items:
        if isinstance(item, Envelope):
            size += item.encoded_size
            if size > ANSWER_BYTES_MAX:
                break
            encoded.append(item.encoded)
    return tuple(encoded)
