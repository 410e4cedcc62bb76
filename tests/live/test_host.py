"""The real network implements `node.swarm.base`: listening, dialling, connecting, disconnecting, and its end."""

import os
import socket

import psutil
import pytest
import trio
import trio.testing

from node.swarm.base import DialFailed, Lane, ListenFailed
from node.swarm.libp2p import yamux
from node.swarm.libp2p.dial import ADDRESSES_MAX
from node.swarm.libp2p.host import Host
from node.swarm.limits import SwarmLimits
from protocols.keys import PrivateKey
from tests.live.swarm_peers import AGREES, LOOPBACK, RecordingReceiver, echoing, joined, mute, running, seeds_in_order
from tests.until import until


def a_host(*listen: str) -> Host:
    return Host(PrivateKey.from_seed(os.urandom(32)), listen)


async def until_one_connection(*hosts: Host) -> None:
    await until(lambda: all(host.swarm.get_total_connections() == 1 for host in hosts), what="one connection is left")


# -- listening ------------------------------------------------------------------------------------------------------


async def test_addresses_are_concrete_and_name_the_peer() -> None:
    async with running(["/ip4/0.0.0.0/tcp/0", "/ip4/127.0.0.1/tcp/0"]) as (host, _):
        assert any(address.startswith("/ip4/127.0.0.1/tcp/") for address in host.addresses)
        assert not any("0.0.0.0" in address or "/tcp/0/" in address for address in host.addresses)
        assert all(address.endswith(f"/p2p/{host.peer_id}") for address in host.addresses)
        async with running() as (other, _):
            for address in host.addresses:
                assert await other.dial([address], timeout=20) == host.peer_id
                other.disconnect(host.peer_id, "next address")


@pytest.mark.parametrize("is_shared", [False, True])
async def test_a_port_in_use_is_an_error_even_if_its_holder_shares_it(is_shared: bool) -> None:
    with socket.socket() as holder:
        if is_shared:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"/ip4/127.0.0.1/tcp/{holder.getsockname()[1]}"
        with pytest.raises(ListenFailed, match="stop it, or choose another port"):
            await a_host(address).run(RecordingReceiver())


@pytest.mark.parametrize(
    "address",
    ["/ip4/192.0.2.200/tcp/0", "/ip4/localhost/tcp/0", "/ip4/127.0.0.1/udp/0", "/ip4/127.0.0.1/tcp/70000", "127.0.0.1"],
)
async def test_a_bad_listen_address_is_named_and_leaves_no_socket(address: str) -> None:
    before = psutil.Process().num_fds()
    with pytest.raises(ListenFailed, match=f"cannot listen on {address}"):
        await a_host(*LOOPBACK, address).run(RecordingReceiver())
    assert psutil.Process().num_fds() == before


# -- dialling -------------------------------------------------------------------------------------------------------


async def test_a_dial_is_reported_once_on_both_sides() -> None:
    async with running() as (one, one_recorder), running() as (two, two_recorder):
        assert await one.dial(two.addresses, timeout=20) == two.peer_id
        assert await one.dial(two.addresses, timeout=20) == two.peer_id
        await two_recorder.until_connected(one.peer_id)
        assert one_recorder.events == [("connected", two.peer_id)]
        assert two_recorder.events == [("connected", one.peer_id)]
        assert one_recorder.addresses == [(two.addresses[0], True)]
        assert two_recorder.addresses[0][1] is False
        assert one.connected_peers() == (two.peer_id,)
        assert two.connected_peers() == (one.peer_id,)


