"""What the tests of the real network share: a receiver that records, hosts in this process, and peers in other ones."""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import trio

from node.swarm.base import KadReceiver, Lane
from node.swarm.libp2p.host import Host
from node.swarm.limits import USUAL, SwarmLimits
from node.swarm.peer_policy import PeerPolicy
from protocols.keys import PrivateKey
from tests.until import until

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)
AGREES = b"\x13/multistream/1.0.0\n\x07/noise\n"
"""The first bytes of a listener that agrees to speak noise."""
_ROOT = Path(__file__).parents[2]


class RecordingReceiver:
    """A `Receiver` that records its calls."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        """('connected' or 'disconnected', peer), in order."""
        self.reasons: list[str] = []
        self.addresses: list[tuple[str, bool]] = []
        self.frames: list[tuple[str, Lane, bytes]] = []
        self.on_frame: Callable[[str, Lane, bytes], None] = lambda peer, lane, frame: None

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        self.addresses.append((address, dialled))
        self.events.append(("connected", peer))

    def disconnected(self, peer: str, reason: str) -> None:
        self.reasons.append(reason)
        self.events.append(("disconnected", peer))

    def received(self, peer: str, lane: Lane, frame: bytes) -> None:
        self.frames.append((peer, lane, frame))
        self.on_frame(peer, lane, frame)

    async def until_connected(self, peer: str) -> None:
        await until(lambda: self.last_event_of(peer) == "connected", what=f"{peer} is connected")

    async def until_disconnected(self, peer: str) -> None:
        await until(lambda: self.last_event_of(peer) == "disconnected", what=f"{peer} is disconnected")

    async def until_frames(self, count: int) -> None:
        await until(lambda: len(self.frames) == count, what=f"{count} frames")

    def last_event_of(self, peer: str) -> str:
        return next((event for event, whom in reversed(self.events) if whom == peer), "")


@contextlib.asynccontextmanager
async def running(
    listen: Sequence[str] = LOOPBACK,
    *,
    seed: bytes | None = None,
    is_allowed: Callable[[str], bool] | None = None,
    peer_policy: PeerPolicy | None = None,
    limits: SwarmLimits = USUAL,
    network_key: bytes | None = None,
    kad: KadReceiver | None = None,
) -> AsyncIterator[tuple[Host, RecordingReceiver]]:
    """A host that runs, and its receiver. It speaks the DHT's protocol when it has one for that too."""
    key = PrivateKey.from_seed(seed or os.urandom(32))
    host = Host(key, listen, network_key=network_key, is_allowed=is_allowed, peer_policy=peer_policy, limits=limits)
    if kad is not None:
        host.kad.attach(kad)
    recorder = RecordingReceiver()
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run, recorder)
        try:
            yield host, recorder
        finally:
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def joined() -> AsyncIterator[tuple[Host, RecordingReceiver, Host, RecordingReceiver]]:
    """Two hosts, the first of which dialled the second."""
    async with running() as (one, one_recorder), running() as (two, two_recorder):
        await one.dial(two.addresses, timeout=20)
        await two_recorder.until_connected(one.peer_id)
        yield one, one_recorder, two, two_recorder


@contextlib.asynccontextmanager
async def mute(words: bytes = b"") -> AsyncIterator[str]:
    """The address of a listener that accepts every connection, sends these bytes on it, and then nothing more."""
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
    """The seeds of two keys, the one with the smaller peer id first."""
    pair = sorted((PrivateKey.from_seed(seed).peer_id, seed) for seed in (os.urandom(32), os.urandom(32)))
    return pair[0][1], pair[1][1]


class Process:
    """A host in another process, which sends every frame back to its sender on the same lane."""

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
    """Start a `Process`. It dials `dial`, if given, when it starts."""
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
    async with running(seed=bytes.fromhex(seed)) as (host, recorder):

        def back(peer: str, lane: Lane, frame: bytes) -> None:
            assert host.send(peer, lane, frame)
            recorder.frames.clear()

        recorder.on_frame = back
        print(host.addresses[0], flush=True)
        if dial:
            await host.dial([dial], timeout=30)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(_echo, sys.argv[1], sys.argv[2])
