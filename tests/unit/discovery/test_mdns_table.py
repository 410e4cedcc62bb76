"""The mDNS table: who may say what, each sender's share, what is lost, and when a node asks."""

import pytest

from discovery.mdns_records import ADDRESSES_MAX, TTL_SECONDS, BadRecord, PeerRecord, RecordFault
from discovery.mdns_table import (
    ANSWER_SECONDS,
    ASK_AGAIN_SECONDS,
    ASK_ALONE_SECONDS,
    ASK_JITTER_SECONDS,
    ASK_PAUSE_SECONDS,
    FIRST_QUESTIONS_AT,
    MESSAGES_BURST,
    RECORDS_MAX,
    RECORDS_PER_PEER_MAX,
    RECORDS_PER_SENDER_MAX,
    REPORT_AGAIN_SECONDS,
    SENDERS_MAX,
    Found,
    Gone,
    MdnsTable,
)

OWN = "own"
HOST, OTHER, ATTACKER = "10.0.0.1", "10.0.0.2", "10.0.0.66"


def record(peer: str = "peer", *hosts: str) -> PeerRecord:
    return PeerRecord(peer=peer, addresses=hosts or ("/one",))


@pytest.fixture
def table() -> MdnsTable:
    return MdnsTable(OWN, chance=lambda: 0.5)


def fault(table: MdnsTable, name: str, said: PeerRecord, sender: str, now: float = 0.0) -> RecordFault:
    with pytest.raises(BadRecord) as refused:
        table.heard(name, said, sender, now)
    return refused.value.fault


# -- found and lost ---------------------------------------------------------------------------------------------------


def test_a_peer_is_reported_when_it_is_new_when_it_changes_and_now_and_then(table: MdnsTable) -> None:
    assert table.heard("a", record(), HOST, 0.0) == (Found(record()),)
    assert table.heard("a", record(), HOST, 1.0) == ()
    moved = record("peer", "/two")
    assert table.heard("a", moved, HOST, 2.0) == (Found(moved),)
    assert table.heard("a", moved, HOST, 2.0 + REPORT_AGAIN_SECONDS - 0.1) == ()
    assert table.heard("a", moved, HOST, 2.0 + REPORT_AGAIN_SECONDS) == (Found(moved),)


def test_a_report_that_was_not_taken_is_made_again_with_the_next_answer(table: MdnsTable) -> None:
    table.heard("a", record(), HOST, 0.0)
    table.unreported("peer")
    assert table.heard("a", record(), HOST, 0.1) == (Found(record()),)


def test_a_peer_that_says_goodbye_is_lost(table: MdnsTable) -> None:
    table.heard("a", record(), HOST, 0.0)
    assert table.ended("a", HOST, 0.0) == (Gone("peer"),)
    assert table.ended("a", HOST, 0.0) == ()
    assert len(table) == 0


def test_a_peer_that_is_not_heard_for_its_time_to_live_is_lost(table: MdnsTable) -> None:
    table.heard("a", record(), HOST, 0.0)
    table.heard("b", record("other"), HOST, 1.0)
    assert table.expire(TTL_SECONDS - 0.1) == ()
    assert table.expire(TTL_SECONDS) == (Gone("peer"),)
    assert table.expire(TTL_SECONDS + 1.0) == (Gone("other"),)


def test_a_peer_that_starts_again_with_a_new_name_replaces_its_old_one(table: MdnsTable) -> None:
    table.heard("a", record(), HOST, 0.0)
    assert table.heard("b", record(), HOST, 1.0) == ()
    assert table.ended("a", HOST, 0.0) == ()
    assert len(table) == 1


def test_a_name_that_passes_to_another_peer_ends_the_first_one(table: MdnsTable) -> None:
    table.heard("a", record(), HOST, 0.0)
    assert table.heard("a", record("other"), HOST, 1.0) == (Gone("peer"), Found(record("other")))


# -- others who lie ---------------------------------------------------------------------------------------------------


def test_no_other_node_can_be_this_node(table: MdnsTable) -> None:
    assert fault(table, "a", record(OWN), ATTACKER) is RecordFault.OWN_ID


