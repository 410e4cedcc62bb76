"""The API finder: its requests, the answers that it accepts, and the switch that turns a finder off."""

import errno
import json
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from discovery import api
from discovery.api import ANSWER_BYTES_MAX, ApiFinder, BootstrapFailed, read_bootstrap
from discovery.finder import FinderHealth, Sightings
from node.services.membership.finder_switch import FinderSwitch
from protocols.keys import PrivateKey
from tests.unit.sightings import Seen

PEER = PrivateKey.from_seed(b"\x05" * 32).peer_id
OWN = PrivateKey.from_seed(b"\x06" * 32).peer_id
ADDRESS = f"/ip4/127.0.0.1/tcp/4001/p2p/{PEER}"


def answer(status: str = "200", **data: Any) -> bytes:
    fields = {"peer_id": PEER, "multiaddrs": [ADDRESS], "network": "bzzz", **data}
    return f"HTTP/1.1 {status} x\r\nA: b\r\n\r\n".encode() + json.dumps({"response": {"data": fields}}).encode()


def test_an_answer_is_a_sighting() -> None:
    sighted = read_bootstrap(answer(), network="bzzz")
    assert (sighted.peer, sighted.addresses, sighted.source) == (PEER, (ADDRESS,), "api")


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (answer("404"), "not a node"),
        (b"", "not a node"),
        (b"SSH-2.0-OpenSSH\r\n", "not a node"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "not a node"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 50_000, "not a node"),
        (answer(peer_id="nonsense"), "not a node"),
        (answer(peer_id=7), "not a node"),
        (answer(network="other"), "'other', not 'bzzz'"),
        (answer(multiaddrs=[]), "backend is mock"),
        (answer(multiaddrs="x"), "no address"),
        (answer(multiaddrs=["/ip4/127.0.0.1/tcp/4001", 7, "x" * 1000]), "no address"),
    ],
)
def test_an_answer_of_another_form_is_refused(raw: bytes, part: str) -> None:
    with pytest.raises(BootstrapFailed, match=part):
        read_bootstrap(raw, network="bzzz")


@given(st.binary(max_size=200))
def test_any_answer_is_a_sighting_or_a_refusal(raw: bytes) -> None:
    with pytest.raises(BootstrapFailed):
        read_bootstrap(raw, network="bzzz")
    with pytest.raises(BootstrapFailed):
        read_bootstrap(b"HTTP/1.1 200 OK\r\n\r\n" + raw, network="bzzz")


async def test_an_api_is_asked_until_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    requests: list[bytes] = []
    replies = [
        b"nonsense",
        b"x" * (ANSWER_BYTES_MAX + 1),
        answer(peer_id=OWN, multiaddrs=[f"/ip4/127.0.0.1/tcp/4001/p2p/{OWN}"]),
        answer(),
    ]

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            requests.append(bytes(await stream.receive_some(1000)))
            await stream.send_all(replies[min(len(requests), len(replies)) - 1])

    seen = Seen()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        finder = ApiFinder((f"127.0.0.1:{port}", "127.0.0.1:1"), own=OWN, network="bzzz", chance=lambda: 0.0)
        nursery.start_soon(finder.run, seen)
        await seen.first()
        nursery.cancel_scope.cancel()
    assert seen.sightings[0].peer == PEER
    assert len(requests) == 4
    assert f"{port}: it is this node itself" in caplog.text
    assert requests[0].startswith(b"GET /v1/bootstrap HTTP/1.0\r\nHost: 127.0.0.1:")
    assert "127.0.0.1:1: it cannot be reached" in caplog.text
    health = finder.health()
    assert health.errors >= 1
    assert any("127.0.0.1:1: it cannot be reached" in fault for fault in health.faults)
    assert health.looked_at is not None


@pytest.mark.parametrize("error", [UnicodeError("label empty or too long"), OverflowError("port"), OSError("gone")])
async def test_any_error_of_a_resolver_is_a_fault_and_the_finder_goes_on(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> trio.SocketStream:
        raise error

    monkeypatch.setattr(trio, "open_tcp_stream", refuse)
    finder = ApiFinder(("a.example:1",), own=OWN, network="bzzz", chance=lambda: 0.0)
    with trio.move_on_after(0.05):
        await finder.run(Seen())
    (fault,) = finder.health().faults
    assert fault.startswith(f"the bootstrap node a.example:1: it cannot be reached ({error})")


@pytest.mark.parametrize(
    ("there", "advice"),
    [
        ("192.0.2.7:8080", "name its swarm: /ip4/192.0.2.7/tcp/4001"),
        ("[2001:db8::7]:8080", "name its swarm: /ip6/2001:db8::7/tcp/4001"),
        ("ada.example:4001", "name its swarm: /dns/ada.example/tcp/4001"),
        ("127.0.0.1:8080", "(Connection refused)"),
    ],
)
async def test_an_api_that_is_not_reached_says_what_else_can_be_named(
    there: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> trio.SocketStream:
        refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        raise OSError("all attempts failed") from ExceptionGroup("attempts", [refused])

    monkeypatch.setattr(trio, "open_tcp_stream", refuse)
    finder = ApiFinder((there,), own=OWN, network="bzzz", chance=lambda: 0.0)
    with trio.move_on_after(0.05):
        await finder.run(Seen())
    (fault,) = finder.health().faults
    assert fault.startswith(f"the bootstrap node {there}: it cannot be reached (Connection refused)")
    assert fault.endswith(advice)


async def test_an_api_is_asked_again_at_once_when_the_network_or_the_node_behind_it_has_moved(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    seen = Seen()

    async def fetch(_: str) -> bytes:
        asked.append(trio.current_time())
        if len(asked) == 2:
            await trio.sleep_forever()  # what it waits for does not come any more
        return answer()

    monkeypatch.setattr(api, "_fetch", fetch)
    finder = ApiFinder(("a.example:1",), own=OWN, network="bzzz", chance=lambda: 0.0)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(finder.run, seen)
        for at, moved in ((10.0, ""), (12.0, ""), (20.0, PEER), (25.0, OWN)):
            await trio.sleep_until(started + at)
            finder.moved(moved)
        await trio.sleep_until(started + 49.0)
        finder.moved()
        finder.moved()
        await trio.sleep_until(started + 49.5)
        finder.moved()
        await trio.sleep_until(started + 52.0)
        nursery.cancel_scope.cancel()
    assert [at - started for at in asked] == [0.0, 10.0, 12.0, 20.0, 49.0, 50.0], "and after a pause"
    assert len(seen.sightings) == 5


async def test_a_finder_runs_while_its_switch_is_on() -> None:
    runs = 0
    is_on = False
    flipped = trio.Event()

    class Endless:
        def health(self) -> FinderHealth:
            return FinderHealth(kind="one", sources=1, faults=("no node answers",), errors=3)

        async def run(self, sightings: Sightings) -> None:
            nonlocal runs
            runs += 1
            try:
                await trio.sleep_forever()
            finally:
                runs -= 1

    async def changed() -> None:
        await flipped.wait()

    async with trio.open_nursery() as nursery:
        switched = FinderSwitch(Endless(), lambda: is_on, changed)
        nursery.start_soon(switched.run, Seen())
        for expected in (0, 1, 0, 1):
            await trio.testing.wait_all_tasks_blocked()
            assert runs == expected
            searching = FinderHealth(kind="one", sources=1, faults=("no node answers",), errors=3)
            assert switched.health() == (searching if is_on else FinderHealth(kind="one", is_on=False, errors=3))
            is_on = not is_on
            before, flipped = flipped, trio.Event()
            before.set()
        nursery.cancel_scope.cancel()
