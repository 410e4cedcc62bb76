"""Peer target: what is known of one peer, or of one bare address whose peer is not known yet."""

from dataclasses import dataclass, field
from math import inf

from protocols.policy.peer_addresses import PeerAddresses
from protocols.policy.peer_events import KnownPeer, MissingPeer
from protocols.policy.sighting import Sighting, Source

VOUCHED_SECONDS = 30.0
"""How long it is believed that another member is connected with a peer."""
VOUCHERS_MAX = 8
"""Members that are remembered to have said so of one peer."""

_CLAIMS = (Source.MDNS, Source.ANNOUNCE, Source.DHT)
"""Sources whose word on a peer is the peer's own, before it was met."""
_OWN_WORDS = (Source.HELLO, Source.STORE, Source.ANNOUNCE)
"""Sources that have what the peer itself said: over a connection, or signed."""


@dataclass(slots=True)
class Target:
    """Times in seconds on the clock of the machine."""

    peer: str
    """'' for a bare address."""
    addresses: PeerAddresses = field(default_factory=PeerAddresses)
    sources: dict[Source, float] = field(default_factory=dict)
    name: str = ""
    agent: str = ""
    capabilities: tuple[str, ...] = ()
    charged_to: str = ""
    """The reporter whose share it counts for, until it is met."""
    is_connected: bool = False
    dials: int = 0
    """Those under way."""
    failures: int = 0
    """Attempts in a row without a connection that lasted."""
    why: str = ""
    connected_at: float = -inf
    dial_at: float = 0.0
    seen_at: float = 0.0
    queued_at: float = inf
    """The time of its entry in the queue."""
    is_hearsay: bool = False
    is_kept: bool = True
    """Whether it is to be connected all the time."""
    vouched_since: float = inf
    vouchers: dict[str, float] = field(default_factory=dict)
    """By member that says it is connected with it, when it said so last; the latest last."""

    def vouch(self, member: str, now: float) -> None:
        """Another member is connected with it."""
        if self.is_connected:
            return
        if now - self.vouched_at > VOUCHED_SECONDS:
            self.vouched_since = now
        self.vouchers.pop(member, None)
        self.vouchers[member] = now
        if len(self.vouchers) > VOUCHERS_MAX:
            del self.vouchers[next(iter(self.vouchers))]

    @property
    def is_idle(self) -> bool:
        """Whether it is a member that is not connected because it need not be, and that can be dialled when wanted."""
        return not self.is_kept and not self.is_connected and not self.failures and bool(self.addresses)

    @property
    def vouched_at(self) -> float:
        """When a member said so last."""
        return next(reversed(self.vouchers.values()), -inf)

    def met(self, now: float) -> None:
        """It is connected: what others say does not matter any more."""
        self.is_connected = True
        self.is_hearsay = False
        self.why = ""
        self.vouched_since = inf
        self.vouchers.clear()
        self.connected_at = self.seen_at = now

    def is_claim(self) -> bool:
        """Whether only claims say that it is a node of ours: on a LAN any libp2p program may answer, for ever."""
        return self.connected_at == -inf and all(source in _CLAIMS for source in self.sources)

    def describe(self, sighting: Sighting) -> None:
        """Take what a sighting says of the peer. What the peer itself said is replaced by its own word alone."""
        if not self.peer or (sighting.is_hearsay and self.connected_at > -inf):
            return
        self.name = sighting.name or self.name
        self.agent = sighting.agent or self.agent
        if sighting.capabilities or sighting.source is Source.ANNOUNCE:
            self.capabilities = sighting.capabilities

    def entry(self, *, refused: str = "") -> KnownPeer:
        return KnownPeer(
            peer=self.peer,
            name=self.name,
            agent=self.agent,
            capabilities=self.capabilities,
            sources=tuple(sorted(self.sources.items(), key=lambda source: -source[1])),
            addresses=self.addresses.all(),
            is_connected=self.is_connected,
            seen_at=self.seen_at if self.connected_at > -inf else None,
            why=self.why,
            refused=refused,
        )

    def missing(self) -> MissingPeer | None:
        """What is said of it when it should be connected and is not."""
        is_configured, is_vouched = Source.CONFIGURATION in self.sources, self.vouched_at > -inf
        if not self.is_kept:
            is_vouched, is_configured = False, is_configured and bool(self.failures)
        if self.is_connected or not (is_configured or is_vouched):
            return None
        return MissingPeer(
            peer=self.peer,
            name=self.name,
            configured=next(iter(self.addresses.configured()), ""),
            vouched_since=self.vouched_since,
            vouchers=tuple(self.vouchers.items()),
            has_spoken=self.connected_at > -inf or any(source in self.sources for source in _OWN_WORDS),
            why=self.why,
        )
