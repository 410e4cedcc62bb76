"""The DHT's values and providers of a node: whatever valid version is put is kept, and nothing else."""

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from node.dht.readable_heads import ReadableHeads
from node.services.writes.kademlia_records import KademliaRecords, rfc3339
from node.store.memory.store import MemoryStore
from node.swarm.peer_policy import PeerPolicy
from protocols.cid import multihash
from protocols.clock import version
from protocols.envelope import Envelope, seal
from protocols.errors import BadSignature, BzzzError, ClockAhead, Malformed, StorageFull, Unavailable
from protocols.kademlia.messages import Record
from protocols.keys import PrivateKey
from protocols.policy.signature_cache import SignatureCache
from protocols.ucxl import key_of

AUTHOR = PrivateKey.from_seed(bytes(32))
NOW = 1_800_000_000_000
ADDRESS = "ucxl://a:r@p:t/*^/thing"
KEY = key_of(ADDRESS)
PEER = "12D3KooWpeer"


def sealed(number: int, *parents: Envelope, at_ms: int = NOW) -> Envelope:
    return seal(
        AUTHOR,
        address=ADDRESS,
        content=f"content {number}".encode(),
        content_type="text/plain",
        version=version(at_ms, number),
        parents=tuple(parent.digest for parent in parents),
    )


def record_of(envelope: Envelope) -> Record:
    return Record(envelope.key, envelope.encoded, rfc3339(NOW))


class Rig:
    def __init__(self) -> None:
        self.store = MemoryStore(log_id="00112233445566aa")
        self.policy = PeerPolicy()
        self.records = KademliaRecords(
            self.store,
            readable=ReadableHeads(self.store),
            verified=SignatureCache(),
            peer_policy=self.policy,
            now_ms=lambda: NOW,
        )

    @property
    def offences(self) -> int:
        return self.policy.limit_counters.counts.offences


@pytest.fixture
async def rig(autojump_clock: trio.testing.MockClock) -> AsyncIterator[Rig]:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.store.run)
        yield rig
        nursery.cancel_scope.cancel()


async def test_a_value_is_kept_byte_for_byte_and_put_again_is_echoed(rig: Rig) -> None:
    envelope = sealed(1)
    for _ in range(2):
        assert await rig.records.put(PEER, record_of(envelope)) == record_of(envelope)
    found = await rig.records.get(KEY)
    assert found is not None and found.value == envelope.encoded
    assert rig.store.last_sequence == 1


async def test_an_old_version_is_kept_and_answered_with_the_latest(rig: Rig) -> None:
    first = sealed(1)
    second = sealed(2, first)
    await rig.records.put(PEER, record_of(second))
    assert (await rig.records.put(PEER, record_of(first))).value == second.encoded
    assert await rig.store.by_digest(first.digest) == first


async def test_of_siblings_the_latest_is_the_value_and_both_are_kept(rig: Rig) -> None:
    one, other = sealed(1), sealed(2)
    for envelope in (other, one):
        assert (await rig.records.put(PEER, record_of(envelope))).value == envelope.encoded
    found = await rig.records.get(KEY)
    assert found is not None and found.value == other.encoded
    assert len(await rig.store.heads(KEY)) == 2


@pytest.mark.parametrize("forged", [sealed(1).encoded.replace(b"content 1", b"another 1"), b"no envelope", b""])
async def test_a_forged_value_is_refused_and_blamed(rig: Rig, forged: bytes) -> None:
    with pytest.raises(BzzzError):
        await rig.records.put(PEER, Record(KEY, forged))
    assert rig.offences == 1
    assert rig.store.last_sequence == 0


async def test_a_wrong_signature_is_refused_and_blamed(rig: Rig) -> None:
    encoded = bytearray(sealed(1).encoded)
    at = encoded.index(b"\xc4\x40") + 5
    encoded[at] ^= 1
    with pytest.raises(BadSignature):
        await rig.records.put(PEER, Record(KEY, bytes(encoded)))
    assert rig.offences == 1


async def test_a_value_under_the_key_of_another_address_is_refused_and_blamed(rig: Rig) -> None:
    with pytest.raises(Malformed):
        await rig.records.put(PEER, Record(key_of("ucxl://a:r@p:t/*^/other"), sealed(1).encoded))
    assert rig.offences == 1
    assert rig.store.last_sequence == 0


async def test_a_version_ahead_of_the_clock_is_refused_and_nobody_is_blamed(rig: Rig) -> None:
    with pytest.raises(ClockAhead):
        await rig.records.put(PEER, record_of(sealed(1, at_ms=NOW + 3_600_000)))
    assert rig.offences == 0


async def test_a_value_is_answered_after_its_commit_and_not_when_that_fails(rig: Rig) -> None:
    async def full() -> None:
        raise OSError(28, "no space left on device")

    rig.store.before_commit = full
    with pytest.raises(StorageFull):
        await rig.records.put(PEER, record_of(sealed(1)))
    assert await rig.records.get(KEY) is None


@pytest.mark.parametrize("key", [KEY, b"x", bytes(34), b"/ipns/" + bytes(38)])
async def test_a_key_without_a_value_has_none(rig: Rig, key: bytes) -> None:
    assert await rig.records.get(key) is None


async def test_of_a_store_that_cannot_be_read_nothing_is_provided(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(digest: bytes) -> bool:
        raise Unavailable("the disk cannot be read")

    monkeypatch.setattr(rig.store, "has_content", fail)
    assert not await rig.records.holds(multihash(bytes(32)))


async def test_the_multihash_of_a_content_that_is_held_is_provided_and_nothing_else(rig: Rig) -> None:
    envelope = sealed(1)
    key = multihash(envelope.content_digest)
    assert not await rig.records.holds(key)
    await rig.records.put(PEER, record_of(envelope))
    assert await rig.records.holds(key)
    for other in (b"", KEY, envelope.content_digest, b"\x12\x21" + key[2:], key + b"x", multihash(bytes(32))):
        assert not await rig.records.holds(other)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (1_754_576_000_000, "2025-08-07T14:13:20.000000000Z"),
        (7, "1970-01-01T00:00:00.007000000Z"),
        (1 << 48, "9999-12-31T23:59:59.999000000Z"),
    ],
)
def test_times_are_written_as_other_implementations_do(ms: int, text: str) -> None:
    assert rfc3339(ms) == text
