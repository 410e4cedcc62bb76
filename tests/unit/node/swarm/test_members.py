"""Membership as a node sees it: which members should hold a key, how old its own copy may be, and changes."""

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from node.store.members import Member
from node.swarm.members import GONE_SECONDS, STRANGERS_MAX, Members
from protocols.keys import PrivateKey
from protocols.messages import VIEW_BYTES
from protocols.placement import nearest, place_of_peer
from protocols.ucxl import key_of

Clock = trio.testing.MockClock
OWN, *PEERS = (PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in range(1, 13))
KEYS = [key_of(f"ucxl://a:b@c:d/*^/{number}") for number in range(40)]


def member(peer: str, *, name: str = "", seen_ms: int = 0) -> Member:
    return Member(peer=peer, name=name, addresses=(), first_seen_ms=0, last_seen_ms=seen_ms)


def members(count: int, *, replication: int = 3) -> Members:
    return Members(OWN, replication=replication, members=map(member, PEERS[:count]))


def catch_up(here: Members, *peers: str, at: float) -> None:
    for peer in peers:
        presence = here.get(peer)
        assert presence is not None
        here.caught_up(presence, at)


def test_remembered_members_are_members_and_not_yet_connected() -> None:
    here = members(3)
    assert len(here) == 3
    assert [presence.member.peer for presence in here.all()] == PEERS[:3]
    assert here.answering() == ()
    assert here.get(OWN) is None


def connect(here: Members, *peers: str) -> None:
    for peer in peers:
        here.put(member(peer)).is_connected = True
    here.notify_changed()


def test_two_nodes_that_are_connected_with_each_other_and_the_same_others_have_the_same_view() -> None:
    one, two = Members(PEERS[0], replication=3), Members(PEERS[1], replication=3)
    assert one.view() != two.view()
    connect(one, *PEERS[1:6])
    connect(two, *reversed(PEERS[2:6]), PEERS[0])
    two.put(member(PEERS[9]))
    assert one.view() == two.view() and len(one.view()) == VIEW_BYTES
    connect(two, PEERS[9])
    assert one.view() != two.view()


def test_an_updated_member_keeps_its_presence() -> None:
    here = members(1)
    presence = here.put(member(PEERS[0], name="n2"))
    presence.is_connected = True
    here.caught_up(presence, 5.0)
    again = here.put(member(PEERS[0], name="renamed", seen_ms=9))
    assert again is presence
    assert (again.member.name, again.is_connected, again.caught_up_at) == ("renamed", True, 5.0)


def test_a_forgotten_member_that_comes_again_starts_anew() -> None:
    here = members(2)
    catch_up(here, PEERS[0], at=1.0)
    here.forget(PEERS[0])
    here.forget(PEERS[0])
    assert len(here) == 1
    assert PEERS[0] not in here.wanted(KEYS[0])
    assert here.put(member(PEERS[0])).caught_up_at is None


@pytest.mark.parametrize(
    ("is_connected", "is_suspect", "is_reachable"),
    [(False, False, False), (True, False, True), (True, True, False), (False, True, False)],
)
def test_a_member_is_reachable_when_it_is_connected_and_not_suspect(
    is_connected: bool, is_suspect: bool, is_reachable: bool
) -> None:
    here = members(2)
    presence = here.get(PEERS[1])
    assert presence is not None
    presence.is_connected, presence.is_suspect = is_connected, is_suspect
    assert here.is_reachable(PEERS[1]) is is_reachable
    assert here.answering() == ((PEERS[1],) if is_reachable else ())
    assert not here.is_reachable("nobody")


@pytest.mark.parametrize("count", [0, 1, 2, 3, 11])
def test_the_nearest_members_should_hold_a_key_connected_or_not(count: int) -> None:
    here = members(count)
    for key in KEYS:
        assert here.wanted(key) == nearest(key, PEERS[:count], 3)
        assert OWN not in here.wanted(key)


def test_a_node_is_responsible_while_there_are_few_and_then_for_its_share() -> None:
    for count in (0, 1, 2, 3):
        assert all(members(count).is_responsible(key) for key in KEYS), "a writer hands every key to all others"
    many = members(11)
    responsible = [many.is_responsible(key) for key in KEYS]
    assert any(responsible)
    assert not all(responsible)
    for key, is_responsible in zip(KEYS, responsible, strict=True):
        assert is_responsible == (OWN in nearest(key, (OWN, *PEERS[:11]), 3))


def test_every_key_has_as_many_responsible_nodes_as_it_should() -> None:
    nodes = [OWN, *PEERS]
    views = [Members(own, replication=3, members=[member(p) for p in nodes if p != own]) for own in nodes]
    for key in KEYS:
        assert sum(view.is_responsible(key) for view in views) == 3


