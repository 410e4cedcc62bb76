"""The picture of the peers: which ones are dialled after which sightings, when again, and which are forgotten."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.policy.machine import Tick
from protocols.policy.peer_events import (
    Banned,
    Connected,
    Dial,
    Dialled,
    Disconnected,
    Effect,
    Event,
    Forget,
    Lost,
    NetworkChanged,
    Removed,
)
from protocols.policy.peer_target import VOUCHED_SECONDS
from protocols.policy.peers import SOON_SECONDS, Peers
from protocols.policy.sighting import Sighting, Source
from tests.unit.protocols.policy.sightings import hearsay, peers, sighted
from tests.unit.ticks import due, run_until

HORIZON = 24 * 3600.0


# -- dialling ---------------------------------------------------------------------------------------------------


def test_a_removed_peer_is_dialled_again_when_it_is_sighted_and_a_configured_one_always() -> None:
    book = peers()
    for peer in ("dead", "named"):
        book.handle(sighted(peer, f"/{peer}", is_configured=peer == "named"), 0.0)
        book.handle(Dialled(peer, ""), 1.0)
        book.handle(Removed(peer), 1.0)
    book.handle(Removed("unknown"), 1.0)
    dials = [effect for _, effect in run_until(book, 60.0)]
    assert {effect.target for effect in dials if isinstance(effect, Dial)} == {"named"}
    assert Dial("dead", ("/new",)) in book.handle(sighted("dead", "/new"), 61.0)


def test_a_sighted_peer_is_dialled_at_once_and_new_addresses_beside_an_attempt() -> None:
    machine = peers()
    assert machine.handle(sighted("a", "/1", "/2"), 1.0) == (Dial("a", ("/1", "/2")),)
    assert machine.handle(sighted("a", "/2"), 1.5) == ()
    assert machine.handle(sighted("a", "/3"), 1.5) == (Dial("a", ("/3",)),), "the first ones may be addresses it left"
    assert run_until(machine, 1000.0) == [], "the attempts have not ended"
    assert machine.handle(Dialled("a", ""), 900.0) == ()
    assert run_until(machine, 1000.0) == [], "one has not"
    assert machine.handle(Dialled("a", ""), 1000.0) == ()
    assert run_until(machine, 1001.0)[0] == (1000.125, Dial("a", ("/1", "/2", "/3")))


def test_what_answers_on_the_lan_and_is_no_node_of_ours_is_dialled_rarely_after_a_while() -> None:
    machine = peers(hearsay_cap_seconds=300.0)
    machine.handle(Connected("member", "/member"), 0.0)
    machine.handle(sighted("stranger", "/stranger"), 0.0)
    machine.handle(sighted("named", "/named"), 0.0)
    machine.handle(sighted("named", "/named", is_configured=True), 0.0)
    for name in ("stranger", "named"):
        machine.handle(Dialled(name, ""), 0.0)
    dials: list[tuple[float, str]] = []
    while (now := due(machine)) < SOON_SECONDS + 3600.0:
        for effect in machine.handle(Tick(), now):
            assert isinstance(effect, Dial)
            dials.append((now, effect.target))
            machine.handle(Dialled(effect.target, ""), now)
    late = [target for at, target in dials if at > SOON_SECONDS]
    assert 0 < late.count("stranger") < 60 < late.count("named")


def test_a_dial_that_failed_is_repeated_after_a_backoff_with_a_cap() -> None:
    machine = peers()
    machine.handle(sighted("a", "/a"), 0.0)
    now, waits = 0.0, []
    for _ in range(7):
        assert machine.handle(Dialled("a", ""), now) == ()
        ((at, effect),) = run_until(machine, now + 10.0)
        assert effect == Dial("a", ("/a",))
        waits.append(at - now)
        now = at
    assert waits == [0.125, 0.25, 0.5, 1.0, 1.0, 1.0, 1.0]


def test_a_new_address_is_tried_at_once_and_a_known_one_is_no_news() -> None:
    machine = peers()
    machine.handle(sighted("a", "/a"), 0.0)
    for _ in range(6):
        machine.handle(Dialled("a", ""), 1.0)
        run_until(machine, 4.0)
    machine.handle(Dialled("a", ""), 4.0)
    assert machine.handle(sighted("a", "/a"), 4.1) == ()
    assert machine.handle(sighted("a", "/b"), 4.1) == (Dial("a", ("/a", "/b")),)


def test_a_connected_peer_is_not_dialled() -> None:
    machine = peers()
    machine.handle(Connected("a"), 1.0)
    assert machine.handle(sighted("a", "/a"), 2.0) == ()
    assert run_until(machine, HORIZON * 3) == []


def test_a_dial_that_fails_after_the_peer_came_by_itself_changes_nothing() -> None:
    machine = peers()
    machine.handle(sighted("a", "/a"), 0.0)
    machine.handle(Connected("a"), 1.0)
    assert machine.handle(Dialled("a", ""), 2.0) == ()
    assert run_until(machine, 100.0) == []
    assert machine.handle(Disconnected("a"), 100.0) == (Dial("a", ("/a",)),)


def test_a_connection_that_lasted_is_dialled_again_at_once_when_it_breaks() -> None:
    machine = peers()
    machine.handle(sighted("a", "/a"), 0.0)
    machine.handle(Dialled("a", ""), 0.0)
    machine.handle(Connected("a"), 0.1)
    assert run_until(machine, 60.0) == []
    assert machine.handle(Disconnected("a"), 60.0) == (Dial("a", ("/a",)),)
    machine.handle(Dialled("a", ""), 60.0)
    assert run_until(machine, 61.0)[0][0] == 60.125, "and earlier failures are forgotten"


def test_a_peer_that_accepts_every_dial_and_closes_at_once_is_not_dialled_all_the_time() -> None:
    machine, dials, now = peers(), 0, 0.0
    machine.handle(sighted("a", "/a"), now)
    while now < 60.0:
        dials += 1
        machine.handle(Connected("a"), now)
        effects = machine.handle(Disconnected("a"), now)
        assert effects == ()
        assert machine.handle(Dialled("a", "a"), now) == ()
        ((now, effect),) = run_until(machine, now + 10.0)
        assert effect == Dial("a", ("/a",))
    assert dials < 40


def test_a_dial_that_succeeded_is_not_repeated_at_once_when_the_connection_is_gone() -> None:
    machine = peers()
    machine.handle(sighted("a", "/a"), 0.0)
    assert machine.handle(Dialled("a", "a"), 1.0) == ()
    assert run_until(machine, 2.0) == [(1.25, Dial("a", ("/a",)))]


def test_a_peer_without_a_known_address_is_not_dialled_until_sighted() -> None:
    machine = peers()
    machine.handle(Connected("a"), 0.0)
    machine.handle(Disconnected("a"), 10.0)
    assert run_until(machine, HORIZON) == []
    assert machine.handle(sighted("a", "/a"), HORIZON) == (Dial("a", ("/a",)),)


def test_a_dial_or_disconnection_of_an_unknown_target_is_ignored() -> None:
    machine = peers()
    for event in (Tick(), Disconnected("a"), Dialled("a", "a"), Dialled("a", ""), sighted("")):
        assert not machine.handle(event, 1.0)
    assert machine.deadline is None


# -- forgetting -------------------------------------------------------------------------------------------------


def test_a_peer_not_seen_for_the_horizon_is_forgotten_and_a_connected_one_is_not() -> None:
    machine = peers(forget_seconds=100.0)
    machine.handle(Connected("a"), 0.0)
    assert run_until(machine, 1000.0) == []
    machine.handle(Disconnected("a"), 1000.0)
    assert run_until(machine, 1099.9) == []
    assert run_until(machine, 1100.0) == [(1100.0, Forget("a"))]
    assert machine.deadline is None


def test_a_report_of_a_peer_does_not_count_as_seen() -> None:
    machine = peers(forget_seconds=100.0)
    machine.handle(sighted("a", "/a"), 0.0)
    for now in range(100):
        machine.handle(Dialled("a", ""), float(now))
        machine.handle(sighted("a", f"/{now}"), float(now))
    machine.handle(Dialled("a", ""), 99.9)
    assert run_until(machine, 101.0)[-1] == (100.0, Forget("a"))


def test_a_member_of_an_earlier_run_is_forgotten_by_the_time_it_was_really_seen() -> None:
    machine = peers(forget_seconds=100.0)
    assert machine.handle(sighted("old", "/a", seen_at=-100.0), 0.0) == (Forget("old"),)
    assert machine.handle(sighted("mute", seen_at=-90.0), 0.0) == ()
    assert machine.handle(sighted("new", "/b", seen_at=-90.0), 0.0) == (Dial("new", ("/b",)),)
    machine.handle(Dialled("new", ""), 9.9)
    assert run_until(machine, 50.0) == [(10.0, Forget("mute")), (10.0, Forget("new"))]


def test_a_bare_address_is_dropped_without_an_effect_because_there_is_no_peer_to_forget() -> None:
    machine = peers(forget_seconds=1.0)
    machine.handle(sighted("", "/ip"), 0.0)
    machine.handle(Dialled("/ip", ""), 0.9)
    assert run_until(machine, 10.0) == []
    assert machine.deadline is None


def test_a_forgotten_peer_may_come_back() -> None:
    machine = peers(forget_seconds=1.0)
    machine.handle(sighted("a", "/a"), 0.0)
    machine.handle(Dialled("a", ""), 1.0)
    assert machine.handle(sighted("a", "/b"), 2.0) == (Dial("a", ("/b",)),)


# -- a network that changes -------------------------------------------------------------------------------------


def test_when_the_network_changes_all_that_are_away_are_dialled_at_once() -> None:
    machine = peers()
    machine.handle(sighted("a", "/a"), 0.0)
    machine.handle(sighted("", "/boot", is_configured=True), 0.0)
    machine.handle(hearsay("h", "/h"), 0.0)
    machine.handle(Connected("c"), 0.0)
    now = 0.0
    for _ in range(8):
        for target in ("a", "/boot", "h"):
            machine.handle(Dialled(target, ""), now)
        now = max(at for at, _ in run_until(machine, now + 151.0))
    for target in ("a", "/boot", "h"):
        machine.handle(Dialled(target, ""), now)
    effects = machine.handle(NetworkChanged(), now)
    assert effects == (Dial("a", ("/a",)), Dial("/boot", ("/boot",))), "hearsay waits"


def test_a_node_without_peers_and_a_peer_seen_lately_are_dialled_more_often() -> None:
    def wait_after_many_failures(machine: Peers, start: float) -> float:
        now = start
        for _ in range(12):
            machine.handle(Dialled("a", ""), now)
            now = next(at for at, effect in run_until(machine, now + 10.0) if effect == Dial("a", ("/a",)))
        machine.handle(Dialled("a", ""), now)
        return run_until(machine, now + 10.0)[0][0] - now

    alone, others_here, just_gone = peers(), peers(), peers()
    for machine in (alone, others_here, just_gone):
        machine.handle(Sighting(peer="a", addresses=("/a",), source=Source.STORE, seen_at=-SOON_SECONDS), 0.0)
    others_here.handle(Connected("b"), 0.0)
    just_gone.handle(Connected("b"), 0.0)
    just_gone.handle(Connected("a"), 0.0)
    just_gone.handle(Disconnected("a"), 6.0)
    waits = [wait_after_many_failures(machine, 6.0) for machine in (alone, others_here, just_gone)]
    assert waits == [1.0, 2.5, 1.0]


# -- the picture ------------------------------------------------------------------------------------------------


def test_the_picture_has_each_peer_once_with_its_sources_and_what_failed() -> None:
    machine = peers()
    machine.handle(sighted("", "/boot", is_configured=True), 0.0)
    machine.handle(sighted("a", "/a"), 1.0)
    machine.handle(hearsay("a", "/b"), 2.0)
    machine.handle(Dialled("a", "", "connection refused"), 3.0)
    machine.handle(Banned("f", "of another swarm"), 4.0)
    boot, a, refused = machine.picture()
    assert (boot.peer, boot.sources, boot.seen_at) == ("", ((Source.CONFIGURATION, 0.0),), None)
    assert (a.peer, a.sources, a.why) == ("a", ((Source.EXCHANGE, 2.0), (Source.DHT, 1.0)), "connection refused")
    assert [address.text for address in a.addresses] == ["/a", "/b"]
    assert (refused.peer, refused.refused, refused.is_connected) == ("f", "of another swarm", False)
    machine.handle(Connected("a", "/b"), 5.0)
    a = machine.picture()[1]
    assert (a.is_connected, a.seen_at, a.why, a.addresses[0].text) == (True, 5.0, "", "/b")
    machine.handle(Disconnected("a", "no sign of life"), 6.0)
    assert machine.picture()[1].why == "no sign of life"


def test_what_a_met_peer_says_of_itself_is_not_replaced_by_hearsay() -> None:
    machine = peers()
    machine.handle(Connected("a"), 0.0)
    own = Sighting(peer="a", addresses=("/a",), source=Source.HELLO, name="n1", agent="bzzz/2")
    machine.handle(own, 0.0)
    machine.handle(Sighting(peer="a", addresses=(), source=Source.ANNOUNCE, capabilities=("x",)), 0.0)
    lie = Sighting(peer="a", addresses=(), source=Source.EXCHANGE, reporter="liar", name="evil", capabilities=("y",))
    machine.handle(lie, 1.0)
    machine.handle(Sighting(peer="a", addresses=(), source=Source.MDNS), 2.0)
    (a,) = machine.picture()
    assert (a.name, a.agent, a.capabilities) == ("n1", "bzzz/2", ("x",))


def test_a_source_that_knows_all_addresses_of_a_peer_replaces_those_it_reported_before() -> None:
    machine = peers()
    for source in (Source.MDNS, Source.EXCHANGE):
        machine.handle(Sighting(peer="a", addresses=(f"/{source}/1", f"/{source}/2"), source=source), 0.0)
    machine.handle(Connected("a", "/mdns/2"), 0.5)
    for source in (Source.MDNS, Source.EXCHANGE):
        machine.handle(Sighting(peer="a", addresses=(f"/{source}/2", f"/{source}/3"), source=source), 1.0)
    (known,) = machine.picture()
    assert [address.text for address in known.addresses] == [
        "/mdns/2", "/mdns/3", "/exchange/1", "/exchange/2", "/exchange/3",
    ]  # fmt: skip


def test_a_peer_that_its_only_source_has_lost_is_forgotten_and_a_met_one_is_not() -> None:
    machine = peers()
    machine.handle(sighted("a", "/a"), 0.0)
    machine.handle(Dialled("a", ""), 0.0)
    machine.handle(sighted("b", "/b"), 0.0)
    machine.handle(Connected("b"), 0.0)
    for peer in ("a", "b", "unknown"):
        machine.handle(Lost(peer, Source.DHT), 1.0)
    assert [peer.peer for peer in machine.picture()] == ["b"]
    assert machine.picture()[0].addresses == ()


# -- whatever happens -------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "own"])
ADDRESSES = st.lists(st.sampled_from(["/1", "/2", "/3"]), max_size=3, unique=True)
EVENTS = st.one_of(
    st.builds(
        lambda peer, addresses, is_configured: sighted(peer, *addresses, is_configured=is_configured),
        NAMES | st.just(""), ADDRESSES, st.booleans(),
    ),
    st.builds(Connected, st.sampled_from(["a", "b"])),
    st.builds(Disconnected, NAMES),
    st.builds(Dialled, st.sampled_from(["a", "b", "/1", "/2"]), st.sampled_from(["a", "b", "own", ""])),
    st.builds(Banned, st.just("b")),
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.tuples(st.floats(0, 4), EVENTS), max_size=50), st.floats(0, 0.999))
def test_any_events_in_any_order_keep_the_invariants(history: list[tuple[float, Event]], chance: float) -> None:
    machine, now = Peers("own", chance=lambda: chance, forget_seconds=20.0), 0.0
    connected: set[str] = set()
    dialling: Counter[str] = Counter()
    under_way: dict[str, set[str]] = {}
    """The addresses in the attempts of each target since it was dialled first."""
    banned = {"own"}

    def note(effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Dial):
                if not dialling[effect.target]:
                    under_way[effect.target] = set()
                assert under_way[effect.target].isdisjoint(effect.addresses), "one attempt at a time for an address"
                under_way[effect.target].update(effect.addresses)
                assert effect.target not in connected
                assert effect.target not in banned
                assert effect.addresses
                assert len(set(effect.addresses)) == len(effect.addresses)
                dialling[effect.target] += 1
            else:
                assert isinstance(effect, Forget)
                assert effect.peer
                assert effect.peer not in connected

    for passed, event in history:
        end = now + passed
        while due(machine) <= end:
            now = due(machine)
            note(machine.handle(Tick(), now))
            assert due(machine) > now, "it spins"
        now = end
        match event:
            case Connected(peer):
                connected.add(peer)
            case Disconnected(peer):
                connected.discard(peer)
            case Dialled(name, _):
                dialling[name] = max(0, dialling[name] - 1)
            case Banned(peer):
                banned.add(peer)
                del dialling[peer]
            case _:
                pass
        note(machine.handle(event, now))
        assert not machine.handle(Tick(), now), "whatever is due is done with the event that made it due"


@pytest.mark.parametrize("count", [3000])
def test_a_sighting_costs_the_same_however_many_are_known(count: int) -> None:
    """Counted in reviews of targets, not in seconds: only the sighted one is reviewed."""
    reviewed: list[str] = []

    class Counting(Peers):
        def _review(self, name: str, now: float) -> Sequence[Effect]:
            reviewed.append(name)
            return super()._review(name, now)

    machine = Counting("own", chance=lambda: 0.0, share_max=count)
    for number in range(count):
        machine.handle(sighted(f"p{number}", "/x"), 0.0)
    assert len(reviewed) == count


# -- what others say ----------------------------------------------------------------------------------------------


def test_a_peer_is_missing_while_another_member_says_that_it_is_connected_with_it_and_this_node_is_not() -> None:
    machine = peers()

    def vouched() -> list[tuple[float, float]]:
        return [(peer.vouched_since, at) for peer in machine.missing() for _, at in peer.vouchers]

    said = replace(hearsay("a", "/1"), is_vouched=True)
    machine.handle(hearsay("a", "/1"), 0.0)
    assert vouched() == []
    for at in (1.0, 9.0, 9.0 + VOUCHED_SECONDS):
        machine.handle(said, at)
    assert vouched() == [(1.0, 9.0 + VOUCHED_SECONDS)]
    machine.handle(said, 10.0 + 2 * VOUCHED_SECONDS)
    assert vouched() == [(10.0 + 2 * VOUCHED_SECONDS,) * 2], "it was not said for long: that is another time"
    machine.handle(Connected("a", "/1"), 100.0)
    machine.handle(said, 101.0)
    machine.handle(Disconnected("a", "gone"), 102.0)
    assert vouched() == []


def test_a_configured_peer_is_missing_while_it_is_not_connected() -> None:
    machine = peers()
    machine.handle(sighted("a", "/1"), 0.0)
    machine.handle(sighted("", "/2", is_configured=True), 0.0)
    machine.handle(Dialled("/2", "", "connection refused"), 1.0)
    assert [(peer.peer, peer.configured, peer.why) for peer in machine.missing()] == [("", "/2", "connection refused")]
    machine.handle(Connected("b", "/2"), 2.0)
    machine.handle(Dialled("/2", "b"), 2.0)
    assert machine.missing() == []
