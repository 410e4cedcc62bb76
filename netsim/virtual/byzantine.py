"""A byzantine node: it speaks the protocol and breaks its promises.

It says hello and answers pings as every node does. Beyond that:

- it acknowledges envelopes and discards them;
- it answers with lies about heads, notices and content (`lies.py`);
- it equivocates: two contents under one version, signed by its own key, one of them first to some peers, the other
  first to the rest;
- it replays envelopes that it received, again and again, to all peers;
- it forges: versions in the name of other authors, contents changed under a valid signature, random bytes.

The promises of the honest nodes must hold all the same. Each peer gets both contents of an equivocation in the end: to
spread what a byzantine node sent to some peers alone is the task of anti-entropy.
"""

from collections.abc import Callable, Collection, Sequence

import trio

from netsim.virtual.endpoint import VirtualEndpoint
from netsim.virtual.lies import Lie, Lies
from netsim.virtual.scheduler import chance
from netsim.workload import address_of
from node.swarm.base import BULK_BYTES_MIN, DialFailed, Lane
from protocols import message_codec
from protocols.clock import version
from protocols.envelope import Envelope, decode, seal
from protocols.keys import PrivateKey
from protocols.messages import (
    ContentReply,
    GetByDigest,
    GetContent,
    GetHeads,
    GetMembers,
    GetVersions,
    Hello,
    MembersReply,
    Merge,
    MergeReply,
    Message,
    Ping,
    Pong,
    Reply,
    Request,
)

KEY = "lies"
"""The key of its equivocations, beside the keys that clients use."""
REPLAYED_MAX = 64
EVERY_SECONDS = 0.4
REDIAL_SECONDS = 1.0


class ByzantineNode:
    """One process of it. It is the `Receiver` of its endpoint. With `attacks` False it answers, and sends nothing."""

    def __init__(
        self,
        key: PrivateKey,
        endpoint: VirtualEndpoint,
        *,
        addresses: Sequence[str],
        now_ms: Callable[[], int],
        seed: int,
        lies: Collection[Lie] = tuple(Lie),
        attacks: bool = True,
    ) -> None:
        self._key = key
        self._endpoint = endpoint
        self._addresses = list(addresses)
        self._now_ms = now_ms
        self._rng = chance(seed, "liar")
        self._lies = Lies(key, chance(seed, "lies"), now_ms=now_ms, lies=lies)
        self._attacks = attacks
        self._number = 0
        self._peers: dict[str, None] = {}
        self._received: list[bytes] = []
        """The latest envelopes that peers have sent."""

    async def run(self, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until the scope that `task_status` passes on is cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._endpoint.run, self)
            nursery.start_soon(self._dial_for_ever)
            task_status.started(nursery.cancel_scope)
            while True:
                await trio.sleep(EVERY_SECONDS * (0.5 + self._rng.random()))
                if self._attacks:
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
        self._request(peer, self._hello())

    def disconnected(self, peer: str, reason: str) -> None:
        self._peers.pop(peer, None)

    def received(self, peer: str, lane: Lane, frame: bytes) -> None:
        decoded = message_codec.decode(frame)
        if not decoded.is_reply:
            self._send(peer, message_codec.encode_reply(decoded.id, self._reply(decoded.message)))

    def _reply(self, request: Message) -> Reply:
        match request:
            case Hello():
                return self._hello()
            case Ping():
                return Pong(self._now_ms(), 0, 0)
            case Merge():
                self._received = [*self._received, *request.envelopes][-REPLAYED_MAX:]
                self._lies.learn(request.envelopes)
                return MergeReply(len(request.envelopes), ())
            case GetHeads():
                return self._lies.heads(request)
            case GetVersions():
                return self._lies.versions(request)
            case GetByDigest():
                return self._lies.by_digest(request)
            case GetMembers():
                return MembersReply(())
            case GetContent():
                return self._lies.content(request)
            case _:
                return ContentReply(b"")

    def _hello(self) -> Hello:
        return Hello("bzzz", "liar", "0" * 16, self._now_ms(), (self._endpoint.address,))

    # -- attacks ----------------------------------------------------------------------------------------------

    async def _equivocate(self) -> None:
        """One version, two contents, to each peer in an order that is drawn."""
        at = version(self._now_ms(), self._rng.randrange(1 << 16))
        contents = [self._sealed(at, b"yes").encoded, self._sealed(at, b"no").encoded]
        for peer in list(self._peers):
            self._rng.shuffle(contents)
            for content in contents:
                self._request(peer, Merge((content,)))

    async def _replay(self) -> None:
        """All received envelopes, in an order that is drawn, to all peers."""
        shuffled = self._rng.sample(self._received, len(self._received))
        for peer in list(self._peers) if shuffled else ():
            self._request(peer, Merge(tuple(shuffled)))

    async def _forge(self) -> None:
        """An envelope in the name of another author, one with a changed content, and random bytes."""
        forged = [self._rng.randbytes(self._rng.randrange(200))]
        if self._received:
            encoded = self._rng.choice(self._received)
            victim = decode(encoded)
            at = self._rng.randrange(len(encoded))
            forged.append(encoded[:at] + bytes([encoded[at] ^ 1]) + encoded[at + 1 :])
            signed = self._sealed(victim.version + 1, b"forged", address=victim.address, parents=(victim.digest,))
            forged.append(signed.encoded.replace(self._key.peer_id.encode(), victim.author.encode()))
        for peer in list(self._peers):
            self._request(peer, Merge(tuple(forged)))

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

    def _request(self, peer: str, request: Request) -> None:
        self._number += 1
        self._send(peer, message_codec.encode_request(self._number, request))

    def _send(self, peer: str, frame: bytes) -> None:
        self._endpoint.send(peer, Lane.BULK if len(frame) >= BULK_BYTES_MIN else Lane.SMALL, frame)
