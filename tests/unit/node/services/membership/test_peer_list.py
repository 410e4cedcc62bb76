"""The list of peers: each node once, with all that the members, the picture and the policy say of it."""

import trio

from node.services.membership.peer_list import PeerList, PeerState
from node.store.members import Member
from node.store.memory.store import MemoryStore
from node.swarm.members import Members
from node.swarm.peer_policy import PeerPolicy
from protocols.policy.peer_events import Banned, Connected, Dialled
from protocols.policy.peers import Peers
from protocols.policy.sighting import Sighting, Source

NOW_MS = 1_000_000


def member(peer: str, name: str, *addresses: str, last_seen_ms: int = 0) -> Member:
    return Member(peer=peer, name=name, addresses=addresses, first_seen_ms=0, last_seen_ms=last_seen_ms)


def sighting(peer: str, *addresses: str, source: Source = Source.MDNS, agent: str = "") -> Sighting:
    return Sighting(peer=peer, addresses=addresses, source=source, agent=agent)


async def test_each_node_is_listed_once_with_its_state_and_the_connected_ones_come_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    picture = Peers("own", chance=lambda: 0.0)
    members = Members("own", replication=20, members=[member("b", "away", "/old", last_seen_ms=5), member("a", "here")])
    here = members.get("a")
    assert here is not None
    here.is_connected, here.round_trip_seconds, here.clock_offset_ms = True, 0.002, -7.0
    now = trio.current_time()
    picture.handle(sighting("a", "/a", "/a2", source=Source.HELLO, agent="bzzz/1"), now)
    picture.handle(Connected("a", "/a2"), now)
    picture.handle(sighting("b", "/b"), now)
    picture.handle(Dialled("b", "", "connection refused"), now)
    picture.handle(sighting("", "/boot", source=Source.CONFIGURATION), now)
    picture.handle(sighting("denied", "/denied"), now)
    picture.handle(sighting("mute"), now)
    picture.handle(Banned("foreign", "of another swarm"), now)
    peers = PeerList(
        members,
        MemoryStore(log_id="ab" * 8),
        PeerPolicy(deny=["denied"]),
        picture=picture.picture,
        now_ms=lambda: NOW_MS,
    )
    await trio.sleep(3.0)
    a, b, boot, denied, foreign = peers.all()

    assert (a.peer, a.name, a.state, a.is_member, a.last_error) == ("a", "here", PeerState.CONNECTED, True, "")
    assert (a.sources, a.agent, a.round_trip_ms, a.clock_offset_ms) == ((("hello", 3000.0),), "bzzz/1", 2.0, -7.0)
    assert [(each.address, each.sources, each.age_ms) for each in a.addresses] == [
        ("/a2", ("hello",), 3000.0),
        ("/a", ("hello",), 3000.0),
    ]
    assert a.last_seen_ms == NOW_MS
    assert (b.peer, b.name, b.state, b.last_error, b.last_seen_ms) == ("b", "away", "known", "connection refused", 5)
    assert (boot.peer, boot.state, boot.is_member, boot.last_seen_ms) == ("", "known", False, 0)
    assert (denied.state, denied.last_error) == ("refused", "it is not allowed here")
    assert (foreign.state, foreign.last_error) == ("refused", "of another swarm")

    here.is_suspect, here.suspect_why = True, "no answer to a Ping"
    (a, *_) = peers.all()
    assert (a.state, a.last_error, a.is_connected, a.is_suspect) == ("suspect", "no answer to a Ping", True, True)


async def test_pages_go_through_the_whole_list(autojump_clock: trio.testing.MockClock) -> None:
    picture = Peers("own", chance=lambda: 0.0)
    for number in range(20):
        picture.handle(sighting(f"p{number:02}", f"/{number}"), trio.current_time())
    picture.handle(Banned("a-foreign-one", "of another swarm"), trio.current_time())
    listed = PeerList(
        Members("own", replication=20, members=[member("p07", "away")]),
        MemoryStore(log_id="ab" * 8),
        PeerPolicy(deny=["p03"]),
        picture=picture.picture,
        now_ms=lambda: NOW_MS,
    )
    pages = [listed.page(after=after, limit=8) for after in range(0, 24, 8)]
    assert [total for _, total in pages] == [21, 21, 21]
    peers = [peer for page, _ in pages for peer in page]
    assert peers == listed.all()
    assert [peers[0].peer, peers[1].peer] == ["p07", "p00"], "members first"
    assert [peer.peer for peer in peers[-2:]] == ["a-foreign-one", "p03"], "and refused ones last"
    assert listed.page(after=21, limit=8) == ([], 21)


async def test_without_a_swarm_the_remembered_members_are_listed() -> None:
    members = Members("own", replication=20, members=[member("a", "n1", "/a")])
    store = MemoryStore(log_id="ab" * 8)
    (a,) = PeerList(members, store, PeerPolicy(), picture=list, now_ms=lambda: NOW_MS).all()
    assert (a.state, [each.address for each in a.addresses]) == ("known", ["/a"])
