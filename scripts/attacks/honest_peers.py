"""Honest peers, which must be served whatever others do: the project's own host, without a node behind it."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable

import trio

from attacks.connections import TargetFailed, scaled_by_load
from attacks.target import AttackTarget
from node.swarm.base import DialFailed
from node.swarm.libp2p.host import Host
from node.swarm.rpc import Rpc
from protocols.clock import HybridClock
from protocols.envelope import Envelope, seal
from protocols.errors import BzzzError, Unavailable
from protocols.keys import PrivateKey
from protocols.messages import (
    GetHeads,
    GetMembers,
    HeadsReply,
    Hello,
    MembersReply,
    Merge,
    MergeReply,
    Ping,
    Pong,
    Reply,
    Request,
)

SERVED_SECONDS = 3.0
"""How long a peer may wait until it is connected and served."""
_CLOCK = HybridClock()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def later_version() -> int:
    """A version number later than all before it."""
    return _CLOCK.read(now_ms())


def make_envelope(
    key: PrivateKey, content: bytes, *, path: str = "honest", parents: tuple[bytes, ...] = ()
) -> Envelope:
    """An envelope of this author, with a later version than all before it."""
    address = f"ucxl://attack:{key.peer_id[-8:].lower()}@tests:live/*^/{path}"
    return seal(
        key, address=address, content=content, content_type="text/plain", version=later_version(), parents=parents
    )


class HonestPeer:
    """One peer. It listens at no address, so that the target never dials it; it answers the requests of peers."""

    def __init__(self, key: PrivateKey, target: AttackTarget) -> None:
        self.peer_id = key.peer_id
        self.end_reasons: list[str] = []
        """Why each of its connections ended."""
        self._key = key
        self._target = target
        self._host = Host(key, ())
        self._rpc = Rpc(self._host)
        self._last: tuple[bytes, ...] = ()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._rpc.run(self, task_status=task_status)

    async def connect(self) -> None:
        """Connect and say hello. Raises `TargetFailed` when that is refused or takes more than three seconds."""
        try:
            await self._host.dial([self._target.multiaddr], timeout=scaled_by_load(SERVED_SECONDS))
        except DialFailed as error:
            raise TargetFailed(f"a peer cannot connect: {error}") from error
        await self._ask(self._hello(), scaled_by_load(SERVED_SECONDS))

    async def use(self) -> None:
        """Write a version and read it back, within three seconds in all. Raises `TargetFailed`."""
        with trio.move_on_after(scaled_by_load(SERVED_SECONDS)) as in_time:
            await self._use()
        if in_time.cancelled_caught:
            raise TargetFailed(f"a peer's write and read took more than {SERVED_SECONDS:g} s")

    async def _use(self) -> None:
        envelope = make_envelope(self._key, b"of an honest peer", parents=self._last)
        merged = await self._ask(Merge((envelope.encoded,)), scaled_by_load(SERVED_SECONDS))
        if not isinstance(merged, MergeReply) or merged[:2] != (1, ()):
            raise TargetFailed(f"a peer's version was not accepted: {merged}")
        heads = await self._ask(GetHeads(envelope.key, ()), scaled_by_load(SERVED_SECONDS))
        if not isinstance(heads, HeadsReply) or envelope.encoded not in heads.envelopes:
            raise TargetFailed(f"a peer's version is not read back: {heads}")
        self._last = (envelope.digest,)

    async def ping(self, seconds: float) -> None:
        """Ping the target. Raises `TargetFailed` when no answer comes within `seconds`."""
        await self._ask(Ping(), seconds)

    async def _ask(self, request: Request, seconds: float) -> Reply:
        try:
            return await self._rpc.call(self._target.peer, request, timeout=seconds)
        except BzzzError as error:
            name = type(request).__name__
            raise TargetFailed(f"a peer's {name} was not answered: {error.message} {self.end_reasons[-1:]}") from error

    def _hello(self) -> Hello:
        return Hello(self._target.network, "honest", "", now_ms(), ())

    # The `RpcService` of the peer.

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        pass

    def disconnected(self, peer: str, reason: str) -> None:
        self.end_reasons.append(reason)

    def heard(self, peer: str) -> None:
        pass

    def missed(self, peer: str, evidence: str) -> None:
        pass

    def is_idle(self, peer: str) -> bool:
        return False

    async def connect_idle(self, peer: str) -> str:
        return "this is no node"

    def serve(self, peer: str, request: Request, trace: str) -> Reply | Awaitable[Reply]:
        match request:
            case Hello():
                return self._hello()
            case Ping():
                return Pong(now_ms(), 0, 0)
            case GetMembers():
                return MembersReply(())
            case Merge():
                return MergeReply(len(request.envelopes), ())
            case GetHeads():
                return HeadsReply((), ())
            case _:
                raise Unavailable("this peer does not answer such requests")


@contextlib.asynccontextmanager
async def connected_peer(key: PrivateKey, target: AttackTarget) -> AsyncIterator[HonestPeer]:
    """An honest peer that is connected. Raises `TargetFailed` when it cannot connect."""
    peer = HonestPeer(key, target)
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        await peer.connect()
        yield peer
        nursery.cancel_scope.cancel()


async def visit(key: PrivateKey, target: AttackTarget) -> float:
    """Connect, be served, and disconnect. Returns how many seconds that took. Raises `TargetFailed`."""
    start = trio.current_time()
    with trio.move_on_after(scaled_by_load(SERVED_SECONDS)):
        async with connected_peer(key, target) as peer:
            await peer.use()
            return trio.current_time() - start
    raise TargetFailed(f"a new peer was not connected and served within {SERVED_SECONDS:g} s")
