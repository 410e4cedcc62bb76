"""What the tests of the real network share: a receiver that remembers, hosts in this process, and peers in others."""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import trio

from node.swarm.base import Lane
from node.swarm.libp2p.host import Host
from node.swarm.limits import USUAL, SwarmLimits
from node.swarm.peer_policy import PeerPolicy
from protocols.keys import PrivateKey

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)
AGREES = b"\x13/multistream/1.0.0\n\x07/noise\n"
"""What somebody says first who takes a connection and agrees to speak noise."""
_ROOT = Path(__file__).parents[2]


class Told:
    """A `Receiver` that writes down what it is told."""

    def __init__(self) -> None:
        self.comings: list[tuple[str, str]] = []
        """('connected' or 'disconnected', peer), in order."""
        self.reasons: list[str] = []
        self.addresses: list[tuple[str, bool]] = []
        self.frames: list[tuple[str, Lane, bytes]] = []
        self.on_frame: Callable[[str, Lane, bytes], None] = lambda peer, lane, frame: None
        self._changed = trio.Event()

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        self.addresses.append((address, dialled))
        self.comings.append(("connected", peer))
        self._wake()

    def disconnected(self, peer: str, reason: str) -> None:
        self.reasons.append(reason)
        self.comings.append(("disconnected", peer))
        self._wake()

    def received(self, peer: str, lane: Lane, frame: bytes) -> None:
        self.frames.append((peer, lane, frame))
        self._wake()
        self.on_frame(peer, lane, frame)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    async def until_connected(self, peer: str) -> None:
        await self.until(lambda: self.last_of(peer) == "connected")

    async def until_gone(self, peer: str) -> None:
        await self.until(lambda: self.last_of(peer) == "disconnected")

    async def until_frames(self, count: int) -> None:
        await self.until(lambda: len(self.frames) == count)

    def last_of(self, peer: str) -> str:
        return next((what for what, whom in reversed(self.comings) if whom == peer), "")

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@contextlib.asynccontextmanager
async def running(
    listen: Sequence[str] = LOOPBACK,
    *,
    seed: bytes | None = None,
    is_allowed: Callable[[str], bool] | None = None,
    peer_policy: PeerPolicy | None = None,
    limits: SwarmLimits = USUAL,
) -> AsyncIterator[tuple[Host, Told]]:
    """A host that runs, and what it tells."""
    key = PrivateKey.from_seed(seed or os.urandom(32))
    host = Host(key, listen, is_allowed=is_allowed, peer_policy=peer_policy, limits=limits)
    told = Told()
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run, told)
        try:
            yield host, told
        finally:
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def joined() -> AsyncIterator[tuple[Host, Told, Host, Told]]:
    """Two hosts, the first of which dialled the second."""
    async with running() as (one, one_told), running() as (two, two_told):
        await one.dial(two.addresses, timeout=5)
        await two_told.until_connected(one.peer_id)
        yield one, one_told, two, two_told


@contextlib.asynccontextmanager
async def mute(words: bytes = b"") -> AsyncIterator[str]:
    """The address of somebody who takes every connection, says these words on it, and then nothing more."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening.setblocking(False)

        async def answer() -> None:
            while True:
                await trio.lowlevel.wait_readable(listening)
                stack.enter_context(listening.accept()[0]).sendall(words)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            yield f"/ip4/127.0.0.1/tcp/{listening.getsockname()[1]}"
            nursery.cancel_scope.cancel()


def seeds_in_order() -> tuple[bytes, bytes]:
    """Two keys' seeds, that of the smaller peer id first."""
    pair = sorted((PrivateKey.from_seed(seed).peer_id, seed) for seed in (os.urandom(32), os.urandom(32)))
    return pair[0][1], pair[1][1]


class Process:
    """A host in another process, which sends every frame back where it came from, by the lane it came by."""

    def __init__(self, process: trio.Process, address: str) -> None:
        self._process = process
        self.address = address
        self.peer = address.rsplit("/", 1)[1]

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()


@contextlib.asynccontextmanager
async def echoing(*, seed: bytes | None = None, dial: str = "") -> AsyncIterator[Process]:
    """`dial` is an address that it dials at its start."""
    command = [sys.executable, __file__, (seed or os.urandom(32)).hex(), dial]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    process = await trio.lowlevel.open_process(command, stdout=-1, env=environment)
    try:
        assert process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            more = await process.stdout.receive_some()
            assert more, "the other process ended before it was ready"
            line += more
        yield Process(process, line.decode().strip())
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


async def _echo(seed: str, dial: str) -> None:
    async with running(seed=bytes.fromhex(seed)) as (host, told):

        def back(peer: str, lane: Lane, frame: bytes) -> None:
            assert host.send(peer, lane, frame)
            told.frames.clear()

        told.on_frame = back
        print(host.addresses[0], flush=True)
        if dial:
            await host.dial([dial], timeout=30)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(_echo, sys.argv[1], sys.argv[2])