def test_what_another_host_says_of_a_peer_is_tried_beside_what_the_first_one_says(table: MdnsTable) -> None:
    """Whether the liar or the peer is heard first."""
    lie, truth = record("peer", "/lie", "/lie 2"), record("peer", "/true")
    both = record("peer", "/lie", "/true", "/lie 2")
    assert table.heard("a", lie, ATTACKER, 0.0) == (Found(lie),)
    assert table.heard("a", truth, HOST, 1.0) == (Found(both),)
    for now in range(2, 30):
        assert table.heard("a", lie, ATTACKER, float(now)) == ()
    with pytest.raises(BadRecord):
        table.ended("a", OTHER, 30.0)
    assert table.ended("a", ATTACKER, 30.0) == (Found(truth),)
    assert table.heard("b", lie, ATTACKER, 31.0) == (Found(record("peer", "/true", "/lie", "/lie 2")),)


def test_a_node_that_moves_is_reported_at_both_addresses_until_the_first_one_is_silent_though_asked(
    table: MdnsTable,
) -> None:
    """With the same name, or with a new one because it has started again too."""
    moved = record("peer", "/elsewhere")
    for name in ("a", "b"):
        table.heard("a", record(), HOST, 0.0)
        assert table.heard(name, moved, OTHER, 1.0) == (Found(record("peer", "/one", "/elsewhere")),)
        assert table.question_due() == 1.0
        assert table.asked(1.0) == [], "neither is named as known: both are to answer"
        assert table.expire(1.0 + ANSWER_SECONDS) == (), "it may be that no message arrives"
        assert table.heard(name, moved, OTHER, 2.9) == ()
        assert table.expire(3.0) == (Found(moved),)
        assert table.ended(name, OTHER, 4.0) == (Gone("peer"),)
        table = MdnsTable(OWN, chance=lambda: 0.5)


def test_hosts_that_repeat_what_they_say_are_all_heard_and_cannot_have_this_node_ask_all_the_time(
    table: MdnsTable,
) -> None:
    table.heard("a", record(), HOST, 0.0)
    questions = 0
    for tenth in range(1, 300):
        now = tenth / 10
        table.heard("a", record("peer", "/elsewhere"), ATTACKER, now)
        if table.question_due() <= now:
            table.asked(now)
            questions += 1
            table.heard("a", record(), HOST, now + 0.05)
        assert table.expire(now) == ()
    assert len(table) == 2
    assert questions <= 2 * len(FIRST_QUESTIONS_AT)


def test_many_hosts_that_lie_about_a_peer_keep_it_from_no_report(table: MdnsTable) -> None:
    def said(number: int) -> PeerRecord:
        return record("peer", *(f"/lie {number} {each}" for each in range(20)))

    for number in range(2 * RECORDS_PER_PEER_MAX):
        table.heard("a", said(number), f"liar {number}", float(number))
    assert len(table) == RECORDS_PER_PEER_MAX
    assert table.faults[RecordFault.CLAIMED] == RECORDS_PER_PEER_MAX
    (found,) = table.heard("a", record("peer", "/true"), HOST, 100.0)
    assert isinstance(found, Found)
    assert "/true" in found.record.addresses[:RECORDS_PER_PEER_MAX]
    assert len(found.record.addresses) <= ADDRESSES_MAX


def test_the_same_record_by_another_interface_of_the_node_changes_nothing_until_the_first_one_is_silent(
    table: MdnsTable,
) -> None:
    table.heard("a", record(), HOST, 0.0)
    assert table.heard("a", record(), "fe80::1", 1.0) == ()
    assert table.heard("a", record(), "fe80::1", TTL_SECONDS / 2) == (Found(record()),)
    assert table.expire(TTL_SECONDS) == ()
    assert table.heard("a", record("peer", "/two"), "fe80::1", TTL_SECONDS) != ()


