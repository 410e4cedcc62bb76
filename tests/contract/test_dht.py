"""The contract of a DHT, run over mock, real and hybrid; the last two with peers over libp2p."""

import pytest
import trio

from node.dht.base import Backend, Consistency, Durability
from node.dht.mock import MockDHT
from node.store.log import Incoming, Origin
from protocols.errors import Indeterminate, StorageFull, Unavailable
from tests.contract.rigs import KEY, KEYS, STORE_DEADLINE_SECONDS, Disk, envelope, now_ms, rig
from tests.until import until

BACKENDS = ("mock", "real", "hybrid")
every_backend = pytest.mark.parametrize("backend", BACKENDS)
in_a_swarm = pytest.mark.parametrize("backend", ("real", "hybrid"))


@every_backend
async def test_get_returns_what_was_put(backend: str) -> None:
    async with rig(backend) as r:
        written = envelope(b"one")
        receipt = await r.dht.put(written)
        answer = await r.dht.get(KEY)
        assert answer.heads == (written,)
        assert answer.heads[0].encoded == written.encoded
        assert not answer.provenance.is_degraded
        assert (receipt.digest, receipt.version, receipt.parents) == (written.digest, written.version, ())
        assert (receipt.log_id, receipt.sequence) == (r.store.log_id, 1)


@every_backend
async def test_a_backend_says_what_its_own_store_may_answer(backend: str) -> None:
    async with rig(backend) as r:
        assert r.dht.asks_swarm is (backend != "mock")
        assert r.dht.deadline_seconds > 0
        freshness = r.dht.freshness(KEY)
        assert freshness.is_final is (backend == "mock")
        assert (freshness.age_max_seconds == 0.0) is (backend == "real")
        here = await r.dht.get_here(KEY)
        assert here is None if backend != "mock" else here is not None and here.heads == ()
        written = envelope()
        await r.dht.put(written)
        here = await r.dht.get_here(KEY)
        if backend == "real":
            assert here is None
        elif here is not None:  # hybrid: while no peer has hints for this node
            assert here.heads == (written,)
            assert here.provenance.source == "local"


async def test_hybrid_answers_here_while_it_is_fresh_and_not_after() -> None:
    async with rig("hybrid") as r:
        written = envelope()
        await r.dht.put(written)
        await until(lambda: r.dht.freshness(KEY).since > float("-inf"))
        here = await r.dht.get_here(KEY)
        assert here is not None
        assert here.heads == (written,)
        assert here.provenance == (await r.dht.get(KEY)).provenance._replace(age_ms=here.provenance.age_ms)
        for peer in r.peers:
            r.node.members.forget(peer.peer_id)
        assert await r.dht.get_here(KEY) is None, "no peer is known that could have newer versions"


@every_backend
async def test_an_answer_names_the_backend_that_answered_whatever_its_source(backend: str) -> None:
    async with rig(backend) as r:
        written = envelope()
        await r.dht.put(written)
        absent = envelope(parents=(written.digest,), at=5).digest
        for consistency in Consistency:
            for answer in (
                await r.dht.get(KEY, consistency=consistency),
                await r.dht.get_version(KEY, written.digest, consistency=consistency),
                await r.dht.get_version(KEY, absent, consistency=consistency),
                await r.dht.history(KEY, consistency=consistency),
            ):
                assert answer.provenance.backend == backend, consistency


@every_backend
async def test_a_receipt_says_how_durable_a_write_is(backend: str) -> None:
    async with rig(backend) as r:
        receipt = await r.dht.put(envelope())
        if r.backend is Backend.MOCK:
            assert (receipt.backend, receipt.durability) == (Backend.MOCK, Durability.LOCAL)
        else:
            assert receipt.backend is Backend.REAL
            assert receipt.wanted == 2
            assert receipt.acknowledged >= receipt.quorum == r.dht.write_quorum
            assert receipt.is_replicated


@every_backend
async def test_a_key_without_versions_is_absent(backend: str) -> None:
    async with rig(backend) as r:
        answer = await r.dht.get(KEY)
        assert answer.heads == ()
        assert answer.provenance.replicas == 0
        assert not answer.provenance.is_degraded
        assert (await r.dht.get_version(KEY, b"\0" * 32)).heads == ()
        assert (await r.dht.history(KEY)).total == 0


@every_backend
async def test_putting_the_same_envelope_again_changes_nothing(backend: str) -> None:
    async with rig(backend) as r:
        written = envelope()
        first = await r.dht.put(written)
        again = await r.dht.put(written)
        assert (again.sequence, again.digest) == (first.sequence, first.digest)
        assert (await r.dht.history(KEY)).total == 1
        assert r.store.last_sequence == 1


