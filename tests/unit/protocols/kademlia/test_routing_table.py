"""The routing table, on places of eight bits: the name of a peer is its place. This node is 00000000, and k is 2."""

from collections.abc import Sequence
from math import inf
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocols.kademlia.contact import Contact
from protocols.kademlia.routing_events import (
    Answered,
    ContactAdded,
    ContactBanned,
    ContactFailed,
    ContactRemoved,
    Dropped,
    Effect,
    Event,
    Identified,
    LookedUp,
    PingContact,
    PingFailed,
    Refresh,
)
from protocols.kademlia.routing_table import RoutingOptions, RoutingTable
from protocols.policy.machine import Tick
from tests.unit.ticks import due, run_until

OWN = "00000000"
QUIET, FRESH, RETRY, REFRESH = 300.0, 60.0, 5.0, 3600.0
NO_ANSWER = "it did not answer a ping"


def place(name: str) -> int:
    return int(name, 2)


def table(own: str = OWN, *, chance: float = 0.5, **options: Any) -> RoutingTable:
    sizes = {"bits": 8, "k": 2, "spares_max": 2, **options}
    return RoutingTable(own, chance=lambda: chance, place_of=place, options=RoutingOptions(**sizes))


def tell(machine: RoutingTable, *names: str, now: float = 0.0, at: str = "") -> list[Effect]:
    """Identify these peers, at an address if one is given."""
    addresses = (at,) if at else ()
    return [effect for name in names for effect in machine.handle(Identified(Contact(name, addresses)), now)]


def closest(machine: RoutingTable, target: str, n: int = 2) -> list[str]:
    return [contact.peer for contact in machine.closest(place(target), n)]


def pings(effects: Sequence[Effect]) -> list[str]:
    return [effect.contact.peer for effect in effects if isinstance(effect, PingContact)]


# -- buckets ----------------------------------------------------------------------------------------------------


def test_the_closest_contacts_are_nearest_by_xor_and_come_first() -> None:
    machine = table(k=8)
    tell(machine, "11110000", "10000001", "00010000", "01000000", "00000011")
    assert closest(machine, "00000001", 3) == ["00000011", "00010000", "01000000"]
    assert closest(machine, "10000000", 3) == ["10000001", "11110000", "00000011"]
    assert closest(machine, "01000001", 9) == ["01000000", "00000011", "00010000", "11110000", "10000001"]


def test_this_node_itself_is_never_a_contact() -> None:
    machine = table()
    assert tell(machine, OWN) == []
    assert len(machine) == 0


def test_only_the_bucket_of_this_node_splits() -> None:
    machine = table()
    tell(machine, "10000000", "11000000", "11100000", "11110000")
    assert machine.bucket_sizes() == [2, 0]
    tell(machine, "01000000", "00100000", "00010000")
    assert machine.bucket_sizes() == [2, 1, 2]
    assert closest(machine, "11100000") == ["11000000", "10000000"], "the first two of the far half"


def test_each_contact_is_there_once_and_its_addresses_follow_identify() -> None:
    machine = table()
    tell(machine, "10000000", at="/ip4/10.0.0.1/tcp/1")
    assert tell(machine, "10000000", at="/ip4/10.0.0.2/tcp/1") == []
    assert machine.get("10000000") == Contact("10000000", ("/ip4/10.0.0.2/tcp/1",))
    assert len(machine) == 1


def test_the_contacts_nearest_to_this_node_are_always_in_the_table() -> None:
    """A bucket next to the own one may be full of farther contacts."""
    machine = table()
    tell(machine, "10000000", "11000000", "01000000", "01100000")
    effects = tell(machine, "00100000", "01000001")
    assert closest(machine, OWN) == ["00100000", "01000000"]
    assert [effect for effect in effects if isinstance(effect, Dropped)] == []
    machine = table()
    tell(machine, "10000000", "11000000", "01100000", "01110000")
    why = "a contact nearer to this node has its place"
    assert tell(machine, "01000000") == [Dropped("01110000", why), ContactAdded(Contact("01000000"))]
    assert closest(machine, OWN) == ["01000000", "01100000"]


# -- eviction ---------------------------------------------------------------------------------------------------


def full(now: float = 0.0) -> RoutingTable:
    """The far half is full, with 10000000 heard least recently; 11100000 waits."""
    machine = table()
    tell(machine, "00000001", "10000000", now=now)
    tell(machine, "11000000", now=now + 1.0)
    assert pings(tell(machine, "11100000", now=now + FRESH)) == ["10000000"]
    return machine


