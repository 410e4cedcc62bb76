"""The limits of the API: sizes and times of requests, and of connections. `docs/http-api.md` lists them all."""

from dataclasses import dataclass, replace

from protocols.header import ENCODED_BYTES_MAX

HEADERS_BYTES_MAX = 64 * 1024
"""The request line and the headers of a request, together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    body_bytes_max: int = ENCODED_BYTES_MAX
    body_seconds_max: float = 15.0
    """How long the whole body may take to arrive."""
    requests_max: int = 256
    """Requests that are read or answered at one time, those that read and those that write counted apart; a further one
    gets 429. `OPEN_PATHS` are exempt: a probe must not take a busy node for a dead one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    connections_max: int = 512
    """At this limit a new connection closes the one that has waited longest for a request, or for the rest of one."""
    surplus_max: int = 64
    """Open sockets beyond these: connections that are refused, or that close. At this limit new ones wait."""
    header_seconds_max: float = 10.0
    """How long a new connection may take to send the headers of its first request."""
    idle_seconds_max: float = 60.0
    """How long a connection may wait for its next request."""
    write_seconds_max: float = 20.0
    """How long a client may take to read one piece of an answer."""
    linger_seconds_max: float = 1.0
    """How long the server reads and drops what a client still sends after its answer."""
    grace_seconds: float = 0.5
    """How long requests in progress may take to end when the node stops."""


def within(limits: ServerLimits, *, sockets: int) -> ServerLimits:
    """The same limits, with at most so many sockets in all (two or more)."""
    surplus = min(limits.surplus_max, max(1, sockets // 8))
    return replace(limits, connections_max=min(limits.connections_max, sockets - surplus), surplus_max=surplus)
