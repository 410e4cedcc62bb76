"""The author under faults: no siblings by accident, conditions hold, and bad input leaves nothing."""

import random

import pytest
import trio

from node.dht.base import Consistency
from protocols.clock import version
from protocols.envelope import Envelope
from protocols.errors import (
    BadSignature,
    BzzzError,
    ClockAhead,
    Conflict,
    Indeterminate,
    InvalidAddress,
    InvalidPayload,
    NotLater,
    StorageFull,
    TooLarge,
    Unavailable,
    UnknownParents,
    UnsupportedFormat,
)
from protocols.header import ENCODED_BYTES_MAX, PARENTS_MAX
from protocols.heads import heads_tag
from protocols.keys import PrivateKey
from protocols.ucxl import parse
from tests.sim.swarms import (
    Disk,
    content,
    counted,
    envelope,
    get,
    heads_at,
    hints_delivered,
    key,
    met,
    names,
    over_seeds,
    put,
    running,
    swarm_of,
    thing,
    within,
)
from tests.sim.writing import DEADLINES, STORE_DEADLINE, WITH_DISK, backend_of

# -- one key, many writers --------------------------------------------------------------------------------------------


async def many_writers(seed: int) -> None:
    """Many callers of one node write one address at the same time, with a slow disk: one straight line."""
    rng = random.Random(seed)
    backend = backend_of(seed)
    async with swarm_of(seed, 3, backend=backend, store_deadline_ms=int(STORE_DEADLINE * 1000)) as swarm:
        node = swarm["n1"].running
        disk = Disk.under(swarm["n1"].store)
        disk.seconds = rng.choice((0.0, 0.001, 0.003))
        written = []

        async def write(number: int) -> None:
            await trio.sleep(rng.random() * 0.02)
            with within(DEADLINES[backend]):
                try:
                    written.append(await put(node, 0, b"%d" % number))
                except Unavailable as error:
                    assert "nothing was written" in error.message

        async with trio.open_nursery() as nursery:
            for number in range(25):
                nursery.start_soon(write, number)
        assert len(written) > 5
        assert len(await node.store.heads(key())) == 1, "callers of one node made siblings by accident"
        assert len({receipt.version for receipt in written}) == len(written)
        assert sum(not receipt.parents for receipt in written) == 1
        assert len({receipt.parents for receipt in written}) == len(written), "each is on top of another"
        assert not node.author.locks._locks  # private: nothing else shows a lock that is never dropped


def test_concurrent_writers_of_one_address_on_one_node_never_make_siblings() -> None:
    over_seeds(many_writers)


async def stalled_disk(seed: int) -> None:
    """The disk stalls during writes: these are `Indeterminate` in time, later ones fail with nothing written, and
    afterwards the versions form one chain, in which each uncertain write is or is not."""
    rng = random.Random(seed)
    backend = ("mock", "hybrid")[seed % 2]
    async with swarm_of(seed, 3, backend=backend, store_deadline_ms=int(STORE_DEADLINE * 1000)) as swarm:
        node = swarm["n1"].running
        disk = Disk.under(swarm["n1"].store)
        acknowledged: list[bytes] = []
        uncertain: list[bytes] = []
        is_over = False

        async def write(number: int) -> None:
            while not is_over:
                with within(WITH_DISK[backend]):
                    try:
                        acknowledged.append((await put(node, rng.randrange(2), rng.randbytes(9))).digest)
                    except Indeterminate as error:
                        uncertain.append(bytes.fromhex(error.details["digest"]))
                    except StorageFull:
                        pass
                    except Unavailable as error:
                        assert "nothing was written" in error.message
                await trio.sleep(rng.random() * 0.1)

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(write, number)
            for _ in range(3):
                await trio.sleep(rng.random())
                disk.stall()
                await trio.sleep(rng.random() * 2)
                disk.is_full = rng.random() < 0.3
                disk.resume()
                await trio.sleep(rng.random() * 0.1)
                disk.is_full = False
            is_over = True
        for number in range(2):
            await put(node, number)
            versions = await node.store.versions(key(number))
            assert [each.is_head for each in versions].count(True) == 1
            parents = {each.notice.parents for each in versions}
            assert len(parents) == len(versions), "an uncertain write became a sibling"
        for digest in acknowledged:
            assert isinstance(await node.store.by_digest(digest), Envelope)
        assert not set(acknowledged) & set(uncertain)
        if backend == "hybrid":
            await hints_delivered(swarm)
            for each in running(swarm):
                for number in range(2):
                    assert len(await each.store.heads(key(number))) == 1


