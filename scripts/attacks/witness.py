"""The witness: looks whether a node serves everybody as if nobody attacked it, and gives back what attackers took.

A guest who was there before stays through everything. Two more come anew at each look, the peer id of one before the
target's and of the other after it, because who opens the lanes depends on that. The API is asked as a probe would ask
it. Of the process, if it is known, descriptors and memory are read.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import psutil
import trio

from attacks.connections import Fell, patient
from attacks.honest_peers import SERVED_SECONDS, Guest, staying, visit
from attacks.http_client import get
from attacks.target import Target
from protocols.keys import PrivateKey

HEALTH_SECONDS = 1.0
"""How long the API may take to answer /health."""
DESCRIPTORS_SLACK = 4
"""What a node may open for itself meanwhile: a file of its store, a thread's pipe."""
GROWTH_BYTES_MAX = 64 << 20
"""How much more memory it may hold than before: what the allocator keeps, and what was written."""
GIVE_BACK_SECONDS = 12.0
"""How soon after an attack the rest is free again."""
_PULSE_SECONDS = 0.1


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
class Level:
    """What the target's process holds; zeros when it is not known."""

    descriptors: int = 0
    memory_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class Waits:
    """The longest that anybody had to wait, in seconds."""

    ping: float = 0.0
    """The guest who stays, for the answer to a ping, while the attack goes on."""
    health: float = 0.0
    """Whoever asks the API, at any time."""
    visit: float = 0.0
    """A fresh peer, from the first packet to its own version read back."""


def _excess(now: Level, before: Level) -> str:
    """What has not been given back, or ''."""
    if now.descriptors > before.descriptors + DESCRIPTORS_SLACK:
        return f"{now.descriptors} descriptors are open, and there were {before.descriptors} before"
    more = now.memory_bytes - before.memory_bytes
    return f"it kept {more >> 20} MiB more memory than before" if more > GROWTH_BYTES_MAX else ""


class Witness:
    """Sees one target, while it is `present`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.waits = Waits()
        self.peak_bytes = 0
        self._guest: Guest
        self._visitors = key_before(target.peer), key_after(target.peer)
        self._process = None if target.pid is None else psutil.Process(target.pid)

    @contextlib.asynccontextmanager
    async def present(self) -> AsyncIterator[None]:
        """The guest who stays is in. Raises `Fell` when it does not get in."""
        async with staying(key_before(self.target.peer), self.target) as self._guest:
            yield

    def level(self) -> Level:
        """Raises `Fell` when the process is gone."""
        if self._process is None:
            return Level()
        try:
            memory = self._process.memory_info().rss
            found = Level(descriptors=self._process.num_fds(), memory_bytes=memory)
        except psutil.NoSuchProcess as error:
            raise Fell("the process has ended") from error
        self.peak_bytes = max(self.peak_bytes, memory)
        return found

    async def look(self) -> None:
        """Everybody is served. Raises `Fell` with who is not."""
        self.level()
        for key in self._visitors:
            self.waits.visit = max(self.waits.visit, await visit(key, self.target))
        await self._guest.use()
        if self._guest.partings:
            raise Fell(f"the peer that was there before lost its connection: {self._guest.partings[-1]}")
        await self.ask_health()

    async def ask_health(self) -> None:
        """Raises `Fell` when there is no answer within a second, or not 200."""
        if self.target.api is None:
            return
        start = trio.current_time()
        status, body = await get(self.target.api, "/health", seconds=patient(HEALTH_SECONDS))
        self.waits.health = max(self.waits.health, trio.current_time() - start)
        if status != 200:
            raise Fell(f"/health answered {status}: {body[:300].decode(errors='replace')}")

    async def until_given_back(self, before: Level) -> Level:
        """The level once descriptors and memory are back. Raises `Fell` when they do not come back."""
        deadline = trio.current_time() + patient(GIVE_BACK_SECONDS)
        while complaint := _excess(self.level(), before):
            if trio.current_time() > deadline:
                raise Fell(complaint)
            await trio.sleep(0.05)
        return self.level()

    @contextlib.asynccontextmanager
    async def on_watch(self) -> AsyncIterator[None]:
        """All the while the guest pings and the API is asked; the first of them that goes wrong raises `Fell`."""
        self.waits, self.peak_bytes = Waits(), 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feel)
            nursery.start_soon(self._probe)
            yield
            nursery.cancel_scope.cancel()

    async def _feel(self) -> None:
        while True:
            start = trio.current_time()
            await self._guest.ping(patient(SERVED_SECONDS))
            self.waits.ping = max(self.waits.ping, trio.current_time() - start)
            self.level()
            await trio.sleep(_PULSE_SECONDS)

    async def _probe(self) -> None:
        while True:
            await self.ask_health()
            await trio.sleep(_PULSE_SECONDS)