def test_a_newcomer_waits_while_the_contact_that_was_heard_least_recently_is_pinged() -> None:
    machine = full()
    assert closest(machine, "11100000") == ["11000000", "10000000"]
    assert tell(machine, "11110000", now=61.0) == [], "one ping at a time"
    machine.handle(Answered("10000000"), 62.0)
    assert closest(machine, "11100000") == ["11000000", "10000000"], "who answers stays"
    assert pings(tell(machine, "11100000", now=63.0)) == ["11000000"], "the next one"


def test_a_contact_that_does_not_answer_gives_its_place_to_the_replacement_heard_last() -> None:
    machine = full()
    tell(machine, "11110000", now=61.0)
    dropped = machine.handle(PingFailed("10000000"), 62.0)
    assert dropped == (Dropped("10000000", NO_ANSWER), ContactAdded(Contact("11110000")))
    assert closest(machine, "11100000") == ["11110000", "11000000"]
    assert pings(tell(machine, "11111111", now=62.0)) == ["11000000"]


def test_contacts_that_were_heard_lately_are_not_pinged_for_a_newcomer() -> None:
    machine = table()
    tell(machine, "00000001", "10000000", "11000000")
    assert tell(machine, "11100000", now=FRESH - 1.0) == []


def test_replacements_are_bounded_and_the_oldest_makes_room() -> None:
    machine = table()
    tell(machine, "00000001", "10000000", "11000000", "10000001", "10000010", "10000011")
    for peer, replacement in (("10000000", "10000011"), ("11000000", "10000010")):
        machine.handle(ContactFailed(peer), 1.0)
        assert ContactAdded(Contact(replacement)) in machine.handle(PingFailed(peer), 2.0)
    machine.handle(ContactFailed("10000011"), 3.0)
    assert machine.handle(PingFailed("10000011"), 4.0) == (), "no replacement is left: it stays, as a suspect"


def test_a_replacement_that_fails_or_is_removed_does_not_wait_any_more() -> None:
    machine = table()
    tell(machine, "00000001", "10000000", "11000000", "10000001", "10000010")
    machine.handle(ContactFailed("10000010"), 1.0)
    machine.handle(ContactRemoved("10000001"), 1.0)
    machine.handle(ContactFailed("10000000"), 1.0)
    assert machine.handle(PingFailed("10000000"), 2.0) == ()


# -- suspects ---------------------------------------------------------------------------------------------------


def test_a_contact_that_fails_is_suspect_and_pinged_and_is_left_out_until_it_answers() -> None:
    machine = table(k=8)
    tell(machine, "10000000", "11000000")
    assert machine.handle(ContactFailed("10000000"), 1.0) == (PingContact(Contact("10000000")),)
    assert machine.is_suspect("10000000")
    assert machine.handle(ContactFailed("10000000"), 1.5) == (), "once"
    assert closest(machine, "10000000") == ["11000000"]
    machine.handle(Answered("10000000"), 2.0)
    assert closest(machine, "10000000") == ["10000000", "11000000"]


def test_a_suspect_without_a_replacement_is_pinged_more_and_more_rarely_then_dropped() -> None:
    machine = table(k=8)
    tell(machine, "10000000", "11000000")
    machine.handle(LookedUp(0), 0.0)
    machine.handle(ContactFailed("10000000"), 1.0)
    now, asked = 2.0, []
    while not (effects := machine.handle(PingFailed("10000000"), now)):
        asked_now: list[str] = []
        while not asked_now:
            now = due(machine)
            asked_now = pings(machine.handle(Tick(), now))
        assert asked_now == ["10000000"]
        asked.append(now)
    assert effects == (Dropped("10000000", NO_ANSWER),)
    assert asked == [2.0 + 2 * RETRY, 2.0 + 6 * RETRY]
    assert len(machine) == 1


def test_suspects_are_named_while_there_is_nothing_else() -> None:
    """This node itself may be cut off: it must know whom to ask when it is back."""
    machine = table(k=8)
    tell(machine, "10000000", "11000000")
    for peer in ("10000000", "11000000"):
        machine.handle(ContactFailed(peer), 1.0)
    assert closest(machine, "10000000") == ["10000000", "11000000"]


def test_a_suspect_is_questioned_when_a_newcomer_could_have_its_place() -> None:
    machine = table()
    tell(machine, "00000001", "10000000", "11000000")
    machine.handle(ContactFailed("11000000"), 1.0)
    machine.handle(PingFailed("11000000"), 2.0)
    assert pings(tell(machine, "11100000", now=3.0)) == ["11000000"], "the other one was heard lately"


def test_a_ping_without_an_outcome_has_failed_after_its_time() -> None:
    machine = full()
    effects = run_until(machine, FRESH + 10.0)
    assert (FRESH + 10.0, Dropped("10000000", NO_ANSWER)) in effects


