"""Sighting: the report of one source that it saw a peer. Every source makes them; `peers.py` judges all of them.

A sighting is a claim, and no proof: an address in it is tried, and a peer is who its handshake proves it to be.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from protocols.capabilities import CAPABILITIES_MAX
from protocols.names import is_name

AGENT_CHARS_MAX = 64
CAPABILITY_CHARS_MAX = 512


class Source(StrEnum):
    """Where a sighting comes from, the nearest to the peer first."""

    CONFIGURATION = "configuration"
    """An operator named the address."""
    HELLO = "hello"
    """The peer itself, on a connection whose handshake proved its id."""
    API = "api"
    """An operator named the API of the node, which answered with the address."""
    MDNS = "mdns"
    STORE = "store"
    """This node's memory of an earlier run."""
    ANNOUNCE = "announce"
    DHT = "dht"
    EXCHANGE = "exchange"
    """Another member, which was asked for the members that it knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One source saw a peer. `peer` is '' while its id is not known; then there is one address."""

    peer: str
    addresses: tuple[str, ...]
    """Multiaddrs. They replace what a `HELLO` said before of the same peer; else they are added to what is known."""
    source: Source
    reporter: str = ""
    """The peer that the report came from, if it is another one than `peer`. Its reports are hearsay, and it has a share
    of the room for peers that were never met."""
    is_vouched: bool = False
    """The reporter is connected with it now."""
    seen_at: float | None = None
    """When the peer was seen, if earlier than now (seconds on the clock of `peers.py`)."""
    name: str = ""
    agent: str = ""
    """The program and version that it runs, like `bzzz/0.1.0`."""
    capabilities: tuple[str, ...] = ()
    """What it offers, as texts (`protocols/capabilities.py`)."""

    @property
    def is_configured(self) -> bool:
        return self.source is Source.CONFIGURATION

    @property
    def is_hearsay(self) -> bool:
        return bool(self.reporter)

    def cleaned(self) -> "Sighting":
        """The same with texts that may be shown: a name, agent or capability that is none is left out."""
        return replace(
            self,
            name=self.name if is_name(self.name) else "",
            agent=self.agent if is_agent(self.agent) else "",
            capabilities=clean_capabilities(self.capabilities),
        )


def is_agent(text: str) -> bool:
    """Whether a text can be the name and version of a program: short and printable."""
    return len(text) <= AGENT_CHARS_MAX and text.isprintable()


def clean_capabilities(capabilities: tuple[str, ...]) -> tuple[str, ...]:
    """The capabilities that may be shown, each once, `CAPABILITIES_MAX` at most."""
    fit = (each for each in capabilities if len(each) <= CAPABILITY_CHARS_MAX and each.isprintable())
    return tuple(dict.fromkeys(fit))[:CAPABILITIES_MAX]
