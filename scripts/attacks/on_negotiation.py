"""At multistream-select, before there is any security: other securities, and broken or endless proposals."""

from itertools import product

import trio

from attacks.attack_run import Attack, Siege
from attacks.connections import MULTISTREAM, NOISE, Fell, said, varint
from attacks.on_noise import secured
from attacks.on_tcp import CLOSED_SECONDS

_REFUSED = said("na")
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
    said("/noise\0"),
    said("/noise\n/noise"),
    said("x" * 900),
)


async def other_securities(siege: Siege) -> None:
    """Plaintext, secio and TLS are refused by name, and so is a muxer without any security."""
    for protocol in ("/plaintext/2.0.0", "/secio/1.0.0", "/tls/1.0.0", "/yamux/1.0.0", "/mplex/6.7.0", ""):
        line = await siege.line()
        await line.send(said(MULTISTREAM, protocol))
        with trio.move_on_after(3):
            answer = await line.exactly(len(said(MULTISTREAM) + _REFUSED))
            if answer != said(MULTISTREAM) + _REFUSED:
                raise Fell(f"{protocol} was answered with {answer!r}")
            line.close()
            continue
        raise Fell(f"{protocol} was not refused within 3 s")


async def other_muxers(siege: Siege) -> None:
    """Over noise, mplex is refused by name."""
    for protocol in ("/mplex/6.7.0", "/spdystream/1.0.0"):
        session, _ = await secured(siege)
        await session.write(said(MULTISTREAM, protocol))
        with trio.move_on_after(3):
            answer = b""
            while len(answer) < len(said(MULTISTREAM) + _REFUSED):
                answer += await session.read()
            if answer != said(MULTISTREAM) + _REFUSED:
                raise Fell(f"{protocol} was answered with {answer!r}")
            continue
        raise Fell(f"{protocol} was not refused within 3 s")


async def broken_proposals(siege: Siege) -> None:
    """Text that is not UTF-8, lengths beyond all measure, messages without an end."""

    async def propose(opening: bytes, broken: bytes) -> None:
        line = await siege.line()
        await line.send(opening + broken)
        line.finish()
        await line.until_closed(CLOSED_SECONDS)

    await siege.for_each(propose, product((b"", said(MULTISTREAM), said(MULTISTREAM, NOISE)), BROKEN))


async def endless_proposals(siege: Siege) -> None:
    """Ten who propose without end, list what there is, and read no answer."""

    async def propose(protocol: str) -> None:
        line = await siege.line(receive_bytes=4096)
        await line.send(said(MULTISTREAM))
        with trio.move_on_after(2):
            while await line.send(said(protocol) * 1000):
                await trio.lowlevel.checkpoint()

    for protocol in ("/no/such/1.0.0", "ls", "na", MULTISTREAM, "") * 2:
        siege.nursery.start_soon(propose, protocol)
    await trio.sleep(0.5)
    await siege.look()


ATTACKS: tuple[Attack, ...] = (other_securities, other_muxers, broken_proposals, endless_proposals)
