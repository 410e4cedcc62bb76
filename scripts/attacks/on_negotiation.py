"""Attacks on multistream-select: other security protocols and muxers, and malformed or endless proposals."""

from itertools import product

import trio

from attacks.attack_run import Attack, AttackRun
from attacks.connections import MULTISTREAM, NOISE, TargetFailed, multistream, varint
from attacks.on_noise import secured
from attacks.on_tcp import CLOSED_SECONDS

_REFUSED = multistream("na")
BROKEN = (
    b"\x03\xff\xfe\n",
    b"\x04\xc3\x28\xa0\n",
    b"\x00",
    b"\x01\n",
    b"\x05/noise",
    varint(1 << 20) + b"x" * 5000,
    varint((1 << 63) - 1) + b"x" * 5000,
    b"\xff" * 20,
    b"\x80" * 20,
    multistream("/noise\0"),
    multistream("/noise\n/noise"),
    multistream("x" * 900),
)


async def other_securities(run: AttackRun) -> None:
    """Plaintext, secio and TLS are refused by name, and so is a muxer without security."""
    for protocol in ("/plaintext/2.0.0", "/secio/1.0.0", "/tls/1.0.0", "/yamux/1.0.0", "/mplex/6.7.0", ""):
        connection = await run.connection()
        await connection.send(multistream(MULTISTREAM, protocol))
        with trio.move_on_after(3):
            answer = await connection.exactly(len(multistream(MULTISTREAM) + _REFUSED))
            if answer != multistream(MULTISTREAM) + _REFUSED:
                raise TargetFailed(f"{protocol} was answered with {answer!r}")
            connection.close()
            continue
        raise TargetFailed(f"{protocol} was not refused within 3 s")


async def other_muxers(run: AttackRun) -> None:
    """After noise, mplex and spdystream are refused by name."""
    for protocol in ("/mplex/6.7.0", "/spdystream/1.0.0"):
        session, _ = await secured(run)
        await session.write(multistream(MULTISTREAM, protocol))
        with trio.move_on_after(3):
            answer = b""
            while len(answer) < len(multistream(MULTISTREAM) + _REFUSED):
                answer += await session.read()
            if answer != multistream(MULTISTREAM) + _REFUSED:
                raise TargetFailed(f"{protocol} was answered with {answer!r}")
            continue
        raise TargetFailed(f"{protocol} was not refused within 3 s")


async def broken_proposals(run: AttackRun) -> None:
    """Text that is not UTF-8, excessive lengths, messages without an end."""

    async def propose(opening: bytes, broken: bytes) -> None:
        connection = await run.connection()
        await connection.send(opening + broken)
        connection.finish()
        await connection.until_closed(CLOSED_SECONDS)

    await run.for_each(propose, product((b"", multistream(MULTISTREAM), multistream(MULTISTREAM, NOISE)), BROKEN))


async def endless_proposals(run: AttackRun) -> None:
    """Ten peers that propose or list protocols without end, and read no answer."""

    async def propose(protocol: str) -> None:
        connection = await run.connection(receive_bytes=4096)
        await connection.send(multistream(MULTISTREAM))
        with trio.move_on_after(2):
            while await connection.send(multistream(protocol) * 1000):
                await trio.lowlevel.checkpoint()

    for protocol in ("/no/such/1.0.0", "ls", "na", MULTISTREAM, "") * 2:
        run.nursery.start_soon(propose, protocol)
    await trio.sleep(0.5)
    await run.check()


ATTACKS: tuple[Attack, ...] = (other_securities, other_muxers, broken_proposals, endless_proposals)
