"""Dialling: whatever goes wrong with one address is the reason of that address, and no error."""

import pytest
import trio

from node.swarm.libp2p import dial
from node.swarm.libp2p.address import TcpAddress
from node.swarm.libp2p.dial import Failures, race
from node.swarm.libp2p.upgrade import Upgrader


@pytest.mark.parametrize(
    "error", [UnicodeError("label empty or too long"), OverflowError("a port"), OSError("no name")]
)
async def test_any_error_of_a_resolver_is_why_the_dial_failed(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> list[object]:
        raise error

    monkeypatch.setattr(trio.socket, "getaddrinfo", refuse)
    failed = Failures()
    endpoint = TcpAddress(kind="dns4", host="a..b", port=1)
    slots = trio.CapacityLimiter(1)
    assert await race([endpoint], Upgrader(bytes(32)), lambda _: "", failed, silent="no answer", sockets=slots) is None
    assert failed.reasons == {"/dns4/a..b/tcp/1": str(error)}


async def test_dials_of_a_node_share_its_sockets_and_none_is_opened_without_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_now, opened, most = 0, 0, 0

    async def connect(*_: object) -> None:
        nonlocal open_now, opened, most
        open_now, opened = open_now + 1, opened + 1
        most = max(most, open_now)
        try:
            await trio.sleep(0.01)
            raise OSError("gone")
        finally:
            open_now -= 1

    monkeypatch.setattr(dial, "connect", connect)
    upgrader, slots = Upgrader(bytes(32)), trio.CapacityLimiter(3)

    async def dial_ten(port: int, room: str) -> None:
        endpoints = [TcpAddress(kind="ip4", host=f"127.0.0.{at}", port=port) for at in range(1, 11)]
        failed = Failures()
        assert (
            await race(endpoints, upgrader, lambda _: "", failed, silent="", sockets=slots, no_room=lambda: room)
            is None
        )
        assert set(failed.reasons.values()) == {room or "gone"}

    async with trio.open_nursery() as nursery:
        for port in range(1, 5):
            nursery.start_soon(dial_ten, port, "")
        nursery.start_soon(dial_ten, 5, "no room")
    assert (opened, most) == (40, 3)
