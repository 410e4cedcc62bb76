"""Ingest: items that peers answered with and that cannot be merged are left out, counted, and do not flood the log."""

from hashlib import sha256

import msgpack
import pytest
import trio.testing

from node.dht.ingest import PARENTS_MAX, Ingest, parts_of
from node.store.log import Incoming, Origin
from node.store.memory.store import MemoryStore
from node.swarm.limit_counters import SILENCE_SECONDS
from node.swarm.peer_policy import PeerPolicy
from protocols.clock import AHEAD_MS_MAX, version
from protocols.envelope import Envelope, seal
from protocols.header import DOMAIN
from protocols.keys import PrivateKey
from protocols.policy.signature_cache import SignatureCache
from protocols.ucxl import key_of

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
    assert await ingest.merge_notices(KEY, [("a", one.notice.encoded) for one in ahead[:20]]) == 20
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
    ahead = [("a", envelope(number, AHEAD).notice.encoded) for number in range(50)]
    assert await ingest_over(peer_policy).merge_notices(KEY, ahead) == 50
    (record,) = caplog.records
    assert record.getMessage() == f"a: left out 50 of the notices that it answered with; the first: {WHY}"
    assert peer_policy.limit_counters.counts.answers_left_out == 50


def _forged(one: Envelope) -> bytes:
    return one.notice.encoded[:-1] + bytes([one.signature[-1] ^ 1])


async def test_a_notice_that_its_author_did_not_sign_is_refused_and_its_sender_blamed() -> None:
    peer_policy = PeerPolicy()
    ingest = ingest_over(peer_policy)
    good, other = envelope(1, 0), envelope(2, 0)
    altered = good.notice.encoded.replace(b"text/plain", b"text/plane")
    answers = [("liar", _forged(good)), ("liar", altered), ("liar", b"x"), ("honest", good.notice.encoded)]
    assert await ingest.merge_notices(KEY, [*answers, ("honest", other.notice.encoded)]) == 0
    store = ingest._store  # private: what was merged
    assert [version.digest for version in await store.versions(KEY)] == [good.digest, other.digest]
    assert peer_policy.limit_counters.counts.envelopes_refused == 3
    assert peer_policy.limit_counters.counts.offences == 3
    assert not [peer for peer in ("honest",) if peer_policy.complaint(peer)]


async def test_a_peer_that_forges_notices_again_and_again_is_banned() -> None:
    peer_policy = PeerPolicy()
    ingest = ingest_over(peer_policy)
    for number in range(8):
        forged = [("liar", _forged(envelope(4 * number + each, 0))) for each in range(4)]
        await ingest.merge_notices(KEY, forged)
    assert "banned" in peer_policy.complaint("liar")


async def test_a_notice_of_another_major_is_left_out_and_no_fault_of_its_sender() -> None:
    peer_policy = PeerPolicy()
    header = envelope(1, 0).header.replace(b"\x92\x02\x00", b"\x92\x03\x00", 1)
    newer = bytes(msgpack.packb([header, AUTHOR.sign(DOMAIN + header)]))
    assert await ingest_over(peer_policy).merge_notices(KEY, [("a", newer), ("b", newer)]) == 1
    counts = peer_policy.limit_counters.counts
    assert (counts.answers_left_out, counts.offences) == (2, 0)


async def test_notices_of_another_key_are_a_wrong_answer() -> None:
    peer_policy = PeerPolicy()
    ingest = ingest_over(peer_policy)
    elsewhere = key_of("ucxl://agent:role@project:task/*^/elsewhere")
    assert await ingest.merge_notices(elsewhere, [("a", envelope(1, 0).notice.encoded)]) == 0
    assert await ingest._store.count_versions(KEY) == 0  # private: what was merged
    assert peer_policy.limit_counters.counts.answers_wrong == 1


async def test_the_notice_of_a_version_without_content_is_all_of_it() -> None:
    ingest = ingest_over(PeerPolicy())
    gone = seal(
        AUTHOR, address=ADDRESS, content=b"", content_type="text/plain", version=version(NOW_MS, 0), parents=(),
        deleted=True,
    )  # fmt: skip
    await ingest.merge_notices(KEY, [("a", gone.notice.encoded)])
    assert await ingest._store.heads(KEY) == (gone,)  # private: what was merged


def test_versions_with_many_parents_are_merged_in_parts() -> None:
    def incoming(number: int, parents: int) -> Incoming:
        digests = [sha256(b"%d %d" % (number, parent)).digest() for parent in range(parents)]
        item = seal(
            AUTHOR, address=ADDRESS, content=b"", content_type="text/plain", version=1 + number, parents=digests
        )  # fmt: skip
        return Incoming(item.notice, Origin.PEER)

    for counts in ((), (0,), (256,) * 9, (1, 255, 256, 256, 256, 1), (0,) * 5_000):
        items = [incoming(number, count) for number, count in enumerate(counts)]
        parts = list(parts_of(items))
        assert [each for part in parts for each in part] == items
        for part in parts:
            assert len(part) == 1 or sum(len(each.item.parents) for each in part) <= PARENTS_MAX
        assert len(parts) <= 1 + 2 * sum(counts) // PARENTS_MAX
