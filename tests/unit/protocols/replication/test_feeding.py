"""Feeding: whatever node has a version, all its holders get it, once."""

from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.placement import nearest
from protocols.policy.machine import Tick
from protocols.replication.duty import Duty
from protocols.replication.feeding import AGAIN_SECONDS, SETTLE_SECONDS, Feeding
from protocols.replication.feeding_events import (
    AskMissing,
    Entry,
    Grown,
    LiveChanged,
    LiveMember,
    MissingAnswered,
    PageRead,
    Reached,
    ReadPage,
)
from tests.unit.protocols.replication.feeders import PEERS, Feeders, digest_of, key_of


def holders(version: int, peers: list[str], replication: int) -> tuple[str, ...]:
    return nearest(key_of(version), peers, replication)


def lacking(swarm: Feeders, versions: range, replication: int) -> list[tuple[int, str]]:
    return [
        (version, peer)
        for version in versions
        for peer in holders(version, swarm.alive, replication)
        if version not in swarm.nodes[peer].has
    ]


def filled(count: int, versions: range, *, replication: int) -> Feeders:
    """A swarm in which every holder has its versions, and every node has found that out."""
    swarm = Feeders(count, replication=replication)
    for version in versions:
        for peer in holders(version, swarm.alive, replication):
            swarm.nodes[peer].log.append(version)
    swarm.live(swarm.alive)
    swarm.run(60.0)
    swarm.asked.clear()
    assert not swarm.sent
    return swarm


def test_the_first_holder_feeds_the_others_and_any_other_node_feeds_the_first_one() -> None:
    key, peers = key_of(1), PEERS[:6]
    order = nearest(key, peers, 6)
    targets = [Duty(own=own, live=peers, replication=3).targets(key) for own in order]
    assert targets == [order[1:3], *[order[:1]] * 5]
    assert Duty(own=PEERS[0], live=PEERS[:1], replication=3).targets(key) == ()


def test_a_holder_that_is_gone_is_replaced_by_the_next_nearest() -> None:
    versions = range(40)
    swarm = filled(8, versions, replication=3)
    dead = swarm.alive[2]
    swarm.kill(dead)
    swarm.live(swarm.alive)
    swarm.run(120.0)
    assert not lacking(swarm, versions, 3)
    moved = sum(dead in holders(version, [*swarm.alive, dead], 3) for version in versions)
    assert sum(len(sent) for *_, sent in swarm.sent) == moved, "each replacement was sent once"


def test_only_what_is_new_in_the_duty_is_asked_for() -> None:
    versions = range(40)
    swarm = filled(8, versions, replication=3)
    dead = swarm.alive[2]
    swarm.kill(dead)
    swarm.live(swarm.alive)
    swarm.run(120.0)
    moved = sum(dead in holders(version, [*swarm.alive, dead], 3) for version in versions)
    assert 0 < sum(count for *_, count in swarm.asked) <= 5 * moved


def test_a_newcomer_gets_what_it_should_hold_once_although_all_holders_offer_it() -> None:
    versions = range(60)
    swarm = filled(6, versions, replication=3)
    newcomer = PEERS[9]
    swarm.nodes[newcomer] = Feeders(10, replication=3).nodes[newcomer]
    swarm.alive.append(newcomer)
    swarm.live(swarm.alive)
    swarm.run(300.0)
    assert not lacking(swarm, versions, 3)
    received = [version for _, to, sent in swarm.sent if to == newcomer for version in sent]
    assert len(received) == len(set(received))


def test_versions_that_one_node_alone_has_reach_all_holders() -> None:
    """The writer died before it had delivered its hints."""
    versions = range(20)
    swarm = Feeders(7, replication=3)
    swarm.live(swarm.alive)
    swarm.put(PEERS[4], versions)
    swarm.run(120.0)
    assert not lacking(swarm, versions, 3)


def test_a_new_entry_is_left_to_the_hints_of_its_author_at_first() -> None:
    swarm = Feeders(4, replication=3)
    swarm.live(swarm.alive)
    swarm.put(PEERS[1], [1])
    swarm.run(SETTLE_SECONDS - 1.0)
    assert not swarm.asked
    for peer in PEERS[:4]:
        swarm.put(peer, [1])
    swarm.run(60.0)
    assert swarm.asked
    assert not swarm.sent


def test_a_member_that_does_not_answer_holds_up_no_other_one() -> None:
    swarm = filled(5, range(0), replication=5)
    silent = swarm.alive[-1]
    versions = [version for version in range(80) if holders(version, swarm.alive, 5)[0] != silent]
    swarm.alive.remove(silent)  # and no node has noticed
    swarm.put(PEERS[0], versions)
    swarm.run(120.0)
    assert all(len(swarm.nodes[peer].has) == len(versions) for peer in swarm.alive)
    swarm.alive.append(silent)
    swarm.run(2 * AGAIN_SECONDS + 1.0)
    assert len(swarm.nodes[silent].has) == len(versions)


def test_a_member_that_has_just_come_does_not_hold_up_new_entries_for_the_others() -> None:
    swarm = filled(4, range(1000), replication=4)
    own, newcomer = PEERS[0], PEERS[9]
    swarm.nodes[newcomer] = Feeders(10, replication=4).nodes[newcomer]
    swarm.alive.append(newcomer)
    feeding = swarm.nodes[own].feeding
    live = tuple(LiveMember(peer, 0) for peer in (*PEERS[1:4], newcomer))
    feeding.handle(Reached(frozenset((*PEERS[1:4], newcomer))), swarm.now)
    (read,) = feeding.handle(LiveChanged(live, 1000, dict.fromkeys(PEERS[1:4], 1000)), swarm.now)
    assert isinstance(read, ReadPage)
    assert read.after == 0
    feeding.handle(Grown(1001), swarm.now)
    feeding.handle(Tick(), swarm.now + SETTLE_SECONDS)
    (next_read,) = feeding.handle(PageRead(read.page, (), 256), swarm.now + SETTLE_SECONDS)
    assert isinstance(next_read, ReadPage)
    assert next_read.after == 1000, "the others go first"


