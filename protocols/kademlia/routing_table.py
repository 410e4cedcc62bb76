"""The routing table of Kademlia: the peers that this node would ask first for any place of the key space.

Sources: Maymounkov and Mazieres, "Kademlia" (2002), sections 2.2 to 2.4, and for the siblings Baumgart and Mies,
"S/Kademlia" (2007). Contacts are in k-buckets by the length of the prefix that their place shares with that of this
node; only the bucket of this node splits. A contact that answers keeps its place: a newcomer to a full bucket waits
among the replacements, the contact that was heard least recently is pinged, and loses its place only if it does not
answer. The k contacts nearest to this node are always in the table, because they say which keys this node holds: such
a newcomer takes the place of the contact of its bucket that is farthest from this node.

A peer enters when identify shows that it speaks the protocol, never because another peer names it. Addresses of one
public subnet are cheap for one attacker, so a subnet has a share of each bucket and of the table.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from math import inf

from protocols.kademlia.contact import Contact
from protocols.kademlia.k_bucket import Bucket, BucketEntry, subnets_of
from protocols.kademlia.messages import CONTACTS_MAX
from protocols.kademlia.routing_events import (
    Answered,
    ContactAdded,
    ContactBanned,
    ContactFailed,
    ContactRemoved,
    Dropped,
    Effect,
    Event,
    Identified,
    LookedUp,
    PingContact,
    PingFailed,
    Refresh,
)
from protocols.placement import place_of_peer
from protocols.policy.machine import Tick

BANNED_MAX = 1024
LATE_SECONDS = 5.0
"""A tick that is so late means that this process was stopped: no contact is blamed for a ping under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingOptions:
    """Sizes and times (seconds) of a routing table."""

    k: int = CONTACTS_MAX
    """Contacts in a bucket."""
    bits: int = 256
    """Bits of a place."""
    spares_max: int = 8
    """Replacements that wait at a bucket."""
    subnet_bucket_max: int = 10
    """Contacts of one public subnet in a bucket: no more than half of it."""
    subnet_max: int = 40
    """Contacts of one public subnet in the table."""
    quiet_seconds: float = 300.0
    """A contact that was not heard for so long is pinged."""
    fresh_seconds: float = 60.0
    """A contact that was heard within so long is not pinged because of a newcomer."""
    ping_seconds: float = 10.0
    """A ping without an outcome has failed after so long."""
    pings_max: int = 8
    """Pings of quiet contacts under way."""
    retry_seconds: float = 5.0
    """A suspect for which no replacement waits is pinged again after so long, then twice so long, and so on."""
    failures_max: int = 4
    """A suspect is dropped after so many failures, and after one failed ping when a replacement waits."""
    refresh_seconds: float = 3600.0
    """A bucket in which nothing was looked up for so long is refreshed."""
    refresh_limit_seconds: float = 60.0
    """A refresh without an outcome is given up after so long."""


