"""The events and effects of a routing table (`routing_table.py`)."""

from dataclasses import dataclass

from protocols.kademlia.contact import Contact
from protocols.policy.machine import Tick


@dataclass(frozen=True, slots=True)
class Identified:
    """Identify showed that a peer speaks the kad protocol. The addresses are those that the peer names, and that of its
    connection: else a peer could hide from which subnet it comes."""

    contact: Contact


@dataclass(frozen=True, slots=True)
class Answered:
    """A peer answered a request or a ping."""

    peer: str


@dataclass(frozen=True, slots=True)
class ContactFailed:
    """A peer could not be dialled for a request, or did not answer it in time."""

    peer: str


@dataclass(frozen=True, slots=True)
class PingFailed:
    """A peer did not answer a ping that the table had asked for."""

    peer: str


@dataclass(frozen=True, slots=True)
class ContactRemoved:
    """A peer is not to be in the table: it does not speak the protocol any more."""

    peer: str


@dataclass(frozen=True, slots=True)
class ContactBanned:
    """A peer broke rules: it leaves the table, and may not enter for so many seconds."""

    peer: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LookedUp:
    """A lookup of this place has ended, whatever was found."""

    place: int


@dataclass(frozen=True, slots=True)
class PingContact:
    """Ping a contact; `Answered` or `PingFailed` is expected."""

    contact: Contact


@dataclass(frozen=True, slots=True)
class Refresh:
    """Look up the peers nearest to this place; `LookedUp` is expected. The peers that answer are identified, and enter
    the table. A request names a key, and a place has none: so any place serves that shares with this one one bit more
    than the place of this node does."""

    place: int


@dataclass(frozen=True, slots=True)
class ContactAdded:
    contact: Contact


@dataclass(frozen=True, slots=True)
class Dropped:
    peer: str
    why: str


Event = Identified | Answered | ContactFailed | PingFailed | ContactRemoved | ContactBanned | LookedUp | Tick
Effect = PingContact | Refresh | ContactAdded | Dropped
