"""The picture of the peers: which peer is behind an address, how many addresses are kept, and lies about both."""

from protocols.policy.peer_addresses import ADDRESSES_MAX
from protocols.policy.peer_events import (
    ITSELF,
    Banned,
    Connected,
    Dial,
    Dialled,
    Disconnected,
    Forget,
    NoRoom,
)
from protocols.policy.peers import DIALS_MAX, SELF_SECONDS, Peers
from tests.unit.protocols.policy.sightings import hearsay, peers, sighted
from tests.unit.ticks import run_until

HORIZON = 24 * 3600.0


# -- who is behind an address -----------------------------------------------------------------------------------


def test_the_peer_behind_a_bare_address_is_the_target_from_then_on() -> None:
    machine = peers()
    assert machine.handle(sighted("", "/ip", is_configured=True), 0.0) == (Dial("/ip", ("/ip",)),)
    machine.handle(Connected("a"), 1.0)
    assert machine.handle(Dialled("/ip", "a"), 1.0) == ()
    assert run_until(machine, HORIZON * 2) == [], "it is connected, and the bare address is no target any more"
    assert machine.handle(Disconnected("a"), HORIZON * 2) == (Dial("a", ("/ip",)),)
    machine.handle(Dialled("a", ""), HORIZON * 2)
    assert Forget("a") not in [effect for _, effect in run_until(machine, HORIZON * 4)], "configured: for ever"


def test_another_peer_behind_a_configured_address_takes_it_over() -> None:
    machine = peers()
    machine.handle(sighted("", "/ip", is_configured=True), 0.0)
    machine.handle(Dialled("/ip", "a"), 0.0)
    run_until(machine, 1.0)
    machine.handle(Connected("b"), 1.0)
    assert machine.handle(Dialled("a", "b"), 1.0) == ()
    assert run_until(machine, 1000.0) == []
    assert machine.handle(Disconnected("b"), 1000.0) == (Dial("b", ("/ip",)),)


def test_a_peer_that_lost_its_address_to_another_peer_is_still_forgotten_in_time() -> None:
    """A reinstalled machine has a new identity; the hints for the old one must go to other holders."""
    machine = peers(forget_seconds=100.0)
    machine.handle(sighted("", "/ip", is_configured=True), 0.0)
    machine.handle(Connected("a"), 1.0)
    machine.handle(Dialled("/ip", "a"), 1.0)
    assert machine.handle(Disconnected("a"), 50.0) == (Dial("a", ("/ip",)),)
    machine.handle(Connected("b"), 51.0)
    assert not machine.handle(Dialled("a", "b"), 51.0)
    assert run_until(machine, 1000.0) == [(150.0, Forget("a"))]


def test_a_dial_that_led_to_another_peer_does_not_forget_that_the_first_is_connected() -> None:
    machine = peers()
    machine.handle(sighted("a", "/ip", is_configured=True), 0.0)
    machine.handle(Connected("a"), 1.0)
    machine.handle(Connected("b"), 1.0)
    assert not machine.handle(Dialled("a", "b"), 1.0)
    assert not machine.handle(sighted("a", "/ip6"), 2.0)
    assert run_until(machine, 100.0) == []


def test_a_configured_address_that_names_its_peer_stays_with_it() -> None:
    machine = peers()
    machine.handle(sighted("a", "/ip/p2p/a", "/ip", is_configured=True), 0.0)
    machine.handle(Connected("b"), 1.0)
    machine.handle(Dialled("a", "b"), 1.0)
    assert run_until(machine, 2.0) == [(1.125, Dial("a", ("/ip/p2p/a",)))]
    assert machine.handle(Disconnected("b"), 60.0) == (Dial("b", ("/ip",)),)


def test_this_node_itself_is_never_dialled_not_even_behind_a_bare_address() -> None:
    machine = peers()
    assert machine.handle(sighted("own", "/own"), 0.0) == ()
    machine.handle(sighted("", "/loop", is_configured=True), 0.0)
    assert machine.handle(Dialled("/loop", "own"), 1.0) == ()
    assert run_until(machine, HORIZON) == []