def test_a_stalled_disk_makes_no_siblings_and_no_false_acknowledgement() -> None:
    over_seeds(stalled_disk, range(4))


# -- conditions -------------------------------------------------------------------------------------------------------


async def compare_and_set(seed: int) -> None:
    """Callers increment a counter with If-Match: on one node no increment is lost, and across nodes none is lost
    silently: at most siblings appear."""
    rng = random.Random(seed)
    replication = rng.choice((2, 20))
    async with swarm_of(seed, 5, replication=replication) as swarm:
        raised = 0

        async def increment(name: str) -> None:
            nonlocal raised
            node = swarm[name].running
            for _ in range(4):
                while True:
                    answer = await get(node, "counter")
                    if not answer.heads:
                        try:
                            await put(node, "counter", b"1", must_be_absent=True)
                        except Conflict:
                            continue
                        break
                    head = answer.heads[0]
                    assert isinstance(head, Envelope)
                    try:
                        await put(node, "counter", b"%d" % (int(head.content) + 1), if_match=(head.digest,))
                    except Conflict:
                        await trio.sleep(rng.random() * 0.01)
                        continue
                    break
                raised += 1
                await trio.sleep(rng.random() * 0.05)

        name = rng.choice(names(5))
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(increment, name)
        assert raised == 20
        assert await content(swarm[name].running, "counter") == b"20"
        await hints_delivered(swarm)
        for other in names(5):  # one after the other, from node to node: no conflict, and no sibling
            node = swarm[other].running
            answer = await get(node, "counter", Consistency.SWARM)
            assert answer.provenance.siblings == 0, f"{other} has siblings that no other node has"
            head = answer.heads[0]
            assert isinstance(head, Envelope)
            await put(node, "counter", b"%d" % (int(head.content) + 1), if_match=(head.digest,))
            with pytest.raises(Conflict):
                await put(node, "counter", b"never", if_match=(head.digest,))
            await hints_delivered(swarm)
        assert await content(swarm["n1"].running, "counter", Consistency.SWARM) == b"25"


def test_a_counter_with_if_match_loses_no_increment() -> None:
    over_seeds(compare_and_set, range(4))


async def conditions(seed: int) -> None:
    async with swarm_of(seed, 3, backend=backend_of(seed)) as swarm:
        node = swarm["n1"].running
        with pytest.raises(Conflict):
            await put(node, any_match=True)
        with pytest.raises(Conflict):
            await put(node, if_match=(bytes(32),))
        first = await put(node, must_be_absent=True)
        for condition in ({"must_be_absent": True}, {"if_match": (bytes(32),)}, {"if_match": ()}):
            with pytest.raises(Conflict) as raised:
                await put(node, 0, b"never", **condition)
            assert raised.value.details["heads"] == [first.digest.hex()]
        second = await put(node, 0, b"two", if_match=(bytes(32), first.digest))
        assert second.parents == (first.digest,)
        third = await put(node, 0, b"", deleted=True, any_match=True)
        with pytest.raises(Conflict):
            await put(node, any_match=True)
        again = await put(node, 0, b"again", must_be_absent=True)
        assert again.parents == (third.digest,)
        assert again.version > third.version > second.version > first.version
        sibling = envelope(0, b"sibling", parents=[first.digest], at_ms=50)
        await node.author.write_envelope(sibling.encoded)
        for digest in (again.digest, sibling.digest):
            with pytest.raises(Conflict):  # neither is the only head
                await put(node, 0, b"never", if_match=(digest,))
        assert await heads_at(node) == [b"again", b"sibling"]
        heads = (sibling.digest, again.digest)
        for named in (heads, (heads_tag(heads),)):
            with pytest.raises(Conflict):
                await put(node, 1, b"never", if_match=named)
        merged = await put(node, 0, b"merged", if_match=(heads_tag(heads),) if seed % 2 else heads)
        assert set(merged.parents) == set(heads)
        assert merged.is_conditional
        assert await heads_at(node) == [b"merged"]


