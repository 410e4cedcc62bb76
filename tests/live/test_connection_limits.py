"""How many connections of a host one peer, or a thousand of them, may use: limits hold, and cost no other peer."""

import contextlib
import logging
import os
import resource
import socket
from contextlib import closing

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError

from node.swarm.base import DialFailed
from node.swarm.libp2p import inbound as inbound_module
from node.swarm.libp2p import listen, tcp, yamux_writer
from node.swarm.libp2p.host import Host
from node.swarm.libp2p.tcp import TcpConnection
from node.swarm.libp2p.upgrade import Upgrader
from node.swarm.limit_counters import LimitCounters
from node.swarm.limits import SwarmLimits
from node.swarm.peer_policy import PeerPolicy
from protocols.policy.reputation import Reputation
from tests.live.echo import REFUSED, count
from tests.live.intruders import assert_ends, assert_serves, connected_tcp, frame, intruder
from tests.live.swarm_peers import LOOPBACK, running
from tests.until import until


async def test_a_thousand_idle_connections_and_three_hundred_half_open_ones_delay_no_other_peer() -> None:
    async with running() as (host, recorder), trio.open_nursery() as nursery:

        async def connect() -> None:
            mux = await Upgrader(os.urandom(32)).outbound(await connected_tcp(host))
            nursery.start_soon(mux.start)

        for _ in range(20):
            async with trio.open_nursery() as connecting:
                for _ in range(50):
                    connecting.start_soon(connect)
        half_open = [await connected_tcp(host) for _ in range(300)]
        await until(lambda: len(host.inbound.half_open) >= 300)
        assert host.swarm.count == 1000
        await assert_serves(host, recorder)
        assert host.swarm.count >= 1000
        for tcp in half_open:
            tcp.abort()
        nursery.cancel_scope.cancel()


async def test_a_hang_up_in_the_handshake_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with running() as (host, _):
        tcp = await connected_tcp(host)
        assert await tcp.read(100)
        tcp.abort()
        await until(lambda: count(host, "handshakes_failed"))
    (record,) = caplog.records
    assert record.getMessage() == "127.0.0.1: did not become a connection: closed by the other side"


async def test_an_idle_connection_is_closed_when_there_are_too_many() -> None:
    async with running(limits=SwarmLimits(connections_max=10)) as (host, recorder), running() as (friend, _):
        await friend.dial(host.addresses, timeout=20)
        await recorder.until_connected(friend.peer_id)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(20):
                await stack.enter_async_context(intruder(host))
            await assert_serves(host, recorder)
            await until(lambda: host.swarm.count + len(host.inbound.half_open) <= 10)
            assert count(host, "connections_evicted") >= 11
            assert host.connected_peers()[0] == friend.peer_id, "its connection is in use"


async def test_when_all_connections_are_in_use_the_next_is_refused() -> None:
    async with contextlib.AsyncExitStack() as stack:
        host, recorder = await stack.enter_async_context(running(limits=SwarmLimits(connections_max=3)))
        others = [await stack.enter_async_context(running()) for _ in range(4)]
        for other, _ in others[:3]:
            await other.dial(host.addresses, timeout=20)
            await recorder.until_connected(other.peer_id)
        late = others[3][0]
        with pytest.raises(DialFailed):
            await late.dial(host.addresses, timeout=20)
        assert count(host, "connections_refused") == 1
        host.disconnect(others[0][0].peer_id, "to make room")
        await recorder.until_disconnected(others[0][0].peer_id)
        assert await late.dial(host.addresses, timeout=20) == host.peer_id


async def test_the_connections_of_a_public_subnet_are_bounded_and_counted_down_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inbound_module, "subnet", lambda host: "198.51.100.0/24")
    async with running(limits=SwarmLimits(connections_per_subnet_max=3)) as (host, recorder):
        async with intruder(host), intruder(host):
            half_open = await connected_tcp(host)
            assert await half_open.read(100)
            further = await connected_tcp(host)
            with pytest.raises(ConnectionClosedError):
                await further.read(100)
            assert count(host, "connections_per_subnet") == 1
            for tcp in (half_open, further):
                tcp.abort()
        await until(lambda: not host.inbound.by_subnet)
        await assert_serves(host, recorder)


async def test_a_peer_may_reconnect_without_limit() -> None:
    """libp2p's resource manager denies a peer that connects more than ten times a second."""
    async with running() as (host, recorder), running() as (other, other_recorder):
        for _ in range(60):
            await other.dial(host.addresses, timeout=20)
            other.disconnect(host.peer_id, "to come again")
        await other_recorder.until_disconnected(host.peer_id)
        assert await other.dial(host.addresses, timeout=20) == host.peer_id
        await recorder.until_connected(other.peer_id)


async def test_an_unused_connection_is_closed_and_a_link_is_not() -> None:
    limits = SwarmLimits(idle_seconds=2, negotiate_seconds=2, lanes_seconds=2)
    async with running(limits=limits) as (host, _), running() as (friend, _):
        await friend.dial(host.addresses, timeout=20)
        async with intruder(host) as mux:
            with trio.fail_after(30):
                await mux.event_closed.wait()
        assert count(host, "connections_idle") == 1
        assert host.connected_peers() == (friend.peer_id,)