def test_a_banned_peer_is_never_dialled_again() -> None:
    machine = peers()
    machine.handle(sighted("a", "/a", is_configured=True), 0.0)
    machine.handle(Connected("a"), 0.1)
    machine.handle(Dialled("a", "a"), 0.1)
    assert machine.handle(Banned("a"), 0.2) == ()
    assert machine.handle(Disconnected("a"), 0.3) == ()
    assert machine.handle(sighted("a", "/b", is_configured=True), 0.4) == ()
    machine.handle(sighted("", "/other", is_configured=True), 1.0)
    assert machine.handle(Dialled("/other", "a"), 1.0) == (), "nor through another address"
    machine.handle(Connected("a"), 2.0)
    machine.handle(Disconnected("a"), 60.0)
    assert not [effect for _, effect in run_until(machine, HORIZON * 2) if isinstance(effect, Dial)]


def test_the_list_of_banned_peers_is_bounded_and_never_drops_this_node_itself() -> None:
    machine = Peers("own", chance=lambda: 0.0, targets_max=3)
    for number in range(10):
        machine.handle(Banned(f"p{number}"), 0.0)
    assert machine.handle(sighted("p9", "/9"), 0.0) == ()
    assert machine.handle(sighted("own", "/own"), 0.0) == ()
    assert machine.handle(sighted("p0", "/0"), 0.0) == (Dial("p0", ("/0",)),), "the oldest ones are let go"


# -- addresses and room -----------------------------------------------------------------------------------------


def test_the_oldest_reported_address_is_dropped_first_and_configured_ones_stay() -> None:
    machine = peers()
    machine.handle(Connected("a"), 0.0)
    machine.handle(sighted("a", "/set", is_configured=True), 0.0)
    for number in range(3 * ADDRESSES_MAX):
        machine.handle(sighted("a", f"/{number}"), 0.0)
    (dial,) = machine.handle(Disconnected("a"), 10.0)
    assert isinstance(dial, Dial)
    assert dial.addresses == ("/set", *(f"/{number}" for number in range(2 * ADDRESSES_MAX, 3 * ADDRESSES_MAX)))


def test_a_peer_with_very_many_addresses_does_not_undo_its_own_backoff() -> None:
    machine = peers()
    many = [f"/{number}" for number in range(2 * ADDRESSES_MAX)]
    machine.handle(sighted("a", *many), 0.0)
    machine.handle(Dialled("a", ""), 0.0)
    assert machine.handle(sighted("a", *many), 0.01) == ()


def test_an_address_that_was_reported_first_counts_as_configured_once_it_is() -> None:
    machine = peers()
    machine.handle(Connected("a"), 0.0)
    machine.handle(sighted("a", "/a"), 0.0)
    machine.handle(sighted("a", "/a", is_configured=True), 0.0)
    for number in range(2 * ADDRESSES_MAX):
        machine.handle(sighted("a", f"/{number}"), 0.0)
    (dial,) = machine.handle(Disconnected("a"), 10.0)
    assert isinstance(dial, Dial)
    assert dial.addresses[0] == "/a"
    assert len(dial.addresses) == ADDRESSES_MAX + 1


def test_reports_of_peers_cannot_fill_the_memory_nor_keep_the_configuration_out() -> None:
    machine = Peers("own", chance=lambda: 0.0, targets_max=3)
    dialled = [machine.handle(sighted(f"p{number}", "/x"), 0.0) for number in range(5)]
    assert [isinstance(effects[0], Dial) for effects in dialled] == [True, True, True, False, False]
    assert isinstance(dialled[3][0], NoRoom)
    assert machine.handle(sighted("seed", "/seed", is_configured=True), 0.0) == (Dial("seed", ("/seed",)),)
    assert machine.handle(sighted("p0", "/y"), 0.0) == (Dial("p0", ("/y",)),)
    machine.handle(Dialled("p0", ""), 0.0)
    machine.handle(Dialled("p0", ""), 0.0)
    assert run_until(machine, 0.125) == [(0.125, Dial("p0", ("/x", "/y")))], "who is known already may still have news"


def test_hearsay_is_dialled_more_and_more_rarely_whatever_else_is_reported_of_it() -> None:
    """A report of a thousand peers that do not exist would keep this node dialling for a day."""
    machine = peers()
    assert machine.handle(hearsay("a", "/a"), 0.0) == (Dial("a", ("/a",), is_hearsay=True),)
    now, dials = 0.0, 0
    while now < 3600.0:
        assert machine.handle(Dialled("a", ""), now) == ()
        assert machine.handle(hearsay("a", f"/{now}"), now) == ()
        ((now, effect),) = run_until(machine, now + 151.0)
        assert isinstance(effect, Dial)
        assert effect.is_hearsay
        dials += 1
    assert dials < 40


