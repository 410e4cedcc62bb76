"""The directory: what this node and others offer."""

from node.services.membership.directory import Directory
from node.store.members import Member
from node.swarm.members import Members
from protocols.announce import Announcement, seal
from protocols.capabilities import Capability, Label, Model, Role
from protocols.keys import PrivateKey

ADA, BOB, EVE = (PrivateKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))


def announced(key: PrivateKey, name: str, *capabilities: Capability) -> Announcement:
    return seal(key, network="bzzz", name=name, addresses=[], capabilities=capabilities, sequence=1, expires_ms=2)


def directory(*announcements: Announcement, deny: str = "") -> Directory:
    members = Members(ADA.peer_id, replication=20)
    bob = Member(peer=BOB.peer_id, name="bob", addresses=(), first_seen_ms=0, last_seen_ms=0)
    members.put(bob).is_connected = True
    return Directory(
        members,
        name="ada",
        addresses=tuple,
        capabilities=lambda: (Role("planner"),),
        announced=lambda: announcements,
        is_listed=lambda peer: peer != deny,
    )


def test_own_capabilities_come_first_and_others_in_the_order_of_their_names() -> None:
    found = directory(
        announced(EVE, "eve", Label("x")), announced(BOB, "bob", Model("llama3"), Role("critic"))
    ).offers()
    assert [(o.name, o.capability, o.is_own, o.is_connected) for o in found] == [
        ("ada", Role("planner"), True, True),
        ("bob", Model("llama3"), False, True),
        ("bob", Role("critic"), False, True),
        ("eve", Label("x"), False, False),
    ]


def test_a_search_finds_by_capability_and_by_node() -> None:
    known = directory(announced(BOB, "bob", Model("llama3"), Role("critic")))
    assert [offer.peer for offer in known.offers("role")] == [ADA.peer_id, BOB.peer_id]
    assert [offer.capability for offer in known.offers(peer="bob")] == [Model("llama3"), Role("critic")]
    assert [offer.capability for offer in known.offers("role", peer=BOB.peer_id)] == [Role("critic")]
    assert known.offers("role", peer="eve") == []


def test_a_peer_that_is_not_allowed_here_offers_nothing() -> None:
    assert not directory(announced(BOB, "bob", Role("critic")), deny=BOB.peer_id).offers(peer="bob")
