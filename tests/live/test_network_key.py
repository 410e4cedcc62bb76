"""Private networks over real sockets: who has the key is in, who has not is told so at once, and counted."""

from functools import partial

import pytest
import trio

from node.swarm.base import DialFailed, Lane
from tests.live.swarm_peers import running
from tests.until import until

KEY, OTHER = bytes(range(32)), bytes(32)


async def test_nodes_with_one_key_speak_and_megabytes_arrive() -> None:
    async with running(network_key=KEY) as (one, _), running(network_key=KEY) as (two, received):
        assert await one.dial(two.addresses, timeout=20) == two.peer_id
        await received.until_connected(one.peer_id)
        frames = [bytes([number]) * 1_000_000 for number in range(5)]
        for frame in frames:
            assert one.send(two.peer_id, Lane.BULK, frame)
        await received.until_frames(len(frames))
        assert [frame for _, _, frame in received.frames] == frames


@pytest.mark.parametrize(
    ("dialler", "listener", "why"),
    [
        (KEY, OTHER, "the node there has another network key than this node, or none"),
        (None, KEY, "or has a network key, and this node has none"),
        (KEY, None, "another network key than this node, or none|it has no network key, and this node has one"),
    ],
    ids=["another key", "no key", "no key there"],
)
async def test_without_the_key_a_dial_fails_at_once_and_says_why(
    dialler: bytes | None, listener: bytes | None, why: str
) -> None:
    async with running(network_key=dialler) as (one, _), running(network_key=listener) as (two, received):
        with pytest.raises(DialFailed, match=why):
            await one.dial(two.addresses, timeout=1)
        counts = two.peer_policy.limit_counters.counts
        await until(lambda: counts.network_keys_wrong + counts.handshakes_failed == 1)
        assert counts.network_keys_wrong == (listener is not None)
        assert received.events == []


async def test_who_dials_a_node_that_falls_silent_is_told_of_the_key_too() -> None:
    async def answer_with_a_nonce(stream: trio.SocketStream) -> None:
        await stream.send_all(bytes(24))
        await trio.sleep_forever()

    async with running(network_key=KEY) as (host, _), trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer_with_a_nonce, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(DialFailed, match="another network key"):
            await host.dial([f"/ip4/127.0.0.1/tcp/{port}"], timeout=0.5)
        nursery.cancel_scope.cancel()
