"""Members tell each other whom they know: what is asked, what is taken, and what is told to whom."""

import trio
import trio.testing

from node.services.membership.member_exchange import EXCHANGE_SECONDS, FULL_MAX, FULL_SECONDS, TAKEN_MAX, MemberExchange
from node.store.members import Member
from node.swarm.members import Members
from node.swarm.peer_policy import PeerPolicy
from protocols.announce import seal
from protocols.keys import PrivateKey
from protocols.messages import MEMBERS_MAX, GetMembers, MemberEntry, MembersReply
from protocols.policy.sighting import Source
from tests.unit.announcing import now_ms, silent_finder
from tests.unit.one_end import OneEnd, RecordingService, rpc_over
from tests.unit.sightings import Seen

LAN, LOOPBACK = "/ip4/10.0.0.7/tcp/1", "/ip4/127.0.0.1/tcp/1"


def member(peer: str, *addresses: str) -> Member:
    return Member(peer=peer, name="", addresses=addresses, first_seen_ms=0, last_seen_ms=0)


async def asked(reply: MembersReply, members: Members, *, deny: tuple[str, ...] = ()) -> Seen:
    """Ask p2, which answers so; return what was reported."""
    net, seen = OneEnd(), Seen()
    async with rpc_over(net, RecordingService()) as rpc, trio.open_nursery() as nursery:
        exchange = MemberExchange(
            rpc=rpc,
            members=members,
            peer_policy=PeerPolicy(deny=deny),
            chance=lambda: 0.0,
            is_on=lambda: True,
            sightings=seen,
            announce=silent_finder(),
        )
        net.come("p2")
        nursery.start_soon(exchange.ask, "p2")
        (request,) = await net.until_sent("p2", 1)
        net.answer("p2", request.id, reply)
    return seen


async def test_members_that_are_not_connected_are_reported_whether_they_are_known_or_not() -> None:
    members = Members("own", replication=20, members=[member("here", LAN), member("away", LAN)])
    here = members.get("here")
    assert here is not None
    here.is_connected = True
    entries = [MemberEntry(peer, (LAN,), peer == "new") for peer in ("own", "here", "away", "new", "denied")]
    seen = await asked(MembersReply((*entries, MemberEntry("mute", ()))), members, deny=("denied",))
    assert [(each.peer, each.source, each.reporter, each.is_vouched) for each in seen.sightings] == [
        ("away", Source.EXCHANGE, "p2", False),
        ("new", Source.EXCHANGE, "p2", True),
    ]


async def test_few_addresses_of_each_are_taken() -> None:
    many = tuple(f"/ip4/10.0.0.{number}/tcp/1" for number in range(1, 33))
    seen = await asked(MembersReply((MemberEntry("new", many),)), Members("own", replication=20))
    assert seen.sightings[0].addresses == many[:TAKEN_MAX]


async def test_loopback_addresses_are_told_to_a_peer_on_this_machine_alone() -> None:
    members = Members("own", replication=20, members=[member("a", LAN, LOOPBACK), member("b", LOOPBACK), member("c")])
    async with rpc_over(OneEnd(), RecordingService()) as rpc:
        exchange = MemberExchange(
            rpc=rpc,
            members=members,
            peer_policy=PeerPolicy(),
            chance=lambda: 0.0,
            is_on=lambda: True,
            sightings=Seen(),
            announce=silent_finder(),
        )
        assert exchange.answer(GetMembers(), is_here=True).members == (
            MemberEntry("a", (LAN, LOOPBACK)),
            MemberEntry("b", (LOOPBACK,)),
        )
        assert exchange.answer(GetMembers(), is_here=False).members == (MemberEntry("a", (LAN,)),)
        for number in range(2 * MEMBERS_MAX):
            members.put(member(f"m{number}", LAN))
        assert len(exchange.answer(GetMembers(), is_here=False).members) == MEMBERS_MAX


async def test_a_few_of_those_that_connect_are_asked_for_announcements_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    net, announce, key = OneEnd(), silent_finder(), PrivateKey.from_seed(b"\x02" * 32)
    announced = seal(
        key, network="bzzz", name="bob", addresses=(), capabilities=(), sequence=1, expires_ms=now_ms() + 10**7
    ).encoded
    async with rpc_over(net, RecordingService()) as rpc, trio.open_nursery() as nursery:
        exchange = MemberExchange(
            rpc=rpc,
            members=Members("own", replication=20),
            peer_policy=PeerPolicy(),
            chance=lambda: 0.0,
            is_on=lambda: True,
            sightings=Seen(),
            announce=announce,
        )
        net.come("p2")

        async def asks(count: int) -> list[bool]:
            """Greet so many times, and answer each; whether announcements were asked for."""
            wanted = []
            for _ in range(count):
                before = len(net.requests("p2"))
                nursery.start_soon(exchange.greet, "p2")
                request = (await net.until_sent("p2", before + 1))[-1]
                assert isinstance(request.message, GetMembers)
                wanted.append(request.message.with_announcements)
                net.answer("p2", request.id, MembersReply((), (announced,)))
                await trio.testing.wait_all_tasks_blocked()
            return wanted

        assert await asks(FULL_MAX + 3) == [True] * FULL_MAX + [False] * 3
        await trio.sleep(FULL_SECONDS + 1)
        assert await asks(1) == [True]
        assert exchange.answer(GetMembers(with_announcements=True), is_here=True).announcements == (announced,)
        assert exchange.answer(GetMembers(), is_here=True).announcements == ()


async def test_only_members_that_are_connected_with_others_than_this_node_are_asked_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    net, members = OneEnd(), Members("own", replication=20)
    async with rpc_over(net, RecordingService()) as rpc, trio.open_nursery() as nursery:
        exchange = MemberExchange(
            rpc=rpc,
            members=members,
            peer_policy=PeerPolicy(),
            chance=lambda: 0.0,
            is_on=lambda: True,
            sightings=Seen(),
            announce=silent_finder(),
        )
        here = [members.put(member(name, LAN)) for name in ("p2", "p3", "p4")]
        for presence in here:
            presence.is_connected = True
            net.come(presence.member.peer)
        members.notify_changed()
        for presence in here:
            presence.view = members.view()
        nursery.start_soon(exchange.run)
        await trio.sleep(20 * EXCHANGE_SECONDS)
        assert not any(net.requests(name) for name in ("p2", "p3", "p4")), "all have the same view"
        here[0].view = here[1].view = b"another."
        await trio.sleep(20 * EXCHANGE_SECONDS)
        asked = [len(net.requests(name)) for name in ("p2", "p3", "p4")]
        assert min(asked[:2]) > 5 and abs(asked[0] - asked[1]) <= 1 and not asked[2], "both, in turn"
        nursery.cancel_scope.cancel()
