"""Private networks with js-libp2p, by its package `@libp2p/pnet`: who has the key is in, in both directions."""

from contextlib import suppress
from pathlib import Path

import pytest

from node.swarm.base import DialFailed
from tests.interop.js_private_peer import js_private_peer
from tests.live.swarm_peers import running
from tests.until import until

KEY, OTHER = bytes(range(32)), bytes(32)


async def test_js_libp2p_with_the_key_gets_in(packages: Path, tmp_path: Path) -> None:
    async with running(network_key=KEY) as (host, _):
        with js_private_peer(packages, tmp_path, KEY, dials=host.addresses[0]) as js:
            await until(lambda: host.peer_id in js.connected(), what="js-libp2p is connected")
            assert not js.failures()


async def test_a_node_gets_into_js_libp2p_with_the_key(packages: Path, tmp_path: Path) -> None:
    async with running(network_key=KEY) as (host, _):
        with js_private_peer(packages, tmp_path, KEY) as js:
            await until(lambda: js.addresses, what="js-libp2p listens")
            with suppress(DialFailed):  # it does not speak the protocol of the store
                await host.dial(js.addresses, timeout=30)
            await until(lambda: host.peer_id in js.connected(), what="js-libp2p is connected")


async def test_js_libp2p_with_another_key_does_not_get_in_and_is_counted(packages: Path, tmp_path: Path) -> None:
    async with running(network_key=KEY) as (host, received):
        with js_private_peer(packages, tmp_path, OTHER, dials=host.addresses[0]) as js:
            await until(lambda: js.failures(), what="js-libp2p is refused")
            counters = host.peer_policy.limit_counters
            await until(lambda: counters.counts.network_keys_wrong >= 1, what="the refusal is counted")
            assert not js.connected() and received.events == []


async def test_a_node_that_dials_js_libp2p_with_another_key_says_why(packages: Path, tmp_path: Path) -> None:
    async with running(network_key=KEY) as (host, _):
        with js_private_peer(packages, tmp_path, OTHER) as js:
            await until(lambda: js.addresses, what="js-libp2p listens")
            with pytest.raises(DialFailed, match="network key"):
                await host.dial(js.addresses, timeout=5)
            assert not js.connected()
