"""Ingest: items that peers answered with and that cannot be merged are left out, counted, and do not flood the log."""

from hashlib import sha256

import pytest
import trio.testing

from node.dht.ingest import PARENTS_MAX, Ingest, parts_of
from node.store.log import Incoming, Origin
from node.store.memory.store import MemoryStore
from node.swarm.limit_counters import SILENCE_SECONDS
from node.swarm.peer_policy import PeerPolicy
from protocols.clock import AHEAD_MS_MAX, version
from protocols.envelope import Envelope, Notice, seal
from protocols.keys import PrivateKey
from protocols.policy.signature_cache import SignatureCache
from protocols.ucxl import key_of
from tests.notice import notice_of

NOW_MS = 1_700_000_000_000
ADDRESS = "ucxl://agent:role@project:task/*^/thing"
KEY = key_of(ADDRESS)
AUTHOR = PrivateKey.from_seed(b"\x01" * 32)
AHEAD = AHEAD_MS_MAX + 1000
WHY = (
    f"the version is {AHEAD} ms ahead of this node's clock, and at most {AHEAD_MS_MAX} are accepted: one of "
    "the two clocks is wrong; send it again once that clock is set, or that time has come"
)


def ingest_over(peer_policy: PeerPolicy) -> Ingest:
    return Ingest(
        MemoryStore(log_id="ab" * 8), verified=SignatureCache(), now_ms=lambda: NOW_MS, peer_policy=peer_policy
    )


def envelope(number: int, at_ms: int) -> Envelope:
    return seal(
        AUTHOR, address=ADDRESS, content=b"%d" % number, content_type="text/plain",
        version=version(NOW_MS + at_ms, number), parents=(),
    )  # fmt: skip


async def test_envelopes_ahead_of_the_clock_are_one_log_line_a_minute_for_each_peer(
    mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    peer_policy, good = PeerPolicy(), envelope(0, 0)
    ingest = ingest_over(peer_policy)
    ahead = [envelope(number, AHEAD) for number in range(50)]

    def check() -> None:
        answers = [("a", one.encoded) for one in (*ahead, good)]
        assert list(ingest.check(KEY, answers)) == [good.digest], "the valid one is kept"

    check()
    check()
    assert await ingest.merge_notices(KEY, [("a", notice_of(one)) for one in ahead[:20]]) == 20
    mock_clock.jump(SILENCE_SECONDS)
    check()
    ingest.check(KEY, [("b", ahead[0].encoded)])
    assert [record.getMessage() for record in caplog.records] == [
        f"a: left out 50 of the envelopes that it answered with; the first: {WHY}",
        f"a: left out 50 of the envelopes that it answered with; the first: {WHY} (and 70 more like it before)",
        f"b: left out 1 of the envelopes that it answered with; the first: {WHY}",
    ]
    assert peer_policy.limit_counters.counts.answers_left_out == 171
    assert peer_policy.limit_counters.counts.offences == 0, "which of the two clocks is wrong is not known"
    assert peer_policy.complaint("a") == ""


async def test_notices_ahead_of_the_clock_are_one_log_line_for_each_peer(caplog: pytest.LogCaptureFixture) -> None:
    peer_policy = PeerPolicy()
    ahead = [("a", notice_of(envelope(number, AHEAD))) for number in range(50)]
    assert await ingest_over(peer_policy).merge_notices(KEY, ahead) == 50
    (record,) = caplog.records
    assert record.getMessage() == f"a: left out 50 of the notices that it answered with; the first: {WHY}"
    assert peer_policy.limit_counters.counts.answers_left_out == 50


def test_versions_with_many_parents_are_merged_in_parts() -> None:
    key = PrivateKey.from_seed(bytes(32))

    def incoming(number: int, parents: int) -> Incoming:
        digests = [sha256(b"%d %d" % (number, parent)).digest() for parent in range(parents)]
        notice = Notice("", b"", sha256(b"%d" % number).digest(), number, key.peer_id, False, tuple(sorted(digests)))
        return Incoming(notice, Origin.PEER)

    for counts in ((), (0,), (256,) * 9, (1, 255, 256, 256, 256, 1), (0,) * 5_000):
        items = [incoming(number, count) for number, count in enumerate(counts)]
        parts = list(parts_of(items))
        assert [each for part in parts for each in part] == items
        for part in parts:
            assert len(part) == 1 or sum(len(each.item.parents) for each in part) <= PARENTS_MAX
        assert len(parts) <= 1 + 2 * sum(counts) // PARENTS_MAX
