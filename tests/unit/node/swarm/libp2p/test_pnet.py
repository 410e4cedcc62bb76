"""The encryption of a private network: the cipher, and bytes that the kernel takes in pieces."""

import os
import random
import socket

import pytest
import trio
from nacl.bindings import crypto_secretbox

from node.swarm.libp2p.pnet import PrivateConnection, WrongNetworkKey, xsalsa20

KEY = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
NONCE = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")


def test_the_cipher_gives_the_stream_of_nacl() -> None:
    """The first bytes are those of the test `stream3` of NaCl."""
    stream = xsalsa20(KEY, NONCE).encrypt(bytes(32))
    assert stream.hex() == "eea6a7251c1e72916d11c2cb214d3c252539121d8e234e652d651fa4c8cff880"


@pytest.mark.parametrize("size", [1, 31, 32, 33, 1000])
def test_the_cipher_agrees_with_libsodium(size: int) -> None:
    key, nonce, data = os.urandom(32), os.urandom(24), os.urandom(size)
    cipher = xsalsa20(key, nonce)
    cipher.encrypt(bytes(32))  # a secretbox keeps the first 32 bytes of the stream for its tag
    assert cipher.encrypt(data) == crypto_secretbox(data, nonce, key)[16:]


def sockets() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]


async def pair(mine: bytes, theirs: bytes) -> tuple[PrivateConnection, PrivateConnection]:
    one, other = map(PrivateConnection, sockets())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.exchange_nonces, mine)
        nursery.start_soon(other.exchange_nonces, theirs)
    return one, other


async def received(connection: PrivateConnection, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await connection.read()
    return data


async def test_bytes_arrive_as_they_were_sent_in_both_directions_and_in_any_pieces() -> None:
    one, other = await pair(KEY, KEY)
    sent = random.Random(1).randbytes(3_000_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.write, sent)  # more than the kernel takes at once
        assert await received(other, len(sent)) == sent
    await other.write(b"thanks")
    assert await received(one, 6) == b"thanks"
    for size in (1, 7, 100):
        await one.write(sent[:size])
        assert await received(other, size) == sent[:size]
    one.abort()
    other.abort()


async def test_what_the_kernel_did_not_take_may_be_offered_again_in_other_pieces() -> None:
    one, other = await pair(KEY, KEY)
    sent = random.Random(2).randbytes(1_000_000)
    at = 0
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await received(other, len(sent)) == sent

        nursery.start_soon(read)
        while at < len(sent):
            at += one.transmit(sent[at : at + random.Random(at).randrange(1, 300_000)])
            await trio.lowlevel.checkpoint()
    one.abort()
    other.abort()


async def test_with_another_key_nothing_can_be_read() -> None:
    one, other = await pair(KEY, bytes(32))
    await one.write(b"/multistream/1.0.0")
    assert await received(other, 18) != b"/multistream/1.0.0"
    one.abort()
    other.abort()


async def test_a_side_that_hangs_up_before_its_nonce_has_no_key() -> None:
    one, other = sockets()
    other.send(b"\x13/multistream/1.0.0\n")
    other.close()
    connection = PrivateConnection(one)
    with pytest.raises(WrongNetworkKey, match="has no network key"):
        await connection.exchange_nonces(KEY)
    connection.abort()