@every_backend
async def test_versions_that_do_not_know_of_each_other_are_siblings(backend: str) -> None:
    async with rig(backend) as r:
        older, newer = envelope(b"older"), envelope(b"newer", author=1, at=5)
        await r.dht.put(newer)
        await r.dht.put(older)
        answer = await r.dht.get(KEY)
        assert answer.heads == (newer, older)
        assert answer.provenance.siblings == 1
        merged = envelope(b"both", parents=(older.digest, newer.digest), at=9)
        await r.dht.put(merged)
        assert (await r.dht.get(KEY)).heads == (merged,)


@every_backend
async def test_a_tombstone_is_a_version_and_the_history_stays(backend: str) -> None:
    async with rig(backend) as r:
        written = envelope()
        tombstone = envelope(parents=(written.digest,), deleted=True, at=5)
        await r.dht.put(written)
        await r.dht.put(tombstone)
        assert (await r.dht.get(KEY)).heads == (tombstone,)
        history = await r.dht.history(KEY)
        assert [v.digest for v in history.versions] == [written.digest, tombstone.digest]
        assert [v.is_head for v in history.versions] == [False, True]
        assert (await r.dht.get_version(KEY, written.digest)).heads == (written,)


@every_backend
async def test_a_version_of_another_key_is_not_answered(backend: str) -> None:
    async with rig(backend) as r:
        written = envelope()
        await r.dht.put(written)
        assert (await r.dht.get_version(KEY[:-1] + b"_", written.digest)).heads == ()


@every_backend
async def test_on_merged_is_called_once_the_version_is_a_head(backend: str) -> None:
    async with rig(backend) as r:
        sequences: list[int] = []
        await r.dht.put(envelope(), on_merged=lambda: sequences.append(r.store.last_sequence))
        assert sequences == [1]


@every_backend
async def test_providers_of_a_key_are_found(backend: str) -> None:
    async with rig(backend) as r:
        noted = await r.dht.provide(KEY)
        assert noted == len(r.peers)
        for node in (r.node, *r.peers):
            assert [p.peer for p in await node.dht.find_providers(KEY)] == [KEYS[0].peer_id]


@every_backend
async def test_content_is_found_by_its_digest_here_and_at_peers(backend: str) -> None:
    async with rig(backend) as r:
        here, there, nowhere = envelope(b"here"), envelope(b"there"), envelope(b"nowhere")
        await r.store.merge([Incoming(here, Origin.PEER)], now_ms=now_ms())
        for peer in r.peers[1:]:
            await peer.store.merge([Incoming(there, Origin.PEER)], now_ms=now_ms())
        found = await r.dht.get_content(here.content_digest)
        assert (found.heads, found.provenance.source) == ((here,), "local")
        found = await r.dht.get_content(there.content_digest)
        assert found.heads == ((there,) if r.peers else ())
        assert (await r.dht.get_content(nowhere.content_digest)).heads == ()
        assert (await r.dht.get_content(there.content_digest, consistency=Consistency.LOCAL)).heads == ()
        assert not await r.store.has_content(there.content_digest), "it is not kept"
        if r.peers:
            assert (await r.dht.get_content(here.content_digest, consistency=Consistency.SWARM)).heads == ()
            await r.cut()
            with pytest.raises(Unavailable):
                await r.dht.get_content(there.content_digest)


@every_backend
async def test_a_full_disk_fails_the_put_and_reads_go_on(backend: str) -> None:
    disk = Disk()
    async with rig(backend, disk=disk) as r:
        written = envelope()
        await r.dht.put(written)
        disk.is_full = True
        with pytest.raises(StorageFull):
            await r.dht.put(envelope(b"lost", parents=(written.digest,), at=5))
        assert (await r.dht.get(KEY, consistency=Consistency.LOCAL)).heads == (written,)
        disk.is_full = False
        later = envelope(b"kept", parents=(written.digest,), at=9)
        await r.dht.put(later)
        assert (await r.dht.get(KEY)).heads == (later,)


