"""Peers who hold to every rule, and who must be served whatever others do: our own host, with nothing behind it."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable

import trio

from attacks.connections import Fell, patient
from attacks.target import Target
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
"""How long a peer may wait to be let in and served."""
_CLOCK = HybridClock()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def written(key: PrivateKey, content: bytes, *, path: str = "guests", parents: tuple[bytes, ...] = ()) -> Envelope:
    """An envelope of this author, later than all before it."""
    address = f"ucxl://attack:{key.peer_id[-8:].lower()}@tests:live/*^/{path}"
    version = _CLOCK.read(now_ms())
    return seal(key, address=address, content=content, content_type="text/plain", version=version, parents=parents)


class Guest:
    """One peer. It listens nowhere, so that the target never dials it; it answers what peers are asked."""

    def __init__(self, key: PrivateKey, target: Target) -> None:
        self.peer_id = key.peer_id
        self.partings: list[str] = []
        """Why each of its connections ended."""
        self._key = key
        self._target = target
        self._host = Host(key, ())
        self._rpc = Rpc(self._host)
        self._last: tuple[bytes, ...] = ()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._rpc.run(self, task_status=task_status)

    async def enter(self) -> None:
        """Connect and say hello. Raises `Fell` when that takes more than three seconds, or is refused."""
        try:
            await self._host.dial([self._target.multiaddr], timeout=patient(SERVED_SECONDS))
        except DialFailed as error:
            raise Fell(f"a peer does not get in: {error}") from error
        await self._ask(self._hello(), patient(SERVED_SECONDS))

    async def use(self) -> None:
        """Write a version and read it back, within three seconds in all. Raises `Fell`."""
        with trio.move_on_after(patient(SERVED_SECONDS)) as in_time:
            await self._use()
        if in_time.cancelled_caught:
            raise Fell(f"a peer's write and read took more than {SERVED_SECONDS:g} s")

    async def _use(self) -> None:
        envelope = written(self._key, b"of a guest", parents=self._last)
        merged = await self._ask(Merge((envelope.encoded,)), patient(SERVED_SECONDS))
        if merged != MergeReply(1, ()):
            raise Fell(f"what a peer wrote was not taken: {merged}")
        heads = await self._ask(GetHeads(envelope.key, ()), patient(SERVED_SECONDS))
        if not isinstance(heads, HeadsReply) or envelope.encoded not in heads.envelopes:
            raise Fell(f"what a peer wrote is not read back: {heads}")
        self._last = (envelope.digest,)

    async def ping(self, seconds: float) -> None:
        """Raises `Fell` when the answer takes longer."""
        await self._ask(Ping(), seconds)

    async def _ask(self, request: Request, seconds: float) -> Reply:
        try:
            return await self._rpc.call(self._target.peer, request, timeout=seconds)
        except BzzzError as error:
            name = type(request).__name__
            raise Fell(f"a peer's {name} was not answered: {error.message} {self.partings[-1:]}") from error

    def _hello(self) -> Hello:
        return Hello(self._target.network, "guest", "", now_ms(), ())

    # What peers hear and answer.

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        pass

    def disconnected(self, peer: str, reason: str) -> None:
        self.partings.append(reason)

    def heard(self, peer: str) -> None:
        pass

    def missed(self, peer: str, evidence: str) -> None:
        pass

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
                raise Unavailable("a guest has nothing to say to that")


@contextlib.asynccontextmanager
async def staying(key: PrivateKey, target: Target) -> AsyncIterator[Guest]:
    """A guest that is in. Raises `Fell` when it does not get in."""
    guest = Guest(key, target)
    async with trio.open_nursery() as nursery:
        await nursery.start(guest.run)
        await guest.enter()
        yield guest
        nursery.cancel_scope.cancel()


async def visit(key: PrivateKey, target: Target) -> float:
    """Come anew, be served, leave; how many seconds it took. Raises `Fell`."""
    start = trio.current_time()
    with trio.move_on_after(patient(SERVED_SECONDS)):
        async with staying(key, target) as guest:
            await guest.use()
            return trio.current_time() - start
    raise Fell(f"a fresh peer was not let in and served within {SERVED_SECONDS:g} s")