async def test_a_connection_that_takes_no_byte_is_closed_counted_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(yamux_writer, "STALL_SECONDS", 0.2)
    async with running() as (host, recorder), intruder(host) as mux:
        await until(host.swarm.all)
        (theirs,) = host.swarm.all()
        monkeypatch.setattr(theirs.mux.tcp, "transmit", lambda data: 0)
        monkeypatch.setattr(theirs.mux.tcp, "writable", trio.sleep_forever)
        with trio.fail_after(30):
            await mux.ping(5)
            await theirs.mux.event_closed.wait()
        assert theirs.mux.reason == "took no byte for 0.2 s"
        assert count(host, "connections_stalled") == 1
        assert f"{theirs.mux.peer_id}: took no byte for 0.2 s, and loses its connection" in caplog.text
        await assert_serves(host, recorder)


async def test_without_descriptors_a_new_connection_waits_and_that_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit_counters = LimitCounters()
    (listening,) = listen.bind(LOOPBACK)
    with closing(listening), closing(socket.create_connection(listening.getsockname())):
        spare = os.dup(0)  # the lowest that is free
        os.close(spare)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
            with trio.move_on_after(0.35):
                await tcp.accept(listening, limit_counters)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert limit_counters.counts.out_of_descriptors > 1
        (record,) = caplog.records
        assert "no file descriptors left; raise its limit (ulimit -n)" in record.getMessage()
        (await tcp.accept(listening, limit_counters)).abort()


async def test_a_flood_of_one_kind_is_one_line_and_one_number(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with running(limits=SwarmLimits(half_open_max=4)) as (host, recorder):
        connections: list[TcpConnection] = [await connected_tcp(host) for _ in range(60)]
        await assert_serves(host, recorder)
        dropped = count(host, "half_open_dropped")
        assert dropped >= 50
        assert len([record for record in caplog.records if "are in their handshake" in record.getMessage()]) == 1
        for tcp in connections:
            tcp.abort()


# -- bans -------------------------------------------------------------------------------------------------------------


async def offend(host: Host, seed: bytes) -> None:
    """Break the rules of yamux, which ends the connection."""
    mux = await Upgrader(seed).outbound(await connected_tcp(host))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mux.start)
        mux.writer.answers += frame(7, 0, 1, 0)
        mux.writer.wake()
        await mux.event_closed.wait()
        nursery.cancel_scope.cancel()


async def test_a_peer_that_breaks_the_rules_again_and_again_is_banned_for_a_time() -> None:
    peer_policy = PeerPolicy(reputation=Reputation(half_life_seconds=2.0, ban_at=45.0, readmit_at=25.0))
    seed = os.urandom(32)
    async with running(peer_policy=peer_policy) as (host, recorder), running() as (friend, _):
        await friend.dial(host.addresses, timeout=20)
        async with running(seed=seed) as (rogue, _):
            peer = rogue.peer_id
            await rogue.dial(host.addresses, timeout=20)
            await recorder.until_connected(peer)
        await recorder.until_disconnected(peer)
        with trio.fail_after(30):
            while not peer_policy.complaint(peer):
                await offend(host, seed)
        assert count(host, "places_lost") == 1
        async with running(seed=seed) as (rogue, _):
            with pytest.raises(DialFailed):
                await rogue.dial(host.addresses, timeout=20)
            with pytest.raises(DialFailed, match="it misbehaved, and is banned for another"):
                await host.dial(rogue.addresses, timeout=20)
            await until(lambda: not peer_policy.complaint(peer))
            assert await rogue.dial(host.addresses, timeout=20) == host.peer_id
        assert host.connected_peers()[0] == friend.peer_id
        assert [peer for _, peer in recorder.events].count(friend.peer_id) == 1


async def test_one_stream_of_garbage_costs_no_connection_and_many_do() -> None:
    async with running() as (host, recorder), intruder(host) as mux:
        sent = 0
        while not mux.is_closed:
            with contextlib.suppress(*REFUSED):
                stream = await mux.open_stream()
                await stream.write(b"\x13/multistream/1.0.0\n\x03\xff\xfe\n")
                await assert_ends(stream)
                sent += 1
        assert 8 <= sent <= 9
        assert count(host, "connections_forfeited") == 1
        await assert_serves(host, recorder)


async def test_the_lists_hold_at_once_and_both_ways() -> None:
    peer_policy = PeerPolicy()
    async with (
        running(peer_policy=peer_policy) as (host, recorder),
        running() as (one, one_recorder),
        running() as (two, _),
    ):

        async def may(other: Host) -> bool:
            """Whether a peer is accepted, on connect and on dial."""
            outcomes = []
            for dialler, dialled in ((other, host), (host, other)):
                try:
                    await dialler.dial(dialled.addresses, timeout=20)
                    outcomes.append(True)
                except DialFailed:
                    outcomes.append(False)
                dialler.disconnect(dialled.peer_id, "the next one")
                await until(lambda: not host.swarm.of(other.peer_id) and not other.swarm.of(host.peer_id))
            assert len(set(outcomes)) == 1
            return outcomes[0]

        assert [await may(one), await may(two)] == [True, True]
        await one.dial(host.addresses, timeout=20)
        await recorder.until_connected(one.peer_id)
        peer_policy.set_lists(deny=[one.peer_id])
        assert host.connected_peers() == ()
        await one_recorder.until_disconnected(host.peer_id)
        assert [await may(one), await may(two)] == [False, True]
        peer_policy.set_lists(deny=[], allow=[one.peer_id])
        assert [await may(one), await may(two)] == [True, False]
        peer_policy.set_lists(deny=[one.peer_id])
        assert [await may(one), await may(two)] == [False, False]
        assert count(host, "turned_away") == 4, "once for each inbound connection"
        peer_policy.set_lists(allow=[], deny=[])
        assert [await may(one), await may(two)] == [True, True]
