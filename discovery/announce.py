"""The announce finder: tells the swarm what this node is, and finds peers by what they announce.

A node announces itself on one topic: when it has met its first peer, when its addresses or capabilities change, and as
a slow heartbeat. Two nodes that connect also hand each other their announcements in their hellos, and a newcomer asks
its first peers for those that they keep; so nobody waits for a heartbeat. `protocols/announce.py` has the format,
`protocols/policy/announcements.py` decides what is kept.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import trio

from discovery.finder import AdvertisedNode, FinderHealth, Sightings
from protocols.announce import ADDRESSES_MAX, TOPIC, Announcement, decode, seal, verify
from protocols.capabilities import Capability, text_of
from protocols.errors import BzzzError
from protocols.keys import PrivateKey
from protocols.policy.announcements import RATE, AnnouncementTable, Verdict
from protocols.policy.sighting import Sighting, Source
from protocols.policy.token_bucket import TokenBucket

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 3600.0
HEARTBEAT_SECONDS_PER_PEER = 120.0
"""A larger swarm has a slower heartbeat, so that all heartbeats together stay the same traffic."""
HEARTBEAT_SECONDS_MAX = 6 * 3600.0
HOLD_HEARTBEATS = 3.0
"""An announcement expires after so many heartbeats of its peer."""
OWN_BURST = 10.0
"""Changes that are announced at once; those after them are announced together, some seconds later."""
RETRY_SECONDS = 5.0
SENT_SECONDS = 0.05
"""How long a farewell may take from the queue to the peers."""
EXCHANGE_BYTES_MAX = 1 << 20
EXCHANGE_MAX = 1024
"""Announcements that one peer is told of when it asks."""
VERIFIED_AT_ONCE = 16

_LATE = (Verdict.EXPIRED, Verdict.AHEAD)


class AnnounceSwarm(Protocol):
    """What the finder needs of its node."""

    def subscribe(self, received: Callable[[str, bytes, str], bool | None]) -> None:
        """Call `received` with the author and the data of each message on the topic, and with the peer that passed it
        on. Called once."""
        ...

    async def publish(self, data: bytes) -> None:
        """Send a message to everybody on the topic. Raises `TooLarge` or `Unavailable`."""
        ...

    def is_listed(self, peer: str) -> bool:
        """Whether this node may deal with a peer."""
        ...

    def is_member(self, peer: str) -> bool: ...

    def is_gone(self, peer: str) -> bool:
        """Whether a peer is away for so long that what it announced counts no more."""
        ...

    def note_alive(self, peer: str) -> None:
        """A peer has just announced itself, or a member handed its announcement over, which counts it as alive."""
        ...

    def clock_offset_ms(self, peer: str) -> float:
        """How far the clock of a peer is ahead of this node's, as far as that is known."""
        ...

    def count(self, kind: str) -> None:
        """Count an announcement that was dropped, and may have come from an honest node."""
        ...

    def refuse(self, kind: str, source: str, what: str, *, is_offence: bool = False) -> None:
        """Count and log an announcement that was dropped; blame its source for one that no honest node sends."""
        ...


