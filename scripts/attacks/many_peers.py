"""Many peers: many at once, one peer id many times, and peers that leave in the middle of an exchange."""

import os

import trio

from attacks.attack_run import Attack, AttackRun
from attacks.connections import TargetFailed
from attacks.on_store import KEY
from attacks.witness import key_after, key_before
from node.swarm.base import Lane
from protocols import message_codec
from protocols.keys import PrivateKey
from protocols.messages import GetHeads, Ping

IDLE = 150
TWINS = 24


async def idle_connections(run: AttackRun) -> None:
    """150 peers that are secured and muxed, and do nothing more."""
    for _ in range(0, IDLE, 10):
        await run.times(10, run.peer)
    await run.check()


async def twins(run: AttackRun) -> None:
    """One peer id connects 24 times at once, once with an id before the target's and once with one after it."""

    async def connect(key: PrivateKey) -> None:
        try:
            await run.peer(key)
        except TargetFailed:
            return  # the target may refuse so many connections

    for key in (key_before(run.target.peer), key_after(run.target.peer)):
        await run.times(TWINS, connect, key)
    await run.check()


async def resets_in_the_middle(run: AttackRun) -> None:
    """RST in the middle of hellos, frames, replies and streams."""

    async def connect(number: int) -> None:
        if number % 4 == 0:
            peer = await run.peer(key_after(run.target.peer))
            await trio.sleep(0.01 * (number // 4))
            peer.reset()
            return
        member = await run.member(says_hello=number % 4 != 1)
        if number % 4 == 1:
            await member.send(message_codec.encode_request(1, member.hello()))
        elif number % 4 == 2:
            await member.send_raw(os.urandom(3))
        else:
            for _ in range(50):
                await member.send(message_codec.encode_request(1 << 40, GetHeads(KEY, ())))
            await member.send_raw(b"\0\1\0\0" + bytes(1000), Lane.BULK)
        await trio.sleep(0.002 * number)
        member.intruder.reset()

    await run.for_each(connect, zip(range(24)))


async def members_who_come_and_go(run: AttackRun) -> None:
    """60 members that say hello, send one request, and disconnect during the reply."""

    async def connect() -> None:
        member = await run.member()
        await member.send(message_codec.encode_request(1 << 40, Ping()))
        member.intruder.abort()

    for _ in range(6):
        await run.times(10, connect)


ATTACKS: tuple[Attack, ...] = (idle_connections, twins, resets_in_the_middle, members_who_come_and_go)
