"""Readable heads, over both stores: what readers are given is what the definition gives, and the work is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.dht.base import Answer, Backend, Provenance
from node.dht.mock import MockDHT
from node.dht.readable_heads import ReadableHeads, ReadableView
from node.store.base import Store
from node.store.memory.store import MemoryStore
from node.store.versions import Version
from protocols.envelope import Envelope, order_key
from tests.contract.stores import AUTHOR, LOG_ID, NOW, OTHER_AUTHOR, envelope, from_peer, put

KEY = envelope(1).key
LOCAL = Provenance(Backend.MOCK, "local", 0.0, 1, 0, False)


async def view_of(store: Store, readable: ReadableHeads | None = None) -> ReadableView:
    return await (readable or ReadableHeads(store)).view(KEY, await store.heads(KEY))


def digests(view: ReadableView) -> list[bytes]:
    return [head.digest for head in view.heads]


async def test_a_version_without_content_hides_nothing(store: Store) -> None:
    one = envelope(1)
    two, lost = envelope(2, parents=[one.digest]), envelope(3, parents=[one.digest], author=OTHER_AUTHOR)
    chain = [lost]
    for number in range(4, 8):
        chain.append(envelope(number, parents=[chain[-1].digest, two.digest], author=OTHER_AUTHOR))
    await put(store, from_peer(one), *[from_peer(each.notice) for each in chain])
    view = await view_of(store)
    assert view.heads == (one,)
    assert [version.digest for version in view.missing] == [each.digest for each in reversed(chain)]
    await put(store, from_peer(two))
    assert digests(await view_of(store)) == [two.digest], "what it is made on is superseded by a version with content"
    await put(store, from_peer(chain[2]))
    assert digests(await view_of(store)) == [chain[2].digest]
    await put(store, from_peer(chain[-1]))
    assert await view_of(store) == ReadableView((chain[-1],))


async def test_what_is_kept_is_dropped_by_every_change(store: Store) -> None:
    readable = ReadableHeads(store)
    one = envelope(1)
    two = envelope(2, parents=[one.digest])
    lost = envelope(3, parents=[two.digest])
    await put(store, from_peer(one), from_peer(two.notice), from_peer(lost.notice))
    assert digests(await view_of(store, readable)) == [one.digest]
    assert await view_of(store, readable) is await view_of(store, readable)
    await put(store, from_peer(two))
    assert digests(await view_of(store, readable)) == [two.digest], "the heads are the same, and another is readable"
    await put(store, from_peer(lost))
    assert digests(await view_of(store, readable)) == [lost.digest]


async def test_a_long_chain_without_content_is_passed_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without walking over all of it: a member may sign any number of such versions."""
    good = envelope(1)
    chain = [good]
    for number in range(2, 1_500):
        chain.append(envelope(number, parents=[chain[-1].digest], author=OTHER_AUTHOR))
    await put(store, from_peer(good), *[from_peer(each.notice) for each in chain[1:]])
    read, versions = list[Version](), store.versions

    async def counted(key: bytes, *, after: int = 0, limit: int = 1000) -> list[Version]:
        read.extend(page := await versions(key, after=after, limit=limit))
        return page

    monkeypatch.setattr(store, "versions", counted)
    view = await view_of(store)
    assert view.heads == (good,)
    assert len(read) < 1_100
    assert len(view.missing) == 1_000
    assert view.answer(LOCAL).provenance.reason == (
        f"1000 later versions, the latest by {OTHER_AUTHOR.peer_id}, are known and their content is not"
    )


ROWS = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(0, 7), max_size=2), st.booleans(), st.booleans()), max_size=8
)


def in_story(rows: list[tuple[int, list[int], bool, bool]]) -> list[tuple[Envelope, bool]]:
    """Versions, each with parents among those before it, and whether its content is there."""
    story: list[tuple[Envelope, bool]] = []
    for number, (version, parents, is_own, is_held) in enumerate(rows):
        named = [story[parent][0].digest for parent in parents if parent < number]
        author = AUTHOR if is_own else OTHER_AUTHOR
        story.append((envelope(version, content=b"%d" % number, parents=named, author=author), is_held))
    return story


def descend(story: list[tuple[Envelope, bool]], start: Envelope) -> set[bytes]:
    """The versions that a version descends from."""
    by_digest = {each.digest: each for each, _ in story}
    found: set[bytes] = set()
    ways = [start]
    while ways:
        child = ways.pop()
        for parent in (by_digest[digest] for digest in child.parents):
            if parent.version < child.version and parent.digest not in found:
                found.add(parent.digest)
                ways.append(parent)
    return found


@given(ROWS)
async def test_it_is_what_the_definition_says(rows: list[tuple[int, list[int], bool, bool]]) -> None:
    story = in_story(rows)
    store = MemoryStore(log_id=LOG_ID)
    await put(store, *[from_peer(each if is_held else each.notice) for each, is_held in story])
    held = [each for each, is_held in story if is_held]
    ended = set[bytes]().union(*[descend(story, each) for each in held])
    expected = [each for each in held if each.digest not in ended]
    assert digests(await view_of(store)) == [each.digest for each in sorted(expected, key=order_key, reverse=True)]


async def test_a_backend_over_it_answers_what_can_be_read(store: Store) -> None:
    one = envelope(1)
    lost = envelope(2, parents=[one.digest], author=OTHER_AUTHOR)
    await put(store, from_peer(one), from_peer(lost.notice))
    dht = MockDHT(store, own=AUTHOR.peer_id, now_ms=lambda: NOW)
    answer = await dht.get(KEY)
    assert answer.heads == (one,)
    assert answer.without_content == (lost.notice,)
    assert answer.provenance.is_degraded
    await put(store, from_peer(lost))
    assert await dht.get(KEY) == Answer((lost,), answer.provenance._replace(is_degraded=False, reason=""))