class AnnounceFinder:
    """`capabilities` are those of this node now; `is_on` says whether it takes part."""

    def __init__(
        self,
        key: PrivateKey,
        this_node: AdvertisedNode,
        swarm: AnnounceSwarm,
        *,
        capabilities: Callable[[], Sequence[Capability]],
        now_ms: Callable[[], int],
        chance: Callable[[], float],
        is_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self._key = key
        self._this_node = this_node
        self._swarm = swarm
        self._capabilities = capabilities
        self._now_ms = now_ms
        self._chance = chance
        self._is_on = is_on
        self._table = AnnouncementTable()
        self._own: Announcement | None = None
        self._sealed_at = 0.0
        self._sequence = 0
        """The greatest sequence that this node, or an earlier process of it, is known to have used."""
        self._has_met = False
        self._has_left = False
        self._is_due = True
        """Announce, even if nothing has changed."""
        self._is_subscribed = False
        self._woken = trio.Event()
        self._sightings: Sightings | None = None
        self._announced = 0
        self._heard = 0
        self._errors = 0
        self._announced_at: float | None = None

    def health(self) -> FinderHealth:
        """It has no sources of its own, and so no faults."""
        counts = {"announced": self._announced, "heard": self._heard, "held": len(self._table)}
        return FinderHealth(
            kind="announce", needs_peers=True, errors=self._errors, looked_at=self._announced_at, counts=counts
        )

    async def run(self, sightings: Sightings) -> None:
        if not self._is_subscribed:
            self._is_subscribed = True
            self._swarm.subscribe(self.received)
        self._sightings = sightings
        try:
            for announcement in self.announcements():
                self._sight(announcement)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._announce_repeatedly)
                while True:
                    await self._this_node.changed()
                    self.changed()
        finally:
            self._sightings = None

    # -- this node's own announcement -------------------------------------------------------------------------

    def changed(self) -> None:
        """The capabilities or the addresses of this node changed: announce them now."""
        self._woken.set()

    def _announce_again(self) -> None:
        self._is_due = True
        self._woken.set()

    def own(self) -> bytes:
        """The encoded announcement of this node, for a hello; b'' while the finder is off."""
        if self._has_left or not self._is_on():
            return b""
        return self._sealed(self._period() * HOLD_HEARTBEATS / 2.0).encoded

    async def leave(self) -> None:
        """Announce that this node leaves, and let that be sent. Does not raise; the caller bounds how long it takes."""
        if self._sightings is not None and self._has_met:
            self._has_left = True
            await self._publish(self._seal((), (), expires_ms=0))
            await trio.sleep(SENT_SECONDS)

    async def _announce_repeatedly(self) -> None:
        rate = TokenBucket(rate=RATE, burst=OWN_BURST, now=trio.current_time())
        last: Announcement | None = None
        failed = False
        self._is_due = True
        while not self._has_left:
            self._woken = trio.Event()
            own = self._sealed(self._period() / 2.0)
            if self._is_due or own is not last:
                self._is_due, last = False, own
                self._announced_at = trio.current_time()
                failed = not await self._publish(own)
                if seconds := rate.take(1.0, trio.current_time()):
                    await trio.sleep(seconds)
            wait = RETRY_SECONDS if failed else self._period() * (0.75 + 0.5 * self._chance())
            with trio.move_on_after(wait) as pause:
                await self._woken.wait()
            self._is_due = self._is_due or pause.cancelled_caught

    async def _publish(self, announcement: Announcement) -> bool:
        """Send an announcement to everybody. Returns whether that worked."""
        try:
            await self._swarm.publish(announcement.encoded)
        except BzzzError as error:
            self._errors += 1
            log.warning("this node could not announce itself, and tries again: %s", error.message)
            return False
        self._announced += 1
        return True

    def _period(self) -> float:
        return min(HEARTBEAT_SECONDS_MAX, max(HEARTBEAT_SECONDS, HEARTBEAT_SECONDS_PER_PEER * len(self._table)))

    def _sealed(self, age_max: float) -> Announcement:
        """The announcement of this node as it is now; one that is older than `age_max` seconds is made anew."""
        addresses, capabilities = self._this_node.addresses()[:ADDRESSES_MAX], tuple(self._capabilities())
        own, now = self._own, trio.current_time()
        is_same = own is not None and (own.addresses, own.capabilities) == (addresses, capabilities)
        if own is None or not is_same or now - self._sealed_at > age_max or own.sequence < self._sequence:
            hold_ms = int(self._period() * HOLD_HEARTBEATS * 1000.0)
            own = self._own = self._seal(addresses, capabilities, expires_ms=self._now_ms() + hold_ms)
            self._sealed_at = now
        return own

    def _seal(
        self, addresses: tuple[str, ...], capabilities: tuple[Capability, ...], *, expires_ms: int
    ) -> Announcement:
        self._sequence = max(self._sequence + 1, self._now_ms())
        return seal(
            self._key,
            network=self._this_node.network,
            name=self._this_node.name,
            addresses=addresses,
            capabilities=capabilities,
            sequence=self._sequence,
            expires_ms=expires_ms,
        )

    # -- those of others --------------------------------------------------------------------------------------

    def announcements(self) -> Sequence[Announcement]:
        """What other nodes announce, as far as it holds now and they are not gone."""
        return [each for each in self._table.current(trio.current_time()) if not self._swarm.is_gone(each.peer)]

    def known(self) -> tuple[bytes, ...]:
        """Encoded announcements for a peer that asks, as many as fit into one answer."""
        found: list[bytes] = []
        size = 0
        for announcement in self.announcements()[:EXCHANGE_MAX] if self._is_on() else ():
            size += len(announcement.encoded)
            if size > EXCHANGE_BYTES_MAX:
                break
            found.append(announcement.encoded)
        return tuple(found)

    def received(self, author: str, data: bytes, forwarder: str) -> bool | None:
        """A message came by the topic, from `forwarder`; its author is proved. Returns whether to pass it on.

        False: the peer that passed it on is blamed as well. None: it may be honest.
        """
        if not self._is_on() or not self._swarm.is_listed(author):
            return None
        self._heard += 1
        if not self._table.may_come(author, trio.current_time()):
            self._swarm.refuse("announcements_flooded", author, "announces itself too often")
            return False
        announcement = self._decoded(author, data)
        if announcement is None:
            return False
        if announcement.peer != author:
            self._refuse_forged(author, f"announces {announcement.peer}, and not itself")
            return False
        return self._take(announcement, author, brought_by=forwarder, by_topic=True)

    def met(self, peer: str, data: bytes, *, clock_ms: int) -> None:
        """A peer said hello with its announcement, b'' for none; `clock_ms` is its wall clock."""
        if not self._has_met:
            self._has_met = True
            self._announce_again()
        if not data or not self._is_on():
            return
        known = self._table.get(peer, trio.current_time())
        if known is not None and known.encoded == data:
            return
        announcement = self._decoded(peer, data)
        if announcement is None or not self._is_signed(announcement, peer):
            return
        if announcement.peer != peer:
            self._refuse_forged(peer, f"says hello with the announcement of {announcement.peer}")
            return
        self._put(announcement, now_ms=clock_ms)
        self._sight(announcement)

    async def learned(self, source: str, encoded: Iterable[bytes]) -> None:
        """A peer was asked for the announcements that it keeps."""
        for count, data in enumerate(encoded, start=1):
            if count % VERIFIED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            announcement = self._decoded(source, data) if self._is_on() else None
            if announcement is not None and self._swarm.is_listed(announcement.peer):
                self._take(announcement, source, brought_by=source, by_topic=False)

    def _take(self, announcement: Announcement, source: str, *, brought_by: str, by_topic: bool) -> bool | None:
        """Keep an announcement unless it is old, and report its peer. Returns as `received` does.

        `source` is blamed for it; `brought_by` is the peer that handed it to this node.
        """
        if announcement.peer == self._key.peer_id:
            self._heard_of_itself(announcement, source)
            return None
        now, peer = trio.current_time(), announcement.peer
        is_member, clock_ms = self._swarm.is_member(peer), self._now_ms() + int(self._swarm.clock_offset_ms(peer))
        verdict = self._table.judge(announcement, now, now_ms=clock_ms, by_topic=by_topic)
        if verdict is Verdict.PASS_ON:
            self._table.pass_on(announcement)
            return True
        if verdict is not Verdict.NEW:
            if verdict is Verdict.REPLAYED:  # two announcements that follow each other may overtake each other
                self._swarm.count("announcements_late")
            elif verdict in _LATE:
                what = f"an announcement of {peer} is dropped: {verdict.value}"
                self._swarm.refuse("announcements_late", source, what)
            return None
        if not self._is_signed(announcement, source):
            return False
        self._put(announcement, now_ms=clock_ms, source="" if is_member else brought_by, by_topic=by_topic)
        self._swarm.note_alive(peer)
        self._sight(announcement)
        return True

    def _put(self, announcement: Announcement, *, now_ms: int, source: str = "", by_topic: bool = False) -> None:
        """Keep an announcement; one of a peer that is no member, from `source`, may have to give way to it."""
        if dropped := self._table.put(
            announcement, trio.current_time(), now_ms=now_ms, source=source, by_topic=by_topic
        ):
            what = f"the announcement of {dropped} gives way: too many peers that are no members announce themselves"
            self._swarm.refuse("announcements_flooded", source, what)

    def _heard_of_itself(self, announcement: Announcement, source: str) -> None:
        """An earlier process of this node, whose clock was ahead, announced a later sequence: go on after it."""
        if announcement.sequence > self._sequence and self._is_signed(announcement, source):
            self._sequence = announcement.sequence
            self._announce_again()

    def _decoded(self, source: str, data: bytes) -> Announcement | None:
        try:
            announcement = decode(data)
        except BzzzError as error:
            self._refuse_forged(source, error.message)
            return None
        if announcement.network != self._this_node.network:
            self._refuse_forged(source, f"passes on an announcement of the swarm {announcement.network}")
            return None
        return announcement

    def _is_signed(self, announcement: Announcement, source: str) -> bool:
        try:
            verify(announcement)
        except BzzzError as error:
            self._refuse_forged(source, error.message)
            return False
        return True

    def _refuse_forged(self, source: str, what: str) -> None:
        self._swarm.refuse("announcements_forged", source, what, is_offence=True)

    def _sight(self, announcement: Announcement) -> None:
        """Report a peer. Anybody can make up peers that announce themselves: those that are no members share one share
        of the room for peers."""
        is_member = self._swarm.is_member(announcement.peer)
        if self._sightings is None or not (is_member or announcement.addresses):
            return
        self._sightings.saw(
            Sighting(
                peer=announcement.peer,
                addresses=announcement.addresses,
                source=Source.ANNOUNCE,
                reporter="" if is_member else TOPIC,
                name=announcement.name,
                capabilities=tuple(map(text_of, announcement.capabilities)),
            )
        )
        if announcement.is_farewell:
            self._sightings.lost(announcement.peer, Source.ANNOUNCE)
