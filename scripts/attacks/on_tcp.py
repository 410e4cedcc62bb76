"""At TCP: what reaches the swarm's port from whoever speaks no word of its language, or none at all."""

import os
import struct

import trio

from attacks.attack_run import Attack, Siege
from attacks.connections import MULTISTREAM, NOISE, said

HALF_OPEN = 300
DRIBBLERS = 40
COMERS = 600
CLOSED_SECONDS = 7.0
"""A node gives a connection five seconds to prove who it is."""

_CLIENT_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(500)
GARBAGE = (
    b"\0",
    b"\xff" * 100_000,
    bytes(range(256)) * 100,
    _CLIENT_HELLO,
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x16\x03\x01" * 1000,
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    b"*1\r\n$4\r\nPING\r\n",
    struct.pack("!I", 0xFFFFFFFF) + bytes(100),
)


async def garbage_on_the_port(siege: Siege) -> None:
    """Bytes of other protocols, and of none."""

    async def throw(garbage: bytes) -> None:
        line = await siege.line()
        await line.send(garbage)
        line.finish()
        await line.until_closed(CLOSED_SECONDS)

    await siege.for_each(throw, zip((*GARBAGE, os.urandom(64), os.urandom(70_000))))


async def half_open_connections(siege: Siege) -> None:
    """300 connections that never say a word."""
    for _ in range(HALF_OPEN):
        await siege.line()
    await siege.look()


async def dribbled_openings(siege: Siege) -> None:
    """Slowloris: openings, a byte at a time, so that something always comes."""
    whole = said(MULTISTREAM, NOISE) + struct.pack("!H", 32) + bytes(32)

    async def dribble() -> None:
        line = await siege.line()
        for at in range(len(whole)):
            if not await line.send(whole[at : at + 1]):
                return
            await trio.sleep(0.2)

    for _ in range(DRIBBLERS):
        siege.nursery.start_soon(dribble)
    await trio.sleep(0.5)
    await siege.look()


async def connects_and_disconnects(siege: Siege) -> None:
    """600 who come and go at once, every fourth of them after it has proved who it is."""

    async def come(number: int) -> None:
        if number % 4 == 0:
            (await siege.intruder()).abort()
            return
        line = await siege.line()
        if number % 4 == 1:
            line.reset()
        elif number % 4 == 2:
            line.finish()
        line.close()

    for first in range(0, COMERS, 20):
        await siege.for_each(come, zip(range(first, first + 20)))


async def resets_on_the_way_in(siege: Siege) -> None:
    """RST after every part of the way in."""
    whole = said(MULTISTREAM, NOISE) + struct.pack("!H", 32) + os.urandom(32) + struct.pack("!H", 200) + os.urandom(200)

    async def come(size: int) -> None:
        line = await siege.line()
        await line.send(whole[:size])
        await line.exactly(1)
        line.reset()

    await siege.for_each(come, zip(range(0, len(whole), 8)))
    for _ in range(10):
        intruder = await siege.intruder()
        intruder.reset()


ATTACKS: tuple[Attack, ...] = (
    garbage_on_the_port,
    half_open_connections,
    dribbled_openings,
    connects_and_disconnects,
    resets_on_the_way_in,
)
