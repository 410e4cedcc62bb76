"""The target of the attacks: found by its multiaddr or its API, and never on another machine."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from attacks import target as target_module
from attacks.target import NETWORK, AttackTarget, NoTarget, find
from protocols.keys import PrivateKey

PEER = PrivateKey.from_seed(bytes(32)).peer_id
ELSEWHERE = f"/ip4/192.0.2.7/tcp/4001/p2p/{PEER}"
HERE = f"/ip4/127.0.0.1/tcp/4001/p2p/{PEER}"


@asynccontextmanager
async def api(answer: dict[str, Any]) -> AsyncIterator[int]:
    """An API that gives this answer to every request; its port."""
    body = json.dumps(answer).encode()

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n" + body)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def bootstrap(*multiaddrs: str) -> dict[str, Any]:
    return {"response": {"data": {"peer_id": PEER, "network": "test", "multiaddrs": multiaddrs}}}


@pytest.mark.parametrize(
    "text",
    [ELSEWHERE, f"/ip6/2001:db8::1/tcp/4001/p2p/{PEER}", f"/dns4/seed.example.org/tcp/4001/p2p/{PEER}",
     "192.0.2.7:8080", "http://seed.example.org:8080/v1", "[2001:db8::1]:8080", "127.0.0.1.example.org:8080"],
)  # fmt: skip
async def test_a_node_on_another_machine_is_refused_before_anything_is_sent(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*arguments: object, **named: object) -> tuple[int, bytes]:
        raise AssertionError(f"a request was sent: {arguments}")

    monkeypatch.setattr(target_module, "get", never)
    with pytest.raises(NoTarget, match="is not this machine"):
        await find(text)


@pytest.mark.parametrize("text", ["", "127.0.0.1", "localhost:", ":8080", "localhost:http", "localhost:99999"])
async def test_a_text_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(NoTarget, match="neither a multiaddr nor the host:port of an API"):
        await find(text)


async def test_a_multiaddr_must_name_the_peer() -> None:
    with pytest.raises(NoTarget, match=r"must end in /p2p/<peer id>"):
        await find("/ip4/127.0.0.1/tcp/4001")
    with pytest.raises(NoTarget, match="not a TCP port"):
        await find("/ip4/127.0.0.1/tcp/x")


async def test_a_node_is_found_by_its_api_at_its_loopback_address() -> None:
    async with api(bootstrap(ELSEWHERE, HERE)) as port:
        found = await find(f"http://127.0.0.1:{port}/")
    assert found.multiaddr == HERE
    assert (found.network, found.api) == ("test", ("127.0.0.1", port))


async def test_a_node_that_does_not_listen_on_loopback_is_refused() -> None:
    async with api(bootstrap(ELSEWHERE)) as port:
        with pytest.raises(NoTarget, match="does not listen on loopback"):
            await find(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    "answer",
    [{}, {"response": {}}, {"response": {"data": None}}, bootstrap("nonsense")],
    ids=["empty", "no data", "data is null", "no multiaddr"],
)
async def test_an_api_of_something_else_is_refused(answer: dict[str, Any]) -> None:
    async with api(answer) as port:
        with pytest.raises(NoTarget, match="is not the API of a node"):
            await find(f"127.0.0.1:{port}")


async def test_a_multiaddr_leads_to_the_api_of_the_same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    async with api(bootstrap(HERE)) as port:
        # Private, here and below: the sockets of this machine are not the same on every machine.
        monkeypatch.setattr(target_module, "_listening", lambda: {4001: 7, port: 7, 9: 8})
        found = await find(HERE)
    assert found == AttackTarget(host="127.0.0.1", port=4001, peer=PEER, network="test", api=("127.0.0.1", port), pid=7)


async def test_a_node_without_an_api_is_a_target_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module, "_listening", dict)
    assert await find(HERE) == AttackTarget(host="127.0.0.1", port=4001, peer=PEER, network=NETWORK, api=None, pid=None)
