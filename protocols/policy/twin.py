"""Twin detector: decides what a node does about a twin, another running node with the same identity.

A copied data directory has the same key. Two nodes that run with it disconnect each other at every peer, for ever, and
each gets a part of what is sent to both. Each process has a session key of its own, made at its start, and proves both
keys in a handshake: so a connection to the own peer id shows whether a twin is at the other end, or this process.

One of the two backs off: it has no peers until the twin is gone. It is the one that found the other by a dial, which is
the later one in most cases, because the earlier one is there to be found. When each dialled the other, it is the one
with the greater session key.

Twins that cannot dial each other are seen by other nodes, to which they connect in turns, each with a log of its own
(`node/services/membership/log_positions.py`). These report each to the other: the one with the greater log id backs
off.
"""

from dataclasses import dataclass

CHECK_SECONDS = 5.0
"""How often a node that backs off dials its twin to see whether it still runs."""
FORGET_SECONDS = 15.0
"""A twin that was not met for so long is gone."""
REPORTED_SECONDS = 20.0
"""A twin that only other nodes can see is gone when they have not reported it for so long."""
KEPT_MAX = 8


@dataclass(slots=True)
class _Twin:
    session_key: bytes
    address: str
    met_at: float
    dialled: bool = False
    """This node dialled it."""
    dialled_us: bool = False
    is_reported: bool = False
    """Only another node saw it."""
    yields: bool = False
    """Of a reported one: this node backs off from it."""


class TwinDetector:
    """`own_key` is the session key of this process. Times in seconds."""

    def __init__(self, own_key: bytes) -> None:
        self._own_key = own_key
        self._twins: dict[bytes, _Twin] = {}

    def met(self, session_key: bytes, address: str, now: float, *, dialled: bool) -> bool:
        """A connection to the own peer id was made: was it dialled, and to or from where. False: it is this process."""
        if session_key == self._own_key:
            return False
        self._twins = {key: twin for key, twin in self._twins.items() if not twin.is_reported}
        twin = self._twins.setdefault(session_key, _Twin(session_key, address, now))
        twin.met_at = now
        if dialled:
            twin.dialled, twin.address = True, address  # an address to dial tells more than a port of a connection
        else:
            twin.dialled_us = True
        if len(self._twins) > KEPT_MAX:
            del self._twins[next(iter(self._twins))]
        return True

    def reported(self, log_id: str, address: str, now: float, *, yields: bool) -> None:
        """Another node saw a twin with this log, at this address or '' (not known). Who backs off is in `yields`.

        A twin that was met itself tells more: then nothing is done.
        """
        if any(not twin.is_reported for twin in self._twins.values()):
            return
        key = log_id.encode()
        self._twins[key] = _Twin(key, address, now, is_reported=True, yields=yields)
        if len(self._twins) > KEPT_MAX:
            del self._twins[next(iter(self._twins))]

    def forget(self, now: float) -> None:
        """Forget the twins that are gone."""
        self._twins = {
            key: twin
            for key, twin in self._twins.items()
            if now < twin.met_at + (REPORTED_SECONDS if twin.is_reported else FORGET_SECONDS)
        }

    def addresses(self) -> tuple[str, ...]:
        """Where the twins are that this node backs off from."""
        return tuple(twin.address for twin in self._twins.values() if twin.address and self._yields_to(twin))

    @property
    def is_backing_off(self) -> bool:
        return any(map(self._yields_to, self._twins.values()))

    def is_known(self) -> bool:
        return bool(self._twins)

    def in_words(self) -> str:
        """What is the matter, and what to do; '' without a twin."""
        if not self._twins:
            return ""
        places = ", ".join(dict.fromkeys(twin.address or "an unknown address" for twin in self._twins.values()))
        which = (
            "this one has no peers until that one ends" if self.is_backing_off else "that one stays out of the swarm"
        )
        return (
            f"another node runs with this node's identity, at {places}: {which}. Stop one of them, and give a copy of "
            "a data directory an identity of its own (remove its identity.key)"
        )

    def _yields_to(self, twin: _Twin) -> bool:
        if twin.is_reported:
            return twin.yields
        if twin.dialled and twin.dialled_us:
            return self._own_key > twin.session_key
        return twin.dialled