def test_quiet_contacts_are_pinged_a_few_at_a_time() -> None:
    machine = table(k=20, pings_max=3)
    names = [f"{number:08b}" for number in range(1, 11)]
    tell(machine, *names)
    machine.handle(LookedUp(0), 0.0)
    first = pings(machine.handle(Tick(), QUIET))
    assert first == names[:3]
    for peer in first:
        machine.handle(Answered(peer), QUIET)
    assert pings(machine.handle(Tick(), QUIET + 1.0)) == names[3:6]


def test_after_a_late_tick_no_contact_is_blamed_for_the_ping_under_way() -> None:
    """The process was stopped: answers may wait to be read."""
    machine = full()
    effects = machine.handle(Tick(), FRESH + 1000.0)
    assert "10000000" in pings(effects)
    assert [effect for effect in effects if isinstance(effect, Dropped)] == []


# -- bans and subnets -------------------------------------------------------------------------------------------


def test_a_banned_peer_leaves_and_does_not_come_back_before_its_time() -> None:
    machine = table()
    tell(machine, "10000000")
    assert machine.handle(ContactBanned("10000000", 100.0), 1.0) == (Dropped("10000000", "it is banned"),)
    assert tell(machine, "10000000", now=100.0) == []
    assert tell(machine, "10000000", now=101.0) == [ContactAdded(Contact("10000000"))]


def test_a_peer_that_does_not_speak_the_protocol_any_more_leaves() -> None:
    machine = table()
    tell(machine, "10000000")
    assert [type(effect) for effect in machine.handle(ContactRemoved("10000000"), 1.0)] == [Dropped]
    assert len(machine) == 0


@pytest.mark.parametrize(
    ("address", "entered"),
    [
        ("/ip4/8.8.8.{}/tcp/4001", 2),
        ("/ip6/2001:4860:4860::{}/tcp/4001", 2),
        ("/ip4/10.0.0.{}/tcp/4001", 6),
        ("/ip4/127.0.0.{}/tcp/4001", 6),
        ("/dns4/seed{}.example/tcp/4001", 6),
    ],
)
def test_a_public_subnet_has_a_share_of_a_bucket_and_private_ones_have_no_limit(address: str, entered: int) -> None:
    machine = table(k=8, subnet_bucket_max=2)
    for number in range(6):
        tell(machine, f"1{number:07b}", at=address.format(number + 1))
    assert len(machine) == entered


def test_a_public_subnet_has_a_share_of_the_table() -> None:
    machine = table(k=2, subnet_max=3)
    for name in ("10000000", "01000000", "00100000", "00010000", "00001000"):
        tell(machine, name, at="/ip4/8.8.8.8/tcp/1")
    assert len(machine) == 3
    machine.handle(ContactRemoved("10000000"), 1.0)
    assert tell(machine, "00000100", at="/ip4/8.8.8.8/tcp/1") == [
        ContactAdded(Contact("00000100", ("/ip4/8.8.8.8/tcp/1",)))
    ]
    assert tell(machine, "00000010", at="/ip4/9.9.9.9/tcp/1") != []


def test_a_contact_that_moves_into_a_subnet_that_has_its_share_is_dropped() -> None:
    machine = table(k=8, subnet_bucket_max=1)
    tell(machine, "10000000", at="/ip4/8.8.8.8/tcp/1")
    tell(machine, "11000000", at="/ip4/10.0.0.1/tcp/1")
    why = "there are too many contacts of its subnet"
    assert tell(machine, "11000000", at="/ip4/8.8.8.9/tcp/1") == [Dropped("11000000", why)]
    assert tell(machine, "10000000", at="/ip4/8.8.8.10/tcp/1") == [], "within the same one it may move"
    assert len(machine) == 1


# -- refresh ----------------------------------------------------------------------------------------------------


def refreshes(machine: RoutingTable, end: float) -> list[tuple[float, int]]:
    """The refreshes that are due until then; each is looked up at once."""
    found: list[tuple[float, int]] = []
    while (now := due(machine)) <= end:
        for effect in machine.handle(Tick(), now):
            if isinstance(effect, Refresh):
                found.append((now, effect.place))
                machine.handle(LookedUp(effect.place), now)
            elif isinstance(effect, PingContact):
                machine.handle(Answered(effect.contact.peer), now)
    return found


