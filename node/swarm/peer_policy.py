"""Who may be here: the allow list and the deny list, and what became of those who misbehaved.

One object, asked on every dial and every connection, and changeable while the node runs. What takes peers apart listens
to it (`listeners`): the host drops who is no longer welcome, the neighbourhood forgets whom the lists exclude.
"""

import logging
from collections.abc import Callable, Collection, Iterable
from hashlib import sha256

import trio

from node.swarm.limit_counters import LimitCounters
from protocols.policy.reputation import Offence, Penalty, Reputation

log = logging.getLogger(__name__)

BAD_ENVELOPES_MAX = 4
"""Of one message that count: a peer whose disk went bad is no attacker for having sent many at once."""
REMEMBERED_MAX = 4096
"""Bad envelopes that are known again."""


class BadInput(Exception):
    """A peer sent on a stream what breaks the rules: the stream ends, and the peer is blamed."""

    def __init__(self, message: str, offence: Offence = Offence.BAD_INPUT) -> None:
        super().__init__(message)
        self.offence = offence


class PeerPolicy:
    """`allow` names the only peers that are welcome (nobody named: everyone), `deny` those who are not in any case."""

    def __init__(
        self,
        *,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        limit_counters: LimitCounters | None = None,
        score: Reputation | None = None,
    ) -> None:
        self.limit_counters = limit_counters or LimitCounters()
        self._on_forfeit: dict[Callable[[str, str], None], None] = {}
        self._on_lists_changed: dict[Callable[[], None], None] = {}
        self._allow = tuple(dict.fromkeys(allow))
        self._deny = tuple(dict.fromkeys(deny))
        self._score = Reputation() if score is None else score
        self._bad: dict[bytes, None] = {}

    def on_forfeit(self, callback: Callable[[str, str], None]) -> None:
        """Call this with a peer and a reason when the peer forfeits its connections: whoever has them ends them.

        The same callback twice is called once.
        """
        self._on_forfeit[callback] = None

    def on_lists_changed(self, callback: Callable[[], None]) -> None:
        """Call this after the lists changed."""
        self._on_lists_changed[callback] = None

    @property
    def allow(self) -> tuple[str, ...]:
        return self._allow

    @property
    def deny(self) -> tuple[str, ...]:
        return self._deny

    def set_lists(self, *, allow: Iterable[str] | None = None, deny: Iterable[str] | None = None) -> None:
        """Replace one list or both, from now on. Who is connected and no longer welcome is parted from at once."""
        if allow is not None:
            self._allow = tuple(dict.fromkeys(allow))
        if deny is not None:
            self._deny = tuple(dict.fromkeys(deny))
        log.info("the lists changed: %d allowed (0: everyone), %d denied", len(self._allow), len(self._deny))
        for callback in self._on_lists_changed:
            callback()

    def is_listed(self, peer: str) -> bool:
        """Whether the lists let this peer in, whatever it did."""
        return peer not in self._deny and (not self._allow or peer in self._allow)

    def complaint(self, peer: str) -> str:
        """What stands against a peer, or ''."""
        if not self.is_listed(peer):
            return "it is not allowed here"
        if seconds := self._score.banned_seconds(peer, trio.current_time()):
            return f"it misbehaved, and is not dealt with for another {seconds:.0f} s"
        return ""

    def pardon(self, peer: str) -> None:
        """Forget what a peer did."""
        self._score.pardon(peer)

    def blame(self, peer: str, offence: Offence, what: str, *, times: int = 1) -> None:
        """A peer sent bad input; it may lose its connections for it, or its place. Quick, and never raises."""
        now = trio.current_time()
        was_banned = self._score.is_banned(peer, now)
        verdict = self._score.offend(peer, offence, now, times=times)
        reason = cost = ""
        if verdict is Penalty.BAN:
            reason = f"it misbehaved too often: {what}"
            cost = f"; it is not dealt with for {self._score.banned_seconds(peer, now):.0f} s"
            self.limit_counters.count("places_lost", not was_banned)
        elif verdict is Penalty.DISCONNECT:
            reason, cost = f"it misbehaved: {what}", "; it loses its connection"
            self.limit_counters.count("connections_forfeited")
        self.limit_counters.hit("offences", peer, f"{offence}: {what}{cost}", times=times)
        if reason:
            for callback in self._on_forfeit:
                callback(peer, reason)

    def turn_away(self, peer: str, complaint: str) -> None:
        """A peer came against which something stands. It shares its line in the log with what the peer did before."""
        self.limit_counters.hit("turned_away", peer, f"is turned away: {complaint}", line="offences")

    def blame_for(self, peer: str, envelopes: Collection[bytes], *, were_asked_for: bool) -> None:
        """A peer sent envelopes, encoded, that no author can have signed like that, all in one message.

        Each counts once. Sent again, it is no more than a nuisance, and none at all when it was we who asked again.
        """
        new = 0
        for encoded in envelopes:
            mark = sha256(peer.encode() + encoded).digest()
            new += mark not in self._bad
            self._bad[mark] = None
        while len(self._bad) > REMEMBERED_MAX:
            del self._bad[next(iter(self._bad))]
        what = f"sent {len(envelopes)} envelopes that no author can have signed like that"
        self.limit_counters.count("envelopes_refused", len(envelopes))
        if new:
            self.blame(peer, Offence.BAD_ENVELOPE, what, times=min(new, BAD_ENVELOPES_MAX))
        elif not were_asked_for:
            self.blame(peer, Offence.FLOOD, what, times=len(envelopes))