def test_a_write_is_made_only_if_its_conditions_hold() -> None:
    over_seeds(conditions)


# -- parents, and what bad input gets ---------------------------------------------------------------------------------


async def parents(seed: int) -> None:
    """Named parents must exist, when that can be known, and be earlier; a clock learns from no refused version."""
    backend = backend_of(seed)
    async with swarm_of(seed, 3, backend=backend) as swarm:
        node = swarm["n1"].running
        first = await put(node, 0, b"first")
        other = await put(node, "other")
        second = await put(node, 0, b"second")
        sibling = await put(node, 0, b"stale", parents=(first.digest,))
        assert {head.digest for head in (await get(node)).heads} == {second.digest, sibling.digest}
        united = await put(node, 0, b"united")
        assert set(united.parents) == {second.digest, sibling.digest}
        assert await heads_at(node) == [b"united"]
        before = node.store.last_sequence
        for unknown in (bytes(32), other.digest):
            with within(DEADLINES[backend]), pytest.raises(UnknownParents) as raised:
                await put(node, 0, b"never", parents=(united.digest, unknown))
            assert raised.value.details["parent"] == unknown.hex()
        with pytest.raises(NotLater):
            await node.author.write_envelope(envelope(0, b"never", parents=[united.digest], at_ms=-5000).encoded)
        with pytest.raises(UnknownParents):
            await node.author.write_envelope(envelope(0, b"never", parents=[bytes(32)], at_ms=100).encoded)
        with pytest.raises(ClockAhead):
            await node.author.write_envelope(envelope(0, b"never", at_ms=61_000).encoded)
        assert node.store.last_sequence == before, "a refused write leaves something in the store"
        latest = await put(node, 0, b"latest")
        assert latest.version < version(node.now_ms() + 1000), "the clock learned from a refused version"


def test_parents_must_exist_and_be_earlier() -> None:
    over_seeds(parents)


async def alone_with_unknown_parents(seed: int) -> None:
    """While no peer can be asked, named parents are accepted; heads and history converge afterwards."""
    async with swarm_of(seed, 3) as swarm:
        node = swarm["n1"].running
        swarm.net.partition(swarm.peers("n1"), swarm.peers("n2", "n3"))
        theirs = [await put(swarm["n2"].running, 0, b"%d" % number) for number in range(3)]
        named = (theirs[-1].digest, theirs[0].digest, bytes([7] * 32))
        for _ in range(3):
            with within(0.1):
                await put(node, 0, b"mine", parents=named)
        with within(0.1):
            mine = await put(node, 0, b"mine", parents=named)
        swarm.net.heal()
        await met(swarm)
        await hints_delivered(swarm)
        for each in running(swarm):
            digests = {head.digest for head in await each.store.heads(key())}
            assert mine.digest in digests
            assert theirs[-1].digest not in digests


def test_unknown_parents_are_accepted_while_no_peer_can_be_asked() -> None:
    over_seeds(alone_with_unknown_parents)


async def bad_input(seed: int) -> None:
    backend = backend_of(seed)
    async with swarm_of(seed, 3, backend=backend) as swarm:
        node = swarm["n1"].running
        good = envelope(0, b"good")
        forged = good.encoded.replace(good.signature, bytes(64))
        changed = good.encoded.replace(b"good", b"evil")
        major = good.encoded.replace(b"\x92\x02\x00", b"\x92\x03\x00", 1)
        cases: list[tuple[bytes, type[BzzzError]]] = [
            (forged, BadSignature),
            (changed, InvalidPayload),
            (major, UnsupportedFormat),
            (b"", InvalidPayload),
            (b"not an envelope", InvalidPayload),
            (good.encoded[:-1], InvalidPayload),
            (good.encoded + b"\0", InvalidPayload),
            (bytes(ENCODED_BYTES_MAX + 1), TooLarge),
        ]
        for encoded, expected in cases:
            with within(0.0), pytest.raises(expected):
                await node.author.write_envelope(encoded)
        with pytest.raises(InvalidAddress):
            await node.author.write_envelope(good.encoded, address=thing("another"))
        with pytest.raises(InvalidAddress):
            await node.author.write_envelope(good.encoded, address=parse("ucxl://any:any@any:any/*^/0"))
        for size in (ENCODED_BYTES_MAX - 100, ENCODED_BYTES_MAX, ENCODED_BYTES_MAX + 1):
            with within(0.0), pytest.raises(TooLarge):
                await put(node, 0, bytes(size))
        with pytest.raises(InvalidPayload):
            await put(node, 0, meta={"": "nameless"})
        with pytest.raises(InvalidPayload, match="reissues"):  # it would end versions of other authors
            await put(node, 0, meta={"reissues": good.digest.hex()})
        with pytest.raises(InvalidPayload):
            await put(node, 0, b"content of a tombstone", deleted=True)
        assert node.store.last_sequence == 0
        await node.author.write_envelope(good.encoded, address=thing())
        assert (await put(node, 0, bytes(ENCODED_BYTES_MAX - 1000))).parents == (good.digest,)


