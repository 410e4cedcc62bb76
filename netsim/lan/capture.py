"""A capture of mDNS on a LAN: how many bytes its frames have, seen at the switch."""

import socket
import struct
import time
from dataclasses import dataclass

from netsim.lan.site import BRIDGE, Lan

PORT = 5353
_EVERY_PROTOCOL = 0x0003
_IP4, _IP6, _UDP = 0x0800, 0x86DD, 17


@dataclass(frozen=True, slots=True)
class Captured:
    frames: int
    size_bytes: int


def capture_mdns(lan: Lan, seconds: float) -> Captured:
    """Count the mDNS frames of the next seconds. Every host of the LAN has sent or received each of them."""

    def open_socket() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
        sock.bind((BRIDGE, 0))
        return sock

    frames = size = 0
    deadline = time.monotonic() + seconds
    with lan.switch.call(open_socket) as sock:
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                frame = sock.recv(65_536)
            except TimeoutError:
                break
            if is_mdns(frame):
                frames, size = frames + 1, size + len(frame)
    return Captured(frames, size)


def is_mdns(frame: bytes) -> bool:
    """Whether an Ethernet frame holds a UDP packet to the port of mDNS."""
    if len(frame) < 14 + 20:
        return False
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == _IP4:
        protocol, at = frame[14 + 9], 14 + 4 * (frame[14] & 0x0F)
    elif kind == _IP6:
        protocol, at = frame[14 + 6], 14 + 40
    else:
        return False
    return protocol == _UDP and len(frame) >= at + 4 and struct.unpack_from("!H", frame, at + 2)[0] == PORT