class RoutingTable:
    """The machine. `own` is this node's peer id, `chance` draws from [0, 1), `place_of` gives the place of a peer id.

    `deadline` may be too early, never too late (see `FailureDetector`).
    """

    def __init__(
        self,
        own: str,
        *,
        chance: Callable[[], float],
        place_of: Callable[[str], int] = place_of_peer,
        options: RoutingOptions | None = None,
    ) -> None:
        self.own_place = place_of(own)
        self._place_of = place_of
        self._chance = chance
        self._options = options or RoutingOptions()
        self._entries: dict[str, BucketEntry] = {}
        self._buckets = [Bucket()]
        self._subnets: Counter[str] = Counter()
        self._banned: dict[str, float] = {}
        """Until when, by peer."""
        self._pings = 0
        self._refreshing: int | None = None
        """The place whose refresh is under way; one at a time."""
        self._refresh_until = inf
        self._deadline = inf

    @property
    def deadline(self) -> float | None:
        return None if self._deadline == inf else self._deadline

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, peer: str) -> Contact | None:
        entry = self._entries.get(peer)
        return None if entry is None else entry.contact

    def is_suspect(self, peer: str) -> bool:
        entry = self._entries.get(peer)
        return entry is not None and entry.failures > 0

    def bucket_sizes(self) -> list[int]:
        """The number of contacts by the length of the prefix that they share with this node; the last has the rest."""
        return [len(bucket.entries) for bucket in self._buckets]

    def closest(self, place: int, n: int) -> tuple[Contact, ...]:
        """The n contacts nearest to a place, the nearest first. Suspects only while there is no other contact."""
        return self._closest(place, n, suspects=False) or self._closest(place, n, suspects=True)

    def _closest(self, place: int, n: int, *, suspects: bool) -> tuple[Contact, ...]:
        offset = self.own_place ^ place
        found: list[Contact] = []
        for group in self._groups(offset):
            usable = [entry for entry in group if suspects or not entry.failures]
            nearest = nsmallest(n - len(found), usable, key=lambda entry: entry.distance ^ offset)
            found += [entry.contact for entry in nearest]
            if len(found) >= n:
                break
        return tuple(found)

    def _groups(self, offset: int) -> Iterator[list[BucketEntry]]:
        """The contacts in groups, each nearer to the place at this XOR from the own place than the next group."""
        at = self._index(offset)
        yield self._buckets[at].entries
        yield [entry for bucket in self._buckets[at + 1 :] for entry in bucket.entries]
        for bucket in reversed(self._buckets[:at]):
            yield bucket.entries

    def _index(self, distance: int) -> int:
        return min(self._options.bits - distance.bit_length(), len(self._buckets) - 1)

    def _bucket(self, entry: BucketEntry) -> Bucket:
        return self._buckets[self._index(entry.distance)]

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case Answered(peer):
                self._answered(peer, now)
            case Identified(contact):
                return self._identified(contact, now)
            case ContactFailed(peer):
                return self._failed(peer, now)
            case PingFailed(peer) if (entry := self._entries.get(peer)) and entry.is_pinged:
                return self._ping_failed(entry, now)
            case ContactRemoved(peer):
                return self._remove(peer, "it does not speak the protocol any more", now)
            case ContactBanned(peer, seconds):
                self._banned[peer] = now + seconds
                if len(self._banned) > BANNED_MAX:
                    del self._banned[next(iter(self._banned))]
                return self._remove(peer, "it is banned", now)
            case LookedUp(place):
                self._looked_up(place, now)
            case Tick():
                return self._tick(now)
            case _:
                pass
        return ()

    # -- entering and leaving ---------------------------------------------------------------------------------

    def _identified(self, contact: Contact, now: float) -> Sequence[Effect]:
        options, peer = self._options, contact.peer
        if now < self._banned.get(peer, -inf):
            return ()
        self._banned.pop(peer, None)
        distance = self._place_of(peer) ^ self.own_place
        if distance == 0:
            return ()
        entry = BucketEntry(contact, distance, subnets_of(contact.addresses), now, now + options.quiet_seconds)
        if known := self._entries.get(peer):
            return self._update(known, contact, entry.subnets, now)
        while len(self._bucket(entry).entries) >= options.k and self._can_split(entry):
            self._split(now)
        bucket = self._bucket(entry)
        if not self._has_room(entry.subnets, bucket):
            return ()
        if len(bucket.entries) < options.k:
            return self._add(entry, bucket, now)
        if self._is_sibling(entry):
            displaced = bucket.farthest()
            self._take_out(displaced)
            bucket.keep_spare(displaced, options.spares_max)
            why = "a contact nearer to this node has its place"
            return (Dropped(displaced.contact.peer, why), *self._add(entry, bucket, now))
        bucket.keep_spare(entry, options.spares_max)
        return self._question(bucket, now)

    def _update(self, entry: BucketEntry, contact: Contact, subnets: tuple[str, ...], now: float) -> Sequence[Effect]:
        entry.contact = contact
        self._answered(contact.peer, now)
        if subnets != entry.subnets:
            self._count_subnets(entry, ())
            if not self._has_room(subnets, self._bucket(entry)):
                return self._drop(entry, "there are too many contacts of its subnet", now)
            self._count_subnets(entry, subnets)
        return ()

    def _can_split(self, entry: BucketEntry) -> bool:
        return self._bucket(entry) is self._buckets[-1] and len(self._buckets) < self._options.bits

    def _split(self, now: float) -> None:
        """Those in the bucket of this node that are nearer than the others get a bucket of their own. The bucket that
        is left behind was not refreshed by itself yet."""
        last = self._buckets[-1]
        near = Bucket(last.refresh_at)
        self._buckets.append(near)
        entries, last.entries = last.entries, []
        for entry in entries:
            self._bucket(entry).entries.append(entry)
        last.refresh_at = min(last.refresh_at, now)
        self._expect(now)

    def _has_room(self, subnets: tuple[str, ...], bucket: Bucket) -> bool:
        options = self._options
        return all(
            self._subnets[name] < options.subnet_max and bucket.count_subnet(name) < options.subnet_bucket_max
            for name in subnets
        )

    def _count_subnets(self, entry: BucketEntry, subnets: tuple[str, ...]) -> None:
        """The entry counts for these subnets instead of those that it counted for."""
        self._subnets -= Counter(entry.subnets)
        self._subnets.update(subnets)
        entry.subnets = subnets

    def _is_sibling(self, entry: BucketEntry) -> bool:
        """Whether fewer than k contacts are nearer to this node."""
        at = self._index(entry.distance)
        nearer = sum(len(bucket.entries) for bucket in self._buckets[at + 1 :])
        if nearer >= self._options.k:
            return False
        nearer += sum(other.distance < entry.distance for other in self._buckets[at].entries)
        return nearer < self._options.k

    def _add(self, entry: BucketEntry, bucket: Bucket, now: float) -> Sequence[Effect]:
        if spare := bucket.spare(entry.contact.peer):
            bucket.spares.remove(spare)
        if not self._entries and self._refreshing is None:
            self._buckets[-1].refresh_at = now
            self._expect(now)
        bucket.entries.append(entry)
        self._entries[entry.contact.peer] = entry
        self._subnets.update(entry.subnets)
        self._expect(entry.due_at)
        return (ContactAdded(entry.contact),)

    def _take_out(self, entry: BucketEntry) -> Bucket:
        self._end_ping(entry)
        bucket = self._bucket(entry)
        bucket.entries.remove(entry)
        del self._entries[entry.contact.peer]
        self._subnets -= Counter(entry.subnets)
        return bucket

    def _remove(self, peer: str, why: str, now: float) -> Sequence[Effect]:
        entry = self._entries.get(peer)
        if entry is not None:
            return self._drop(entry, why, now)
        self._remove_spare(peer)
        return ()

    def _drop(self, entry: BucketEntry, why: str, now: float) -> Sequence[Effect]:
        """The replacement that was heard last takes the place, and is pinged if that was long ago."""
        bucket = self._take_out(entry)
        for spare in reversed(bucket.spares):
            if self._has_room(spare.subnets, bucket):
                spare.due_at = max(now, spare.heard_at + self._options.quiet_seconds)
                effects = (Dropped(entry.contact.peer, why), *self._add(spare, bucket, now))
                return (*effects, *self._ping(spare, now)) if spare.due_at <= now else effects
        return (Dropped(entry.contact.peer, why),)

    # -- signs of life ----------------------------------------------------------------------------------------

    def _answered(self, peer: str, now: float) -> None:
        entry = self._entries.get(peer)
        if entry is not None:
            self._end_ping(entry)
            entry.failures = 0
            entry.heard_at = now
            entry.due_at = now + self._options.quiet_seconds

    def _failed(self, peer: str, now: float) -> Sequence[Effect]:
        entry = self._entries.get(peer)
        if entry is None:
            self._remove_spare(peer)
            return ()
        if entry.is_pinged or entry.failures:
            return ()
        entry.failures = 1
        return self._ping(entry, now)

    def _remove_spare(self, peer: str) -> None:
        bucket = self._buckets[self._index(self._place_of(peer) ^ self.own_place)]
        if spare := bucket.spare(peer):
            bucket.spares.remove(spare)

    def _ping_failed(self, entry: BucketEntry, now: float) -> Sequence[Effect]:
        self._end_ping(entry)
        entry.failures += 1
        if self._bucket(entry).spares or entry.failures >= self._options.failures_max:
            return self._drop(entry, "it did not answer a ping", now)
        entry.due_at = now + self._options.retry_seconds * 2.0 ** (entry.failures - 1)
        self._expect(entry.due_at)
        return ()

    def _question(self, bucket: Bucket, now: float) -> Sequence[Effect]:
        """A newcomer waits: ping a suspect, or the contact that was heard least recently if that is long enough ago."""
        if any(entry.is_pinged for entry in bucket.entries):
            return ()
        oldest = next((entry for entry in bucket.entries if entry.failures), None) or bucket.oldest()
        is_fresh = not oldest.failures and now - oldest.heard_at < self._options.fresh_seconds
        return () if is_fresh else self._ping(oldest, now)

    def _ping(self, entry: BucketEntry, now: float) -> Sequence[Effect]:
        self._pings += not entry.is_pinged
        entry.is_pinged = True
        entry.due_at = now + self._options.ping_seconds
        self._expect(entry.due_at)
        return (PingContact(entry.contact),)

    def _end_ping(self, entry: BucketEntry) -> None:
        self._pings -= entry.is_pinged
        entry.is_pinged = False

    # -- time -------------------------------------------------------------------------------------------------

    def _expect(self, at: float) -> None:
        self._deadline = min(self._deadline, at)

    def _looked_up(self, place: int, now: float) -> None:
        bucket = self._buckets[self._index(place ^ self.own_place)]
        bucket.refresh_at = now + self._refresh_pause()
        if place == self._refreshing:
            self._refreshing, self._refresh_until = None, inf
        self._expect(self._refresh_due())

    def _refresh_pause(self) -> float:
        """Spread over a tenth, so that nodes that start together do not refresh together."""
        return self._options.refresh_seconds * (0.95 + 0.1 * self._chance())

    def _refresh_due(self) -> float:
        if self._refreshing is not None:
            return self._refresh_until
        return min(bucket.refresh_at for bucket in self._buckets) if self._entries else inf

    def _tick(self, now: float) -> Sequence[Effect]:
        if now < self._deadline:
            return ()
        is_late = now - self._deadline > LATE_SECONDS
        effects: list[Effect] = []
        for entry in [entry for entry in self._entries.values() if entry.due_at <= now]:
            if entry.is_pinged and not is_late:
                effects += self._ping_failed(entry, now)
            elif entry.is_pinged or entry.failures or self._pings < self._options.pings_max:
                effects += self._ping(entry, now)
            else:
                entry.due_at = now + 1.0
        effects += self._refresh(now)
        due_at = min((entry.due_at for entry in self._entries.values()), default=inf)
        self._deadline = min(due_at, self._refresh_due())
        return effects

    def _refresh(self, now: float) -> Sequence[Effect]:
        if now < self._refresh_due():
            return ()
        self._refreshing, self._refresh_until = None, inf
        at, bucket = min(enumerate(self._buckets), key=lambda pair: (pair[1].refresh_at, -pair[0]))
        if now < bucket.refresh_at:
            return ()
        bucket.refresh_at = now + self._refresh_pause()
        self._refreshing, self._refresh_until = self._place_in(at), now + self._options.refresh_limit_seconds
        return (Refresh(self._refreshing),)

    def _place_in(self, at: int) -> int:
        """A random place of a bucket; for the bucket of this node its own place."""
        if at == len(self._buckets) - 1:
            return self.own_place
        below = self._options.bits - at - 1
        """The bits after the first one that differs."""
        random = int(self._chance() * 2.0**53) << max(0, below - 53) >> max(0, 53 - below)
        return self.own_place ^ (1 << below) ^ (random & ((1 << below) - 1))