def test_hearsay_that_is_sighted_or_connects_is_hearsay_no_longer() -> None:
    for proof in (sighted("a", "/a"), Connected("a")):
        machine, now = peers(), 0.0
        machine.handle(hearsay("a", "/a"), now)
        for _ in range(12):
            machine.handle(Dialled("a", ""), now)
            ((now, _),) = run_until(machine, now + 151.0)
        machine.handle(Dialled("a", ""), now)
        effects = machine.handle(proof, now)
        if isinstance(proof, Connected):
            effects = machine.handle(Disconnected("a"), now + 10.0)
        assert effects == (Dial("a", ("/a",)),)


# -- lies, and rooms for them --------------------------------------------------------------------------------------


def test_a_reporter_has_a_share_of_the_room_until_its_peers_are_met() -> None:
    machine = peers(share_max=2)
    for number in range(2):
        machine.handle(hearsay(f"p{number}", f"/{number}"), 0.0)
    assert machine.handle(hearsay("p2", "/2"), 0.0) == (
        NoRoom("liar", "2 peers that it named were never met, which is the most"),
    )
    assert machine.handle(hearsay("p3", "/3", reporter="other"), 0.0) == (Dial("p3", ("/3",), is_hearsay=True),)
    assert machine.handle(sighted("p4", "/4"), 0.0) == (Dial("p4", ("/4",)),), "a source has a share of its own"
    machine.handle(Connected("p0"), 1.0)
    assert isinstance(machine.handle(hearsay("p2", "/2"), 2.0)[0], Dial), "who proved to be right may go on"


def test_a_forgotten_or_banned_peer_does_not_count_for_the_share_any_more() -> None:
    machine = peers(share_max=1, forget_seconds=10.0)
    machine.handle(hearsay("p0", "/0"), 0.0)
    machine.handle(Dialled("p0", ""), 9.9)
    assert run_until(machine, 10.5) == [(10.0, Forget("p0"))]
    assert isinstance(machine.handle(hearsay("p1", "/1"), 11.0)[0], Dial)
    machine.handle(Banned("p1", "of another swarm"), 11.0)
    assert isinstance(machine.handle(hearsay("p2", "/2"), 11.0)[0], Dial)


def test_a_peer_that_another_one_answers_for_is_not_dialled_at_that_address_again() -> None:
    machine = peers()
    machine.handle(sighted("a", "/x", "/y"), 0.0)
    machine.handle(Dialled("a", "", "another peer answers there", (("/x", "b"),)), 1.0)
    assert run_until(machine, 2.0) == [(1.125, Dial("a", ("/y",)))]
    assert machine.handle(hearsay("a", "/x"), 3.0) == ()
    machine.handle(Dialled("a", ""), 3.0)
    assert {effect.addresses for _, effect in run_until(machine, 4.0) if isinstance(effect, Dial)} == {("/y",)}


def test_a_known_peer_is_found_where_it_answered_for_another_one() -> None:
    """Two peers that changed their addresses with each other are both found."""
    machine = peers()
    for peer, address in (("a", "/x"), ("b", "/y")):
        machine.handle(sighted(peer, address), 0.0)
    machine.handle(Dialled("b", "", "no answer"), 1.0)
    found = machine.handle(Dialled("a", "", "another peer answers there", (("/x", "b"),)), 1.0)
    assert found == (Dial("b", ("/x", "/y")),)


def test_a_peer_with_ever_new_addresses_is_dialled_a_few_times_at_once() -> None:
    machine = peers()
    effects = [machine.handle(sighted("a", f"/{number}"), 0.0) for number in range(20)]
    assert sum(len(each) for each in effects) == DIALS_MAX
    for _ in range(DIALS_MAX):
        machine.handle(Dialled("a", ""), 1.0)
    assert len(run_until(machine, 1.125)) == 1


def test_a_configured_address_that_is_this_node_itself_is_dialled_rarely() -> None:
    machine = peers()
    machine.handle(sighted("", "/self", is_configured=True), 0.0)
    machine.handle(Dialled("/self", "", ITSELF, (("/self", "own"),)), 0.0)
    assert [at for at, _ in run_until(machine, SELF_SECONDS)] == [SELF_SECONDS], "its name may lead elsewhere later"
    assert machine.picture()[0].why == ITSELF
