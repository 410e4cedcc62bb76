"""Dialling: whatever goes wrong with one address is the reason of that address, and no error."""

import pytest
import trio

from node.swarm.libp2p.address import TcpAddress
from node.swarm.libp2p.dial import race
from node.swarm.libp2p.upgrade import Upgrader


@pytest.mark.parametrize(
    "error", [UnicodeError("label empty or too long"), OverflowError("a port"), OSError("no name")]
)
async def test_whatever_a_resolver_raises_is_why_the_dial_failed(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> list[object]:
        raise error

    monkeypatch.setattr(trio.socket, "getaddrinfo", refuse)
    failed: dict[str, str] = {}
    endpoint = TcpAddress(kind="dns4", host="a..b", port=1)
    assert await race([endpoint], Upgrader(bytes(32)), lambda _: "", failed, silent="no answer") is None
    assert failed == {"/dns4/a..b/tcp/1": str(error)}
