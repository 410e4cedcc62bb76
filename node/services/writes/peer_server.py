"""The answering side: what this node does for its peers. The `RpcService` behind `node/swarm/rpc.py`.

Whoever has not said hello, or is of another swarm, is answered nothing else. What peers hand in is decoded, verified
and merged here, and acknowledged after the commit; what is refused is refused one by one, with its reason.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence

import trio

from node.services.membership.neighbours import Neighbours
from node.store.base import Store
from node.store.log import Incoming, Merged, Origin
from node.swarm.deferred_reply import DeferredReply
from node.swarm.peer_policy import PeerPolicy
from protocols.clock import check_not_ahead
from protocols.envelope import Envelope, Notice, decode
from protocols.errors import BadSignature, BzzzError, Forbidden, Malformed, TooLarge, Unavailable
from protocols.messages import (
    ENVELOPES_MAX,
    AddProvider,
    EnvelopesReply,
    GetByDigest,
    GetHeads,
    GetMembers,
    GetProviders,
    GetVersions,
    HeadsReply,
    Hello,
    MemberEntry,
    Merge,
    MergeReply,
    Ping,
    Pong,
    ProviderAdded,
    ProvidersReply,
    Refusal,
    Reply,
    Request,
    VersionsReply,
)
from protocols.policy.signature_cache import SignatureCache

ANSWER_BYTES_MAX = 4 << 20
"""Envelopes in one answer; what does not fit is left out, and can be asked for by its digest."""
DUE_MAX = 256
"""Hints looked at to tell a peer since when it lacks something; with more it is told that this has been long."""
VERIFIED_AT_ONCE = 16
"""Signatures checked (50 microseconds each) before others get their turn."""
LONG_MS = 365 * 24 * 3600 * 1000
PROVIDE_TTL_MS_MAX = 48 * 3600 * 1000


class PeerServer:
    """Answers requests from the store. Plain functions: on the trio thread, quick, not raising."""

    def __init__(
        self,
        store: Store,
        neighbours: Neighbours,
        *,
        verified: SignatureCache,
        now_ms: Callable[[], int],
        heard: Callable[[str], None],
        peer_policy: PeerPolicy | None = None,
    ) -> None:
        """`peer_policy` hears of peers that hand in what no author can have signed."""
        self._store = store
        self._peer_policy = peer_policy or PeerPolicy()
        self._verified = verified
        self._neighbours = neighbours
        self._now_ms = now_ms
        self._ahead_ms = -math.inf
        self._heard = heard
        self._large: dict[str, trio.Lock] = {}
        """Whose turn it is to have a large message checked, by peer: one of each at a time."""

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        self._neighbours.connected(peer, address, dialled)

    def disconnected(self, peer: str, reason: str) -> None:
        self._large.pop(peer, None)
        self._neighbours.disconnected(peer, reason)

    def heard(self, peer: str) -> None:
        self._neighbours.heard(peer)
        self._heard(peer)

    def missed(self, peer: str, evidence: str) -> None:
        self._neighbours.missed(peer, evidence)

    def serve(self, peer: str, request: Request, trace: str) -> Reply | DeferredReply | Awaitable[Reply]:
        if isinstance(request, Hello):
            return self._neighbours.answer_hello(peer, request)
        if not self._neighbours.knows(peer):
            raise Forbidden("say hello first: this node speaks with members of its own swarm only")
        match request:
            case Ping():
                return self._pong(peer)
            case Merge():
                return self._merge(peer, request.envelopes)
            case GetHeads():
                return self._heads(request)
            case GetVersions():
                return self._versions(request)
            case GetByDigest():
                return self._by_digest(request.digests)
            case GetMembers():
                return self._neighbours.answer_members()
            case AddProvider():
                return self._provide(peer, request)
            case GetProviders():
                return self._providers(request.key)

    def _pong(self, peer: str) -> Reply | Awaitable[Reply]:
        # The wall clock as it went furthest ahead: one that was set back would make what is owed look young.
        self._ahead_ms = max(self._ahead_ms, self._now_ms() - trio.current_time() * 1000.0)
        owed = self._store.hint_counts().get(peer, 0)
        return self._pong_owing(peer, owed) if owed else Pong(self._now_ms(), 0, 0)

    async def _pong_owing(self, peer: str, owed: int) -> Reply:
        now_ms = self._now_ms()
        due = await self._store.due_hints(peer, limit=min(owed, DUE_MAX), now_ms=now_ms)
        # What is owed and not due was refused there for a while: since when is not known here at once. It may be older
        # than all that is due.
        age_ms = int(trio.current_time() * 1000.0 + self._ahead_ms) - due[0].at_ms if due else LONG_MS
        return Pong(now_ms, owed, max(0, age_ms) if len(due) >= owed and age_ms > -100 else LONG_MS)

    def _merge(self, peer: str, encoded: Sequence[bytes]) -> DeferredReply | Awaitable[Reply]:
        handing = _Handing(len(encoded))
        if len(encoded) >= VERIFIED_AT_ONCE:
            return self._merge_in_turns(peer, encoded, handing)
        self._take(peer, encoded, 0, handing)
        handing.is_checked()
        return handing.promise

    async def _merge_in_turns(self, peer: str, encoded: Sequence[bytes], handing: "_Handing") -> Reply:
        """A large message, a part at a time: what is checked is on its way to the disk while the next is checked.

        A hundred of these side by side would each have its turn before anybody else has one: so one of a peer's.
        """
        async with self._large.setdefault(peer, trio.Lock()):
            for start in range(0, len(encoded), VERIFIED_AT_ONCE):
                if not self._neighbours.knows(peer):
                    self._large.pop(peer, None)
                    raise Unavailable("the connection that this came by is over")
                self._take(peer, encoded[start : start + VERIFIED_AT_ONCE], start, handing)
                await trio.lowlevel.checkpoint()
        handing.is_checked()
        return await handing.promise.wait()

    def _take(self, peer: str, encoded: Sequence[bytes], start: int, handing: "_Handing") -> None:
        """Check some of a message's envelopes, the first of them at `start` in it, and hand in what may be merged."""
        incoming: list[Incoming] = []
        bad: list[bytes] = []
        for at, one in enumerate(encoded, start=start):
            try:
                envelope = decode(one)
                self._verified.check(envelope)
                check_not_ahead(envelope.version, self._now_ms())
                incoming.append(Incoming(envelope, Origin.PEER))
            except BzzzError as error:
                handing.refusals.append((at, Refusal.of(error)))
                if isinstance(error, BadSignature | Malformed | TooLarge):
                    bad.append(one)
        if bad:
            self._peer_policy.blame_for(peer, bad, were_asked_for=False)
        if incoming:
            handing.parts += 1
            self._store.merge_in_background(incoming, now_ms=self._now_ms(), on_done=handing.came)

    async def _heads(self, request: GetHeads) -> Reply:
        heads = (await self._store.heads(request.key))[:ENVELOPES_MAX]
        wanted = (head for head in heads if head.digest not in request.have)
        return HeadsReply(tuple(head.digest for head in heads), _fitting(wanted))

    async def _versions(self, request: GetVersions) -> Reply:
        limit = min(request.limit, ENVELOPES_MAX)
        versions = await self._store.versions(request.key, after=request.after, limit=limit)
        notices = tuple(
            Notice(v.address, request.key, v.digest, v.version, v.author, v.deleted, v.parents)
            for v in versions
            if v.reissued_as is None
        )
        return VersionsReply(notices, await self._store.count_versions(request.key))

    async def _by_digest(self, digests: tuple[bytes, ...]) -> Reply:
        found: list[Envelope] = []
        size = 0
        for digest in digests:
            one = await self._store.by_digest(digest)
            if isinstance(one, Envelope):
                found.append(one)
                size += len(one.encoded)
            if size > ANSWER_BYTES_MAX:  # what is more would not fit, and must not be held meanwhile
                break
        return EnvelopesReply(_fitting(found))

    async def _provide(self, peer: str, request: AddProvider) -> Reply:
        if request.ttl_ms == 0:
            raise Malformed("a provider says for how long it provides; 0 ms is not a time")
        expires_ms = self._now_ms() + min(request.ttl_ms, PROVIDE_TTL_MS_MAX)
        await self._store.provide(request.key, peer, expires_ms=expires_ms)
        return ProviderAdded()

    async def _providers(self, key: bytes) -> Reply:
        peers = await self._store.providers(key, now_ms=self._now_ms())
        return ProvidersReply(tuple(MemberEntry(peer, self._neighbours.addresses_of(peer)) for peer in peers))


class _Handing:
    """What becomes of one message's envelopes: it is answered when all are checked and all parts of them committed."""

    def __init__(self, total: int) -> None:
        self.promise = DeferredReply()
        self.refusals: list[tuple[int, Refusal]] = []
        self.parts = 1
        """How much is not done yet: the checking, and each part that was handed in."""
        self._total = total
        self._error: BaseException | None = None

    def is_checked(self) -> None:
        self._less()

    def came(self, merged: list[Merged] | BaseException) -> None:
        """A part was committed, or was not."""
        if isinstance(merged, BaseException):
            self._error = self._error or merged
        self._less()

    def _less(self) -> None:
        self.parts -= 1
        if not self.parts:
            self.promise.resolve(self._error or MergeReply(self._total, tuple(self.refusals)))


def _fitting(items: Iterable[Envelope | Notice]) -> tuple[bytes, ...]:
    """The encoded envelopes among them, as many as one answer may carry."""
    encoded: list[bytes] = []
    size = 0
    for item in items:
        if isinstance(item, Envelope):
            size += len(item.encoded)
            if size > ANSWER_BYTES_MAX:
                break
            encoded.append(item.encoded)
    return tuple(encoded)
