"""Which Ethernet frames count as what."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from netsim.lan.capture import FrameKind, kind_of

ETHERNET = b"\0" * 12
TCP, UDP = 6, 17


def ip4(source: int, target: int, *, protocol: int = UDP, options: int = 0) -> bytes:
    head = bytearray(20 + 4 * options)
    head[0], head[9] = 0x45 + options, protocol
    return ETHERNET + b"\x08\x00" + bytes(head) + struct.pack("!HHHH", source, target, 8, 0)


def ip6(source: int, target: int, *, protocol: int = UDP) -> bytes:
    head = bytearray(40)
    head[0], head[6] = 0x60, protocol
    return ETHERNET + b"\x86\xdd" + bytes(head) + struct.pack("!HHHH", source, target, 8, 0)


def test_frames_to_the_port_of_mdns_count_by_both_families() -> None:
    for frame in (ip4(1, 5353), ip4(1, 5353, options=2), ip6(1, 5353)):
        assert kind_of(frame) is FrameKind.MDNS
    for frame in (ip4(5353, 1), ip4(1, 5353, protocol=TCP), ip6(1, 53)):
        assert kind_of(frame) is FrameKind.OTHER


def test_frames_from_and_to_the_port_of_the_swarm_count_by_both_families() -> None:
    for frame in (ip4(1, 4001, protocol=TCP), ip4(4001, 1, protocol=TCP, options=1), ip6(4001, 1, protocol=TCP)):
        assert kind_of(frame) is FrameKind.SWARM
    assert kind_of(ip4(1, 4001)) is FrameKind.OTHER and kind_of(ip6(4002, 1, protocol=TCP)) is FrameKind.OTHER


@given(st.binary(max_size=80))
def test_any_frame_can_be_judged(frame: bytes) -> None:
    kind_of(frame)
    assert kind_of(ip4(1, 5353)[:30]) is kind_of(ip6(1, 5353)[:50]) is FrameKind.OTHER
