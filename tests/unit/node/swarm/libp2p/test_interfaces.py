"""The addresses of this machine's interfaces, which come and go."""

import socket
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import ifaddr
import pytest
import trio
import trio.testing

from node.swarm.libp2p import interfaces
from node.swarm.libp2p.interfaces import OwnEndpoints, announced, own_hosts
from node.swarm.libp2p.listen import bind
from tests.until import until


@pytest.fixture
def everywhere() -> Iterator[list[socket.socket]]:
    (sock,) = bind(["/ip4/0.0.0.0/tcp/0"])
    with closing(sock):
        yield [sock]


def test_a_socket_on_all_interfaces_has_the_addresses_of_its_kind(everywhere: list[socket.socket]) -> None:
    port = everywhere[0].getsockname()[1]
    found = announced(everywhere, ["192.168.1.7", "fd00::7", "fe80::1", "127.0.0.1"])
    assert [str(each) for each in found] == [f"/ip4/192.168.1.7/tcp/{port}", f"/ip4/127.0.0.1/tcp/{port}"]


def test_a_socket_on_one_address_has_that_one() -> None:
    (sock,) = bind(["/ip4/127.0.0.1/tcp/0"])
    with closing(sock):
        port = sock.getsockname()[1]
        assert [str(each) for each in announced([sock], ["192.168.1.7"])] == [f"/ip4/127.0.0.1/tcp/{port}"]


def test_bridges_and_tunnels_come_after_other_interfaces_and_loopback_last(monkeypatch: pytest.MonkeyPatch) -> None:
    def adapter(name: str, *ips: object) -> SimpleNamespace:
        return SimpleNamespace(name=name, ips=[SimpleNamespace(ip=ip) for ip in ips])

    adapters = [
        adapter("lo", "127.0.0.1", ("::1", 0, 0)),
        adapter("docker0", "172.17.0.1"),
        adapter("wg0", "10.8.0.2"),
        adapter("wlan0", "192.168.1.7", ("fe80::1", 0, 3)),
        adapter("eth0", "192.168.2.7"),
    ]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: adapters)
    assert own_hosts() == ("192.168.1.7", "fe80::1", "192.168.2.7", "172.17.0.1", "10.8.0.2", "127.0.0.1", "::1")


async def test_a_change_is_noticed_and_what_is_lost_is_reported(
    monkeypatch: pytest.MonkeyPatch, everywhere: list[socket.socket]
) -> None:
    hosts: tuple[str, ...] | OSError = ("127.0.0.1",)
    lost: list[set[str]] = []
    failures = 0

    def now() -> tuple[str, ...]:
        nonlocal failures
        if isinstance(hosts, OSError):
            failures += 1
            raise hosts
        return hosts

    def has_failed() -> bool:
        return failures > 0

    monkeypatch.setattr(interfaces, "own_hosts", now)
    monkeypatch.setattr(interfaces, "LOOK_SECONDS", 0.001)
    own = OwnEndpoints(everywhere, lambda gone: lost.append(set(gone)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(own.run)
        for found in (("10.0.0.7", "127.0.0.1"), ("10.0.0.8", "127.0.0.1"), ("127.0.0.1",)):
            failures, hosts = 0, OSError("the interfaces cannot be read now")
            await until(has_failed)
            hosts = found
            await until(lambda found=found: tuple(each.host for each in own.now) == found)
        nursery.cancel_scope.cancel()
    assert lost == [{"10.0.0.7"}, {"10.0.0.8"}]
