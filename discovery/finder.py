"""The interface of a finder, which sees peers in one way and reports each of them as a sighting.

All finders report to one place (`protocols/policy/peers.py`, behind `Sightings`), which decides which peers to dial,
and when. A finder never dials, and does not know which peers are connected. What it tells others of this node it asks
`AdvertisedNode`, and asks again whenever that has changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from protocols.policy.sighting import Sighting, Source


class Sightings(Protocol):
    """Takes the reports of finders. Called on the trio thread; quick, and does not raise."""

    def saw(self, sighting: Sighting) -> None:
        """A peer was seen. The same one may be reported again, as often as it is seen: that keeps its age low."""
        ...

    def lost(self, peer: str, source: Source) -> None:
        """The source says that a peer has left. Addresses that it alone reported are dropped; no connection ends."""
        ...


class AdvertisedNode(Protocol):
    """What others may be told of this node."""

    @property
    def peer_id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def network(self) -> str:
        """The name of the swarm."""
        ...

    @property
    def agent(self) -> str:
        """The program and its version, like `bzzz/0.1.0`."""
        ...

    def addresses(self, *, on_this_machine: bool = False) -> tuple[str, ...]:
        """Multiaddrs at which others can dial this node now, each with its peer id; the best ones first.

        `on_this_machine`: for a listener on this machine alone, who can dial loopback addresses too.
        """
        ...

    async def changed(self) -> None:
        """Wait until one of these answers may be another one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FinderHealth:
    """The health of a finder."""

    kind: str
    """The way in which it searches, in a word."""
    is_on: bool = True
    """Whether it searches: one without a source does not."""
    needs_peers: bool = False
    """Whether it finds further peers through peers alone: a node without any stays so."""
    sources: int = 0
    """The number of its configured sources."""
    faults: tuple[str, ...] = ()
    """Each source that reports nothing now, with the reason."""
    errors: int = 0
    """The number of failed searches since the start."""
    latency_seconds: float = 0.0
    """The duration of the last search."""
    looked_at: float | None = None
    """The time of the last search, on trio's clock."""
    interfaces: tuple[str, ...] = ()
    """The network interfaces that it uses now, if it uses any by itself."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What it has sent, heard and dropped since the start, by name."""


class Finder(Protocol):
    """One way to find peers. The node runs it as a task; an exception that it raises ends the node."""

    def health(self) -> FinderHealth:
        """Its health, at once and without a search."""
        ...

    async def run(self, sightings: Sightings) -> None:
        """Report sightings until cancelled. A finder that will never find another peer may return."""
        ...
