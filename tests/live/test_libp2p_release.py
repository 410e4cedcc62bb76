"""What libp2p does on its own and must not do here: dial, forget addresses, block peers, announce no real address."""

import contextlib
import os
import socket

import pytest
import trio
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError
from libp2p.utils.varint import encode_varint_prefixed
from multiaddr import Multiaddr

from node.swarm.base import DialFailed
from node.swarm.libp2p.host import Host
from node.swarm.libp2p.multistream import accept, propose
from node.swarm.libp2p.upgrade import Upgrader
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.libp2p.yamux_stream import YamuxStream
from node.swarm.limits import SwarmLimits
from protocols.keys import PrivateKey
from tests.live.intruders import assert_ends, assert_serves, connected_tcp, intruder
from tests.live.swarm_peers import joined, running
from tests.until import until


async def test_only_the_host_dials() -> None:
    """The connector of a plain host dials all that its peer store knows, up to two hundred connections."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with listener.socket:
        async with running() as (host, _), running() as (other, other_recorder):
            assert host.library is not None
            stranger = ID.from_base58(other.peer_id)
            address = Multiaddr(other.addresses[0].split("/p2p/")[0])
            host.library.get_peerstore().add_addrs(stranger, [address], 1000)
            for attempt in (
                host.library.connect(info_from_p2p_addr(Multiaddr(other.addresses[0]))),
                host.library.new_stream(stranger, [TProtocol("/ipfs/ping/1.0.0")]),
                host.swarm.dial_peer(stranger),
            ):
                with pytest.raises(SwarmException):
                    await attempt
            assert other_recorder.events == []
            assert not other.inbound.half_open and not other.swarm.all()


async def test_an_address_that_was_refused_or_forgotten_is_dialled_again_at_once() -> None:
    """The library forgets addresses after two minutes, and blocks a peer for one after a dial that was refused."""
    seed = os.urandom(32)
    with socket.socket() as place:  # until its end no other program gets the port, and a host that asks for it does
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
        async with running() as (host, _):
            async with running(seed=seed) as (other, _):
                peer = other.peer_id
            address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer}"
            for _ in range(3):
                with pytest.raises(DialFailed, match="nothing listens there"):
                    await host.dial([address], timeout=20)
            async with running([f"/ip4/127.0.0.1/tcp/{port}"], seed=seed):
                assert host.library is not None
                host.library.get_peerstore().clear_addrs(ID.from_base58(peer))
                assert await host.dial([address], timeout=20) == peer


async def test_a_dial_on_loopback_takes_less_than_one_of_the_library() -> None:
    """A dial of the library takes a quarter of a second. The best of several counts: a machine may be busy."""
    took = []
    async with running() as (one, _), running() as (two, _):
        for _ in range(10):
            started = trio.current_time()
            await one.dial(two.addresses, timeout=20)
            took.append(trio.current_time() - started)
            one.disconnect(two.peer_id, "again")
            await until(lambda: not one.swarm.all() and not two.swarm.all())
    assert min(took) < 0.2


async def test_libp2p_announces_concrete_addresses_alone() -> None:
    async with running(["/ip4/0.0.0.0/tcp/0"]) as (host, _):
        assert host.library is not None
        announced = [str(address) for address in host.library.get_addrs()]
        assert any(address.startswith("/ip4/127.0.0.1/") for address in announced)
        assert not any("0.0.0.0" in address or "/tcp/0" in address for address in announced)


async def test_a_plain_stream_goes_by_the_connection_that_stays() -> None:
    async with joined() as (one, _, two, _):
        assert one.library is not None
        (connection,) = one.swarm.of(two.peer_id)
        stream = await one.library.new_stream(connection.mux.peer_id, [TProtocol("/ipfs/ping/1.0.0")])
        assert stream.muxed_conn is connection.mux
        await stream.reset()
        assert stream not in connection.streams


@pytest.mark.parametrize(
    "garbage", [encode_varint_prefixed(b"\xff" * 200), b"\xff" * 20, encode_varint_prefixed(bytes(1 << 20) + b"x")]
)
async def test_a_pushed_identity_is_kept_and_a_malformed_one_is_an_offence(garbage: bytes) -> None:
    """The library accepts malformed ones silently, from the same peer again and again."""
    honest = encode_varint_prefixed(Identify(protocols=["/of/mine"]).SerializeToString())
    async with running() as (host, recorder), intruder(host) as mux:

        async def push(body: bytes) -> None:
            stream = await mux.open_stream()
            await propose(stream, ID_PUSH)
            await stream.write(body)
            await assert_ends(stream)
            await stream.reset()

        await push(honest)
        (connection,) = host.swarm.all()
        assert host.swarm.peerstore.get_protocols(connection.mux.peer_id) == ["/of/mine"]
        assert host.peer_policy.limit_counters.counts.offences == 0
        with trio.fail_after(30), contextlib.suppress(MuxedStreamError, MuxedConnUnavailable, MultiselectClientError):
            while not mux.is_closed:
                await push(garbage)
        await mux.event_closed.wait()
        assert host.peer_policy.limit_counters.counts.connections_forfeited == 1
        await assert_serves(host, recorder)


async def test_a_malformed_answer_to_identify_is_an_offence() -> None:
    """The library accepts it silently, each time that the peer connects."""
    seed = os.urandom(32)

    async def connect_and_answer(host: Host) -> None:
        async def answer(stream: YamuxStream) -> None:
            with contextlib.suppress(BaseLibp2pError):
                await accept(stream, {IDENTIFY: None})
                await stream.write(encode_varint_prefixed(b"\xff" * 200))

        async def serve(nursery: trio.Nursery, mux: YamuxConnection) -> None:
            with contextlib.suppress(MuxedConnUnavailable):
                while True:
                    nursery.start_soon(answer, await mux.accept_stream())

        mux = await Upgrader(seed).outbound(await connected_tcp(host))
        offences = host.peer_policy.limit_counters.counts.offences
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mux.start)
            nursery.start_soon(serve, nursery, mux)
            await until(lambda: host.peer_policy.limit_counters.counts.offences > offences)
            nursery.cancel_scope.cancel()

    async with running() as (host, recorder):
        with trio.fail_after(30):
            while not host.peer_policy.limit_counters.counts.connections_forfeited:
                await connect_and_answer(host)
        assert host.peer_policy.limit_counters.counts.offences == 9
        await assert_serves(host, recorder)


async def test_nothing_is_kept_of_a_peer_that_left() -> None:
    """The library keeps the identities of thousands of peers, and does not ask a peer again when it returns."""
    async with running() as (host, recorder):
        store = host.swarm.peerstore
        for _ in range(5):
            async with running() as (other, _):
                await other.dial(host.addresses, timeout=20)
                await until(lambda: store.peer_data_map.keys() - {host.swarm.get_peer_id()})
                peer = other.peer_id
            await recorder.until_disconnected(peer)
        await until(lambda: not host.swarm.all())
        assert set(store.peer_data_map) == {host.swarm.get_peer_id()}
        assert not store.peer_record_map


async def test_many_peers_with_addresses_do_not_make_a_host_forget_its_own_key() -> None:
    """A plain host keeps a thousand peers, and first forgets one without addresses: itself, and with it its key."""
    async with running(limits=SwarmLimits(connections_max=8)) as (host, _):
        store = host.swarm.peerstore
        strangers = [ID.from_base58(PrivateKey.from_seed(os.urandom(32)).peer_id) for _ in range(9)]
        for stranger in strangers:
            store.add_addr(stranger, Multiaddr("/ip4/127.0.0.1/tcp/9"), 1000)
        assert len(store.peer_data_map) == 9, "eight peers and the host itself"
        assert host.swarm.get_peer_id() in store.peer_data_map
        assert host.library is not None
        assert host.library.get_public_key().to_bytes()
