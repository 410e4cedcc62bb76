"""A capture of the traffic on a LAN: how many bytes the frames of each kind have, seen at the switch."""

import socket
import struct
import time
from collections import Counter
from collections.abc import Mapping
from enum import Enum, auto

from netsim.lan.site import BRIDGE, Lan

_EVERY_PROTOCOL = 0x0003
_SOL_PACKET, _ADD_MEMBERSHIP, _PROMISCUOUS = 263, 1, 1
_IP4, _IP6, _TCP, _UDP = 0x0800, 0x86DD, 6, 17


class FrameKind(Enum):
    MDNS = auto()
    """UDP to port 5353. Every host of the LAN has sent or received each of these frames."""
    SWARM = auto()
    """TCP from or to port 4001: what nodes say to each other. One host has sent each of these frames, one got it."""
    OTHER = auto()


_PORTS = {(_UDP, 5353): FrameKind.MDNS, (_TCP, 4001): FrameKind.SWARM}


def capture(lan: Lan, seconds: float) -> Mapping[FrameKind, int]:
    """The bytes of the frames of the next seconds, by kind."""

    def open_socket() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        sock.bind((BRIDGE, 0))
        # A bridge hands up what it forwards from port to port only while it is promiscuous.
        wanted = struct.pack("iHH8s", socket.if_nametoindex(BRIDGE), _PROMISCUOUS, 0, b"")
        sock.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, wanted)
        return sock

    sizes: Counter[FrameKind] = Counter()
    deadline = time.monotonic() + seconds
    with lan.switch.call(open_socket) as sock:
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                frame = sock.recv(65_536)
            except TimeoutError:
                break
            sizes[kind_of(frame)] += len(frame)
    return sizes


def kind_of(frame: bytes) -> FrameKind:
    """The kind of an Ethernet frame."""
    if len(frame) < 14 + 20:
        return FrameKind.OTHER
    (ethernet,) = struct.unpack_from("!H", frame, 12)
    if ethernet == _IP4:
        protocol, at = frame[14 + 9], 14 + 4 * (frame[14] & 0x0F)
    elif ethernet == _IP6:
        protocol, at = frame[14 + 6], 14 + 40
    else:
        return FrameKind.OTHER
    if len(frame) < at + 4:
        return FrameKind.OTHER
    source, target = struct.unpack_from("!HH", frame, at)
    return _PORTS.get((protocol, target)) or (protocol == _TCP and _PORTS.get((protocol, source))) or FrameKind.OTHER
