"""A version whose content is not to be had, over mock, real and hybrid: it hides nothing from readers and writers."""

import pytest

from node.dht.base import Consistency
from node.services.writes.write_request import WriteRequest
from node.store.log import Incoming, Origin
from protocols.envelope import Envelope
from protocols.errors import Conflict, Deleted, NotFound, OutOfRange, Unavailable
from protocols.heads import heads_tag
from protocols.ucxl import Address, parse
from tests.contract.rigs import ADDRESS, KEY, KEYS, Rig, envelope, now_ms, rig
from tests.until import until

BACKENDS = ("mock", "real", "hybrid")
every_backend = pytest.mark.parametrize("backend", BACKENDS)
in_a_swarm = pytest.mark.parametrize("backend", ("real", "hybrid"))
THING = parse(ADDRESS)
READ_SECONDS = 10.0
"""How long a read may take that asks the holders for the content of many versions: on a busy machine, in a process with
three nodes, that is longer than a deadline."""


def at(temporal: str) -> Address:
    return parse(ADDRESS.replace("*^", temporal))


async def learn(r: Rig, *versions: Envelope) -> None:
    """The node under test hears of versions, and gets no content."""
    await r.store.merge([Incoming(one.notice, Origin.PEER) for one in versions], now_ms=now_ms())


async def content(r: Rig, address: Address = THING, consistency: Consistency = Consistency.AUTO) -> bytes:
    head = (await r.node.resolver.resolve(address, consistency=consistency, timeout=READ_SECONDS)).heads[0]
    assert isinstance(head, Envelope)
    return head.content


async def write(r: Rig, content: bytes, **write: object) -> tuple[bytes, ...]:
    """Write a version; return its parents."""
    receipt = await r.node.author.write(WriteRequest(address=THING, content=content, **write))  # type: ignore[arg-type]
    return receipt.parents


@every_backend
async def test_the_latest_version_with_content_is_answered_and_marked(backend: str) -> None:
    async with rig(backend) as r:
        good = envelope(b"good")
        await r.dht.put(good)
        lost = envelope(b"lost", parents=(good.digest,), author=1, at=5)
        await learn(r, lost)
        assert (await r.store.heads(KEY))[0].digest == lost.digest, "it is a head as every other"
        for consistency in (Consistency.AUTO, Consistency.LOCAL, Consistency.AUTO):
            answer = await r.dht.get(KEY, consistency=consistency)
            assert answer.heads == (good,)
            assert [version.digest for version in answer.without_content] == [lost.digest]
            assert answer.provenance.is_degraded
            words = f"a later version by {KEYS[1].peer_id} is known and its content is not"
            assert answer.provenance.reason == words
            assert answer.provenance.siblings == 0
            assert await content(r, THING, consistency) == b"good"


@every_backend
async def test_a_write_is_made_on_top_of_what_can_be_read(backend: str) -> None:
    async with rig(backend) as r:
        good = envelope(b"good")
        await r.dht.put(good)
        lost = envelope(b"lost", parents=(good.digest,), author=1, at=5)
        await learn(r, lost)
        assert await write(r, b"new") == (good.digest,)
        await until(lambda: now_ms() > lost.version >> 16, what="the clock has passed the lost version")
        assert await write(r, b"newer") != (lost.digest,)
        answer = await r.dht.get(KEY)
        assert [head.content for head in answer.heads if isinstance(head, Envelope)] == [b"newer"]
        assert not answer.provenance.is_degraded, "what is without content is not later than the answer"
        assert answer.provenance.reason == f"another version by {KEYS[1].peer_id} is known and its content is not"


@every_backend
async def test_a_condition_holds_for_what_was_read_or_for_all_that_is_known(backend: str) -> None:
    async with rig(backend) as r:
        good = envelope(b"good")
        await r.dht.put(good)
        lost = envelope(b"lost", parents=(good.digest,), author=1, at=5)
        await learn(r, lost)
        await until(lambda: now_ms() > lost.version >> 16, what="the clock has passed the lost version")
        with pytest.raises(Conflict):
            await write(r, b"no", if_match=(bytes(32),))
        with pytest.raises(Conflict):
            await write(r, b"no", must_be_absent=True)
        for number in range(3):  # what a client does that reads, changes and writes
            read = await r.dht.get(KEY)
            tag = heads_tag(head.digest for head in read.heads)
            assert await write(r, b"%d" % number, if_match=(tag,)) == (read.heads[0].digest,)
        top = (await r.dht.get(KEY)).heads[0].digest
        assert set(await write(r, b"both", if_match=(top, lost.digest))) == {top, lost.digest}
        answer = await r.dht.get(KEY)
        assert answer.without_content == ()
        assert (answer.provenance.is_degraded, answer.provenance.reason) == (False, "")


@every_backend
async def test_temporal_parts_count_from_what_a_plain_read_answers(backend: str) -> None:
    async with rig(backend) as r:
        one = envelope(b"one")
        two = envelope(b"two", parents=(one.digest,), at=3)
        before = envelope(b"before", author=1, at=-60_000)
        lost = [envelope(b"lost", parents=(two.digest,), author=1, at=5)]
        for number in range(20):
            lost.append(envelope(b"lost", parents=(lost[-1].digest,), author=1, at=6 + number))
        await r.dht.put(one)
        await r.dht.put(two)
        await learn(r, before, *lost)
        for temporal, expected in (
            ("*^", b"two"), ("~~1", b"one"), ("*~", b"one"), ("*~2", b"two"), ("^^1", b"two"),
            ("2999-01-01T00:00:00Z", b"two"),
        ):  # fmt: skip
            assert await content(r, at(temporal)) == expected
        with pytest.raises(OutOfRange) as raised:
            await content(r, at("~~2"))
        assert raised.value.details["versions"] == 2
        answer = await r.node.resolver.resolve(at("~~1"), timeout=READ_SECONDS)
        assert answer.provenance.is_degraded
        assert "21 versions without content not counted" in answer.provenance.reason
        assert (await r.dht.history(KEY, consistency=Consistency.LOCAL)).total == 24, "the history has them all"


