"""The limits: how much of this node one peer, or all peers together, may use.

Code that enforces a limit is where the resource is used, and counts each hit in `limit_counters.py`. Sizes that both
ends must agree on are part of the network interface, in `base.py`: a frame longer than `FRAME_BYTES_MAX` is refused by
its length, before anything of it is kept.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmLimits:
    """The defaults are those of a node on a LAN with up to a few hundred others."""

    # Connections.
    connections_max: int = 4096
    """In all, those in their handshake included. For one more, the longest idle one that is no peer's link (the
    connection that carries its frames) is closed; when all are links, the new one is refused."""
    dialling_max: int = 512
    """Sockets of dials under way, and connections that were dialled when `connections_max` were there. Further dials
    wait for the former; the latter are refused."""
    connections_per_peer_max: int = 8
    connections_per_subnet_max: int = 128
    """Inbound ones from one /24 (IPv4) or /48 (IPv6) of public addresses."""
    half_open_max: int = 512
    """Inbound ones in their handshake; for one more, the oldest of them is dropped."""
    upgrade_seconds: float = 5.0
    """How long an inbound one may take, from its first byte, to prove its peer id and to agree on a muxer."""
    idle_seconds: int = 120
    """A connection that is no peer's link and has no stream for so long is closed."""

    members_max: int = 4096
    """Nodes that are remembered as members of the swarm. In an open swarm anyone can make up identities: above this
    number newcomers are refused, and no member is forgotten for one."""

    # Streams that a peer opened.
    streams_max: int = 256
    """Those on one connection; further ones are reset."""
    streams_per_protocol_max: int = 8
    """Those of one peer for one protocol, on all its connections; further ones are reset."""
    negotiate_seconds: float = 5.0
    """How long a stream may take to name its protocol."""
    lanes_seconds: float = 5.0
    """How long the opening of both lanes may take."""
    first_byte_seconds: float = 10.0
    """How long a stream may take to send its first byte, once it has named its protocol."""
    between_bytes_seconds: float = 60.0
    """How long a stream may be silent after that. Lanes and the streams of GossipSub may be silent without limit."""
    unread_bytes_max: int = 8 * 1024 * 1024
    """Bytes received on the streams of one connection and not read yet; more ends the connection."""
    answers_bytes_max: int = 64 * 1024
    """Bytes of acknowledgements and pongs that a peer asked for and does not read; more ends the connection."""

    # Frames on the lanes.
    small_queue_bytes_max: int = 4 * 1024 * 1024
    """Bytes that may wait to be written on the small lane of a peer, less a part of the last frame."""
    bulk_queue_bytes_max: int = 16 * 1024 * 1024
    frame_stall_seconds: int = 30
    """A peer that has begun a frame and sends nothing on either lane for so long loses the connection."""
    frame_seconds: int = 60
    """A peer whose frame takes so long from its first byte to its last loses the connection as well."""
    unfinished_bytes_in_all_max: int = 128 * 1024 * 1024
    """Bytes of incomplete frames of all peers; above it the connections whose frames take longest are closed."""
    in_flight_max: int = 1024
    """This node's unanswered requests to one peer; above it the peer counts as unreachable."""
    serving_max: int = 1024
    """Requests of one peer in progress on this node; above it they are refused."""
    serving_bytes_max: int = 32 * 1024 * 1024
    """The bytes of these requests; above it they are refused too."""
    serving_bytes_in_all_max: int = 256 * 1024 * 1024

    # The DHT.
    kad_streams_max: int = 1024
    """Streams that peers opened to ask this node; for one more, the one that was idle longest is reset."""
    kad_streams_per_peer_max: int = 32
    """Those of one peer; the same."""
    kad_message_seconds: float = 15.0
    """How long a message may take from its first byte to its last; a slower one resets its stream."""
    kad_rate: float = 500.0
    """Messages a second that are read from one peer in the long run; each 16 KiB of a message and of its answer count
    as one more. A peer that sends more is read more slowly."""
    kad_burst: float = 1_000.0
    kad_answers_bytes_max: int = 64 * 1024 * 1024
    """Bytes of answers that peers did not read yet; above it the stream with the most of them is reset."""
    kad_asked_max: int = 64
    """This node's unanswered messages to one peer; above it the peer gets no more."""

    # GossipSub.
    gossip_message_bytes_max: int = 64 * 1024
    gossip_rpc_bytes_max: int = 256 * 1024
    """A frame of GossipSub, which may hold several messages; a longer one ends its stream before it is read."""
    gossip_rate: float = 200.0
    """Messages, control messages and subscriptions a second that are read from one peer in the long run; each KiB of a
    frame counts as one more. A peer that sends more is read more slowly."""
    gossip_burst: float = 2_000.0
    gossip_topics_max: int = 64
    """Topics that one peer may subscribe to."""
    gossip_queue_max: int = 1024
    """Frames of GossipSub that may wait to be written to one peer; further ones are dropped."""
    gossip_queue_bytes_max: int = 4 * 1024 * 1024
    """The bytes of these frames; further ones are dropped."""
    gossip_queue_bytes_in_all_max: int = 64 * 1024 * 1024
    """The bytes of these frames for all peers; above it each peer has an even share."""
    gossip_history_bytes_max: int = 4 * 1024 * 1024
    """Bytes of recent messages that are kept for peers that ask for them; above it the oldest are dropped."""


USUAL = SwarmLimits()


def within(limits: SwarmLimits, *, sockets: int) -> SwarmLimits:
    """The same limits, with at most so many sockets in all: three quarters for connections, the rest for dials."""
    most = min(limits.connections_max, max(3, sockets * 3 // 4))
    return replace(
        limits,
        connections_max=most,
        dialling_max=min(limits.dialling_max, max(1, sockets - most)),
        half_open_max=min(limits.half_open_max, max(2, most // 2)),
        connections_per_peer_max=min(limits.connections_per_peer_max, most),
        connections_per_subnet_max=min(limits.connections_per_subnet_max, most),
    )