@every_backend
async def test_a_stalled_disk_fails_a_put_after_the_deadline_of_the_disk_and_is_named(backend: str) -> None:
    disk = Disk()
    async with rig(backend, disk=disk) as r:
        await r.dht.put(envelope())
        disk.resumed = trio.Event()
        started = trio.current_time()
        stalled = envelope(b"stalled", at=5)
        with pytest.raises(Unavailable if backend == "real" else Indeterminate) as caught:
            await r.dht.put(stalled, timeout=0.1)
        assert trio.current_time() - started >= STORE_DEADLINE_SECONDS
        assert "the disk has not confirmed the commit" in caught.value.message
        if backend != "real":  # real asks no holder before its own disk has the envelope
            assert caught.value.details["digest"] == stalled.digest.hex()
        disk.resumed.set()


@every_backend
async def test_a_disk_that_is_slower_than_the_deadline_for_the_swarm_fails_no_put(backend: str) -> None:
    disk = Disk()
    async with rig(backend, disk=disk) as r:
        disk.resumed = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_resume_after, disk, 0.2)
            receipt = await r.dht.put(envelope(), timeout=0.1)
        assert receipt.backend is (Backend.MOCK if backend == "mock" else Backend.REAL)


async def _resume_after(disk: Disk, seconds: float) -> None:
    await trio.sleep(seconds)
    assert disk.resumed is not None
    disk.resumed.set()
    disk.resumed = None


@in_a_swarm
async def test_peers_get_what_was_put(backend: str) -> None:
    async with rig(backend) as r:
        written = envelope()
        await r.dht.put(written)
        for peer in r.peers:
            answer = await peer.dht.get(KEY, consistency=Consistency.SWARM)
            assert answer.heads == (written,)
            assert answer.provenance.source == "swarm"


@in_a_swarm
async def test_without_the_swarm_nothing_is_reported_absent(backend: str) -> None:
    async with rig(backend) as r:
        written = envelope()
        await r.dht.put(written)
        await r.cut()
        started = trio.current_time()
        with pytest.raises(Unavailable):
            await r.dht.get(KEY[:-1] + b"_")
        with pytest.raises(Unavailable):
            await r.dht.get(KEY, consistency=Consistency.SWARM)
        assert (await r.dht.get(KEY, consistency=Consistency.LOCAL)).heads == (written,)
        assert trio.current_time() - started < 2.0


async def test_real_without_a_swarm_writes_nothing() -> None:
    async with rig("real") as r:
        await r.cut()
        with pytest.raises(Unavailable):
            await r.dht.put(envelope())
        assert (await r.dht.get(KEY, consistency=Consistency.LOCAL)).heads == ()
        assert r.store.last_sequence == 0


async def test_real_needs_as_many_members_as_its_quorum() -> None:
    async with rig("mock") as alone:
        assert alone.dht.write_quorum == 0
    async with rig("real") as r:
        for peer in r.peers:
            r.node.members.forget(peer.peer_id)
        with pytest.raises(Unavailable) as caught:
            await r.dht.put(envelope())
        assert (caught.value.details["members"], caught.value.details["write_quorum"]) == (0, 2)


async def test_hybrid_without_a_swarm_answers_from_this_machine_and_says_so() -> None:
    async with rig("hybrid") as r:
        before = envelope(b"before")
        await r.dht.put(before)
        await r.cut()
        alone = envelope(b"alone", parents=(before.digest,), at=5)
        receipt = await r.dht.put(alone)
        assert (receipt.backend, receipt.durability) == (Backend.MOCK, Durability.PENDING)
        answer = await r.dht.get(KEY)
        assert answer.heads == (alone,)
        assert (answer.provenance.backend, answer.provenance.source) == (Backend.HYBRID, "local")
        history = await r.dht.history(KEY)
        assert (history.provenance.backend, history.provenance.source) == (Backend.HYBRID, "local")


async def test_writes_of_hybrid_alone_reach_the_swarm_when_it_is_back() -> None:
    async with rig("hybrid") as r:
        await r.cut()
        alone = envelope(b"alone")
        assert not (await r.dht.put(alone)).is_replicated
        await r.heal()
        await r.store.replicated(alone.digest, 2)
        for peer in r.peers:
            assert (await peer.dht.get(KEY, consistency=Consistency.LOCAL)).heads == (alone,)
        assert r.store.pending().count == 0


async def test_one_store_serves_all_backends() -> None:
    """A write of one backend is read by another: they are views of one store."""
    async with rig("hybrid") as r:
        written = envelope()
        await r.dht.put(written)
        mock = MockDHT(r.store, own=KEYS[0].peer_id, now_ms=now_ms)
        assert (await mock.get(KEY)).heads == (written,)
        alone = envelope(parents=(written.digest,), at=5)
        await mock.put(alone)
        assert (await r.dht.get(KEY)).heads == (alone,)
