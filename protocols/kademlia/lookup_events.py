"""The events and effects of a lookup (`lookup.py`), and its result."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from protocols.kademlia.contact import Contact

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class ReplyReceived(Generic[Found]):
    """A peer answered. `found` is what it has for the purpose of the lookup, such as a value; None for nothing."""

    peer: str
    closer: Sequence[Contact] = ()
    found: Found | None = None


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A peer could not be dialled, or did not answer; or it answered what breaks the rules of the protocol."""

    peer: str
    is_lie: bool = False


@dataclass(frozen=True, slots=True)
class SendRequest:
    """Ask a peer for the peers that it knows nearest to the place, and for what the purpose looks for; dial it first if
    it is not connected. `ReplyReceived` or `RequestFailed` is expected."""

    contact: Contact


class LookupOutcome(StrEnum):
    """What a lookup shows."""

    MET = "met"
    """Its purpose is met: the value, peer or providers are found."""
    SETTLED = "settled"
    """The peers nearest to the place were asked, and a majority of them answered: what was looked for is absent."""
    UNSETTLED = "unsettled"
    """Too few of the nearest peers answered, or a limit ended the lookup: nothing is known of what was not found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a lookup found out. Peers are in the order of their distance to the place."""

    outcome: LookupOutcome
    closest: tuple[Contact, ...]
    """The nearest peers that answered, k at most."""
    answered: tuple[str, ...]
    failed: tuple[str, ...]
    """They were asked and did not answer."""
    lied: tuple[str, ...]
    """They answered what breaks rules; none of it was used."""
    pending: tuple[str, ...]
    """They were asked, and may still answer."""
    requests: int
    hops: int
    """The length of the chain of answers that led to what was found, or to the nearest peers; 1 from own contacts."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The lookup is over: requests under way need no answer any more."""

    result: Result