def test_the_first_contact_makes_this_node_look_up_its_own_place() -> None:
    machine = table("01010101")
    assert machine.deadline is None
    tell(machine, "10000000", now=3.0)
    assert refreshes(machine, 100.0) == [(3.0, place("01010101"))]
    machine.handle(ContactRemoved("10000000"), 200.0)
    assert refreshes(machine, 10_000.0) == [], "there is nobody to ask"
    tell(machine, "11000000", now=10_000.0)
    assert refreshes(machine, 10_001.0) == [(10_000.0, place("01010101"))]


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.999999])
def test_a_bucket_that_was_split_off_is_refreshed_at_a_random_place_of_it(chance: float) -> None:
    machine = table(chance=chance)
    tell(machine, "10000000")
    refreshes(machine, 1.0)
    tell(machine, "01000000", "00100000", "00010000", now=2.0)
    found = [f"{each:08b}" for _, each in refreshes(machine, 2.0)]
    assert sorted(name.index("1") for name in found) == [0, 1]


def test_a_quiet_bucket_is_refreshed_and_a_lookup_postpones_that() -> None:
    machine = table(k=8)
    tell(machine, "10000000")
    machine.handle(LookedUp(0), 0.0)
    machine.handle(LookedUp(place("11000000")), 1000.0)
    assert [at for at, _ in refreshes(machine, 9000.0)] == [1000.0 + REFRESH, 1000.0 + 2 * REFRESH]


def test_one_refresh_is_under_way_at_a_time_and_one_without_an_end_is_given_up() -> None:
    machine = table()
    tell(machine, "10000000", "01000000", "00100000", "00010000")
    found = [(at, effect) for at, effect in run_until(machine, 130.0) if isinstance(effect, Refresh)]
    assert [at for at, _ in found] == [0.0, 60.0, 120.0]


# -- whatever happens -------------------------------------------------------------------------------------------

names = st.integers(1, 255).map(lambda number: f"{number:08b}")


@given(st.lists(names, unique=True), st.integers(0, 255), st.integers(1, 4))
def test_the_closest_of_the_table_are_the_closest_of_all_it_was_told_but_for_full_buckets(
    told: list[str], target: int, k: int
) -> None:
    machine = table(k=k)
    tell(machine, *told)
    kept = [name for name in told if machine.get(name)]
    answer = closest(machine, f"{target:08b}", k)
    assert answer == sorted(kept, key=lambda name: place(name) ^ target)[:k]
    for name in sorted(told, key=lambda name: place(name) ^ target)[:k]:
        alike = [other for other in kept if place(other).bit_length() == place(name).bit_length()]
        assert name in answer or len(alike) == k, "only a full bucket left it out"
    assert closest(machine, OWN, k) == sorted(told, key=place)[:k], "around this node nothing is left out"


subnets = st.sampled_from(["", "/ip4/8.8.8.8/tcp/1", "/ip4/9.9.9.9/tcp/1", "/ip4/10.0.0.1/tcp/1"])
events = st.one_of(
    st.builds(lambda name, at: Identified(Contact(name, (at,) if at else ())), names, subnets),
    st.builds(
        lambda kind, name: kind(name), st.sampled_from([Answered, ContactFailed, PingFailed, ContactRemoved]), names
    ),
    st.builds(ContactBanned, names, st.floats(0, 1000)),
    st.builds(LookedUp, st.integers(0, 255)),
)


@given(st.lists(st.tuples(st.floats(0, 200), st.none() | events), max_size=60))
@example(  # a replacement that was heard long ago takes a place, and is pinged in the same step
    [
        *((0.0, Identified(Contact(name))) for name in ("10000001", "10000010", "10000011")),
        (82.0, None),
        (200.0, Identified(Contact("10000000"))),
        (28.0, None),
    ]
)
def test_any_events_in_any_order_keep_the_invariants(history: list[tuple[float, Event | None]]) -> None:
    machine, now = table(k=3, subnet_bucket_max=2, subnet_max=3), 0.0
    here: dict[str, str] = {}

    def note(effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case ContactAdded(contact):
                    assert contact.peer not in here
                    here[contact.peer] = ""
                case Dropped(peer):
                    del here[peer]
                case PingContact(contact):
                    assert contact.peer in here

    for passed, event in history:
        end = now + passed
        while due(machine) <= end:
            now = due(machine)
            note(machine.handle(Tick(), now))
            assert due(machine) > now, "it spins"
        now = end
        if event is not None:
            note(machine.handle(event, now))
        assert len(machine) == len(here) == sum(machine.bucket_sizes())
        assert all(machine.get(name) for name in here)
        assert all(size <= 3 for size in machine.bucket_sizes())
        contacts = machine.closest(0, 255)
        assert all(not machine.is_suspect(each.peer) for each in contacts) or all(map(machine.is_suspect, here))
        for address in ("/ip4/8.8.8.8/tcp/1", "/ip4/9.9.9.9/tcp/1"):
            held = [machine.get(name) for name in here]
            assert sum(address in each.addresses for each in held if each) <= 3
        assert due(machine) < inf or not here, "each contact is pinged some day"