async def test_a_copy_is_as_old_as_the_oldest_report_of_its_other_holders(autojump_clock: Clock) -> None:
    here = members(3)
    await trio.sleep(100)
    assert here.age_seconds() is None, "no member has reported yet"
    catch_up(here, PEERS[0], PEERS[1], at=99.0)
    assert here.age_seconds() is None, "one has not"
    catch_up(here, PEERS[2], at=95.0)
    assert here.age_seconds() == 5.0
    await trio.sleep(1)
    assert here.age_seconds() == 6.0, "also while no report comes"
    catch_up(here, *PEERS[:3], at=101.0)
    assert here.age_seconds() == 0.0
    assert Members(OWN, replication=3).age_seconds() is None, "there is no other holder"


async def test_a_member_that_holds_no_copy_of_a_key_may_have_written_it(autojump_clock: Clock) -> None:
    here = members(11)
    catch_up(here, *here.wanted(KEYS[0]), at=0.0)
    assert here.age_seconds() is None, "the others may owe this node a version"
    catch_up(here, *PEERS[:11], at=0.0)
    assert here.age_seconds() == 0.0


def test_after_a_loss_a_key_is_fresh_only_once_it_was_asked_for() -> None:
    here = members(2)
    catch_up(here, *PEERS[:2], at=7.0)
    here.reconciliation.begin("entries are lost")
    assert {here.fresh_since(key) for key in KEYS} == {None}
    assert here.reconciliation.must_ask(KEYS[0])
    here.reconciliation.asked(KEYS[1])
    assert [key for key in KEYS if here.fresh_since(key) == 7.0] == [KEYS[1]]
    here.reconciliation.begin("more is lost")
    assert {here.fresh_since(key) for key in KEYS} == {None}
    for key in KEYS:
        here.reconciliation.asked(key)
    assert {here.fresh_since(key) for key in KEYS} == {7.0}


def test_a_node_that_should_not_hold_a_key_is_never_fresh_enough_to_answer_for_it() -> None:
    here = members(11)
    catch_up(here, *PEERS[:11], at=7.0)
    assert {here.fresh_since(key) for key in KEYS if here.is_responsible(key)} == {7.0}
    assert {here.fresh_since(key) for key in KEYS if not here.is_responsible(key)} == {None}


ACTION = st.sampled_from(["put", "forget", "catch up", "ask"])
STEPS = st.lists(st.tuples(ACTION, st.sampled_from(PEERS[:6]), st.sampled_from(KEYS[:4])), max_size=30)


@given(STEPS)
def test_a_cached_result_equals_a_computed_one(steps: list[tuple[str, str, bytes]]) -> None:
    here, caught_up_at = Members(OWN, replication=3), dict[str, float | None]()
    for now, (action, peer, key) in enumerate(steps, start=1):
        match action:
            case "put":
                here.put(member(peer))
                caught_up_at.setdefault(peer, None)
            case "forget":
                here.forget(peer)
                caught_up_at.pop(peer, None)
            case "catch up" if peer in caught_up_at:
                catch_up(here, peer, at=float(now))
                caught_up_at[peer] = float(now)
            case _:
                wanted = nearest(key, caught_up_at, 3)
                known = list(caught_up_at.values())
                since = None if not known or None in known else min(at for at in known if at is not None)
                is_responsible = len(caught_up_at) <= 3 or OWN in nearest(key, (OWN, *caught_up_at), 3)
                assert here.wanted(key) == wanted
                assert here.fresh_since(key) == (since if is_responsible else None)
                assert here.caught_up_since() == since


async def test_every_waiter_wakes_at_a_change_and_at_the_next_one(autojump_clock: Clock) -> None:
    here, woken = members(1), list[str]()

    async def listen(name: str) -> None:
        while True:
            await here.changed()
            woken.append(name)

    async with trio.open_nursery() as nursery:
        for name in ("hinted handoff", "dashboard"):
            nursery.start_soon(listen, name)
        await trio.testing.wait_all_tasks_blocked()
        for change in (lambda: here.put(member(PEERS[1])), lambda: here.forget(PEERS[1]), here.notify_changed):
            change()
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(woken) == ["dashboard", "hinted handoff"]
            woken.clear()
        nursery.cancel_scope.cancel()


async def test_a_node_is_gone_a_minute_after_its_last_sign_of_life_whether_it_is_a_member_or_not(
    autojump_clock: Clock,
) -> None:
    here = members(1)
    known, stranger = PEERS[0], PEERS[5]
    assert here.is_gone(known) and here.is_gone(stranger), "nothing was heard of them yet"
    for peer in (known, stranger):
        here.note_alive(peer)
    await trio.sleep(GONE_SECONDS)
    assert not here.is_gone(known) and not here.is_gone(stranger)
    await trio.sleep(0.1)
    assert here.is_gone(known) and here.is_gone(stranger)
    (presence,) = here.all()
    presence.is_connected = True
    assert not here.is_gone(known)


