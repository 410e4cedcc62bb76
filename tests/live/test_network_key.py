"""Private networks over real sockets: who has the key is in, who has not is told so at once, and counted."""

import pytest

from node.swarm.base import DialFailed, Lane
from tests.live.swarm_peers import running
from tests.until import until

KEY, OTHER = bytes(range(32)), bytes(32)


async def test_nodes_with_one_key_speak_and_megabytes_arrive() -> None:
    async with running(network_key=KEY) as (one, _), running(network_key=KEY) as (two, received):
        assert await one.dial(two.addresses, timeout=5) == two.peer_id
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
