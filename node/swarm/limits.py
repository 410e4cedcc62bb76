"""The numbers: how much of this node a peer, or all of them, may have.

What stands here is what may be had; what happens to who wants more stands where it is refused, and is counted in
`limit_counters.py`. The sizes that both ends have to agree on are part of the contract, in `base.py`: the longest frame
is `FRAME_BYTES_MAX`, refused by its length before anything of it is kept.
"""

import ipaddress
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmLimits:
    """The defaults are those of a node on a LAN with up to a few hundred others."""

    # Connections.
    connections_max: int = 4096
    """In all, those that are still shaking hands included. For one more, the longest idle one that is no link of ours
    gives way; when all are links, the new one is refused."""
    connections_per_peer_max: int = 8
    connections_per_subnet_max: int = 128
    """That came from one /24 (IPv4) or /48 (IPv6) of public addresses."""
    half_open_max: int = 512
    """That came and are still shaking hands; for one more, the oldest of them is dropped."""
    upgrade_seconds: float = 5.0
    """What one that came may take, from its first byte to its last, to prove who it is and to agree on a muxer."""
    idle_seconds: int = 120
    """A connection that is no link of ours and has no stream for so long is closed."""

    members_max: int = 4096
    """Nodes that are remembered as members of the swarm. Anyone may make up identities where anyone may join: beyond
    these a newcomer is refused, and nobody who is a member has to give way."""

    # Streams that a peer opened.
    streams_max: int = 256
    """On one connection; further ones are reset."""
    streams_per_protocol_max: int = 8
    """Of one peer for one protocol, on all its connections; further ones are reset."""
    negotiate_seconds: float = 5.0
    """What a stream may take to say what it is for."""
    lanes_seconds: float = 5.0
    """What opening both lanes may take."""
    first_byte_seconds: float = 10.0
    """What a stream may take to say something, once it said what it is for."""
    between_bytes_seconds: float = 60.0
    """How long a stream may be silent after that. The lanes and GossipSub may be so for as long as they like."""
    unread_bytes_max: int = 8 * 1024 * 1024
    """What came on the streams of one connection and is not read yet; more ends the connection."""
    answers_bytes_max: int = 64 * 1024
    """Acknowledgements and pongs that a peer provokes and does not read; more ends the connection."""

    # Frames on the lanes.
    small_queue_bytes_max: int = 4 * 1024 * 1024
    """What may wait to be written on the small lane of a peer; one frame may start below it and end above."""
    bulk_queue_bytes_max: int = 16 * 1024 * 1024
    frame_stall_seconds: int = 30
    """A peer that has begun a frame and sends nothing on either lane for so long loses the connection."""
    frame_seconds: int = 60
    """So does one whose frame takes so long from its first byte to its last."""
    unfinished_bytes_in_all_max: int = 128 * 1024 * 1024
    """Of frames that have begun and are not here whole, of all peers; above it those that take longest give way."""
    in_flight_max: int = 1024
    """Our unanswered requests at one peer; above it the peer counts as unreachable."""
    serving_max: int = 1024
    """Requests of one peer that we are working on; above it they are refused."""
    serving_bytes_max: int = 32 * 1024 * 1024
    """The bytes of these, above which they are refused too."""
    serving_bytes_in_all_max: int = 256 * 1024 * 1024

    # GossipSub.
    gossip_message_bytes_max: int = 64 * 1024
    gossip_rpc_bytes_max: int = 256 * 1024
    """A frame of GossipSub, which may hold several messages; a longer one costs its stream before it is read."""
    gossip_rate: float = 200.0
    """Messages, control messages and subscriptions a second that are read from one peer in the long run, each KiB of a
    frame counting as one more; who sends more is read more slowly."""
    gossip_burst: float = 2_000.0
    gossip_topics_max: int = 64
    """That one peer may subscribe to."""
    gossip_queue_max: int = 1024
    """Frames of GossipSub that may wait to be written to one peer, and"""
    gossip_queue_bytes_max: int = 4 * 1024 * 1024
    """their bytes; above it they are dropped."""
    gossip_queue_bytes_in_all_max: int = 64 * 1024 * 1024
    """Of all peers; above it each has an even share."""
    gossip_history_bytes_max: int = 4 * 1024 * 1024
    """Of the messages of the last heartbeats, kept for who asks for them; above it the oldest go."""


USUAL = SwarmLimits()


def small() -> SwarmLimits:
    """For a small machine, or one whose node is a guest on it: a tenth of the connections and of the memory."""
    return SwarmLimits(
        connections_max=400,
        members_max=512,
        half_open_max=64,
        streams_max=64,
        unread_bytes_max=1024 * 1024,
        small_queue_bytes_max=1024 * 1024,
        bulk_queue_bytes_max=8 * 1024 * 1024,
        serving_max=128,
        serving_bytes_max=16 * 1024 * 1024,
        serving_bytes_in_all_max=32 * 1024 * 1024,
        unfinished_bytes_in_all_max=32 * 1024 * 1024,
        gossip_queue_bytes_max=512 * 1024,
        gossip_queue_bytes_in_all_max=8 * 1024 * 1024,
        gossip_history_bytes_max=512 * 1024,
    )


def public() -> SwarmLimits:
    """For a node that anyone on the internet may dial: less patience, and less of everything for one place."""
    return SwarmLimits(
        connections_per_peer_max=4,
        connections_per_subnet_max=32,
        upgrade_seconds=3.0,
        idle_seconds=30,
        streams_max=128,
        streams_per_protocol_max=4,
        between_bytes_seconds=20.0,
        gossip_rate=50.0,
        gossip_burst=500.0,
    )


def within(limits: SwarmLimits, *, descriptors: int) -> SwarmLimits:
    """The same, but with no more connections than three quarters of the file descriptors that a process may have."""
    most = max(16, descriptors * 3 // 4)
    return replace(
        limits,
        connections_max=min(limits.connections_max, most),
        half_open_max=min(limits.half_open_max, max(8, most // 2)),
    )


def subnet(host: str) -> str | None:
    """The public /24 or /48 that an IP address is in. None for a private or loopback one: those are not counted."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if not address.is_global:
        return None
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))
