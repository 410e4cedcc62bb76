"""The lookup, on places of eight bits: the name of a peer is its place. This node is 11111111, k is 3, alpha is 2."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.kademlia.contact import Contact
from protocols.kademlia.lookup_events import Ended, LookupOutcome, ReplyReceived, RequestFailed, SendRequest
from protocols.kademlia.lookup_path import ADDRESSES_NAMED_MAX
from protocols.kademlia.lookup_purposes import AgreedValue, FirstValue, PeerFound, Providers
from protocols.kademlia.messages import ADDRESSES_MAX
from protocols.policy.machine import Tick
from tests.unit.protocols.kademlia.lookups import OWN, Answer, asked, contacts, lookup, place, play

TARGET = "00000000"


def replies(*names: str, found: Any = None, after: float = 0.1) -> Callable[[Contact], Answer]:
    """Each peer that is asked names these peers, and has this."""
    return lambda contact: (after, ReplyReceived(contact.peer, contacts(*names), found))


def network(*names: str, holders: tuple[str, ...] = (), dead: tuple[str, ...] = ()) -> Callable[[Contact], Answer]:
    """Honest peers that name the three nearest they know: themselves left out, all others known. Dead ones are mute."""

    def answer(contact: Contact) -> Answer:
        if contact.peer in dead or contact.peer not in names:
            return None
        nearest = sorted((name for name in names if name != contact.peer), key=place)[:3]
        return 0.1, ReplyReceived(contact.peer, contacts(*nearest), b"value" if contact.peer in holders else None)

    return answer


# -- the way to the nearest -------------------------------------------------------------------------------------


def test_the_nearest_seeds_are_asked_first_and_no_more_than_alpha_at_once() -> None:
    machine = lookup(TARGET, ["10000000", "00001000", "01000000"])
    assert asked(machine.handle(Tick(), 0.0)) == ["00001000", "01000000"]
    assert asked(machine.handle(ReplyReceived("00001000", contacts("00000001", "00000100")), 0.1)) == ["00000001"]
    assert asked(machine.handle(ReplyReceived("01000000"), 0.2)) == ["00000100"]


def test_it_ends_when_the_nearest_have_answered_and_asks_no_farther_ones() -> None:
    result, order = play(
        lookup(TARGET, ["10000000"]), network("00000001", "00000010", "00000100", "00001000", "10000000")
    )
    assert result.outcome is LookupOutcome.SETTLED
    assert result.closest == contacts("00000001", "00000010", "00000100")
    assert order == ["10000000", "00000001", "00000010", "00000100"]
    assert (result.requests, result.hops) == (4, 2)
    assert result.seconds == pytest.approx(0.3)


def test_no_peer_is_asked_twice_and_this_node_never() -> None:
    result, order = play(lookup(TARGET, ["00000001", OWN]), replies("00000001", "00000010", OWN))
    assert order == ["00000001", "00000010"]
    assert result.outcome is LookupOutcome.SETTLED


def test_without_anyone_to_ask_nothing_is_known() -> None:
    result, order = play(lookup(TARGET, []), replies())
    assert (result.outcome, order, result.hops) == (LookupOutcome.UNSETTLED, [], 0)


def test_a_failed_peer_is_replaced_by_the_next_nearest() -> None:
    names = ("00000001", "00000010", "00000100", "00001000")
    result, _ = play(lookup(TARGET, names), network(*names, dead=("00000001",)))
    assert result.closest == contacts("00000010", "00000100", "00001000")
    assert result.failed == ("00000001",)
    assert result.outcome is LookupOutcome.SETTLED, "two of the three nearest answered"


def test_when_most_of_the_nearest_do_not_answer_nothing_is_said_to_be_absent() -> None:
    names = ("00000001", "00000010", "00000100", "00001000")
    result, _ = play(lookup(TARGET, names, FirstValue(bool)), network(*names, dead=names[:2]))
    assert result.outcome is LookupOutcome.UNSETTLED
    assert result.answered == ("00000100", "00001000")


def test_a_slow_peer_holds_no_place_and_its_answer_still_counts() -> None:
    names = ["00000001", "00000010", "00000100"]
    machine = lookup(TARGET, names, alpha=1)
    assert asked(machine.handle(Tick(), 0.0)) == ["00000001"]
    assert asked(machine.handle(Tick(), 0.5)) == [], "early"
    assert asked(machine.handle(Tick(), 1.0)) == ["00000010"]
    machine.handle(ReplyReceived("00000010"), 1.1)
    machine.handle(ReplyReceived("00000001"), 1.2)
    (ended,) = machine.handle(ReplyReceived("00000100"), 1.3)
    assert isinstance(ended, Ended)
    assert ended.result.answered == tuple(names)
    assert ended.result.outcome is LookupOutcome.SETTLED


def test_the_lookup_waits_for_a_slow_peer_that_is_among_the_nearest_but_not_beyond_its_deadline() -> None:
    names = ("00000001", "00000010", "00000100", "00001000")
    result, order = play(lookup(TARGET, names), network(*names, dead=names[:1]))
    assert result.seconds == pytest.approx(4.0)
    assert "00001000" in order, "asked long before"


def test_answers_that_nobody_asked_for_and_late_ones_change_nothing() -> None:
    machine = lookup(TARGET, ["00000001", "00000010"])
    machine.handle(Tick(), 0.0)
    assert machine.handle(ReplyReceived("01010101", contacts("00000000")), 0.1) == ()
    machine.handle(RequestFailed("00000001"), 0.2)
    assert machine.handle(ReplyReceived("00000001", contacts("00000000")), 0.3) == ()
    (ended,) = machine.handle(ReplyReceived("00000010"), 0.4)
    assert isinstance(ended, Ended)
    assert ended.result.closest == contacts("00000010")
    assert machine.handle(Tick(), 100.0) == ()
    assert machine.handle(ReplyReceived("00000010"), 100.0) == ()
    assert machine.handle(RequestFailed("00000010"), 100.0) == ()


# -- purposes ---------------------------------------------------------------------------------------------------


def test_the_first_valid_value_ends_the_lookup() -> None:
    purpose = FirstValue(lambda value: value == b"value")
    names = ("00000001", "00000010", "00000100", "00001000", "10000000")
    result, order = play(lookup(TARGET, ["10000000"], purpose), network(*names, holders=("00000001", "00000010")))
    assert (result.outcome, result.hops) == (LookupOutcome.MET, 2)
    assert (purpose.value, purpose.peer) == (b"value", "00000001")
    assert "00000100" not in order
    assert result.pending == ("00000010",)


def test_a_value_that_is_not_valid_is_a_lie_and_the_liar_leads_nowhere() -> None:
    purpose = FirstValue(lambda value: value == b"value")

    def answer(contact: Contact) -> Answer:
        if contact.peer == "00000001":
            return 0.1, ReplyReceived("00000001", contacts("00000000"), b"forged")
        return 0.2, ReplyReceived(contact.peer, (), b"value")

    result, order = play(lookup(TARGET, ["00000001", "00000010"], purpose), answer)
    assert purpose.value == b"value"
    assert result.lied == ("00000001",)
    assert "00000000" not in order


def test_a_value_that_nobody_of_the_nearest_has_is_absent() -> None:
    purpose = FirstValue(bool)
    result, _ = play(lookup(TARGET, ["00000001", "00000010"], purpose), replies())
    assert (result.outcome, purpose.value) == (LookupOutcome.SETTLED, None)


def test_a_value_is_agreed_on_when_a_quorum_has_the_same() -> None:
    names = ("00000001", "00000010", "00000100", "00001000", "00010000")
    values = {"00000001": b"old", "00000010": b"new", "00000100": b"new"}
    purpose = AgreedValue(2, bool)
    result, _ = play(
        lookup(TARGET, names, purpose), lambda contact: (0.1, ReplyReceived(contact.peer, (), values.get(contact.peer)))
    )
    assert (result.outcome, purpose.value) == (LookupOutcome.MET, b"new")
    assert purpose.values == {b"old": ["00000001"], b"new": ["00000010", "00000100"]}


def test_a_peer_is_found_when_it_answers_itself() -> None:
    names = ("00000000", "00000010", "00000100", "00001000", "10000000")
    machine = lookup(TARGET, ["10000000"], PeerFound(TARGET))
    result, _ = play(machine, network(*names))
    assert (result.outcome, result.hops) == (LookupOutcome.MET, 2)
    absent = lookup(TARGET, ["10000000"], PeerFound(TARGET))
    result, _ = play(absent, network(*names[1:]))
    assert result.outcome is LookupOutcome.SETTLED
    assert absent.contact(TARGET) is None


def test_a_peer_is_asked_again_at_the_addresses_that_another_peer_names() -> None:
    """A liar names addresses at which another peer answers, or none."""
    machine = lookup(TARGET, ["00000001", "10000000"], PeerFound(TARGET))
    machine.handle(Tick(), 0.0)
    wrong: ReplyReceived[Any] = ReplyReceived("00000001", (Contact(TARGET, ("/wrong",)),))
    assert machine.handle(wrong, 0.1) == [SendRequest(Contact(TARGET, ("/wrong",)))]
    assert machine.handle(RequestFailed(TARGET), 0.2) == []
    right: ReplyReceived[Any] = ReplyReceived("10000000", (Contact(TARGET, ("/wrong", "/right")),))
    assert machine.handle(right, 0.3) == [SendRequest(Contact(TARGET, ("/wrong", "/right")))]
    (ended,) = machine.handle(ReplyReceived(TARGET), 0.4)
    assert isinstance(ended, Ended)
    assert ended.result.outcome is LookupOutcome.MET


def test_the_addresses_of_a_peer_are_bounded() -> None:
    machine = lookup(TARGET, ["00000001", "10000000", "11000000"])
    machine.handle(Tick(), 0.0)
    for number, peer in enumerate(("00000001", "10000000")):
        many = tuple(f"/{number}/{each}" for each in range(1000))
        machine.handle(ReplyReceived(peer, (Contact("00000010", many),)), 0.1)
    known = machine.contact("00000010")
    assert known is not None
    assert len(known.addresses) == ADDRESSES_MAX
    assert sum(address.startswith("/0/") for address in known.addresses) == ADDRESSES_NAMED_MAX


def test_enough_providers_end_the_lookup_and_one_peer_alone_cannot_name_them_all() -> None:
    purpose = Providers(4)
    made_up = contacts(*(f"1000000{number}" for number in range(2)), "10000010", "10000011", "10000100")
    machine = lookup(TARGET, ["00000001", "00000010", "00000100", "00001000"], purpose, k=4, alpha=4)
    machine.handle(Tick(), 0.0)
    assert machine.handle(ReplyReceived("00000001", (), made_up), 0.1) == []
    assert len(purpose.found) == 4, "it does not end all the same"
    machine.handle(ReplyReceived("00000010", (), contacts("01111110", "01111000")), 0.2)
    assert machine.handle(ReplyReceived("00000100", (), contacts("01111111")), 0.3) == []
    (ended,) = machine.handle(ReplyReceived("00001000", (), contacts("01111111", "01111010")), 0.4)
    assert isinstance(ended, Ended)
    assert ended.result.outcome is LookupOutcome.MET


def test_a_provider_that_a_liar_names_behind_made_up_ones_is_handed_on_when_another_peer_names_it() -> None:
    handed_on: list[str] = []
    purpose = Providers(8, lambda contact: handed_on.append(contact.peer))
    purpose.take("liar", contacts("00000001", "00000010", "00000011", "10000000"))
    assert handed_on == ["00000001", "00000010"]
    purpose.take("honest", contacts("10000000"))
    purpose.take("another", contacts("10000000"))
    assert handed_on == ["00000001", "00000010", "10000000"]
    assert not purpose.is_met and len(purpose.found) == 4


# -- peers that lie ---------------------------------------------------------------------------------------------


def test_of_an_answer_no_more_than_k_contacts_count() -> None:
    machine = lookup(TARGET, ["10000000"])
    machine.handle(Tick(), 0.0)
    endless = contacts(*(f"{number:08b}" for number in range(1, 100)))
    machine.handle(ReplyReceived("10000000", endless), 0.1)
    assert [number for number in range(1, 100) if machine.contact(f"{number:08b}")] == [1, 2, 3]


def test_what_is_no_peer_id_is_no_contact() -> None:
    result, order = play(lookup(TARGET, ["10000000"]), replies("nonsense!", "", "00000001"))
    assert order == ["10000000", "00000001"]
    assert result.outcome is LookupOutcome.SETTLED


def test_a_peer_that_makes_up_nearer_peers_costs_a_few_requests_and_no_more() -> None:
    honest = ("00100000", "01000000", "01100000", "01110000")
    made_up = tuple(f"{number:08b}" for number in range(20))

    def answer(contact: Contact) -> Answer:
        if contact.peer == "10000000":
            return 0.1, ReplyReceived("10000000", contacts(*made_up))
        return network(*honest)(contact)

    machine = lookup(TARGET, ["10000000", "01110000"], k=20, request_seconds=2.0)
    result, order = play(machine, answer)
    assert set(honest) <= set(result.answered)
    assert result.outcome is LookupOutcome.SETTLED
    assert len([name for name in order if name in made_up]) <= 12


def test_peers_that_name_nearer_liars_without_end_are_ended_by_the_bound_of_requests() -> None:
    def answer(contact: Contact) -> Answer:
        nearer = max(0, place(contact.peer) - 1)
        return 0.1, ReplyReceived(contact.peer, contacts(f"{nearer:08b}"))

    result, order = play(lookup(TARGET, ["11111110"], k=1, requests_max=30), answer)
    assert len(order) == result.requests == 30
    assert result.outcome is LookupOutcome.UNSETTLED


def test_the_bound_of_time_ends_every_lookup() -> None:
    result, _ = play(
        lookup(TARGET, ["11111110"], seconds_max=10.0, request_seconds=100.0, requests_max=1000), lambda contact: None
    )
    assert result.seconds == 10.0
    assert result.outcome is LookupOutcome.UNSETTLED
    assert result.pending == ("11111110",)


def test_one_of_two_disjoint_paths_that_meets_liars_only_does_not_hide_the_value() -> None:
    """The liars name each other, are all nearer than the holder, and say that they have nothing."""
    liars = tuple(f"000000{number:02b}" for number in range(4))

    def answer(contact: Contact) -> Answer:
        if contact.peer in liars or contact.peer == "01000000":
            return 0.1, ReplyReceived(contact.peer, contacts(*liars))
        if contact.peer == "10000000":
            return 0.1, ReplyReceived(contact.peer, contacts("00100000"))
        return 0.1, ReplyReceived(contact.peer, (), b"value")

    one, two = FirstValue(bool), FirstValue(bool)
    result, _ = play(lookup(TARGET, ["01000000", "10000000"], one, alpha=1), answer)
    assert (one.value, result.outcome) == (None, LookupOutcome.SETTLED)
    result, _ = play(lookup(TARGET, ["01000000", "10000000"], two, paths=2), answer)
    assert (two.value, result.outcome) == (b"value", LookupOutcome.MET)


def test_disjoint_paths_ask_each_peer_once() -> None:
    names = ("00000001", "00000010", "00000100", "00001000", "10000000")
    result, order = play(lookup(TARGET, names, paths=3, alpha=3), network(*names))
    assert sorted(order) == sorted(set(order))
    assert result.closest == contacts("00000001", "00000010", "00000100")
    assert result.outcome is LookupOutcome.SETTLED


# -- whatever happens -------------------------------------------------------------------------------------------

names = st.integers(0, 254).map(lambda number: f"{number:08b}")
named = st.lists(names | st.sampled_from(["", "nonsense!", OWN]), max_size=12)
answers = st.none() | st.tuples(
    st.floats(0.0, 8.0), st.tuples(named, st.sampled_from([None, b"value", b"forged"])) | st.booleans()
)


@given(
    st.dictionaries(names, answers, max_size=60),
    st.lists(names, max_size=6),
    names,
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_whatever_peers_answer_the_lookup_ends_within_its_bounds(
    world: dict[str, Any], seeds: list[str], target: str, paths: int, alpha: int
) -> None:
    def answer(contact: Contact) -> Answer:
        match world.get(contact.peer):
            case (after, bool(is_lie)):
                return after, RequestFailed(contact.peer, is_lie)
            case (after, (closer, found)):
                return after, ReplyReceived(contact.peer, contacts(*closer), found)
        return None

    purpose = FirstValue(lambda value: value == b"value")
    machine = lookup(target, seeds, purpose, paths=paths, alpha=alpha, requests_max=40, seconds_max=30.0)
    result, order = play(machine, answer)
    assert len(order) == len(set(order)) == result.requests <= 40
    assert result.seconds <= 30.0
    assert (result.outcome is LookupOutcome.MET) == (purpose.value == b"value")
    assert not {"", "nonsense!", OWN} & set(order)
    groups = (result.answered, result.failed, result.lied, result.pending)
    assert sorted(order) == sorted(peer for group in groups for peer in group), "each that was asked is accounted for"
    assert [each.peer for each in result.closest] == list(result.answered[:3])
    if result.outcome is LookupOutcome.SETTLED:
        assert result.answered


@given(st.sets(names, min_size=1, max_size=60), names, st.data())
def test_in_an_honest_network_the_nearest_are_found(peers: set[str], target: str, data: st.DataObject) -> None:
    """Each peer knows the three nearest to the target of its half, and one peer of each other half: as k-buckets do."""
    swarm = sorted(peers)

    def answer(contact: Contact) -> Answer:
        buckets: dict[int, list[str]] = {}
        for name in swarm:
            if name != contact.peer:
                buckets.setdefault((place(name) ^ place(contact.peer)).bit_length(), []).append(name)
        known = [name for bucket in buckets.values() for name in bucket[:3]]
        nearest = sorted(known, key=lambda name: place(name) ^ place(target))[:3]
        return 0.1, ReplyReceived(contact.peer, contacts(*nearest))

    result, _ = play(lookup(target, [data.draw(st.sampled_from(swarm))]), answer)
    first = min(swarm, key=lambda name: place(name) ^ place(target))
    assert result.closest[0].peer == first
    assert result.outcome is LookupOutcome.SETTLED
