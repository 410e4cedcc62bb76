"""Sites: hosts that reach each other on a LAN and by a router, multicast, cables, and nothing left behind."""

import contextlib
import os
import socket
import subprocess
import sys

import pytest

from netsim.lan import namespace
from netsim.lan.namespace import Namespace, ip, sweep
from netsim.lan.site import HostInterface, LanHost, Site, open_site
from tests.until import block_until

GROUP = "224.0.0.251"
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def reaches(one: LanHost, host: str) -> bool:
    """Whether a connection from `one` to a port where nobody listens is refused, and not lost."""

    def connect() -> bool:
        try:
            socket.create_connection((host, 9), timeout=0.5).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True

    return one.namespace.call(connect)


def hears_multicast(listener: HostInterface, listening: LanHost, sender: LanHost) -> bool:
    def open_group() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("", 5353))
        membership = socket.inet_aton(GROUP) + socket.inet_aton(listener.ip4)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        sock.settimeout(0.3)
        return sock

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sender.ip4))
            sock.sendto(b"x", (GROUP, 5353))

    with listening.namespace.call(open_group) as sock:
        sender.namespace.call(send)
        with contextlib.suppress(TimeoutError):
            return sock.recv(10) == b"x"
    return False


def names() -> list[str]:
    return [line.split()[0] for line in ip("netns", "list").splitlines() if line.startswith(namespace.PREFIX)]


def own_names() -> list[str]:
    return [name for name in names() if f"-{os.getpid()}-" in name]


def test_hosts_of_a_lan_reach_each_other_by_both_families(site: Site) -> None:
    lan = site.lan(ip6=True)
    one, two = site.host("one", lan), site.host("two", lan)
    assert (one.interfaces[0].ip4, two.interfaces[0].ip6) == ("10.77.1.1", "fd77:1::2")
    block_until(lambda: reaches(one, two.ip4) and reaches(one, two.interfaces[0].ip6))
    assert not reaches(one, "10.77.1.99")
    assert hears_multicast(two.interfaces[0], two, one)


def test_a_switch_that_drops_multicast_carries_the_rest(site: Site) -> None:
    lan = site.lan()
    one, two = site.host("one", lan), site.host("two", lan)
    lan.carry_multicast(is_on=False)
    late = site.host("late", lan)
    assert not hears_multicast(two.interfaces[0], two, one) and not hears_multicast(late.interfaces[0], late, one)
    assert reaches(one, late.ip4)
    lan.carry_multicast(is_on=True)
    assert hears_multicast(late.interfaces[0], late, one)


def test_a_router_joins_two_lans_without_multicast(site: Site) -> None:
    left, right = site.lan(), site.lan()
    one, two = site.host("one", left), site.host("two", right)
    router = site.router("router", left, right)
    assert not reaches(one, two.ip4)
    one.route_by(router, left)
    two.route_by(router, right)
    assert reaches(one, two.ip4) and reaches(two, one.ip4)
    assert not hears_multicast(two.interfaces[0], two, one)


def test_an_interface_that_is_down_is_off_the_lan_until_it_is_up(site: Site) -> None:
    lan = site.lan(ip6=True)
    one, two = site.host("one", lan), site.host("two", lan)
    two.down(two.interfaces[0])
    assert not reaches(one, two.ip4) and not reaches(one, two.interfaces[0].ip6)
    two.up(two.interfaces[0])
    block_until(lambda: reaches(one, two.ip4) and reaches(one, two.interfaces[0].ip6))


def test_the_traffic_of_an_interface_is_counted(site: Site) -> None:
    lan = site.lan()
    one, two = site.host("one", lan), site.host("two", lan)
    before = one.traffic(one.interfaces[0])
    assert reaches(one, two.ip4)
    after = one.traffic(one.interfaces[0])
    assert after.sent > before.sent and after.received > before.received


def test_nothing_is_left_of_a_site_that_failed_with_processes_running(site: Site) -> None:
    before = own_names()
    processes: list[subprocess.Popen[bytes]] = []

    def fail() -> None:
        with open_site() as other:
            host = other.host("one", other.lan())
            processes.append(host.namespace.start(SLEEP))
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert own_names() == before
    assert processes[0].returncode is not None


def test_what_a_killed_run_left_is_swept_and_what_a_running_one_has_is_kept(site: Site) -> None:
    site.host("kept", site.lan())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = Namespace(f"{namespace.PREFIX}-{ended.pid}-0000-one")
    left.create()
    process = left.start(SLEEP)
    block_until(left.pids)
    sweep()
    assert left.name not in names() and len(own_names()) == 2
    process.wait()
