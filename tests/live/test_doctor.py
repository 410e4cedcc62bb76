"""`bzzz doctor` on a LAN, and the hops of the way to a peer on loopback."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from netsim.lan.node import SOURCES, LanNode
from netsim.lan.site import LanHost, Site
from node.diagnosis.finding import Level
from node.diagnosis.way import walk
from protocols.keys import PrivateKey
from tests.live.swarm_peers import mute, running
from tests.until import block_until


def doctor(host: LanHost, *arguments: str, **environment: str) -> tuple[int, dict[str, list[str]]]:
    """The exit code, and the texts of what is found, by subject; those of what is wrong also under 'BAD'."""
    command = host.namespace.command([sys.executable, "-m", "node.cli", "doctor", *arguments, "--json"])
    variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(SOURCES), "HOME": "/nowhere", **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60, check=False)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["well"] == (done.returncode == 0)
    texts: dict[str, list[str]] = {"BAD": []}
    for finding in report["findings"]:
        texts.setdefault(finding["subject"], []).append(finding["text"])
        if finding["level"] == "bad":
            texts["BAD"].append(finding["text"])
    return done.returncode, texts


def started(host: LanHost, folder: Path, *options: str, **environment: str) -> LanNode:
    node = LanNode(host, folder)
    node.start(*options, environment=environment)
    node.wait_ready()
    return node


def test_it_is_well_among_members_and_says_which_hop_to_a_peer_fails(site: Site, tmp_path: Path) -> None:
    lan = site.lan()
    here, there, empty = (site.host(name, lan) for name in ("here", "there", "empty"))
    one, two = started(here, tmp_path), started(there, tmp_path)
    block_until(lambda: one.connected() == {"there"} and doctor(here)[0] == 0)
    code, found = doctor(here)
    assert code == 0 and "of other nodes heard" in found["multicast"][0]
    assert any("1 of 1 members are connected" in text for text in found["members"])
    assert "it answers at all of its 2 addresses" in found["ports"][0]
    code, found = doctor(here, "there")
    assert code == 0 and any("is connected" in text for text in found["member"])
    assert doctor(here, two.address_on(there.ip4))[0] == 0
    code, found = doctor(here, f"/ip4/{empty.ip4}/tcp/4001")
    assert code == 1 and found["BAD"] == [f"{empty.ip4} port 4001: nothing listens there"]
    code, found = doctor(here, "10.77.1.99:8080")
    assert code == 1 and "cannot be asked" in found["BAD"][0]
    two.kill()
    block_until(lambda: not one.connected(), what="the member is gone")
    code, found = doctor(here)
    assert code == 1 and any("there at" in text and "cannot be reached" in text for text in found["BAD"])


def test_a_machine_without_a_node_is_looked_at_with_its_settings(site: Site, tmp_path: Path) -> None:
    lan = site.lan()
    here, there = site.host("here", lan), site.host("there", lan)
    started(there, tmp_path)
    code, found = doctor(here, BZZZ_OPEN="true")
    assert code == 1 and len(found["BAD"]) == 1, "that no node runs is all that is wrong"
    assert "own messages come back, 1 nodes were seen" in found["multicast"][0]
    lan.carry_multicast(is_on=False)
    _, found = doctor(here, BZZZ_OPEN="true")
    assert "own messages come back, 0 nodes were seen" in found["multicast"][0]


class NoNames(trio.abc.HostnameResolver):
    """A resolver that knows no name."""

    async def getaddrinfo(self, *_: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


async def test_the_hops_of_the_way_end_at_the_one_that_fails() -> None:
    other = PrivateKey.from_seed(b"\x09" * 32).peer_id
    async with running() as (host, _), mute() as silent:
        address = host.addresses[0]
        assert [hop.subject for hop in await walk(address)] == ["port", "identity"]
        wrong = (await walk(address.replace(host.peer_id, other)))[-1]
        assert wrong.level is Level.BAD and f"another node is there, {host.peer_id}" in wrong.text
        assert (await walk(silent))[-1].subject == "handshake"
    assert [hop.subject for hop in await walk(address)] == ["port"]
    trio.socket.set_custom_hostname_resolver(NoNames())
    assert (await walk("/dns4/no-such-host/tcp/1"))[-1].subject == "name"
    assert (await walk("/udp/1"))[-1].subject == "address"


async def test_the_handshake_in_a_private_network_needs_its_key() -> None:
    key = bytes(range(32))
    async with running(network_key=key) as (host, _):
        address = host.addresses[0]
        assert [hop.subject for hop in await walk(address, network_key=key)] == ["port", "identity"]
        unknown = (await walk(address, lacks_key=True))[-1]
        assert unknown.level is Level.NOTE and "does not know its key" in unknown.text
        for wrong in (None, bytes(32)):
            refused = (await walk(address, network_key=wrong))[-1]
            assert refused.level is Level.BAD and "network key" in refused.text


async def test_only_findings_are_printed_of_a_handshake_that_fails() -> None:
    async with running(network_key=bytes(range(32))) as (host, _):
        address = host.addresses[0].partition("/p2p/")[0]
        command = [sys.executable, "-m", "node.cli", "doctor", address, "--api", "127.0.0.1:9"]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, cwd=SOURCES, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"has a network key, and this node has none" in done.stdout


@pytest.mark.parametrize("text", ["", "\x1b[2J", "/ip4/1.2.3.4", "a" * 300])
def test_a_peer_that_is_none_is_told_so(text: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "node.cli", "doctor", text, "--api", "127.0.0.1:9", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SOURCES, timeout=60, check=False)
    assert done.returncode == 1 and not json.loads(done.stdout)["well"]
