"""Attacks on yamux: frames that break its rules, endless frames, exceeded windows, and streams without use."""

import os

import trio

from attacks.attack_run import Attack, AttackRun
from attacks.connections import MULTISTREAM, TargetFailed, multistream
from attacks.intruders import Intruder, frame
from node.swarm.libp2p.yamux_frame import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW, WINDOW_UPDATE

IDLE_PEERS = 40
IDLE_STREAMS = 12
SECONDS = 5.0
"""How soon a target hangs up on a peer that breaks the rules."""

BROKEN = {
    "another version": frame(DATA, 0, 1, 0, version=1),
    "an unknown type": frame(9, 0, 1, 0),
    "a type of 255": b"\xff" * 12,
    "a stream that is the target's to open": frame(WINDOW_UPDATE, SYN, 2, 0),
    "stream zero": frame(WINDOW_UPDATE, SYN, 0, 0),
    "a stream opened twice": frame(WINDOW_UPDATE, SYN, 1, 0) * 2,
    "more than the window": frame(DATA, SYN, 1, WINDOW + 1),
    "a frame of 4 GiB": frame(DATA, SYN, 1, 0xFFFFFFFF),
    "a frame of 4 GiB on no stream": frame(DATA, 0, 99, 0xFFFFFFFF),
    "the window, and a byte more": frame(DATA, SYN, 1, WINDOW, bytes(WINDOW)) + frame(DATA, 0, 1, 1, b"x"),
    "data after the end": frame(DATA, SYN | FIN, 1, 0) + frame(DATA, 0, 1, 1, b"x"),
    "a window of more than 32 bits": frame(WINDOW_UPDATE, SYN, 1, 0xFFFFFFFF) + frame(WINDOW_UPDATE, 0, 1, 0xFFFFFFFF),
    "go away": frame(GO_AWAY, 0, 0, 0),
    "go away, and more": frame(GO_AWAY, 0, 0, 2) + frame(WINDOW_UPDATE, SYN, 1, 0) * 100,
}
HARMLESS = {
    "all flags": frame(WINDOW_UPDATE, SYN | ACK | FIN | RST, 1, 0),
    "unknown flags": frame(WINDOW_UPDATE, 0xFFF0, 1, 0),
    "frames on streams that are not there": b"".join(
        frame(kind, flags, number, 0)
        for kind in (DATA, WINDOW_UPDATE)
        for flags in (0, ACK, FIN, RST, FIN | RST)
        for number in (0, 1, 3, 0xFFFFFFFF)
    ),
    "pongs without a ping": b"".join(frame(PING, ACK, 0, number) for number in range(1000)),
    "the highest stream there is": frame(WINDOW_UPDATE, SYN, 0xFFFFFFFF, 0),
}


async def broken_frames(run: AttackRun) -> None:
    """Every violation of the protocol costs the connection; odd but valid frames cost nothing."""

    async def breaks(what: str, frames: bytes) -> None:
        intruder = await run.intruder()
        await intruder.send(frames)
        try:
            await intruder.until_closed(SECONDS)
        except TargetFailed as error:
            raise TargetFailed(f"{what}: {error}") from error

    async def is_odd(what: str, frames: bytes) -> None:
        intruder = await run.intruder()
        await intruder.send(frames + frame(PING, SYN, 0, 4711))
        with trio.move_on_after(SECONDS):
            found = b""
            while frame(PING, ACK, 0, 4711) not in found:
                if not (more := await intruder.read()):
                    raise TargetFailed(f"{what}: the target hung up")
                found += more
            return
        raise TargetFailed(f"{what}: the target no longer answers pings")

    await run.for_each(breaks, BROKEN.items())
    await run.for_each(is_odd, HARMLESS.items())


async def random_frames(run: AttackRun) -> None:
    """Encrypted bytes that are no frames, and frames that are cut off at every third byte."""

    async def throw(frames: bytes) -> None:
        intruder = await run.intruder()
        await intruder.send(frames)
        intruder.abort()

    whole = frame(WINDOW_UPDATE, SYN, 1, 0) + frame(DATA, 0, 1, 20, multistream(MULTISTREAM))
    pieces = [whole[:size] for size in range(0, len(whole), 3)] + [os.urandom(size) for size in (1, 12, 1000, 65000)]
    await run.for_each(throw, zip(pieces))


async def streams_without_end(run: AttackRun) -> None:
    """Four peers that open 20,000 streams each, and use none."""

    async def open_all() -> None:
        intruder = await run.intruder()
        run.nursery.start_soon(_swallow, intruder)
        for first in range(1, 40_000, 2_000):
            opened = (frame(WINDOW_UPDATE, SYN, number, 0) for number in range(first, first + 2_000, 2))
            if not await intruder.send(b"".join(opened)):
                return
            await trio.lowlevel.checkpoint()

    await run.times(4, open_all)
    await run.check()


async def rapid_resets(run: AttackRun) -> None:
    """20,000 streams that are opened, used and reset at once: each costs the target a task and a negotiation."""
    intruder = await run.intruder()
    run.nursery.start_soon(_swallow, intruder)
    work = multistream(MULTISTREAM, "/ipfs/id/1.0.0")
    for first in range(1, 40_000, 400):
        frames = (
            frame(DATA, SYN, number, len(work), work) + frame(WINDOW_UPDATE, RST, number, 0)
            for number in range(first, first + 400, 2)
        )
        if not await intruder.send(b"".join(frames)):
            return
        await trio.lowlevel.checkpoint()


async def pings_without_end(run: AttackRun) -> None:
    """100,000 yamux pings each from a peer that reads the pongs and from one that does not."""

    async def ping(is_reading: bool) -> None:
        intruder = await run.intruder(receive_bytes=0 if is_reading else 4096)
        if is_reading:
            run.nursery.start_soon(_swallow, intruder)
        with trio.move_on_after(3):
            for _ in range(100):
                if not await intruder.send(frame(PING, SYN, 0, 1) * 1000):
                    return
                await trio.lowlevel.checkpoint()

    await run.for_each(ping, [(True,), (False,)])
    await run.check()


async def full_windows(run: AttackRun) -> None:
    """Eight peers that fill the window of 250 streams each with bytes that no handler reads, and wait."""

    async def fill() -> None:
        intruder = await run.intruder()
        run.nursery.start_soon(_swallow, intruder)
        part = bytes(32 * 1024)
        for number in range(1, 500, 2):
            frames = frame(WINDOW_UPDATE, SYN, number, 0) + frame(DATA, 0, number, len(part), part)
            if not await intruder.send(frames):
                return

    await run.times(8, fill)
    await run.check()


async def idle_streams(run: AttackRun) -> None:
    """40 peers that hold streams open: of kad, of ping, of GossipSub, and without a protocol."""

    async def hold() -> None:
        peer = await run.peer()
        for protocol in ("/ipfs/kad/1.0.0", "/bzzz/kad/1.0.0", "/ipfs/ping/1.0.0", "/meshsub/1.1.0"):
            for _ in range(IDLE_STREAMS // 4):
                await peer.stream(protocol)
        await peer.stream()

    await run.times(IDLE_PEERS, hold)
    await run.check()


async def _swallow(intruder: Intruder) -> None:
    while await intruder.read():
        pass


ATTACKS: tuple[Attack, ...] = (
    broken_frames,
    random_frames,
    streams_without_end,
    rapid_resets,
    pings_without_end,
    full_windows,
    idle_streams,
)