async def test_dead_addresses_do_not_keep_a_living_one_from_winning() -> None:
    """libp2p tries one TCP address of a peer, and blocks the peer for a minute when that one is dead."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        dead = ["/ip4/127.0.0.1/tcp/1", f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}"]
        async with running() as (one, _), running() as (two, _):
            with pytest.raises(DialFailed):
                await one.dial([f"{dead[0]}/p2p/{two.peer_id}"], timeout=1)
            assert await one.dial([*dead, *two.addresses], timeout=20) == two.peer_id


@pytest.mark.parametrize("words", [b"", AGREES], ids=["from the start", "after it agreed to noise"])
async def test_a_listener_that_stays_mute_fails_the_dial_in_time(words: bytes) -> None:
    async with running() as (host, _), mute(words) as address:
        with trio.fail_after(30), pytest.raises(DialFailed, match=r"no answer within 0\.2 s"):
            await host.dial([address], timeout=0.2)


async def test_a_dial_that_ran_out_of_time_gives_the_reason_for_each_address() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}"
        async with running() as (host, _):
            with pytest.raises(DialFailed) as caught:
                await host.dial(["/ip4/127.0.0.1/tcp/1", address], timeout=0.2)
        assert set(str(caught.value).split("; ")) == {
            "/ip4/127.0.0.1/tcp/1: nothing listens there",
            f"{address}: no answer within 0.2 s",
        }


async def test_further_addresses_follow_when_the_first_ones_fail() -> None:
    dead = [f"/ip4/127.0.0.1/tcp/{port}" for port in range(1, 3 * ADDRESSES_MAX)]
    async with running() as (one, _), running() as (two, _):
        assert await one.dial([*dead, *two.addresses], timeout=20) == two.peer_id


async def test_another_peer_at_the_address_is_refused_by_name() -> None:
    stranger = PrivateKey.from_seed(os.urandom(32)).peer_id
    async with running() as (one, one_recorder), running() as (two, _):
        address = two.addresses[0].replace(two.peer_id, stranger)
        with pytest.raises(DialFailed, match=f"another peer answers there, {two.peer_id}"):
            await one.dial([address], timeout=20)
        assert one_recorder.events == []


async def test_dialling_ourselves_is_refused_with_and_without_the_id() -> None:
    async with running() as (host, recorder):
        for address in (host.addresses[0], host.addresses[0].split("/p2p/")[0]):
            with pytest.raises(DialFailed, match="it is this node itself"):
                await host.dial([address], timeout=20)
        assert recorder.events == []


async def test_each_address_that_failed_is_named_with_its_reason() -> None:
    async with running() as (host, _):
        with pytest.raises(DialFailed) as caught:
            await host.dial(["/ip4/127.0.0.1/tcp/1", "nonsense", "/dns4/nowhere.invalid/tcp/1"], timeout=20)
        assert "/ip4/127.0.0.1/tcp/1: nothing listens there" in str(caught.value)
        assert "nonsense: not an address that is supported" in str(caught.value)
        assert "/dns4/nowhere.invalid/tcp/1: " in str(caught.value)
        with pytest.raises(DialFailed, match="no address to dial"):
            await host.dial([], timeout=20)


@pytest.mark.parametrize("is_dialler_smaller", [True, False])
async def test_a_connected_peer_dialled_without_its_id_keeps_its_connection(is_dialler_smaller: bool) -> None:
    seeds = seeds_in_order()
    mine, theirs = seeds if is_dialler_smaller else reversed(seeds)
    async with running(seed=mine) as (one, one_recorder), running(seed=theirs) as (two, two_recorder):
        nameless = [two.addresses[0].split("/p2p/")[0]]
        with trio.fail_after(30):
            assert await one.dial(nameless, timeout=20) == two.peer_id
            assert await one.dial(nameless, timeout=20) == two.peer_id
        await two_recorder.until_connected(one.peer_id)
        await until_one_connection(one, two)
        assert len(one_recorder.events) == len(two_recorder.events) == 1


async def test_a_hang_up_in_the_handshake_is_the_reason_given() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery, running() as (host, _):
        nursery.start_soon(trio.serve_listeners, lambda stream: stream.aclose(), [listener])
        with pytest.raises(DialFailed, match=r": closed by the other side|: Connection reset by peer"):
            await host.dial([f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}"], timeout=20)
        nursery.cancel_scope.cancel()


async def test_the_addresses_of_a_name_are_tried_concurrently(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.2", 0))
        mute.listen()
        port = mute.getsockname()[1]

        async def resolve(*_: object) -> list[tuple[object, ...]]:
            hosts = ("127.0.0.2", "127.0.0.1")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

        monkeypatch.setattr(trio.socket, "getaddrinfo", resolve)
        async with running() as (one, _), running([f"/ip4/127.0.0.1/tcp/{port}"]) as (two, _):
            assert await one.dial([f"/dns4/seed.example.org/tcp/{port}"], timeout=20) == two.peer_id
            one.disconnect(two.peer_id, "next")
        async with running() as (one, _):
            with pytest.raises(DialFailed) as caught:
                await one.dial([f"/dns4/seed.example.org/tcp/{port}"], timeout=0.2)
        assert set(str(caught.value).split("; ")) == {
            f"/dns4/seed.example.org/tcp/{port} (127.0.0.1): nothing listens there",
            f"/dns4/seed.example.org/tcp/{port} (127.0.0.2): no answer within 0.2 s",
        }


async def test_a_name_is_dialled_at_all_its_addresses() -> None:
    async with running() as (one, _), running() as (two, _):
        port = two.addresses[0].split("/")[4]
        assert await one.dial([f"/dns4/localhost/tcp/{port}"], timeout=20) == two.peer_id


# -- one connection -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", ["neither", "smaller", "larger"])
async def test_dialling_each_other_at_once_leaves_one_connection_to_both(ahead: str) -> None:
    seeds = seeds_in_order()
    for _ in range(5):
        async with running(seed=seeds[0]) as (one, one_recorder), running(seed=seeds[1]) as (two, two_recorder):
            first, second = (two, one) if ahead == "larger" else (one, two)
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lambda host, other: host.dial(other.addresses, timeout=20), first, second)
                    while ahead != "neither" and not second.inbound.half_open:
                        await trio.lowlevel.checkpoint()  # each turn: the connection is half open for a moment only
                    nursery.start_soon(lambda host, other: host.dial(other.addresses, timeout=20), second, first)
            await one_recorder.until_connected(two.peer_id)
            await two_recorder.until_connected(one.peer_id)
            assert one.send(two.peer_id, Lane.SMALL, b"from one")
            assert two.send(one.peer_id, Lane.SMALL, b"from two")
            await two_recorder.until_frames(1)
            await one_recorder.until_frames(1)
            await until_one_connection(one, two)
            assert one_recorder.events == [("connected", two.peer_id)]
            assert two_recorder.events == [("connected", one.peer_id)]


@pytest.mark.parametrize("is_smaller_here", [True, False])
async def test_a_peer_that_returns_is_connected_while_its_old_connection_hangs(
    is_smaller_here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yamux, "SILENT_TICKS_MAX", 1_000_000)
    smaller, larger = seeds_in_order()
    mine, theirs = (smaller, larger) if is_smaller_here else (larger, smaller)
    async with running(seed=mine) as (host, recorder), echoing(seed=theirs) as hanging:
        await host.dial([hanging.address], timeout=20)
        hanging.freeze()
        async with echoing(seed=theirs, dial=host.addresses[0]) as anew:
            await until(lambda: len(recorder.events) == 3)
            assert [event for event, _ in recorder.events] == ["connected", "disconnected", "connected"]
            assert host.send(anew.peer, Lane.SMALL, b"there?")
            await until(lambda: recorder.frames)


# -- who may ---------------------------------------------------------------------------------------------------------


async def test_a_peer_that_is_not_allowed_is_neither_dialled_nor_accepted() -> None:
    barred: set[str] = set()
    async with (
        running(is_allowed=lambda peer: peer not in barred) as (strict, recorder),
        running() as (other, other_recorder),
    ):
        barred.add(other.peer_id)
        for addresses in (other.addresses, [other.addresses[0].split("/p2p/")[0]]):
            with pytest.raises(DialFailed, match="it is not allowed here"):
                await strict.dial(addresses, timeout=20)
        with pytest.raises(DialFailed):
            await other.dial(strict.addresses, timeout=20)
        assert recorder.events == other_recorder.events == []
        barred.clear()
        assert await other.dial(strict.addresses, timeout=20) == strict.peer_id
        await recorder.until_connected(other.peer_id)
        barred.add(other.peer_id)
        strict.recheck()
        await recorder.until_disconnected(other.peer_id)
        await other_recorder.until_disconnected(strict.peer_id)


# -- connected and disconnected----------------------------------------------------------------------------------------


async def test_a_killed_peer_is_gone_at_once() -> None:
    async with running() as (host, recorder), echoing() as peer:
        await host.dial([peer.address], timeout=20)
        peer.kill()
        with trio.fail_after(30):
            await recorder.until_disconnected(peer.peer)


async def test_a_frozen_peer_can_be_disconnected_at_once() -> None:
    """libp2p's own `disconnect` writes to the peer first, and hangs."""
    async with running() as (host, recorder), echoing() as peer:
        await host.dial([peer.address], timeout=20)
        peer.freeze()
        while host.send(peer.peer, Lane.BULK, bytes(1_000_000)):
            await trio.sleep(0)
        host.disconnect(peer.peer, "it does not read")
        assert host.connected_peers() == ()
        with trio.fail_after(30):
            await recorder.until_disconnected(peer.peer)