def test_bad_input_gets_a_clear_error_and_leaves_nothing() -> None:
    over_seeds(bad_input)


async def too_many_siblings(seed: int) -> None:
    """With more siblings than a version can name as parents, plain writes go on and unite them step by step."""
    async with swarm_of(seed, 2) as swarm:
        node = swarm["n1"].running
        for number in range(PARENTS_MAX + 10):
            await node.author.write_envelope(envelope(0, b"%d" % number, counter=number).encoded, timeout=0.02)
        assert len(await node.store.heads(key())) == PARENTS_MAX + 10
        await put(node, 0, b"united")
        assert len(await node.store.heads(key())) == 11
        await put(node, 0, b"united")
        assert await heads_at(node) == [b"united"]
        await hints_delivered(swarm)
        assert await heads_at(swarm["n2"].running) == [b"united"]


def test_more_siblings_than_a_version_can_name_do_not_stop_the_next_write() -> None:
    over_seeds(too_many_siblings, range(1))


async def full_disk(seed: int) -> None:
    """A full disk fails the put with a clear error in time; nothing acknowledged is lost, and reads go on."""
    backend = backend_of(seed)
    async with swarm_of(seed, 3, backend=backend) as swarm:
        node = swarm["n1"].running
        kept = await put(node, 0, b"kept")
        disk = Disk.under(swarm["n1"].store)
        disk.is_full = True
        for _ in range(5):
            with within(DEADLINES[backend]), pytest.raises((StorageFull, Indeterminate)):
                await put(node, 0, b"lost")
            assert await content(node) == b"kept"
        assert node.health().status == "failed"
        with counted(at_most=8000):
            await trio.sleep(30.0)
        disk.is_full = False
        after = await put(node, 0, b"after")
        assert kept.digest in after.parents or backend == "real"
        assert node.health().status != "failed"


def test_a_full_disk_fails_the_put_and_nothing_else() -> None:
    over_seeds(full_disk)


async def ready_envelopes(seed: int) -> None:
    """Clients send signed envelopes to any node, each several times: every one is stored once."""
    rng = random.Random(seed)
    authors = [PrivateKey.from_seed(bytes([number]) * 32) for number in range(1, 5)]
    async with swarm_of(seed, 4, backend="hybrid", replication=rng.choice((2, 20))) as swarm:
        sent = [
            envelope(number % 3, b"%d" % number, author=rng.choice(authors), at_ms=number, counter=number)
            for number in range(30)
        ]
        for one in sent:
            for name in rng.choices(names(4), k=rng.randrange(1, 4)):
                with within(0.1):
                    receipt = await swarm[name].running.author.write_envelope(one.encoded)
                assert receipt.digest == one.digest
                held = await swarm[name].running.store.by_digest(one.digest)
                assert isinstance(held, Envelope)
                assert held.encoded == one.encoded
        await hints_delivered(swarm)
        for node in running(swarm):
            assert len({(await get(node, 0)).heads[0].digest for node in running(swarm)}) == 1
            log = [change.digest for change in await node.store.log(after=0)]
            assert len(set(log)) == len(log)


def test_signed_envelopes_are_stored_once_and_unchanged() -> None:
    over_seeds(ready_envelopes)
