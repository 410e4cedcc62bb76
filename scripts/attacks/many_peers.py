"""In numbers: many peers at once, the same peer many times, and all who leave at once in the middle of everything."""

import os

import trio

from attacks.attack_run import Attack, Siege
from attacks.connections import Fell
from attacks.on_store import KEY
from attacks.witness import key_after, key_before
from node.swarm.base import Lane
from protocols import message_codec
from protocols.keys import PrivateKey
from protocols.messages import GetHeads, Ping

IDLE = 150
TWINS = 24


async def idle_connections(siege: Siege) -> None:
    """150 peers, secured and muxed, who do nothing more."""
    for _ in range(0, IDLE, 10):
        await siege.times(10, siege.peer)
    await siege.look()


async def twins(siege: Siege) -> None:
    """One peer id that connects 24 times at once, from either side of the target's: the rest is still served."""

    async def come(key: PrivateKey) -> None:
        try:
            await siege.peer(key)
        except Fell:
            return  # that it is not let in so often is right

    for key in (key_before(siege.target.peer), key_after(siege.target.peer)):
        await siege.times(TWINS, come, key)
    await siege.look()


async def resets_in_the_middle(siege: Siege) -> None:
    """RST in the middle of hellos, of frames, of answers and of streams."""

    async def come(number: int) -> None:
        if number % 4 == 0:
            peer = await siege.peer(key_after(siege.target.peer))
            await trio.sleep(0.01 * (number // 4))
            peer.reset()
            return
        member = await siege.member(says_hello=number % 4 != 1)
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

    await siege.for_each(come, zip(range(24)))


async def members_who_come_and_go(siege: Siege) -> None:
    """60 members who say hello, ask one thing, and leave in the middle of the answer."""

    async def come() -> None:
        member = await siege.member()
        await member.send(message_codec.encode_request(1 << 40, Ping()))
        member.intruder.abort()

    for _ in range(6):
        await siege.times(10, come)


ATTACKS: tuple[Attack, ...] = (idle_connections, twins, resets_in_the_middle, members_who_come_and_go)
