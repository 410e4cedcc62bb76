"""Serves the streams of the DHT that peers open: many messages may follow one another on one stream.

A stream that idles costs a task that waits: ordinary peers leave one open for minutes, so nothing bounds that time. The
bounds are on their number (the one that was idle longest gives way), the time of one message, the rate of messages of
one peer, and the answers that are not read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import trio
from libp2p.abc import INetStream
from libp2p.network.stream.net_stream import NetStream
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from node.swarm.base import KadReceiver
from node.swarm.libp2p.message_splitter import MessageSplitter, MessageTooLong, prefixed
from node.swarm.libp2p.peer_connection import PeerConnection
from node.swarm.libp2p.yamux_stream import YamuxStream
from node.swarm.limits import SwarmLimits
from node.swarm.peer_policy import BadInput, PeerPolicy
from protocols.errors import TooManyRequests
from protocols.kademlia.messages import MESSAGE_BYTES_MAX
from protocols.policy.reputation import Offence
from protocols.policy.token_bucket import TokenBucket

COUNTED_BYTES = 16 * 1024
"""Each so many bytes of a message and of its answer count as one more message."""
UNREAD_BYTES_MIN = 64 * 1024
"""A stream with fewer unread bytes of answers is never the reason to look at those of all streams."""
RATES_MAX = 4096


class _Served:
    """One stream, and since when it is idle (infinity: it is not)."""

    def __init__(self, peer: str, stream: YamuxStream) -> None:
        self.peer = peer
        self.stream = stream
        self.idle_since = trio.current_time()


class KadServer:
    """`serve` handles each stream. An exception ends that stream."""

    def __init__(self, receiver: KadReceiver, peer_policy: PeerPolicy, limits: SwarmLimits) -> None:
        self._receiver = receiver
        self._peer_policy = peer_policy
        self._limit_counters = peer_policy.limit_counters
        self._limits = limits
        self._streams: dict[_Served, None] = {}
        self._rates: dict[str, TokenBucket] = {}

    async def serve(self, net_stream: INetStream) -> None:
        assert isinstance(net_stream, NetStream)
        connection: object = net_stream.swarm_conn
        stream = net_stream.muxed_stream
        assert isinstance(connection, PeerConnection) and isinstance(stream, YamuxStream)
        remote = connection.mux.tcp.remote
        stream.expect(inf, inf)
        with self._counted(connection.peer, stream) as served:
            splitter = MessageSplitter(MESSAGE_BYTES_MAX)
            while (messages := await self._read(served, splitter)) is not None:
                for message in messages:
                    await self._answer(served, remote, message)

    @contextmanager
    def _counted(self, peer: str, stream: YamuxStream) -> Iterator[_Served]:
        """Make room for a stream, and count it. Raises `BadInput` when the peer has too many, and uses all of them."""
        limits = self._limits
        of_peer = [served for served in self._streams if served.peer == peer]
        if len(of_peer) >= limits.kad_streams_per_peer_max and not self._drop_idle(of_peer):
            self._limit_counters.count("kad_streams_refused")
            raise BadInput(f"uses more than {limits.kad_streams_per_peer_max} streams of the DHT", Offence.FLOOD)
        if len(self._streams) >= limits.kad_streams_max and not self._drop_idle(list(self._streams)):
            what = f"all {limits.kad_streams_max} streams of the DHT are in use"
            self._limit_counters.hit("kad_streams_refused", "", what)
            raise TooManyRequests(what)
        served = _Served(peer, stream)
        self._streams[served] = None
        try:
            yield served
        finally:
            self._streams.pop(served, None)

    def _drop_idle(self, among: list[_Served]) -> bool:
        """Reset the stream that was idle longest. False when none is idle."""
        oldest = min(among, key=lambda served: served.idle_since)
        if oldest.idle_since == inf:
            return False
        del self._streams[oldest]
        oldest.stream.abandon()
        self._limit_counters.hit("kad_streams_dropped", oldest.peer, "an idle stream of the DHT made room for another")
        return True

    async def _read(self, served: _Served, splitter: MessageSplitter) -> list[bytes] | None:
        """The next messages, one or more; None at the end of the stream."""
        stream, seconds = served.stream, self._limits.kad_message_seconds
        deadline = inf
        while True:
            is_idle = not splitter.held_bytes
            served.idle_since = trio.current_time() if is_idle else inf
            deadline = inf if is_idle else min(deadline, trio.current_time() + seconds)
            with trio.move_on_at(deadline) as scope:
                try:
                    data = await stream.read(64 * 1024)
                except MuxedStreamEOF:
                    await stream.close()
                    return None
            if scope.cancelled_caught:
                what = f"did not end a message of the DHT within {seconds:g} s"
                self._limit_counters.hit("streams_slow", served.peer, what)
                await stream.reset()
                return None
            served.idle_since = inf
            try:
                messages = splitter.feed(data)
            except MessageTooLong as error:
                self._limit_counters.count("kad_malformed")
                raise BadInput(str(error)) from error
            if messages:
                return messages

    async def _answer(self, served: _Served, remote: str, message: bytes) -> None:
        await self._slow_down(served.peer, 1 + len(message) / COUNTED_BYTES)
        answer = await self._receiver.answer(served.peer, remote, message)
        if answer is None:
            return
        await served.stream.write(prefixed(answer))
        self._rate(served.peer).take(len(answer) / COUNTED_BYTES, trio.current_time())
        if served.stream.queued > UNREAD_BYTES_MIN:
            await self._bound_unread()

    async def _slow_down(self, peer: str, amount: float) -> None:
        wait = self._rate(peer).take(amount, trio.current_time())
        if wait > 0.0:
            what = f"asks more than {self._limits.kad_rate:g} times a second, and is read more slowly"
            self._limit_counters.hit("kad_slowed", peer, what)
        await trio.sleep(wait)

    def _rate(self, peer: str) -> TokenBucket:
        now = trio.current_time()
        if (bucket := self._rates.get(peer)) is None:
            if len(self._rates) >= RATES_MAX:
                self._rates = {name: each for name, each in self._rates.items() if not each.is_full(now)}
            bucket = TokenBucket(rate=self._limits.kad_rate, burst=self._limits.kad_burst, now=now)
            self._rates[peer] = bucket
        return bucket

    async def _bound_unread(self) -> None:
        if sum(served.stream.queued for served in self._streams) <= self._limits.kad_answers_bytes_max:
            return
        most = max(self._streams, key=lambda served: served.stream.queued)
        self._limit_counters.hit("kad_answers_unread", most.peer, f"did not read {most.stream.queued:,} bytes")
        await most.stream.reset()
