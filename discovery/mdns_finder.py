"""The mDNS finder: finds the nodes of the local network, and is found by them.

The responder (`discovery/mdns.py`) runs on asyncio in a thread of its own, so that nothing it does delays the trio
thread. Its reports come through a queue of bounded size. One that finds no room is counted and forgotten: the peer's
next answer brings it again. A responder that fails (no multicast, port taken, no descriptors) is started again for
ever, with a backoff; the reason is in the health and, once, in the log.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress

import trio

from discovery.finder import AdvertisedNode, FinderHealth, Sightings
from discovery.interfaces import Interface, interfaces_of
from discovery.mdns import MdnsFailed, MdnsResponder
from discovery.mdns_records import RecordFault, service_of
from discovery.mdns_table import Change, Found, MdnsTable
from protocols.policy.backoff import backoff
from protocols.policy.sighting import Sighting, Source

log = logging.getLogger(__name__)

QUEUE_MAX = 256
RETRY_BASE_SECONDS = 1.0
RETRY_CAP_SECONDS = 30.0


class MdnsFinder:
    """`this` is what others are told. `instance` is a random DNS label of 32 characters, new for each run of a node."""

    def __init__(
        self,
        this: AdvertisedNode,
        *,
        instance: str,
        chance: Callable[[], float],
        interfaces: Callable[[Collection[str]], tuple[Interface, ...]] = interfaces_of,
    ) -> None:
        self._this = this
        self._chance = chance
        self._table = MdnsTable(this.peer_id, chance=chance)
        self._reports = _Reports()
        self._responder = MdnsResponder(
            self._table,
            service=service_of(this.network),
            instance=instance,
            chance=chance,
            interfaces=interfaces,
            report=self._reports.put,
        )
        self._failure = ""
        self._errors = 0
        self._looked_at: float | None = None

    def health(self) -> FinderHealth:
        """Its fault, while the local network cannot be searched."""
        fault = self._responder.fault if self._responder.is_up else self._failure
        faults = (f"the local network cannot be searched by mDNS: {fault}",) if fault else ()
        counts = self._responder.counts
        dropped = {f"dropped_{fault}": self._table.faults[fault] for fault in RecordFault}
        return FinderHealth(
            kind="mdns",
            faults=faults,
            errors=self._errors,
            looked_at=self._looked_at,
            interfaces=tuple(interface.name for interface in self._responder.interfaces),
            counts={"questions": counts.questions, "heard": counts.heard, "own_heard": counts.own, **dropped},
        )

    async def run(self, sightings: Sightings) -> None:
        self._reports.open(sightings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_addresses)
            failures = 0
            while True:
                self._looked_at = started = trio.current_time()
                try:
                    await _in_thread(self._responder)
                except MdnsFailed as error:
                    failures = 1 if trio.current_time() - started > RETRY_CAP_SECONDS else failures + 1
                    self._failed(str(error))
                wait = backoff(failures, base=RETRY_BASE_SECONDS, cap=RETRY_CAP_SECONDS, chance=self._chance())
                await trio.sleep(wait)

    def _failed(self, why: str) -> None:
        self._errors += 1
        if why != self._failure:
            log.warning("the local network cannot be searched by mDNS: %s; it is tried again", why)
        self._failure = why

    async def _tell_addresses(self) -> None:
        while True:
            self._responder.announce(self._this.addresses())
            await self._this.changed()


async def _in_thread(responder: MdnsResponder) -> None:
    """Run it in a thread of its own until it fails, or until cancelled and it has ended. Raises `MdnsFailed`."""

    async def stop_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            responder.stop()

    failure: MdnsFailed | None = None
    responder.allow()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_when_cancelled)
        try:
            await trio.to_thread.run_sync(responder.run, limiter=trio.CapacityLimiter(1))
        except MdnsFailed as error:
            failure = error
        except RuntimeError as error:  # as `threading` says that the machine has no thread left
            failure = MdnsFailed(f"this machine has no thread left ({error})")
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Reports:
    """The queue from the responder's thread to the trio thread."""

    def __init__(self) -> None:
        self._queue: deque[Change] = deque()
        self._token: trio.lowlevel.TrioToken | None = None
        self._sightings: Sightings | None = None

    def open(self, sightings: Sightings) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._sightings = sightings

    def put(self, change: Change) -> bool:
        """Hand a change over, from any thread. False: there is no room."""
        if self._token is None or len(self._queue) >= QUEUE_MAX:
            return False
        self._queue.append(change)
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._deliver, idempotent=True)
        return True

    def _deliver(self) -> None:
        sightings = self._sightings
        while self._queue and sightings is not None:
            match self._queue.popleft():
                case Found(record):
                    sightings.saw(Sighting(peer=record.peer, addresses=record.addresses, source=Source.MDNS))
                case gone:
                    sightings.lost(gone.peer, Source.MDNS)
