"""The witness: checks that a node serves all honest peers as if it were not attacked, and releases what attackers took.

One honest peer is connected before the attack and stays. Two more connect at each check, one with a peer id before the
target's and one with a peer id after it, because the order of the ids decides which side opens the lanes. The API is
asked for its health as a probe does. If the process is known, its descriptors and its memory are read.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import psutil
import trio

from attacks.connections import TargetFailed, scaled_by_load
from attacks.honest_peers import SERVED_SECONDS, HonestPeer, connected_peer, visit
from attacks.http_client import get
from attacks.target import AttackTarget
from protocols.keys import PrivateKey

HEALTH_SECONDS = 1.0
"""How long the API may take to answer /health."""
DESCRIPTORS_SLACK = 4
"""Descriptors that a node may open for itself meanwhile: a file of its store, the pipe of a thread."""
GROWTH_BYTES_MAX = 64 << 20
"""How much more memory a node may hold than before: what the allocator keeps, and what was written."""
RELEASE_SECONDS = 30.0
"""How soon after an attack a node must have released the rest."""
_WATCH_SECONDS = 0.1


def key_before(peer: str) -> PrivateKey:
    """A new key whose peer id comes before this one: it opens the lanes."""
    return next(key for key in _keys() if key.peer_id < peer)


def key_after(peer: str) -> PrivateKey:
    """A new key whose peer id comes after this one: the lanes are opened to it."""
    return next(key for key in _keys() if key.peer_id > peer)


def _keys() -> Iterator[PrivateKey]:
    while True:
        yield PrivateKey.from_seed(os.urandom(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Resources of the target's process; zeros when the process is not known."""

    descriptors: int = 0
    memory_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class Waits:
    """The longest waits of honest clients, in seconds."""

    ping: float = 0.0
    """Of the peer that stays, for the answer to a ping, during the attack."""
    health: float = 0.0
    """Of a client of the API, at any time."""
    visit: float = 0.0
    """Of a new peer, from its first packet until it has read its own version back."""


def not_released(now: Resources, before: Resources) -> str:
    """What the target has not released, or ''."""
    if now.descriptors > before.descriptors + DESCRIPTORS_SLACK:
        return f"{now.descriptors} descriptors are open, and there were {before.descriptors} before"
    more = now.memory_bytes - before.memory_bytes
    return f"it kept {more >> 20} MiB more memory than before" if more > GROWTH_BYTES_MAX else ""


class Witness:
    """Watches one target while it is `connected`."""

    def __init__(self, target: AttackTarget) -> None:
        self.target = target
        self.waits = Waits()
        self.peak_bytes = 0
        self._resident: HonestPeer
        self._visitors = key_before(target.peer), key_after(target.peer)
        self._process = None if target.pid is None else psutil.Process(target.pid)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """The peer that stays is connected. Raises `TargetFailed` when it cannot connect."""
        async with connected_peer(key_before(self.target.peer), self.target) as self._resident:
            yield

    def resources(self) -> Resources:
        """What the process holds now. Raises `TargetFailed` when the process has ended."""
        if self._process is None:
            return Resources()
        try:
            memory = self._process.memory_info().rss
            found = Resources(descriptors=self._process.num_fds(), memory_bytes=memory)
        except psutil.NoSuchProcess as error:
            raise TargetFailed("the process has ended") from error
        self.peak_bytes = max(self.peak_bytes, memory)
        return found

    async def check(self) -> None:
        """All honest clients are served. Raises `TargetFailed` with the one that is not."""
        self.resources()
        for key in self._visitors:
            self.waits.visit = max(self.waits.visit, await visit(key, self.target))
        await self._resident.use()
        if self._resident.end_reasons:
            raise TargetFailed(f"the peer that was there before lost its connection: {self._resident.end_reasons[-1]}")
        await self.ask_health()

    async def ask_health(self) -> None:
        """Ask the API for /health. Raises `TargetFailed` unless it answers 200 within a second."""
        if self.target.api is None:
            return
        start = trio.current_time()
        status, body = await get(self.target.api, "/health", seconds=scaled_by_load(HEALTH_SECONDS))
        self.waits.health = max(self.waits.health, trio.current_time() - start)
        if status != 200:
            raise TargetFailed(f"/health answered {status}: {body[:300].decode(errors='replace')}")

    async def until_released(self, before: Resources) -> Resources:
        """Wait until descriptors and memory are as before. Raises `TargetFailed` when they are not in time."""
        deadline = trio.current_time() + scaled_by_load(RELEASE_SECONDS)
        while complaint := not_released(self.resources(), before):
            if trio.current_time() > deadline:
                raise TargetFailed(complaint)
            await trio.sleep(0.05)
        return self.resources()

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Ping and ask the API all the time; the first failure raises `TargetFailed`."""
        self.waits, self.peak_bytes = Waits(), 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_pinging)
            nursery.start_soon(self._keep_asking_health)
            yield
            nursery.cancel_scope.cancel()

    async def _keep_pinging(self) -> None:
        while True:
            start = trio.current_time()
            await self._resident.ping(scaled_by_load(SERVED_SECONDS))
            self.waits.ping = max(self.waits.ping, trio.current_time() - start)
            self.resources()
            await trio.sleep(_WATCH_SECONDS)

    async def _keep_asking_health(self) -> None:
        while True:
            await self.ask_health()
            await trio.sleep(_WATCH_SECONDS)
