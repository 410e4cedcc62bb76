"""Attacks on TCP: other protocols, silence, slow bytes and resets on the port of the swarm."""

import os
import struct

import trio

from attacks.attack_run import Attack, AttackRun
from attacks.connections import MULTISTREAM, NOISE, multistream

HALF_OPEN = 300
DRIBBLERS = 40
CONNECTIONS = 600
CLOSED_SECONDS = 7.0
"""How soon a connection must be closed: a node gives it five seconds for its handshake."""

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


async def garbage_on_the_port(run: AttackRun) -> None:
    """Bytes of other protocols, and random bytes."""

    async def throw(garbage: bytes) -> None:
        connection = await run.connection()
        await connection.send(garbage)
        connection.finish()
        await connection.until_closed(CLOSED_SECONDS)

    await run.for_each(throw, zip((*GARBAGE, os.urandom(64), os.urandom(70_000))))


async def half_open_connections(run: AttackRun) -> None:
    """300 connections that never send a byte."""
    for _ in range(HALF_OPEN):
        await run.connection()
    await run.check()


async def dribbled_openings(run: AttackRun) -> None:
    """Slowloris: the opening of a handshake, byte by byte."""
    whole = multistream(MULTISTREAM, NOISE) + struct.pack("!H", 32) + bytes(32)

    async def dribble() -> None:
        connection = await run.connection()
        for at in range(len(whole)):
            if not await connection.send(whole[at : at + 1]):
                return
            await trio.sleep(0.2)

    for _ in range(DRIBBLERS):
        run.nursery.start_soon(dribble)
    await trio.sleep(0.5)
    await run.check()


async def connects_and_disconnects(run: AttackRun) -> None:
    """600 connections that are closed at once, every fourth of them after its handshake."""

    async def connect(number: int) -> None:
        if number % 4 == 0:
            (await run.intruder()).abort()
            return
        connection = await run.connection()
        if number % 4 == 1:
            connection.reset()
        elif number % 4 == 2:
            connection.finish()
        connection.close()

    for first in range(0, CONNECTIONS, 20):
        await run.for_each(connect, zip(range(first, first + 20)))


async def resets_on_the_way_in(run: AttackRun) -> None:
    """RST after every part of the handshake."""
    whole = (
        multistream(MULTISTREAM, NOISE)
        + struct.pack("!H", 32)
        + os.urandom(32)
        + struct.pack("!H", 200)
        + os.urandom(200)
    )

    async def send_and_reset(size: int) -> None:
        connection = await run.connection()
        await connection.send(whole[:size])
        await connection.exactly(1)
        connection.reset()

    await run.for_each(send_and_reset, zip(range(0, len(whole), 8)))
    for _ in range(10):
        intruder = await run.intruder()
        intruder.reset()


ATTACKS: tuple[Attack, ...] = (
    garbage_on_the_port,
    half_open_connections,
    dribbled_openings,
    connects_and_disconnects,
    resets_on_the_way_in,
)