async def test_of_very_many_strangers_the_latest_are_remembered(autojump_clock: Clock) -> None:
    here = members(0)
    for number in range(STRANGERS_MAX + 1):
        here.note_alive(f"peer {number}")
    assert here.is_gone("peer 0")
    assert not here.is_gone("peer 1")


NEAR = sorted(PEERS, key=lambda peer: place_of_peer(peer) ^ place_of_peer(OWN))


def large(*idle: str) -> Members:
    """A swarm of twelve in which no connection is kept with these members."""
    here = Members(OWN, replication=2, connections_kept=len(NEAR) - len(idle), members=map(member, NEAR))
    for presence in here.all():
        presence.is_idle = presence.member.peer in idle
        presence.is_kept = presence.is_connected = not presence.is_idle
    here.notify_changed()
    return here


async def test_in_a_large_swarm_members_that_are_neither_connected_nor_holders_do_not_count(
    autojump_clock: Clock,
) -> None:
    idle, *others = NEAR[2], *NEAR[:2], *NEAR[3:]
    here = large(idle)
    catch_up(here, *others[1:], at=5.0)
    assert here.caught_up_since() is None, "one has not said yet what it owes"
    catch_up(here, others[0], at=5.0)
    assert here.caught_up_since() == 5.0
    held = [key for key in KEYS if here.is_responsible(key)]
    assert {here.fresh_since(key) for key in KEYS if key not in held} == {None}
    with_idle = [key for key in held if idle in here.wanted(key)]
    assert 0 < len(with_idle) < len(held)
    assert {here.fresh_since(key) for key in held if key not in with_idle} == {5.0}
    assert {here.fresh_since(key) for key in with_idle} == {None}, "a holder that is not connected may have a later one"
    catch_up(here, idle, at=3.0)
    assert {here.fresh_since(key) for key in with_idle} == {3.0}
    await trio.sleep(7.0)
    assert {here.age_seconds(key) for key in with_idle} == {4.0}
    presence = here.get(others[-1])
    assert presence is not None
    presence.is_connected = False
    here.caught_up(presence, 1.0)
    assert here.caught_up_since() == 5.0, "one that is away is replaced by the plan"


def test_an_idle_member_is_reachable_after_the_connected_ones() -> None:
    here = large(*NEAR[6:])
    assert here.is_large
    assert here.reachable_of([NEAR[8], NEAR[2], NEAR[7], NEAR[0]]) == [NEAR[2], NEAR[0], NEAR[8], NEAR[7]]
    assert here.answering() == tuple(NEAR[:6])
    here.all()[8].is_idle = False
    assert not here.is_reachable(NEAR[8])


def test_nodes_of_a_large_swarm_that_know_the_same_members_have_the_same_view() -> None:
    one = large(*NEAR[6:])
    two = large(*NEAR[6:])
    for presence in two.all():
        presence.is_connected, presence.is_idle = presence.is_idle, presence.is_connected
    two.notify_changed()
    assert one.view() == two.view()


def test_others_are_wanted_in_the_place_of_a_member_that_is_replaced() -> None:
    here = members(6)
    for key in KEYS:
        first, *_ = before = here.wanted(key)
        here.replace([first])
        assert here.wanted(key) == nearest(key, [peer for peer in PEERS[:6] if peer != first], 3)
        here.replace([])
        assert here.wanted(key) == before


def test_those_that_hold_in_the_place_of_others_do_not_decide_that_a_key_is_absent() -> None:
    here = members(6)
    for key in KEYS:
        first, *others = before = here.wanted(key)
        assert here.deciding(key) == before
        here.replace([first])
        assert here.deciding(key) == tuple(others)
        here.replace(before)
        assert here.wanted(key)
        assert here.deciding(key) == ()
        here.replace([])
    few = members(3)  # each of them should hold everything
    few.replace([PEERS[0]])
    assert few.deciding(KEYS[0]) == few.wanted(KEYS[0])


async def test_replacing_members_wakes_those_that_wait_for_changes_once() -> None:
    here = members(3)
    woken = 0

    async def wait() -> None:
        nonlocal woken
        while True:
            await here.changed()
            woken += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        for gone in ([PEERS[0]], [PEERS[0]], []):
            here.replace(gone)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert woken == 2


def test_a_node_that_holds_in_the_place_of_another_one_is_not_responsible_for_the_key() -> None:
    """It may not have been given the key yet, and must not answer alone."""
    here = members(6)
    key = next(key for key in KEYS if nearest(key, (OWN, *PEERS[:6]), 4)[-1] == OWN)
    here.replace([nearest(key, PEERS[:6], 1)[0]])
    assert not here.is_responsible(key)
    assert here.fresh_since(key) is None
