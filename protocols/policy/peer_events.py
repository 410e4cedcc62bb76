"""The events and effects of the picture of the peers (`peers.py`), and its entries."""

from dataclasses import dataclass

from protocols.policy.machine import Tick
from protocols.policy.peer_addresses import KnownAddress
from protocols.policy.sighting import Sighting, Source

ITSELF = "it is this node itself"
"""The reason of a dial that led to the node that dialled."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A source says that a peer has left."""

    peer: str
    source: Source


@dataclass(frozen=True, slots=True)
class Connected:
    """`address` is the one that this node dialled, '' when the peer dialled this node."""

    peer: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class Disconnected:
    peer: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Dialled:
    """A dial ended. `peer` is the peer that answered and was wanted, or ''; then `why` says what failed."""

    target: str
    peer: str
    why: str = ""
    others: tuple[tuple[str, str], ...] = ()
    """Pairs of an address and the peer that answered there, which was not the one that was dialled."""


@dataclass(frozen=True, slots=True)
class Banned:
    """A peer is of another swarm: it is never dialled again."""

    peer: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Removed:
    """An operator had a peer forgotten: it is not dialled until it is sighted again, unless it is configured."""

    peer: str


@dataclass(frozen=True, slots=True)
class NetworkChanged:
    """This machine got another address, or woke up: what failed before may work now."""


@dataclass(frozen=True, slots=True)
class Planned:
    """No connection is to be kept with these members: each is dialled when it is wanted, and now and then. All other
    peers are to be connected."""

    unkept: frozenset[str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request waits for a peer that is idle (`Peers.is_idle`)."""

    peer: str


@dataclass(frozen=True, slots=True)
class Dial:
    target: str
    addresses: tuple[str, ...]
    is_hearsay: bool = False
    """The target is known only from another peer."""


@dataclass(frozen=True, slots=True)
class Forget:
    """A peer was not seen for the whole horizon."""

    peer: str


@dataclass(frozen=True, slots=True)
class NoRoom:
    """A sighting of a new peer is dropped, because its reporter, or all of them, named too many that were never met."""

    reporter: str
    why: str


Event = (
    Sighting | Lost | Connected | Disconnected | Dialled | Banned | Removed | NetworkChanged | Planned | Wanted | Tick
)
Effect = Dial | Forget | NoRoom


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPeer:
    """One entry of the picture. `peer` is '' for a bare address. Times on the clock of the machine."""

    peer: str
    name: str
    agent: str
    capabilities: tuple[str, ...]
    sources: tuple[tuple[Source, float], ...]
    """When each source reported it last, the latest first."""
    addresses: tuple[KnownAddress, ...]
    is_connected: bool
    seen_at: float | None
    """When it was connected last; None: never since it is known."""
    why: str
    """Why the last dial failed, or the last connection ended; '' while it is connected."""
    refused: str
    """Why it is never dialled, or ''."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingPeer:
    """A node that is not connected, though an operator named it, or another member is connected with it."""

    peer: str
    """'' when it is not known."""
    name: str
    configured: str
    """The address that an operator named, or ''."""
    vouched_since: float
    """Since when another member is connected with it; infinity: not known."""
    vouchers: tuple[tuple[str, float], ...]
    """The members that said so, and when each did last; the latest last."""
    has_spoken: bool
    """It said hello within the forgetting horizon, or its own signed announcement came: no member made it up."""
    why: str
    """Why the last dial failed, or the last connection ended."""
