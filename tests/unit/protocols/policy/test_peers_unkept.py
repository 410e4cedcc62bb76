"""The picture of the peers in a large swarm: members that no connection is kept with."""

import pytest

from protocols.policy.peer_events import (
    Connected,
    Dial,
    Dialled,
    Disconnected,
    Forget,
    NetworkChanged,
    Planned,
    Wanted,
)
from protocols.policy.peers import RETURN_SECONDS, UNKEPT_CAP_SECONDS, VISIT_SECONDS, Peers
from protocols.policy.sighting import Sighting, Source
from tests.unit.protocols.policy.sightings import hearsay, peers, sighted
from tests.unit.ticks import due, run_until


def with_idle(*names: str, **options: float) -> Peers:
    """Members that were connected until second 10, and that no connection is kept with."""
    machine = peers(**options)
    machine.handle(Planned(frozenset(names)), 0.0)
    for name in names:
        machine.handle(sighted(name, f"/{name}"), 0.0)
        machine.handle(Connected(name, f"/{name}"), 0.0)
        machine.handle(Dialled(name, name), 0.0)
        machine.handle(Disconnected(name, "it was not used"), 10.0)
        assert machine.is_idle(name)
    return machine


def announced(peer: str) -> Sighting:
    return Sighting(peer=peer, addresses=(f"/{peer}",), source=Source.ANNOUNCE)


def test_an_idle_member_is_dialled_when_it_is_wanted_once_for_all_who_want_it() -> None:
    machine = with_idle("a")
    assert run_until(machine, 600.0) == [], "not by itself"
    assert machine.handle(Wanted("a"), 600.0) == (Dial("a", ("/a",)),)
    assert machine.is_under_way("a")
    assert machine.handle(Wanted("a"), 600.1) == ()
    machine.handle(Connected("a", "/a"), 600.2)
    machine.handle(Dialled("a", "a"), 600.2)
    assert not machine.is_idle("a") and machine.is_under_way("a")


def test_a_member_that_cannot_be_dialled_is_away_and_wanted_in_vain_until_it_is_reached() -> None:
    machine = with_idle("a")
    machine.handle(Wanted("a"), 100.0)
    machine.handle(Dialled("a", "", "refused"), 100.0)
    assert machine.is_away("a") and not machine.is_idle("a")
    assert machine.handle(Wanted("a"), 100.0) == (), "each read would wait for a dead holder"
    now, waits = 100.0, []
    for _ in range(16):
        ((at, effect),) = run_until(machine, now + 2.0 * UNKEPT_CAP_SECONDS)
        assert effect == Dial("a", ("/a",))
        waits.append(at - now)
        now = at
        machine.handle(Dialled("a", "", "refused"), now)
    assert max(waits) <= UNKEPT_CAP_SECONDS
    machine.handle(Connected("a", "/a"), now)
    machine.handle(Disconnected("a", "it was not used"), now + 30.0)
    assert machine.is_idle("a")


def vouched(peer: str) -> Sighting:
    return Sighting(peer=peer, addresses=(f"/{peer}",), source=Source.EXCHANGE, reporter="c", is_vouched=True)


@pytest.mark.parametrize("news", [announced("a"), vouched("a"), sighted("a", "/new")])
def test_a_member_that_was_away_for_long_is_dialled_soon_when_it_seems_to_be_back(news: Sighting) -> None:
    machine, now = with_idle("a"), 100.0
    machine.handle(Connected("other", "/other"), 0.0)
    machine.handle(Wanted("a"), now)
    for _ in range(16):
        machine.handle(Dialled("a", "", "refused"), now)
        ((now, _),) = run_until(machine, now + 2.0 * UNKEPT_CAP_SECONDS)
    machine.handle(Dialled("a", "", "refused"), now)
    assert due(machine) > now + 2.0 * RETURN_SECONDS
    effects = [*machine.handle(news, now), *(effect for _, effect in run_until(machine, now + RETURN_SECONDS))]
    assert [effect.target for effect in effects if isinstance(effect, Dial)] == ["a"]


def test_sightings_of_an_idle_member_cause_no_dial_and_a_new_address_is_used_when_it_is_wanted() -> None:
    machine = with_idle("a")
    for sighting in (announced("a"), hearsay("a", "/new")):
        assert machine.handle(sighting, 20.0) == ()
    assert run_until(machine, 600.0) == []
    assert machine.handle(Wanted("a"), 600.0) == (Dial("a", ("/a", "/new")),)


def test_an_idle_member_is_visited_now_and_then_so_that_it_is_not_forgotten() -> None:
    machine = with_idle("a")
    ((at, effect),) = run_until(machine, 2.0 * VISIT_SECONDS)
    assert effect == Dial("a", ("/a",))
    assert 0.7 * VISIT_SECONDS < at < 1.3 * VISIT_SECONDS
    soon = with_idle("a", forget_seconds=60.0)
    effects = [effect for _, effect in run_until(soon, 100.0)]
    assert effects and Forget("a") not in effects


def test_a_member_that_is_kept_from_now_on_is_dialled_and_one_that_is_not_stays_connected() -> None:
    machine = with_idle("a", "b")
    machine.handle(Connected("c", "/c"), 20.0)
    assert machine.handle(Planned(frozenset({"b", "c"})), 30.0) == (Dial("a", ("/a",)),)
    assert machine.is_under_way("c")
    machine.handle(Disconnected("c", "it was not used"), 90.0)
    assert run_until(machine, 600.0) == []


def test_members_of_an_earlier_run_that_are_not_kept_are_idle_at_once() -> None:
    machine = Peers("own", chance=lambda: 0.5)
    machine.handle(Planned(frozenset({"b"})), 0.0)
    dials = [
        effect
        for name in "ab"
        for effect in machine.handle(Sighting(peer=name, addresses=(f"/{name}",), source=Source.STORE), 0.0)
    ]
    assert dials == [Dial("a", ("/a",))]
    assert machine.is_idle("b")


def test_after_a_change_of_the_network_an_idle_member_is_idle_still_and_an_away_one_is_tried() -> None:
    machine = with_idle("a", "b")
    machine.handle(Wanted("b"), 100.0)
    machine.handle(Dialled("b", "", "no route"), 100.0)
    machine.handle(NetworkChanged(), 101.0)
    assert [effect for _, effect in run_until(machine, 102.0)] in ([], [Dial("b", ("/b",))])
    assert machine.is_idle("a") and (machine.is_idle("b") or machine.is_under_way("b"))


def test_nodes_that_no_connection_is_kept_with_are_not_missing() -> None:
    machine = with_idle("a", "b")
    machine.handle(Sighting(peer="a", addresses=("/a",), source=Source.EXCHANGE, reporter="c", is_vouched=True), 20.0)
    machine.handle(sighted("b", "/b", is_configured=True), 20.0)
    assert machine.missing() == []
    machine.handle(Wanted("b"), 100.0)
    machine.handle(Dialled("b", "", "refused"), 100.0)
    assert [(each.peer, each.why) for each in machine.missing()] == [("b", "refused")], "an operator named it"
