"""Readable heads: an answer is marked in words, and content that no holder had is remembered for a while."""

import trio
import trio.testing

from node.dht.base import Backend, Provenance
from node.dht.readable_heads import AGAIN_SECONDS, ASKED_MAX, COUNTED_SECONDS, ReadableHeads, ReadableView
from node.store.log import Incoming, Origin
from node.store.memory.store import MemoryStore
from protocols.clock import version
from protocols.envelope import Envelope, seal
from protocols.keys import PrivateKey

AUTHOR = PrivateKey.from_seed(b"\x01" * 32)
ADDRESS = "ucxl://agent:role@project:task/*^/thing"
LOCAL = Provenance(Backend.MOCK, "local", 0.0, 1, 0, False)
SWARM = LOCAL._replace(source="swarm", reason="1 of 2 holders answered", is_degraded=True)


def envelope(at: int, *parents: Envelope) -> Envelope:
    return seal(
        AUTHOR, address=ADDRESS, content=b"%d" % at, content_type="text/plain", version=version(at, 0),
        parents=[parent.digest for parent in parents],
    )  # fmt: skip


async def view_of(*versions: Envelope, without: tuple[Envelope, ...] = ()) -> ReadableView:
    store = MemoryStore(log_id="ab" * 8)
    await store.merge([Incoming(one, Origin.PEER) for one in versions], now_ms=1)
    await store.merge([Incoming(one.notice, Origin.PEER) for one in without], now_ms=1)
    key = envelope(1).key
    return await ReadableHeads(store).view(key, await store.heads(key))


async def test_an_answer_says_what_is_known_without_content() -> None:
    one = envelope(1)
    top = envelope(9, one)
    two_later = await view_of(one, top, without=(envelope(5), envelope(15)))
    for lost, is_degraded, words in (
        ((), False, ""),
        ((envelope(5),), False, "another version by {0} is known and its content is not"),
        ((envelope(5), envelope(6)), False, "2 other versions, the latest by {0}, are known and their content is not"),
        ((envelope(15),), True, "a later version by {0} is known and its content is not"),
        ((envelope(5), envelope(15)), True, "2 later versions, the latest by {0}, are known and their content is not"),
    ):
        view = await view_of(one, top, without=lost)
        answer = view.answer(LOCAL)
        assert answer.heads == (top,)
        assert (answer.provenance.is_degraded, answer.provenance.reason) == (is_degraded, words.format(AUTHOR.peer_id))
        assert len(answer.without_content) == len(lost)
    marked = two_later.answer(SWARM).provenance
    assert marked.reason.startswith(f"{SWARM.reason}; 2 later versions")


async def test_what_no_holder_has_is_absent_and_what_is_not_here_is_not() -> None:
    view = await view_of(without=(envelope(5),))
    assert view.heads == ()
    assert view.answer(LOCAL).provenance.is_degraded, "no holder was asked"
    assert not view.answer(LOCAL._replace(source="swarm")).provenance.is_degraded


async def test_content_that_was_asked_for_is_remembered_for_a_while(mock_clock: trio.testing.MockClock) -> None:
    readable = ReadableHeads(MemoryStore(log_id="ab" * 8))
    missing = (await view_of(without=(envelope(5), envelope(6)))).missing
    assert not readable.were_asked(b"key", missing)
    readable.asked(b"key", missing[:1])
    assert readable.were_asked(b"key", missing[:1])
    assert not readable.were_asked(b"key", missing), "one that nobody was asked for"
    assert readable.count() == 1
    mock_clock.jump(AGAIN_SECONDS + 0.01)
    assert not readable.were_asked(b"key", missing[:1]), "it is asked for again"
    assert readable.count() == 1
    mock_clock.jump(COUNTED_SECONDS)
    assert readable.count() == 0
    readable.asked(b"key", missing)
    readable.asked(b"key", ())
    assert readable.count() == 0, "all of it came"
    for number in range(ASKED_MAX + 10):
        readable.asked(b"%d" % number, missing[:1])
    assert readable.count() == ASKED_MAX