def test_a_sender_has_a_share_of_the_records_and_leaves_room_for_others(table: MdnsTable) -> None:
    for number in range(RECORDS_PER_SENDER_MAX):
        table.heard(f"a{number}", record(f"peer {number}"), ATTACKER, 0.0)
    assert fault(table, "more", record("more"), ATTACKER) is RecordFault.SHARE
    assert table.heard("a", record(), HOST, 0.0) == (Found(record()),)
    table.ended("a0", ATTACKER, 0.0)
    assert table.heard("more", record("more"), ATTACKER, 0.0) == (Found(record("more")),)


def test_a_node_that_moves_to_a_sender_without_room_stays_where_it_was(table: MdnsTable) -> None:
    table.heard("a", record(), HOST, 0.0)
    for number in range(RECORDS_PER_SENDER_MAX):
        table.heard(f"a{number}", record(f"peer {number}"), ATTACKER, 0.0)
    assert fault(table, "a", record(), ATTACKER, TTL_SECONDS * 0.75) is RecordFault.SHARE
    assert table.ended("a", HOST, 0.0) == (Gone("peer"),)


def test_all_senders_together_have_a_bound(table: MdnsTable) -> None:
    for number in range(RECORDS_MAX):
        table.heard(f"a{number}", record(f"peer {number}"), f"sender {number}", 0.0)
    assert fault(table, "more", record("more"), HOST) is RecordFault.FULL
    assert len(table) == RECORDS_MAX


def test_a_sender_that_floods_is_not_read_and_the_others_are(table: MdnsTable) -> None:
    for _ in range(int(MESSAGES_BURST)):
        assert table.admit(ATTACKER, 0.0)
    assert not table.admit(ATTACKER, 0.0)
    assert table.admit(HOST, 0.0)
    assert table.faults[RecordFault.SHARE] == 1
    assert table.admit(ATTACKER, 1.0)


def test_the_rates_of_many_senders_take_no_more_than_their_room(table: MdnsTable) -> None:
    for number in range(3 * SENDERS_MAX):
        table.admit(f"sender {number}", 0.0)
    assert len(table._rates) == SENDERS_MAX  # there is no other way to see what is remembered


# -- questions --------------------------------------------------------------------------------------------------------


def test_a_node_that_starts_asks_three_times_and_then_when_a_record_is_half_old(table: MdnsTable) -> None:
    table.ask_soon(100.0)
    for after in FIRST_QUESTIONS_AT:
        assert table.is_starting and table.question_due() == 100.0 + after
        table.asked(100.0 + after)
    assert not table.is_starting
    last = 100.0 + FIRST_QUESTIONS_AT[-1]
    assert table.question_due() == last + ASK_ALONE_SECONDS + ASK_JITTER_SECONDS / 2, "it is alone so far"
    table.heard("a", record(), HOST, last + 20.0)
    assert table.question_due() == last + 20.0 + ASK_AGAIN_SECONDS + ASK_JITTER_SECONDS / 2


def test_the_answer_to_the_question_of_another_node_postpones_the_own_one(table: MdnsTable) -> None:
    table.asked(0.0)
    table.heard("a", record(), HOST, 0.0)
    before = table.question_due()
    table.heard("a", record(), HOST, 50.0)
    assert table.question_due() == before + 50.0


def test_a_silent_peer_is_not_asked_without_a_pause(table: MdnsTable) -> None:
    table.heard("a", record(), HOST, 0.0)
    table.asked(180.0)
    assert table.question_due() == 180.0 + ASK_PAUSE_SECONDS


def test_the_first_questions_name_the_records_that_are_fresh_and_how_long_they_live(table: MdnsTable) -> None:
    table.heard("old", record("old"), HOST, 0.0)
    table.heard("new", record("new"), HOST, 50.0)
    table.heard("disputed", record("peer"), HOST, 50.0)
    table.heard("disputed", record("peer", "/lie"), ATTACKER, 50.0)
    table.ask_soon(60.0)
    assert table.asked(60.0) == [("new", TTL_SECONDS - 10.0)]


def test_later_questions_name_none_so_that_no_host_can_silence_a_peer_by_lies(table: MdnsTable) -> None:
    table.heard("a", record("peer", "/lie"), ATTACKER, 59.0)
    assert table.asked(60.0) == []