@every_backend
async def test_a_tombstone_under_a_lost_version_is_still_a_tombstone(backend: str) -> None:
    async with rig(backend) as r:
        good = envelope(b"good")
        tombstone = envelope(parents=(good.digest,), deleted=True, at=3)
        await r.dht.put(good)
        await r.dht.put(tombstone)
        await learn(r, envelope(b"lost", parents=(tombstone.digest,), author=1, at=5))
        with pytest.raises(Deleted) as raised:
            await content(r)
        assert raised.value.details["degraded"]
        assert await write(r, b"again", must_be_absent=True) == (tombstone.digest,)


@every_backend
async def test_siblings_stay_siblings_under_a_lost_version(backend: str) -> None:
    async with rig(backend) as r:
        older, newer = envelope(b"older"), envelope(b"newer", author=1, at=5)
        await r.dht.put(newer)
        await r.dht.put(older)
        lost = envelope(b"lost", parents=(older.digest, newer.digest), author=1, at=9)
        await learn(r, lost)
        answer = await r.dht.get(KEY)
        assert [head.digest for head in answer.heads] == [newer.digest, older.digest]
        assert answer.provenance.siblings == 1
        assert set(await write(r, b"both")) == {older.digest, newer.digest}


@every_backend
async def test_an_address_with_a_lost_version_alone_is_free(backend: str) -> None:
    async with rig(backend) as r:
        lost = envelope(b"lost", author=1)
        await learn(r, lost)
        # A node that asks no other cannot say that there is nothing.
        with pytest.raises(Unavailable if backend == "mock" else NotFound, match="its content is not"):
            await content(r)
        with pytest.raises((NotFound, Unavailable)):
            await r.node.resolver.resolve(THING, digest=lost.digest)
        assert await write(r, b"new", must_be_absent=True) == ()
        assert await content(r) == b"new"


@in_a_swarm
async def test_content_that_a_holder_has_is_fetched_and_not_passed_over(backend: str) -> None:
    async with rig(backend) as r:
        good = envelope(b"good")
        await r.dht.put(good)
        later = envelope(b"later", parents=(good.digest,), author=1, at=5)
        await r.peers[1].store.merge([Incoming(later, Origin.PEER)], now_ms=now_ms())
        await learn(r, later)
        answer = await r.dht.get(KEY)
        assert answer.heads == (later,)
        assert not answer.provenance.is_degraded
        assert answer.without_content == ()


async def test_content_that_no_holder_could_be_asked_for_is_asked_for_again() -> None:
    async with rig("hybrid") as r:
        good = envelope(b"good")
        await r.dht.put(good)
        later = envelope(b"later", parents=(good.digest,), author=1, at=5)
        await r.cut()
        await r.peers[1].store.merge([Incoming(later, Origin.PEER)], now_ms=now_ms())
        await learn(r, later)
        answer = await r.dht.get(KEY)
        assert answer.heads == (good,)
        assert answer.provenance.is_degraded
        assert "is known and its content is not" in answer.provenance.reason
        await r.heal()

        async def is_read() -> bool:
            return (await r.dht.get(KEY)).heads == (later,)

        await until(is_read)


@every_backend
async def test_all_is_as_usual_once_the_content_is_here(backend: str) -> None:
    async with rig(backend) as r:
        good = envelope(b"good")
        await r.dht.put(good)
        later = envelope(b"later", parents=(good.digest,), author=1, at=5)
        await learn(r, later)
        assert await content(r) == b"good"
        await r.store.merge([Incoming(later, Origin.PEER)], now_ms=now_ms())
        answer = await r.dht.get(KEY)
        assert answer.heads == (later,)
        assert (answer.provenance.is_degraded, answer.without_content) == (False, ())
        assert await content(r, at("~~1")) == b"good"


@in_a_swarm
async def test_peers_get_what_can_be_read_from_a_node_that_knows_a_lost_version(backend: str) -> None:
    async with rig(backend) as r:
        good = envelope(b"good")
        await r.store.merge([Incoming(good, Origin.PEER)], now_ms=now_ms())
        await learn(r, envelope(b"lost", parents=(good.digest,), author=1, at=5))
        answer = await r.peers[0].dht.get(KEY, consistency=Consistency.SWARM)
        assert answer.heads == (good,)
        assert answer.provenance.is_degraded


@in_a_swarm
async def test_health_and_metrics_count_the_lost_content(backend: str) -> None:
    async with rig(backend) as r:
        await r.dht.put(good := envelope(b"good"))
        assert r.node.resolver.lost_content == 0
        await learn(r, envelope(b"lost", parents=(good.digest,), author=1, at=5))
        assert await content(r) == b"good"
        assert r.node.resolver.lost_content == 1
        assert "no holder has the content of 1 version that readers asked for" in " ".join(r.node.health().reasons)
