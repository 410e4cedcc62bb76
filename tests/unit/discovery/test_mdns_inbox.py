"""The mDNS inbox: what is read of a message, what it reports, and what it says of bad ones."""

from collections import Counter

import pytest

from discovery.mdns_inbox import LOG_AGAIN_SECONDS, MdnsCounts, MdnsInbox, ServiceRecord
from discovery.mdns_records import SERVICE, PeerRecord, RecordFault, txt_data
from discovery.mdns_table import MESSAGES_BURST, Change, Found, Gone, MdnsTable
from protocols.keys import PrivateKey

OWN, PEER = (PrivateKey.from_seed(bytes((number,)) * 32).peer_id for number in (1, 2))
HOST = "10.0.0.1"


def name(label: str) -> str:
    return f"{label}.{SERVICE}"


def at(host: str, peer: str = PEER) -> str:
    return f"/ip4/{host}/tcp/4001/p2p/{peer}"


class Inbox:
    """An inbox, and what it has reported. It takes reports while `has_room`."""

    def __init__(self) -> None:
        self.table = MdnsTable(OWN, chance=lambda: 0.0)
        self.counts = MdnsCounts()
        self.reports: list[Change] = []
        self.has_room = True
        self.inbox = MdnsInbox(
            self.table, service=SERVICE, own_name=name("own"), report=self._report, counts=self.counts
        )

    def _report(self, change: Change) -> bool:
        if self.has_room:
            self.reports.append(change)
        return self.has_room

    def read(self, *answers: ServiceRecord, sender: str = HOST, now: float = 0.0) -> bool:
        return self.inbox.read(answers, sender, now)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


def txt(label: str, *addresses: str, ttl: int = 120) -> ServiceRecord:
    return ServiceRecord(name(label), ttl, txt_data(addresses))


def ptr(label: str, ttl: int = 120) -> ServiceRecord:
    return ServiceRecord(name(label), ttl)


FOUND = Found(PeerRecord(peer=PEER, addresses=(at("10.0.0.1"), at("10.0.0.2"))))


def test_the_txt_records_of_one_name_make_one_peer(inbox: Inbox) -> None:
    assert inbox.read(ptr("a"), txt("a", at("10.0.0.1")), txt("a", at("10.0.0.2")))
    assert inbox.reports == [FOUND]


def test_txt_records_are_enough_without_a_pointer_and_a_pointer_alone_is_not(inbox: Inbox) -> None:
    inbox.read(ptr("a"))
    assert not inbox.reports and not inbox.table.faults
    inbox.read(txt("a", at("10.0.0.1"), at("10.0.0.2")))
    assert inbox.reports == [FOUND]


def test_a_goodbye_is_reported(inbox: Inbox) -> None:
    inbox.read(txt("a", at("10.0.0.1")))
    inbox.read(ptr("a", ttl=0))
    assert inbox.reports[-1] == Gone(PEER)


def test_messages_about_something_else_are_not_for_us(inbox: Inbox) -> None:
    assert not inbox.read()
    assert not inbox.read(ServiceRecord("printer._ipp._tcp.local.", 120, b"\x03a=b"))
    assert inbox.counts == MdnsCounts()


def test_the_own_message_that_comes_back_is_counted_and_no_peer(inbox: Inbox) -> None:
    assert inbox.read(txt("own", at("10.0.0.9", OWN)))
    assert (inbox.counts.own, inbox.counts.heard) == (1, 0)
    assert not inbox.reports and not inbox.table.faults


def test_one_bad_record_does_not_hide_the_others_of_a_message(inbox: Inbox) -> None:
    inbox.read(txt("bad", at("10.0.0.6", OWN)), txt("a", at("10.0.0.1"), at("10.0.0.2")))
    assert inbox.reports == [FOUND]
    assert inbox.table.faults == Counter({RecordFault.OWN_ID: 1})


def test_a_report_without_room_is_counted_and_comes_with_the_next_answer(inbox: Inbox) -> None:
    inbox.has_room = False
    inbox.read(txt("a", at("10.0.0.1"), at("10.0.0.2")))
    assert inbox.table.faults[RecordFault.QUEUE_FULL] == 1
    inbox.has_room = True
    inbox.read(txt("a", at("10.0.0.1"), at("10.0.0.2")), now=1.0)
    assert inbox.reports == [FOUND]


def test_a_flood_is_not_read(inbox: Inbox) -> None:
    for _ in range(int(MESSAGES_BURST)):
        assert inbox.read(txt("a", at("10.0.0.1")))
    assert not inbox.read(txt("a", at("10.0.0.1")))
    assert inbox.counts.heard == int(MESSAGES_BURST)


def test_a_message_that_cannot_be_read_is_counted_and_not_logged_each_time(
    inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    for now in (0.0, 1.0):
        inbox.inbox.failed(ValueError("x"), HOST, now)
    assert inbox.table.faults[RecordFault.MALFORMED] == 2
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


def test_bad_records_are_a_line_a_minute_and_foreign_nodes_are_none(
    inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    for now in (0.0, 1.0, LOG_AGAIN_SECONDS):
        inbox.read(txt("bad", at("10.0.0.6", OWN)), now=now)
        inbox.read(txt("other", at("127.0.0.1")), now=now)
    assert len(caplog.records) == 2
    assert "an mDNS record of 10.0.0.1 is dropped: own_id (3 since the start)" in caplog.text
