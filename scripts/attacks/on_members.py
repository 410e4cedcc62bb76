"""Attacks by what members say of themselves and of others: names and addresses in hellos and in lists of members."""

import os

import trio

from attacks.attack_run import Attack, AttackRun
from attacks.connections import TargetFailed
from protocols import message_codec, messages
from protocols.keys import peer_id_of
from protocols.messages import GetMembers, Hello, MemberEntry, MembersReply, Ping, Reply, Request


async def repeated_hellos(run: AttackRun) -> None:
    """5,000 hellos of one member, each with other names and addresses that are not its own."""
    member = await run.member()
    for number in range(5_000):
        addresses = tuple(f"/ip4/127.0.0.{number % 200 + 1}/tcp/{at}/p2p/{member.key.peer_id}" for at in range(1, 33))
        hello = Hello(run.target.network, (f"n{number}-" * 64)[:64], "", 1 << 62, addresses)
        if not await member.send(message_codec.encode_request(1 << 40 | number, hello)):
            return
    await member.ask(Ping())


async def false_members(run: AttackRun) -> None:
    """A member reports 1,000 members with 32 addresses each, all of them one socket that accepts and stays silent."""
    listener = trio.socket.socket()
    run.hold(listener.close)
    await listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    port = listener.getsockname()[1]
    connections = 0
    peers = [_random_peer() for _ in range(messages.MEMBERS_MAX)]
    entries = tuple(MemberEntry(peer, _addresses(peer, port)) for peer in peers)

    async def accept() -> None:
        nonlocal connections
        while True:
            connection, _ = await listener.accept()
            run.hold(connection.close)
            connections += 1

    def answer(request: Request, honest: Reply | None) -> Reply | None:
        return MembersReply(entries) if isinstance(request, GetMembers) else honest

    run.nursery.start_soon(accept)
    member = await run.member(says_hello=False, make_reply=answer)
    await member.say_hello()
    await trio.sleep(2)
    await run.check()
    if connections > 2_000:
        raise TargetFailed(f"{connections} connections were made because of one member's list")


async def impossible_addresses(run: AttackRun) -> None:
    """Addresses that no resolver takes, in a hello and as those of a thousand members, of members and of the target."""
    hosts = (
        "a..b",
        ".",
        "a" * 64,
        "a." * 200 + "b",
        "xn--\u0640",
        "\u0661.example",
        "a\0b",
        "fe80::1%a..b",
        "\x1b[31m",
        "",
    )
    kinds = ("dns", "dns4", "dns6", "ip4", "ip6")

    def addresses(peer: str) -> tuple[str, ...]:
        found = [f"/{kind}/{host}/tcp/{port}/p2p/{peer}" for kind in kinds for host in hosts for port in (1, "9" * 400)]
        return tuple(found[at] for at in range(0, len(found), 4))[: messages.ADDRESSES_MAX]

    peers = [_random_peer() for _ in range(messages.MEMBERS_MAX - 1)]
    entries = tuple(MemberEntry(peer, addresses(peer)) for peer in (*peers, run.target.peer))

    def answer(request: Request, honest: Reply | None) -> Reply | None:
        return MembersReply(entries) if isinstance(request, GetMembers) else honest

    member = await run.member(says_hello=False, make_reply=answer)
    own = member.key.peer_id
    await member.ask(member.hello(addresses=addresses(own))._replace(known_at=addresses(run.target.peer)))
    await trio.sleep(2)
    await run.check()


async def names_that_control_a_terminal(run: AttackRun) -> None:
    """Hellos whose names are escape sequences, line breaks and the like."""
    for name in ("\x1b]0;owned\x07\x1b[2J", "n1\nbzzz: all is lost", "\u202egnp.1n", "\x9b31m", "n" * 65, "a b"):
        member = await run.member(says_hello=False)
        await member.send(message_codec.encode_request(1 << 40, member.hello(name=name)))
        await member.until_over()
        await run.check()


def _random_peer() -> str:
    return peer_id_of(os.urandom(32))


def _addresses(peer: str, port: int) -> tuple[str, ...]:
    return tuple(f"/ip4/127.0.{at}.1/tcp/{port}/p2p/{peer}" for at in range(messages.ADDRESSES_MAX))


ATTACKS: tuple[Attack, ...] = (
    repeated_hellos,
    impossible_addresses,
    names_that_control_a_terminal,
    false_members,
)
