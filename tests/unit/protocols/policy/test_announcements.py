"""The announcements that a node keeps: what is taken, passed on and dropped, and until when each holds."""

from typing import Any

from protocols.announce import Announcement, seal
from protocols.keys import PrivateKey
from protocols.policy.announcements import (
    BURST,
    FAREWELL_SECONDS,
    HOLD_SECONDS_MAX,
    RATE,
    AnnouncementTable,
    Verdict,
)

KEYS = [PrivateKey.from_seed(bytes([number]) * 32) for number in range(1, 8)]
NOW_MS = 1_754_576_000_000


def announced(*, key: int = 0, sequence: int = 1, for_seconds: float = 100.0) -> Announcement:
    expires_ms = NOW_MS + int(for_seconds * 1000)
    return seal(
        KEYS[key], network="bzzz", name="", addresses=[], capabilities=[], sequence=sequence, expires_ms=expires_ms
    )


def farewell(sequence: int) -> Announcement:
    return seal(KEYS[0], network="bzzz", name="", addresses=[], capabilities=[], sequence=sequence, expires_ms=0)


def judge(table: AnnouncementTable, announcement: Announcement, now: float = 0.0, **how: Any) -> Verdict:
    how = {"now_ms": NOW_MS + int(now * 1000), "by_topic": True, **how}
    return table.judge(announcement, now, **how)


def put(table: AnnouncementTable, announcement: Announcement, now: float = 0.0, **how: Any) -> str:
    how = {"now_ms": NOW_MS + int(now * 1000), "by_topic": True, **how}
    return table.put(announcement, now, **how)


def test_an_announcement_holds_until_it_expires() -> None:
    table = AnnouncementTable()
    put(table, announced())
    assert len(table.current(99.0)) == 1
    assert table.current(100.0) == []
    assert table.get(KEYS[0].peer_id, 100.0) is None


def test_no_announcement_holds_longer_than_a_day() -> None:
    table = AnnouncementTable()
    put(table, announced(for_seconds=HOLD_SECONDS_MAX * 9))
    assert table.current(HOLD_SECONDS_MAX - 1.0)
    assert not table.current(HOLD_SECONDS_MAX)


def test_a_later_one_replaces_an_earlier_one_which_is_a_replay_from_then_on() -> None:
    table = AnnouncementTable()
    put(table, announced(sequence=1))
    assert judge(table, announced(sequence=2)) is Verdict.NEW
    put(table, announced(sequence=2))
    assert judge(table, announced(sequence=1)) is Verdict.REPLAYED
    assert [each.sequence for each in table.current(0.0)] == [2]


def test_what_came_in_a_hello_is_passed_on_once_when_it_comes_by_the_topic() -> None:
    table = AnnouncementTable()
    put(table, announced(), by_topic=False)
    assert judge(table, announced(), by_topic=False) is Verdict.REPEATED
    assert judge(table, announced()) is Verdict.PASS_ON
    table.pass_on(announced())
    assert judge(table, announced()) is Verdict.REPEATED


def test_what_came_by_the_topic_is_not_passed_on_again() -> None:
    table = AnnouncementTable()
    put(table, announced())
    assert judge(table, announced()) is Verdict.REPEATED


def test_clocks_that_are_off_are_told_from_each_other() -> None:
    table = AnnouncementTable()
    assert judge(table, announced(for_seconds=0.0)) is Verdict.EXPIRED
    assert judge(table, announced(for_seconds=HOLD_SECONDS_MAX + 61.0)) is Verdict.AHEAD
    assert judge(table, announced(for_seconds=-3600.0), now_ms=NOW_MS - 3_700_000) is Verdict.NEW


def test_an_expired_announcement_is_no_news_when_it_is_replayed() -> None:
    table = AnnouncementTable()
    put(table, announced())
    assert judge(table, announced(), now=101.0) is Verdict.EXPIRED


def test_after_a_farewell_what_was_announced_before_is_a_replay() -> None:
    table = AnnouncementTable()
    put(table, announced(sequence=1, for_seconds=2 * FAREWELL_SECONDS))
    assert judge(table, farewell(2)) is Verdict.NEW
    put(table, farewell(2))
    assert table.current(0.0) == []
    before = announced(sequence=1, for_seconds=2 * FAREWELL_SECONDS)
    assert judge(table, before, now=2 * FAREWELL_SECONDS - 1.0) is Verdict.REPLAYED
    assert judge(table, announced(sequence=3), now=1.0) is Verdict.NEW


def test_a_peer_that_says_it_itself_may_go_back_in_its_sequence() -> None:
    table = AnnouncementTable()
    put(table, announced(sequence=9))
    put(table, announced(sequence=3), by_topic=False)
    assert [each.sequence for each in table.current(0.0)] == [3]
    assert judge(table, announced(sequence=3)) is Verdict.PASS_ON


def held(table: AnnouncementTable, now: float = 0.0) -> list[int]:
    """The numbers of the keys whose announcements are kept."""
    return [next(n for n, key in enumerate(KEYS) if key.peer_id == each.peer) for each in table.current(now)]


def test_of_peers_that_are_no_members_the_oldest_of_the_source_that_brought_most_gives_way() -> None:
    table = AnnouncementTable(strangers_max=4)
    assert put(table, announced(key=0), source="ada") == ""
    for key in (1, 2, 3):
        assert put(table, announced(key=key), source="eve") == ""
    assert put(table, announced(key=4), source="eve") == KEYS[1].peer_id, "eve drives out its own"
    assert put(table, announced(key=5), source="bob") == KEYS[2].peer_id, "and makes room for others"
    assert held(table) == [0, 3, 4, 5]


def test_a_peer_that_is_no_member_keeps_its_place_with_a_new_announcement_and_a_member_takes_none() -> None:
    table = AnnouncementTable(strangers_max=2)
    put(table, announced(key=0), source="eve")
    put(table, announced(key=1), source="eve")
    assert put(table, announced(key=0, sequence=2), source="eve") == "", "and is the newest then"
    assert put(table, announced(key=2)) == ""
    assert put(table, announced(key=3), source="eve") == KEYS[1].peer_id
    assert put(table, announced(key=0, sequence=3)) == "", "it is a member now"
    assert put(table, announced(key=4), source="eve") == ""
    assert sorted(held(table)) == [0, 2, 3, 4]


def test_what_has_expired_gives_way_first() -> None:
    table = AnnouncementTable(strangers_max=2)
    put(table, announced(key=0), source="eve")
    put(table, announced(key=1, for_seconds=50.0), source="ada")
    assert put(table, announced(key=2), now=51.0, source="bob") == ""
    assert held(table, 51.0) == [0, 2]


def test_a_source_that_floods_is_stopped_and_others_are_not() -> None:
    table = AnnouncementTable()
    assert [table.may_come("eve", 0.0) for _ in range(100)].count(True) <= BURST + 1
    assert table.may_come("ada", 0.0)
    assert not table.may_come("eve", 0.9 / RATE)
    assert table.may_come("eve", 1.1 / RATE)