def test_a_first_holder_that_does_not_answer_is_waited_for_until_it_is_gone() -> None:
    swarm = filled(5, range(0), replication=3)
    silent = swarm.alive[-1]
    version = next(version for version in range(80) if holders(version, swarm.alive, 3)[0] == silent)
    swarm.alive.remove(silent)
    swarm.put(PEERS[0], [version])
    swarm.run(120.0)
    assert not swarm.sent
    swarm.live(swarm.alive)
    swarm.run(60.0)
    assert not lacking(swarm, range(version, version + 1), 3)


def test_a_member_that_lost_its_disk_is_asked_for_everything_again() -> None:
    versions = range(30)
    swarm = filled(4, versions, replication=3)
    swarm.nodes[PEERS[2]] = Feeders(4, replication=3).nodes[PEERS[2]]
    swarm.live(swarm.alive, epoch=1)
    swarm.run(120.0)
    assert not lacking(swarm, versions, 3)


def test_saved_positions_save_the_questions_of_a_restart() -> None:
    versions = range(30)
    swarm = filled(4, versions, replication=3)
    own = PEERS[1]
    saved = swarm.nodes[own].saved
    assert set(saved.values()) == {len(swarm.nodes[own].log)}
    restarted = Feeders(4, replication=3).nodes[own]
    restarted.log = swarm.nodes[own].log
    swarm.nodes[own] = restarted
    swarm.see(own, swarm.alive, positions=saved)
    swarm.run(60.0)
    assert not swarm.asked


def test_a_member_is_behind_until_it_was_asked_for_all_that_was_there_when_it_came() -> None:
    swarm = Feeders(3, replication=3)
    feeding = swarm.nodes[PEERS[0]].feeding
    swarm.put(PEERS[0], range(10))
    assert feeding.is_behind(PEERS[1]), "not known yet"
    swarm.alive.remove(PEERS[1])
    swarm.live(PEERS[:3])
    assert feeding.is_behind(PEERS[1])
    assert not feeding.is_behind(PEERS[2])
    swarm.alive.append(PEERS[1])
    swarm.see(PEERS[0], PEERS[:3])
    swarm.run(30.0)
    assert not feeding.is_behind(PEERS[1])
    swarm.put(PEERS[0], range(10, 20))
    assert not feeding.is_behind(PEERS[1]), "new entries are the work of hints at first"


def test_who_may_lack_an_entry_is_known() -> None:
    swarm = Feeders(3, replication=3)
    swarm.alive = [PEERS[0], PEERS[1]]
    first = next(version for version in range(100) if holders(version, list(PEERS[:3]), 3)[0] == PEERS[0])
    swarm.put(PEERS[0], [first])
    swarm.live(PEERS[:3])
    swarm.run(30.0)
    feeding = swarm.nodes[PEERS[0]].feeding
    assert feeding.lacking(1, key_of(first)) == [PEERS[2]]
    assert feeding.lacking(2, key_of(first)) == [], "no such entry was looked at"
    assert feeding.oldest == 0


def test_an_answer_about_an_earlier_page_changes_nothing() -> None:
    feeding = Feeding(PEERS[0], replication=3)
    feeding.handle(Reached(frozenset([PEERS[1]])), 0.0)
    feeding.handle(Grown(1), 0.0)
    live = (LiveMember(PEERS[1], 0),)
    (read,) = feeding.handle(LiveChanged(live, 1, {}), 0.0)
    assert isinstance(read, ReadPage)
    (again,) = feeding.handle(LiveChanged((LiveMember(PEERS[1], 1),), 1, {}), 1.0)
    assert isinstance(again, ReadPage)
    assert feeding.handle(PageRead(read.page, (), 1), 2.0) == []
    assert feeding.positions == {PEERS[1]: 0}
    assert feeding.handle(MissingAnswered(read.page, PEERS[1], (), ()), 2.0) == []
    (ask,) = feeding.handle(PageRead(again.page, (Entry(1, digest_of(1), key_of(1)),), 1), 3.0)
    assert ask == AskMissing(again.page, PEERS[1], (digest_of(1),))
    feeding.handle(MissingAnswered(read.page, PEERS[1], (), ()), 4.0)
    assert feeding.positions == {PEERS[1]: 0}
    feeding.handle(MissingAnswered(again.page, PEERS[1], (), ()), 5.0)
    assert feeding.positions == {PEERS[1]: 1}


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 7)), max_size=60),
    st.lists(st.integers(0, 7), max_size=3, unique=True),
    st.integers(1, 4),
)
def test_wherever_the_copies_are_all_holders_have_them_in_the_end(
    copies: list[tuple[int, int]], dead: list[int], replication: int
) -> None:
    swarm = Feeders(8, replication=replication)
    swarm.live(swarm.alive)
    for version, at in copies:
        swarm.put(PEERS[at], [version])
    swarm.run(5.0)
    for at in dead:
        swarm.kill(PEERS[at])
    swarm.live(swarm.alive)
    swarm.run(400.0)
    held = {version for peer in swarm.alive for version in swarm.nodes[peer].has}
    lost = [(v, p) for v, p in lacking(swarm, range(61), replication) if v in held]
    assert not lost
    repeated = [(to, version) for _, to, sent in swarm.sent for version in sent]
    assert len(repeated) == len(set(repeated)), "no version is sent to one node twice"
