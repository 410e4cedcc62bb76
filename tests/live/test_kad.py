"""The DHT's protocol over libp2p: questions and answers, the peers that speak it, and streams that misbehave."""

import contextlib
from collections.abc import AsyncIterator

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError

from node.swarm.base import DialFailed, KadFailed
from node.swarm.libp2p import kad_client
from node.swarm.libp2p.host import Host
from node.swarm.libp2p.message_splitter import MessageSplitter, prefixed
from node.swarm.libp2p.multistream import propose
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.libp2p.yamux_stream import YamuxStream
from node.swarm.limits import SwarmLimits
from protocols.errors import Malformed
from protocols.kademlia.messages import MESSAGE_BYTES_MAX, PROTOCOL
from tests.live.intruders import assert_ends, assert_serves, intruder, plain_host
from tests.live.swarm_peers import running
from tests.until import until

KAD = TProtocol(PROTOCOL)
OPENING = b"\x13/multistream/1.0.0\n" + prefixed(f"{PROTOCOL}\n".encode())
QUESTION = b"\x08\x04\x12\x03"
"""The start of a request of three bytes of key, so that it is a message of the DHT."""


class Answerer:
    """A `KadReceiver` that answers each message with itself, unless `answers` says otherwise."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.found_peers: dict[str, tuple[str, ...]] = {}
        self.remotes: list[str] = []
        self.may_answer = trio.Event()
        self.may_answer.set()
        self.answers: dict[bytes, bytes | None] = {}

    def found(self, peer: str, addresses: tuple[str, ...]) -> None:
        self.found_peers[peer] = addresses

    def stopped(self, peer: str) -> None:
        self.found_peers.pop(peer, None)

    async def answer(self, peer: str, remote: str, message: bytes) -> bytes | None:
        self.asked.append(message)
        self.remotes.append(remote)
        await self.may_answer.wait()
        if message.endswith(b"bad"):
            raise Malformed("it is bad")
        return self.answers.get(message, message)


def question(name: str) -> bytes:
    assert len(name) == 3
    return QUESTION + name.encode()


def count(host: Host, kind: str) -> int:
    return host.peer_policy.limit_counters.counts.as_dict()[kind]


@contextlib.asynccontextmanager
async def two_speakers(limits: SwarmLimits | None = None) -> AsyncIterator[tuple[Host, Answerer, Host, Answerer]]:
    """Two hosts that speak the protocol, the first of which dialled the second."""
    one, two = Answerer(), Answerer()
    async with running(kad=one) as (first, _), running(kad=two, limits=limits or SwarmLimits()) as (second, _):
        await first.dial(second.addresses, timeout=20)
        yield first, one, second, two


async def stream_of(mux: YamuxConnection) -> YamuxStream:
    stream = await mux.open_stream()
    await propose(stream, KAD)
    return stream


async def answer_on(stream: INetStream | YamuxStream) -> bytes:
    splitter = MessageSplitter(MESSAGE_BYTES_MAX)
    while True:
        if messages := splitter.feed(await stream.read(100_000)):
            return messages[0]


# -- questions ------------------------------------------------------------------------------------------------------


async def test_each_question_gets_its_answer_over_one_stream() -> None:
    async with two_speakers() as (first, _, second, two):
        answers: dict[str, bytes] = {}

        async def ask(name: str) -> None:
            answers[name] = await first.kad.ask(second.peer_id, question(name))

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, f"{number:03}")
        assert answers == {name: question(name) for name in answers} and len(answers) == 50
        (connection,) = second.swarm.of(first.peer_id)
        assert [s.get_protocol() for s in connection.streams].count(KAD) == 1
        assert two.remotes[0].startswith("/ip4/127.0.0.1/tcp/")


async def test_who_gives_up_leaves_the_answers_of_others_matched() -> None:
    async with two_speakers() as (first, _, second, two):
        two.may_answer = trio.Event()
        with trio.move_on_after(0.1):
            await first.kad.ask(second.peer_id, question("one"))
        await until(lambda: two.asked)
        async with trio.open_nursery() as nursery:
            answers: list[bytes] = []

            async def ask() -> None:
                answers.append(await first.kad.ask(second.peer_id, question("two")))

            nursery.start_soon(ask)
            await trio.sleep(0)
            two.may_answer.set()
        assert answers == [question("two")]


async def test_a_message_without_an_answer_goes_before_a_question() -> None:
    async with two_speakers() as (first, _, second, two):
        two.answers[question("add")] = None
        assert await first.kad.ask(second.peer_id, question("add"), question("png")) == question("png")
        assert two.asked == [question("add"), question("png")]


async def test_a_refused_question_fails_alone() -> None:
    async with two_speakers() as (first, _, second, two):
        outcomes: dict[str, str] = {}

        async def ask(name: str) -> None:
            try:
                outcomes[name] = (await first.kad.ask(second.peer_id, question(name)))[-3:].decode()
            except KadFailed as error:
                outcomes[name] = str(error)

        two.may_answer = trio.Event()
        async with trio.open_nursery() as nursery:
            for name in ("one", "bad", "two", "six"):
                nursery.start_soon(ask, name)
                await trio.testing.wait_all_tasks_blocked()
            two.may_answer.set()
        assert outcomes == {"one": "one", "bad": "the stream ended: it was reset", "two": "two", "six": "six"}


async def test_a_peer_that_closes_after_each_answer_is_asked_on_another_stream() -> None:
    async def answer_once(stream: INetStream) -> None:
        await stream.write(prefixed(await answer_on(stream)))
        await stream.close()

    answerer = Answerer()
    async with running(kad=answerer) as (host, _), running() as (other, _):
        assert other.library is not None
        other.library.set_stream_handler(KAD, answer_once)
        await host.dial(other.addresses, timeout=20)
        answers: list[bytes] = []

        async def ask(name: str) -> None:
            answers.append(await host.kad.ask(other.peer_id, question(name)))

        async with trio.open_nursery() as nursery:
            for name in ("one", "two", "six"):
                nursery.start_soon(ask, name)
        assert sorted(answers) == sorted(question(name) for name in ("one", "two", "six"))


async def test_a_peer_that_is_gone_and_one_that_does_not_speak_it_fail_at_once() -> None:
    async with running(kad=Answerer()) as (host, _), running() as (mute, _):
        with pytest.raises(KadFailed, match="not connected"):
            await host.kad.ask(mute.peer_id, question("one"))
        await host.dial(mute.addresses, timeout=20)
        with trio.fail_after(30), pytest.raises(KadFailed, match="no stream"):
            await host.kad.ask(mute.peer_id, question("one"))


async def test_the_end_of_a_connection_fails_what_is_under_way() -> None:
    async with two_speakers() as (first, _, second, two):
        two.may_answer = trio.Event()
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    with pytest.raises(KadFailed):
                        await first.kad.ask(second.peer_id, question("one"))

                nursery.start_soon(ask)
                await until(lambda: two.asked)
                second.disconnect(first.peer_id, "a test")


async def test_too_many_unanswered_questions_are_refused_here() -> None:
    async with two_speakers() as (first, _, second, two):
        two.may_answer = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(first.limits.kad_asked_max):
                nursery.start_soon(first.kad.ask, second.peer_id, question("one"))
            await until(lambda: two.asked)
            with pytest.raises(KadFailed, match="has not answered 64 questions"):
                await first.kad.ask(second.peer_id, question("two"))
            two.may_answer.set()


async def test_a_stream_that_is_not_used_is_closed_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kad_client, "IDLE_SECONDS", 0.2)
    async with two_speakers() as (first, _, second, _two):
        await first.kad.ask(second.peer_id, question("one"))
        (connection,) = second.swarm.of(first.peer_id)
        await until(lambda: KAD not in [s.get_protocol() for s in connection.streams])
        assert await first.kad.ask(second.peer_id, question("two")) == question("two")


# -- who speaks it --------------------------------------------------------------------------------------------------


async def test_each_side_learns_that_the_other_speaks_it_and_where_it_is() -> None:
    async with two_speakers() as (first, one, second, two):
        await until(lambda: second.peer_id in one.found_peers and first.peer_id in two.found_peers)
        assert one.found_peers[second.peer_id] == second.addresses
        assert two.found_peers[first.peer_id] == first.addresses


async def test_a_peer_that_does_not_speak_it_is_not_found() -> None:
    answerer = Answerer()
    async with running(kad=answerer) as (host, _), running() as (other, _):
        await host.dial(other.addresses, timeout=20)
        library, peer_id = host.library, host.swarm.of(other.peer_id)[0].mux.peer_id
        assert library is not None
        # private: libp2p says nowhere else that identify is done
        await until(lambda: peer_id in library._identified_peers)
        assert other.peer_id not in answerer.found_peers


async def test_a_peer_without_lanes_is_connected_and_asked_and_let_go() -> None:
    async def echo(stream: INetStream) -> None:
        await stream.write(prefixed(await answer_on(stream)))
        await stream.close()

    limits = SwarmLimits(idle_seconds=3, lanes_seconds=2)
    async with plain_host() as plain, running(kad=Answerer(), limits=limits) as (host, recorder):
        plain.set_stream_handler(KAD, echo)
        peer = str(plain.get_id())
        addresses = [f"{str(plain.get_addrs()[0]).split('/p2p/')[0]}/p2p/{peer}"]
        await host.kad.connect(peer, addresses, timeout=20)
        assert host.kad.is_connected(peer)
        assert await host.kad.ask(peer, question("one")) == question("one")
        assert not recorder.events, "it is no peer for frames"
        await until(lambda: not host.kad.is_connected(peer), what="the connection that nobody uses is closed")


async def test_only_the_peer_itself_is_connected_at_an_address() -> None:
    async with running(kad=Answerer()) as (host, _), running() as (one, _), running() as (other, _):
        with pytest.raises(DialFailed):
            await host.kad.connect(one.peer_id, [other.addresses[0]], timeout=20)
        swapped = f"{other.addresses[0].rsplit('/p2p/', 1)[0]}/p2p/{one.peer_id}"
        with pytest.raises(DialFailed):
            await host.kad.connect(one.peer_id, [swapped], timeout=20)


# -- streams that misbehave -----------------------------------------------------------------------------------------


async def test_idle_streams_cost_nobody_anything_and_the_oldest_gives_way() -> None:
    limits = SwarmLimits(kad_streams_max=6, kad_streams_per_peer_max=4)
    async with running(kad=Answerer(), limits=limits) as (host, recorder), intruder(host) as mux, intruder(host) as two:
        streams = [await stream_of(mux) for _ in range(4)]
        await streams[0].write(prefixed(question("one")))
        assert await answer_on(streams[0]) == question("one")
        streams += [await stream_of(mux)]
        await assert_ends(streams[1])  # idle longest
        assert count(host, "kad_streams_dropped") == 1
        others = [await stream_of(two) for _ in range(3)]
        await until(lambda: count(host, "kad_streams_dropped") == 2)
        for stream in (streams[0], *others):
            await stream.write(prefixed(question("two")))
            assert await answer_on(stream) == question("two")
        await assert_serves(host, recorder)


async def test_streams_in_use_are_not_dropped_for_others() -> None:
    answerer = Answerer()
    answerer.may_answer = trio.Event()
    limits = SwarmLimits(kad_streams_per_peer_max=2)
    async with running(kad=answerer, limits=limits) as (host, _), intruder(host) as mux:
        streams = [await stream_of(mux) for _ in range(2)]
        for stream in streams:
            await stream.write(prefixed(question("one")))
        await until(lambda: len(answerer.asked) == 2)
        further = await mux.open_stream()
        await further.write(OPENING)
        await assert_ends(further)
        assert count(host, "kad_streams_refused") == 1
        answerer.may_answer.set()
        for stream in streams:
            assert await answer_on(stream) == question("one")


async def test_half_a_message_ends_its_stream_and_an_idle_stream_stays() -> None:
    limits = SwarmLimits(kad_message_seconds=0.3)
    async with running(kad=Answerer(), limits=limits) as (host, _), intruder(host) as mux:
        idle, half, dribbling = [await stream_of(mux) for _ in range(3)]
        await half.write(prefixed(question("one"))[:-1])

        async def dribble() -> None:
            with contextlib.suppress(MuxedStreamError, MuxedConnUnavailable):
                for byte in prefixed(bytes(100)):
                    await dribbling.write(bytes([byte]))
                    await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dribble)
            await assert_ends(half)
            await assert_ends(dribbling)
        await idle.write(prefixed(question("two")))
        assert await answer_on(idle) == question("two")
        assert count(host, "streams_slow") == 2


async def test_a_message_that_is_too_long_is_refused_by_its_length_and_blamed() -> None:
    async with running(kad=Answerer()) as (host, _), intruder(host) as mux:
        stream = await stream_of(mux)
        await stream.write(prefixed(bytes(MESSAGE_BYTES_MAX + 1))[:100])
        await assert_ends(stream)
        assert count(host, "kad_malformed") == count(host, "offences") == 1


async def test_answers_that_nobody_reads_are_bounded() -> None:
    answerer = Answerer()
    answerer.answers[question("one")] = bytes(MESSAGE_BYTES_MAX)
    limits = SwarmLimits(kad_answers_bytes_max=3 * 1024 * 1024)
    async with running(kad=answerer, limits=limits) as (host, recorder), intruder(host) as mux:
        for _ in range(8):
            await (await stream_of(mux)).write(prefixed(question("one")) * 2)
        await until(lambda: count(host, "kad_answers_unread") >= 3)
        (connection,) = host.swarm.all()
        # private: nothing but memory depends on what is queued
        assert sum(stream.queued for stream in connection.mux._streams.values()) <= 4 * MESSAGE_BYTES_MAX
        await assert_serves(host, recorder)


async def test_a_peer_that_asks_without_end_is_read_more_slowly_and_others_are_served() -> None:
    answerer = Answerer()
    limits = SwarmLimits(kad_rate=50.0, kad_burst=100.0)
    async with running(kad=answerer, limits=limits) as (host, recorder), intruder(host) as mux, intruder(host) as two:
        flooding, honest = await stream_of(mux), await stream_of(two)
        await flooding.write(prefixed(question("one")) * 10_000)
        await until(lambda: count(host, "kad_slowed"))
        with trio.fail_after(30):
            await honest.write(prefixed(question("two")))
            assert await answer_on(honest) == question("two")
        assert len(answerer.asked) < 1000
        await assert_serves(host, recorder)


async def test_a_wrong_answer_to_a_question_that_nobody_asked_is_blamed() -> None:
    async def answer_twice(stream: INetStream) -> None:
        message = await answer_on(stream)
        await stream.write(prefixed(message) * 2)
        await trio.sleep_forever()

    async with running(kad=Answerer()) as (host, _), running() as (other, _):
        assert other.library is not None
        other.library.set_stream_handler(KAD, answer_twice)
        await host.dial(other.addresses, timeout=20)
        assert await host.kad.ask(other.peer_id, question("one")) == question("one")
        await until(lambda: count(host, "offences") == 1)
