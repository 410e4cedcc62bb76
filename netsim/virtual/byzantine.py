"""A node that is none of ours: it speaks the protocol, and lies.

It says hello and answers pings as anybody does, and beyond that:

- it acknowledges what it is handed, and throws it away;
- it answers that it knows nothing of any key;
- it equivocates: two contents under one version, signed by its own key, one to some peers first, the other to the rest;
- it replays what it was handed, again and again, to everybody;
- it forges: versions in the name of others, contents changed under a signature that was right, garbage.

Whatever it does, the promises of the others must hold. It hands both sides of an equivocation to everybody in the
end: that all of them learn of what a liar told to some alone is anti-entropy's work.
"""

from collections.abc import Callable, Sequence

import trio

from netsim.virtual.client import address_of
from netsim.virtual.endpoint import VirtualEndpoint
from netsim.virtual.scheduler import chance
from node.swarm.base import BULK_BYTES_MIN, DialFailed, Lane
from protocols import message_codec
from protocols.clock import version
from protocols.envelope import Envelope, decode, seal
from protocols.keys import PrivateKey
from protocols.messages import (
    EnvelopesReply,
    GetByDigest,
    GetHeads,
    GetMembers,
    GetProviders,
    GetVersions,
    HeadsReply,
    Hello,
    MembersReply,
    Merge,
    MergeReply,
    Message,
    Ping,
    Pong,
    ProviderAdded,
    ProvidersReply,
    Reply,
    Request,
    VersionsReply,
)

KEY = "lies"
"""It equivocates here, beside the keys that clients use."""
REPLAYED_MAX = 64
EVERY_SECONDS = 0.4
REDIAL_SECONDS = 1.0


class ByzantineNode:
    """One life of it. The `Receiver` of its endpoint."""

    def __init__(
        self,
        key: PrivateKey,
        endpoint: VirtualEndpoint,
        *,
        addresses: Sequence[str],
        now_ms: Callable[[], int],
        seed: int,
    ) -> None:
        self._key = key
        self._endpoint = endpoint
        self._addresses = list(addresses)
        self._now_ms = now_ms
        self._rng = chance(seed, "liar")
        self._number = 0
        self._peers: dict[str, None] = {}
        self._handed: list[bytes] = []

    async def run(self, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED) -> None:
        """Lie until the scope that this is started with is cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._endpoint.run, self)
            nursery.start_soon(self._dial_for_ever)
            task_status.started(nursery.cancel_scope)
            while True:
                await trio.sleep(EVERY_SECONDS * (0.5 + self._rng.random()))
                await self._rng.choice((self._equivocate, self._replay, self._forge))()

    async def _dial_for_ever(self) -> None:
        while True:
            for address in self._addresses:
                try:
                    await self._endpoint.dial([address], timeout=REDIAL_SECONDS)
                except DialFailed:
                    continue
            await trio.sleep(REDIAL_SECONDS)

    # -- the receiver -----------------------------------------------------------------------------------------

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        self._peers[peer] = None
        self._ask(peer, self._hello())

    def disconnected(self, peer: str, reason: str) -> None:
        self._peers.pop(peer, None)

    def received(self, peer: str, lane: Lane, frame: bytes) -> None:
        told = message_codec.decode(frame)
        if not told.is_reply:
            self._send(peer, message_codec.encode_reply(told.id, self._answer(told.message)))

    def _answer(self, request: Message) -> Reply:
        match request:
            case Hello():
                return self._hello()
            case Ping():
                return Pong(self._now_ms(), 0, 0)
            case Merge():
                self._handed = [*self._handed, *request.envelopes][-REPLAYED_MAX:]
                return MergeReply(len(request.envelopes), ())
            case GetHeads():
                return HeadsReply((), ())
            case GetVersions():
                return VersionsReply((), 0)
            case GetByDigest():
                return EnvelopesReply(tuple(self._handed[:1]))
            case GetMembers():
                return MembersReply(())
            case GetProviders():
                return ProvidersReply(())
            case _:
                return ProviderAdded()

    def _hello(self) -> Hello:
        return Hello("bzzz", "liar", "0" * 16, self._now_ms(), (self._endpoint.address,))

    # -- lies -------------------------------------------------------------------------------------------------

    async def _equivocate(self) -> None:
        """One version, two contents: to some this one first, to the others that one."""
        at = version(self._now_ms(), self._rng.randrange(1 << 16))
        sides = [self._sealed(at, b"yes").encoded, self._sealed(at, b"no").encoded]
        for peer in list(self._peers):
            self._rng.shuffle(sides)
            for side in sides:
                self._ask(peer, Merge((side,)))

    async def _replay(self) -> None:
        """Everything it was handed, in whatever order, to everybody."""
        handed = self._rng.sample(self._handed, len(self._handed))
        for peer in list(self._peers) if handed else ():
            self._ask(peer, Merge(tuple(handed)))

    async def _forge(self) -> None:
        """In the name of others, with contents exchanged, and with garbage."""
        forged = [self._rng.randbytes(self._rng.randrange(200))]
        if self._handed:
            encoded = self._rng.choice(self._handed)
            victim = decode(encoded)
            at = self._rng.randrange(len(encoded))
            forged.append(encoded[:at] + bytes([encoded[at] ^ 1]) + encoded[at + 1 :])
            mine = self._sealed(victim.version + 1, b"forged", address=victim.address, parents=(victim.digest,))
            forged.append(mine.encoded.replace(self._key.peer_id.encode(), victim.author.encode()))
        for peer in list(self._peers):
            self._ask(peer, Merge(tuple(forged)))

    def _sealed(self, at: int, content: bytes, *, address: str = "", parents: tuple[bytes, ...] = ()) -> Envelope:
        return seal(
            self._key,
            address=address or address_of(KEY).canonical,
            content=content,
            content_type="text/plain",
            version=at,
            parents=parents,
        )

    # -- frames -----------------------------------------------------------------------------------------------

    def _ask(self, peer: str, request: Request) -> None:
        self._number += 1
        self._send(peer, message_codec.encode_request(self._number, request))

    def _send(self, peer: str, frame: bytes) -> None:
        self._endpoint.send(peer, Lane.BULK if len(frame) >= BULK_BYTES_MIN else Lane.SMALL, frame)
