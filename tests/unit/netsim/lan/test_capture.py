"""Which Ethernet frames count as mDNS."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from netsim.lan.capture import is_mdns

ETHERNET = b"\0" * 12


def ip4(port: int, *, protocol: int = 17, options: int = 0) -> bytes:
    head = bytearray(20 + 4 * options)
    head[0], head[9] = 0x45 + options, protocol
    return ETHERNET + b"\x08\x00" + bytes(head) + struct.pack("!HHHH", 1, port, 8, 0)


def ip6(port: int) -> bytes:
    head = bytearray(40)
    head[0], head[6] = 0x60, 17
    return ETHERNET + b"\x86\xdd" + bytes(head) + struct.pack("!HHHH", 1, port, 8, 0)


def test_frames_to_the_port_of_mdns_count_by_both_families() -> None:
    assert is_mdns(ip4(5353)) and is_mdns(ip4(5353, options=2)) and is_mdns(ip6(5353))
    assert not is_mdns(ip4(4001)) and not is_mdns(ip4(5353, protocol=6)) and not is_mdns(ip6(53))


@given(st.binary(max_size=80))
def test_any_frame_can_be_judged(frame: bytes) -> None:
    is_mdns(frame)
    assert not is_mdns(ip4(5353)[:30])
