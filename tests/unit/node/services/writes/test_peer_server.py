"""The peer server: each envelope is merged or refused by itself, and nothing is acknowledged before its commit."""

import errno
from collections.abc import AsyncIterator, Sequence

import pytest
import trio
import trio.testing

from node.services.membership.neighbours import Neighbours
from node.services.writes.peer_server import VERIFIED_AT_ONCE, PeerServer
from node.store.log import Incoming, Origin
from node.store.memory.store import MemoryStore
from node.swarm.rpc import Rpc
from protocols.envelope import decode, seal
from protocols.errors import StorageFull, Unavailable
from protocols.keys import PrivateKey
from protocols.messages import FailedReply, GetMissing, Merge, MergeReply, MissingReply, Reply, Request
from protocols.policy.signature_cache import SignatureCache
from tests.unit.one_end import OneEnd, rpc_over

AUTHOR = PrivateKey.from_seed(bytes(32))
NOW = 1_800_000_000_000
MANY = 2 * VERIFIED_AT_ONCE + 5


class Friends:
    """`Neighbours` that know every peer, while `are_known` is true."""

    def __init__(self) -> None:
        self.are_known = True

    def has_greeted(self, _: str) -> bool:
        return self.are_known

    def connected(self, *_: object) -> None: ...

    disconnected = heard = missed = connected


def encoded(count: int) -> list[bytes]:
    return [
        seal(
            AUTHOR, address=f"ucxl://a:r@p:t/*^/{n}", content=b"x", content_type="text/plain", version=1, parents=()
        ).encoded
        for n in range(count)
    ]  # fmt: skip


class Peer:
    """Sends messages to the server, and waits for its replies."""

    def __init__(self, net: OneEnd, rpc: Rpc, store: MemoryStore, friends: Friends) -> None:
        self.net, self.rpc, self.store, self.friends = net, rpc, store, friends
        self._number = 0

    def ask(self, request: Request, peer: str = "a") -> int:
        self._number += 1
        self.net.ask(peer, self._number, request)
        return self._number

    def send(self, envelopes: Sequence[bytes]) -> int:
        self._number += 1
        self.net.ask("a", self._number, Merge(tuple(envelopes)))
        return self._number

    async def answer_to(self, number: int, peer: str = "a") -> Reply:
        while True:
            replies = dict(self.net.replies(peer))
            if number in replies:
                return replies[number]
            await trio.testing.wait_all_tasks_blocked()
            assert number in dict(self.net.replies(peer)), "no task can run any more, and there is no reply"


@pytest.fixture
async def peer(autojump_clock: trio.testing.MockClock) -> AsyncIterator[Peer]:
    store, friends, net = MemoryStore(log_id="00112233445566aa"), Friends(), OneEnd()
    neighbours: Neighbours = friends  # type: ignore[assignment]
    server = PeerServer(
        store,
        neighbours,
        verified=SignatureCache(),
        now_ms=lambda: NOW,
        on_frame=lambda _: None,
    )
    async with trio.open_nursery() as nursery, rpc_over(net, server) as rpc:
        await nursery.start(store.run)
        net.come("a")
        yield Peer(net, rpc, store, friends)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("count", [1, VERIFIED_AT_ONCE - 1, VERIFIED_AT_ONCE, MANY])
async def test_a_message_is_acknowledged_after_all_of_it_was_committed(count: int, peer: Peer) -> None:
    go_on = trio.Event()
    peer.store.before_commit = go_on.wait
    number = peer.send(encoded(count))
    await trio.testing.wait_all_tasks_blocked()
    assert peer.net.replies("a") == [], "it is not committed yet"
    go_on.set()
    assert await peer.answer_to(number) == MergeReply(count, (), count)
    assert peer.store.last_sequence == count


async def test_refused_envelopes_are_named_by_position_and_the_rest_is_merged(peer: Peer) -> None:
    envelopes = encoded(MANY)
    for at in (3, MANY - 1):
        envelopes[at] = envelopes[at][:-1] + bytes([envelopes[at][-1] ^ 1])
    envelopes[VERIFIED_AT_ONCE + 1] = b"garbage"
    answer = await peer.answer_to(peer.send(envelopes))
    assert isinstance(answer, MergeReply)
    assert [at for at, _ in answer.refusals] == [3, VERIFIED_AT_ONCE + 1, MANY - 1]
    assert peer.store.last_sequence == MANY - 3


async def test_a_message_of_garbage_alone_is_answered(peer: Peer) -> None:
    answer = await peer.answer_to(peer.send([b"garbage"]))
    assert isinstance(answer, MergeReply)
    assert [at for at, _ in answer.refusals] == [0]


@pytest.mark.parametrize("count", [1, MANY])
async def test_a_message_that_was_written_in_part_is_not_acknowledged(count: int, peer: Peer) -> None:
    async def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    peer.store.before_commit = fail
    answer = await peer.answer_to(peer.send(encoded(count)))
    assert isinstance(answer, FailedReply)
    assert isinstance(answer.error, StorageFull)
    peer.store.before_commit = None
    assert await peer.answer_to(peer.send(encoded(count))) == MergeReply(count, (), count)
    assert peer.store.last_sequence == count


async def test_a_message_is_abandoned_when_its_peer_disconnects(peer: Peer) -> None:
    number = peer.send(encoded(MANY))
    peer.friends.are_known = False
    answer = await peer.answer_to(number)
    assert isinstance(answer, FailedReply)
    assert isinstance(answer.error, Unavailable)
    assert peer.store.last_sequence < MANY


async def test_one_feeder_at_a_time_is_asked_for_what_is_missing(peer: Peer) -> None:
    envelopes = [decode(each) for each in encoded(3)]
    await peer.store.merge([Incoming(envelopes[0], Origin.PEER)], now_ms=NOW)
    digests = tuple(each.digest for each in envelopes)
    peer.net.come("b")
    lacking = digests[1:]
    assert await peer.answer_to(peer.ask(GetMissing(digests))) == MissingReply(lacking, ())
    assert await peer.answer_to(peer.ask(GetMissing(digests), "b"), "b") == MissingReply((), lacking)
    assert await peer.answer_to(peer.ask(GetMissing(()))) == MissingReply((), ())