async def test_a_frozen_peer_is_given_up_without_any_traffic_to_it() -> None:
    async with running() as (host, recorder), echoing() as peer:
        await host.dial([peer.address], timeout=20)
        peer.freeze()
        with trio.fail_after(20):
            await recorder.until_disconnected(peer.peer)
        assert recorder.reasons == ["gave no sign of life for 8 s"]


async def test_a_silent_peer_that_lives_is_kept() -> None:
    async with joined() as (one, one_recorder, two, two_recorder):
        for _ in range(20):
            for host in (one, two):
                for connection in host.swarm.all():
                    connection.mux.tick()
            await trio.testing.wait_all_tasks_blocked(0.01)  # until pings and pongs have come
        assert [event for event, _ in one_recorder.events + two_recorder.events] == ["connected", "connected"]


async def test_the_end_closes_every_socket_and_disconnects_every_peer() -> None:
    async with running() as (other, other_recorder):
        before = psutil.Process().num_fds()
        limits = SwarmLimits(upgrade_seconds=600)  # nothing waits for a connection that is half open
        async with running(["/ip4/0.0.0.0/tcp/0"], limits=limits) as (host, recorder):
            await host.dial(other.addresses, timeout=20)
            (address,) = [address for address in host.addresses if "/127.0.0.1/" in address]
            with socket.create_connection(("127.0.0.1", int(address.split("/")[4]))):
                await until(lambda: host.inbound.half_open)
        assert recorder.events == [("connected", other.peer_id), ("disconnected", other.peer_id)]
        await other_recorder.until_disconnected(host.peer_id)
        await until(lambda: not other.swarm.all())
        assert psutil.Process().num_fds() == before
        with pytest.raises(DialFailed, match="nothing listens there"):
            await other.dial([address], timeout=20)
        with pytest.raises(DialFailed, match="does not run"):
            await host.dial(other.addresses, timeout=20)
