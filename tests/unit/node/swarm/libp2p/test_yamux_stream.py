"""Frames of a yamux stream, as its connection takes them."""

from types import SimpleNamespace
from typing import Any, cast

from node.swarm.libp2p.yamux_frame import DATA, FIN, HEADER
from node.swarm.libp2p.yamux_stream import YamuxStream

ROOM = 64 * 1024


def a_stream() -> YamuxStream:
    mux = SimpleNamespace(want=lambda stream: None, forget=lambda stream: None, is_closed=False, unread=0)
    return YamuxStream(cast(Any, mux), 7)


def frames(stream: YamuxStream) -> list[tuple[int, int, bytes]]:
    """Kind, flags and body of each frame that can be sent now."""
    found = []
    while stream.has_frame:
        head, *body = stream.take(ROOM)
        _, kind, flags, _, _ = HEADER.unpack(head)
        found.append((kind, flags, b"".join(body)))
    return found


async def test_the_end_of_a_stream_has_a_frame_of_its_own_behind_all_data() -> None:
    """js-libp2p loses data that comes in one frame with the end."""
    stream = a_stream()
    await stream.write(b"agreement")
    await stream.write(b" and data")
    await stream.close()
    assert frames(stream) == [(DATA, 0, b"agreement and data"), (DATA, FIN, b"")]
    assert stream.take(ROOM) == []


async def test_the_end_waits_until_the_peer_grants_room_for_the_data() -> None:
    stream = a_stream()
    stream.credit = 4
    await stream.write(b"four and more")
    await stream.close()
    assert frames(stream) == [(DATA, 0, b"four")]
    stream.credit = 100
    assert frames(stream) == [(DATA, 0, b" and more"), (DATA, FIN, b"")]
