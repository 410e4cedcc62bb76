"""Which peers this node deals with: the allow list, the deny list, and the reputation of peers that misbehave.

One object, consulted for every dial and every connection, and changeable while the node runs. The code that holds
connections and members registers callbacks: the host disconnects peers that are no longer allowed, and `Neighbours`
forgets members that the lists exclude.
"""

import logging
from collections.abc import Callable, Collection, Iterable
from hashlib import sha256

import trio

from node.swarm.limit_counters import LimitCounters
from protocols.policy.reputation import Offence, Penalty, Reputation

log = logging.getLogger(__name__)

BAD_ENVELOPES_MAX = 4
"""Bad envelopes of one message that count as offences: a peer with a broken disk may send many at once, and is no
attacker."""
REMEMBERED_MAX = 4096
"""Bad envelopes that are remembered, so that each counts once."""


class BadInput(Exception):
    """A peer broke the rules of a protocol on a stream: the stream ends, and the peer is blamed."""

    def __init__(self, message: str, offence: Offence = Offence.BAD_INPUT) -> None:
        super().__init__(message)
        self.offence = offence

    @staticmethod
    def among_causes(error: BaseException | None) -> "BadInput | None":
        """The `BadInput` that an error is, or that caused it."""
        while error is not None and not isinstance(error, BadInput):
            error = error.__cause__
        return error


class PeerPolicy:
    """`allow` names the only peers that are allowed (an empty list allows all); `deny` names peers that never are."""

    def __init__(
        self,
        *,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        limit_counters: LimitCounters | None = None,
        reputation: Reputation | None = None,
    ) -> None:
        self.limit_counters = limit_counters or LimitCounters()
        self._on_forfeit: dict[Callable[[str, str], None], None] = {}
        self._on_lists_changed: dict[Callable[[], None], None] = {}
        self._allow = tuple(dict.fromkeys(allow))
        self._deny = tuple(dict.fromkeys(deny))
        self._reputation = Reputation() if reputation is None else reputation
        self._bad_envelopes: dict[bytes, None] = {}
        """Digests of peer and bad envelope, the oldest first."""

    def on_forfeit(self, callback: Callable[[str, str], None]) -> None:
        """Register a callback that closes a peer's connections, called with the peer and the reason.

        A callback that is registered twice is called once.
        """
        self._on_forfeit[callback] = None

    def on_lists_changed(self, callback: Callable[[], None]) -> None:
        """Register a callback that is called after the lists changed."""
        self._on_lists_changed[callback] = None

    @property
    def allow(self) -> tuple[str, ...]:
        return self._allow

    @property
    def deny(self) -> tuple[str, ...]:
        return self._deny

    def set_lists(self, *, allow: Iterable[str] | None = None, deny: Iterable[str] | None = None) -> None:
        """Replace one list or both. Peers that are connected and no longer allowed are disconnected at once."""
        if allow is not None:
            self._allow = tuple(dict.fromkeys(allow))
        if deny is not None:
            self._deny = tuple(dict.fromkeys(deny))
        log.info("the lists changed: %d allowed (0: everyone), %d denied", len(self._allow), len(self._deny))
        for callback in self._on_lists_changed:
            callback()

    def is_listed(self, peer: str) -> bool:
        """Whether the lists allow this peer, whatever its reputation."""
        return peer not in self._deny and (not self._allow or peer in self._allow)

    def complaint(self, peer: str) -> str:
        """Why this node does not deal with a peer, or ''."""
        if not self.is_listed(peer):
            return "it is not allowed here"
        if seconds := self._reputation.banned_seconds(peer, trio.current_time()):
            return f"it misbehaved, and is banned for another {seconds:.0f} s"
        return ""

    def pardon(self, peer: str) -> None:
        """Forget a peer's offences."""
        self._reputation.pardon(peer)

    def blame(self, peer: str, offence: Offence, what: str, *, times: int = 1) -> None:
        """Record an offence of a peer; it may lose its connections for it, or be banned. Quick, and never raises."""
        now = trio.current_time()
        was_banned = self._reputation.is_banned(peer, now)
        verdict = self._reputation.offend(peer, offence, now, times=times)
        reason = cost = ""
        if verdict is Penalty.BAN:
            reason = f"it misbehaved too often: {what}"
            cost = f"; it is banned for {self._reputation.banned_seconds(peer, now):.0f} s"
            self.limit_counters.count("places_lost", not was_banned)
        elif verdict is Penalty.DISCONNECT:
            reason, cost = f"it misbehaved: {what}", "; it loses its connection"
            self.limit_counters.count("connections_forfeited")
        self.limit_counters.hit("offences", peer, f"{offence}: {what}{cost}", times=times)
        if reason:
            for callback in self._on_forfeit:
                callback(peer, reason)

    def refuse(self, peer: str, complaint: str) -> None:
        """Count a connection of a peer that is refused. It shares the log line of the peer's offences."""
        self.limit_counters.hit("turned_away", peer, f"is refused: {complaint}", line="offences")

    def blame_for(self, peer: str, envelopes: Collection[bytes], *, were_asked_for: bool) -> None:
        """A peer sent encoded envelopes that no author can have signed like that, all in one message.

        Each counts once. Sending it again is only flooding, and no offence at all when this node asked for it again.
        """
        new = 0
        for encoded in envelopes:
            mark = sha256(peer.encode() + encoded).digest()
            new += mark not in self._bad_envelopes
            self._bad_envelopes[mark] = None
        while len(self._bad_envelopes) > REMEMBERED_MAX:
            del self._bad_envelopes[next(iter(self._bad_envelopes))]
        what = f"sent {len(envelopes)} envelopes that no author can have signed like that"
        self.limit_counters.count("envelopes_refused", len(envelopes))
        if new:
            self.blame(peer, Offence.BAD_ENVELOPE, what, times=min(new, BAD_ENVELOPES_MAX))
        elif not were_asked_for:
            self.blame(peer, Offence.FLOOD, what, times=len(envelopes))
