"""Neighbours: keeps this node connected to the members of its swarm, and notices which of them are gone.

It runs two machines: `protocols/policy/peers.py` is the picture of all peers and decides which ones to dial,
`protocols/policy/failure_detector.py` which ones are suspect. All finders report to it, and it alone writes the
`Members` that the other parts read. The parts beside it greet (`greetings.py`), ping (`heartbeats.py`), dial
(`dialler.py`), ask members whom they know (`member_exchange.py`), keep the store in step (`stored_members.py`), and
decide in a large swarm with whom a connection is kept (`connection_keeper.py`); other members are dialled when a
request is to go to them.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

import trio

from discovery.announce import AnnounceFinder
from discovery.finder import Finder
from node.driver import Driver
from node.services.membership.connection_keeper import ConnectionKeeper
from node.services.membership.dial_waits import DialWaits
from node.services.membership.dialler import Dialler
from node.services.membership.greetings import Greetings
from node.services.membership.heartbeats import Heartbeats
from node.services.membership.log_continuity import LogContinuity
from node.services.membership.member_exchange import MemberExchange
from node.services.membership.peer_log import PeerLog
from node.services.membership.sighting_filter import SightingFilter
from node.services.membership.stored_members import StoredMembers
from node.services.membership.this_node import ThisNode
from node.services.membership.wake import notice_wake
from node.store.base import Store
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from node.trace import following
from protocols.messages import GetMembers, Hello, Ping, Pong, Reply
from protocols.policy import failure_detector, peer_events
from protocols.policy.failure_detector import FailureDetector
from protocols.policy.peer_events import KnownPeer, MissingPeer
from protocols.policy.peers import Peers
from protocols.policy.sighting import Sighting, Source

log = logging.getLogger(__name__)

TELL_PAUSE_SECONDS = 0.5
"""Between two changes of the own addresses that members are told: several interfaces may change together."""


class Neighbours:
    """`on_sign_of_life` is called, with a text, for every connection and every suspect that answers again."""

    def __init__(
        self,
        *,
        rpc: Rpc,
        members: Members,
        store: Store,
        this_node: ThisNode,
        forget_seconds: float,
        finders: Sequence[Finder],
        announce: AnnounceFinder,
        now_ms: Callable[[], int],
        chance: Callable[[], float],
        on_sign_of_life: Callable[[str], None],
        log_continuity: LogContinuity | None = None,
        knows_hints: Callable[[str], bool] = lambda _: True,
        may_exchange: Callable[[], bool] = lambda: True,
        on_foreign: Callable[[str], None] = lambda _: None,
        on_moved: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`knows_hints` says whether a peer has its hints for all that it should get from this node, `may_exchange`
        whether members are asked which members they know. `on_foreign` is called with each peer of another swarm,
        before it is disconnected. `on_moved` is called with a peer whose connection has ended, and with '' when this
        machine's network has changed: what is known may be old then."""
        # More than ten parameters, because the life of a connection touches every part of the membership.
        self._network = rpc.network
        self._rpc = rpc
        self._members = members
        self._this_node = this_node
        self._finders = tuple(finders)
        self._now_ms = now_ms
        self._on_sign_of_life = on_sign_of_life
        self._on_foreign = on_foreign
        self._on_moved = on_moved
        self._log_continuity = log_continuity or LogContinuity(store, members, now_ms=now_ms)
        self._nursery: trio.Nursery | None = None
        self._log = PeerLog()
        self._dialler = Dialler(rpc.network, this_node)
        self._stored = StoredMembers(store, members, rpc.peer_policy, self._log, self._start_task)
        rpc.peer_policy.on_lists_changed(self._stored.forget_unlisted)
        self._picture = picture = Peers(members.own, chance=chance, forget_seconds=forget_seconds)
        self._peers = Driver[peer_events.Event, peer_events.Effect](picture, self._carry_out_dialling)
        self._keeper = ConnectionKeeper(rpc, members, picture, on_plan=self._planned)
        self._dial_waits = DialWaits()
        self.picture: Callable[[], list[KnownPeer]] = picture.picture
        """Every peer that is known, from whichever source. Its times are on trio's clock."""
        self.missing: Callable[[], list[MissingPeer]] = picture.missing
        self._failure_detector = Driver[failure_detector.Event, failure_detector.Effect](
            FailureDetector(), self._carry_out_detection
        )
        self._heartbeats = self._make_heartbeats(store, knows_hints)
        self._exchange = self._make_exchange(announce, chance, may_exchange)
        self._greetings = self._make_greetings(announce)
        self._filter = SightingFilter(
            rpc.network, this_node, rpc.peer_policy.limit_counters, self._greetings.address_of
        )

    def _make_heartbeats(self, store: Store, knows_hints: Callable[[str], bool]) -> Heartbeats:
        return Heartbeats(
            rpc=self._rpc,
            members=self._members,
            store=store,
            stored=self._stored,
            log_continuity=self._log_continuity,
            knows_hints=knows_hints,
            now_ms=self._now_ms,
            detected=self._failure_detector.handle,
        )

    def _make_exchange(
        self, announce: AnnounceFinder, chance: Callable[[], float], may_exchange: Callable[[], bool]
    ) -> MemberExchange:
        return MemberExchange(
            rpc=self._rpc,
            members=self._members,
            peer_policy=self._rpc.peer_policy,
            chance=chance,
            is_on=may_exchange,
            sightings=self,
            announce=announce,
        )

    def _make_greetings(self, announce: AnnounceFinder) -> Greetings:
        return Greetings(
            rpc=self._rpc,
            members=self._members,
            stored=self._stored,
            this_node=self._this_node,
            announce=announce,
            log_continuity=self._log_continuity,
            now_ms=self._now_ms,
            peer_log=self._log,
            checked=self._take,
            on_foreign=self._part_with,
            on_sign_of_life=self._on_sign_of_life,
            start_task=self._start_task,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dial, greet, ping and exchange until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                self._keeper.plan()  # before the finders report the members of earlier runs
                nursery.start_soon(self._keeper.run)
                nursery.start_soon(self._peers.run)
                nursery.start_soon(self._failure_detector.run)
                nursery.start_soon(self._exchange.run)
                nursery.start_soon(self._log_continuity.run)
                nursery.start_soon(self._this_node.run)
                nursery.start_soon(self._follow_own_addresses)
                nursery.start_soon(self._follow_network)
                nursery.start_soon(notice_wake, self._now_ms, self._woken)
                task_status.started()
                self._stored.forget_unlisted()
                for peer in self._network.connected_peers():  # those that connected before this ran
                    nursery.start_soon(self._greet, peer)
                for finder in self._finders:
                    nursery.start_soon(finder.run, self)
                await trio.sleep_forever()
            finally:
                self._nursery = None  # before it closes: a late event must not start a task in it

    # -- sightings --------------------------------------------------------------------------------------------

    def saw(self, sighting: Sighting) -> None:
        """A source reports a peer: what may be dialled of it is taken up in the picture. What an earlier build stored
        of it, and is not accepted today, is dropped."""
        addresses = self._take(sighting)
        if sighting.source is Source.STORE and (presence := self._members.get(sighting.peer)):
            self._stored.clean(presence, addresses)

    def lost(self, peer: str, source: Source) -> None:
        self._peers.handle(peer_events.Lost(peer, source))

    def _take(self, sighting: Sighting) -> tuple[str, ...]:
        """Take up a sighting, and return its addresses that may be dialled."""
        cleaned = self._filter.cleaned(sighting)
        if cleaned is None:
            return ()
        if cleaned.is_configured:
            self._dialler.report_failures(cleaned.addresses)
        if cleaned.is_vouched:
            self._members.note_alive(cleaned.peer)
        self._peers.handle(cleaned)
        self._update_idle(cleaned.peer)
        return cleaned.addresses

    # -- called by the network --------------------------------------------------------------------------------

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        self._log.info("connected to %s at %s (%s)", peer, address, "dialled" if dialled else "it dialled us")
        self._greetings.connected(peer, address, dialled)
        self._peers.handle(peer_events.Connected(peer, address if dialled else ""))
        self._update_idle(peer)
        self._failure_detector.handle(failure_detector.ConnectionOpened(peer, leads=self._members.own < peer))
        if (presence := self._members.get(peer)) is not None and not presence.is_kept:
            self._failure_detector.handle(failure_detector.Kept(peer, False))
        self._start_task(self._greet, peer)

    def disconnected(self, peer: str, reason: str) -> None:
        self._log.info("disconnected from %s: %s", peer, reason)
        self._greetings.disconnected(peer)
        self._heartbeats.forget(peer)
        self._failure_detector.handle(failure_detector.ConnectionClosed(peer))
        if presence := self._members.get(peer):
            presence.is_connected = False
            presence.is_suspect = False
            self._members.note_alive(peer)
            self._members.notify_changed()
        self._peers.handle(peer_events.Disconnected(peer, reason))
        self._dial_waits.ended(peer, reason)
        self._update_idle(peer)
        if not self.is_idle(peer):
            self._on_moved(peer)

    def heard(self, peer: str) -> None:
        self._failure_detector.handle(failure_detector.FrameReceived(peer))

    def missed(self, peer: str, evidence: str) -> None:
        if (presence := self._members.get(peer)) and not presence.is_suspect:
            presence.suspect_why = evidence
        self._failure_detector.handle(failure_detector.DeadlineMissed(peer))

    def forget(self, peer: str) -> None:
        """An operator had a member forgotten. When it is here again, it is a new member."""
        presence = self._members.get(peer)
        log.info("forgot %s (%s): it was removed", self._members.name_of(peer), peer)
        self._members.forget(peer)
        self._log_continuity.forget(peer)
        self._peers.handle(peer_events.Removed(peer))
        if presence is not None and presence.is_connected:
            self._network.disconnect(peer, "it was removed from the members")

    # -- members that no connection is kept with --------------------------------------------------------------

    def is_idle(self, peer: str) -> bool:
        """Whether a member is not connected because it need not be, and is to be dialled for a request."""
        presence = self._members.get(peer)
        return presence is not None and presence.is_idle

    async def connect_idle(self, peer: str) -> str:
        """Dial and greet an idle member; return '' when that is done, or why not. The dial is shared."""
        if self.has_greeted(peer):
            return ""
        self._peers.handle(peer_events.Wanted(peer))
        if not self._picture.is_under_way(peer):
            return "it could not be dialled a moment ago"
        return await self._dial_waits.wait(peer)

    def _planned(self, changed: tuple[str, ...], unkept: frozenset[str]) -> None:
        for peer in changed:
            if (presence := self._members.get(peer)) is not None:
                presence.is_kept = peer not in unkept
                self._failure_detector.handle(failure_detector.Kept(peer, presence.is_kept))
        self._peers.handle(peer_events.Planned(unkept))
        for peer in changed:
            self._update_idle(peer)
        self._members.notify_changed()

    def _update_idle(self, peer: str) -> None:
        """After each event that concerns a peer: whether it is idle is decided by the picture."""
        presence = self._members.get(peer)
        if presence is not None and presence.is_idle is not (is_idle := self._picture.is_idle(peer)):
            presence.is_idle = is_idle
            self._members.notify_changed()

    # -- requests of peers ------------------------------------------------------------------------------------

    def has_greeted(self, peer: str) -> bool:
        """Whether this peer is connected and has said hello."""
        presence = self._members.get(peer)
        return presence is not None and presence.is_connected

    def answer_hello(self, peer: str, hello: Hello) -> Reply:
        return self._greetings.answer(peer, hello)

    def answer_ping(self, peer: str, ping: Ping) -> Pong | Awaitable[Pong]:
        return self._heartbeats.answer(peer, ping)

    def answer_members(self, asker: str, request: GetMembers) -> Reply:
        return self._exchange.answer(request, is_here=self._greetings.is_here(asker))

    # -- effects of the machines ------------------------------------------------------------------------------

    def _carry_out_dialling(self, effect: peer_events.Effect) -> None:
        match effect:
            case peer_events.Dial():
                self._start_task(self._dial, effect)
            case peer_events.Forget(peer):
                log.info("forgot %s: it was not seen for the whole horizon", peer)
                self._stored.forget(peer)
                self._log_continuity.forget(peer)
            case peer_events.NoRoom(reporter, why):
                self._rpc.peer_policy.limit_counters.hit(
                    "sightings_refused", reporter, f"peer that is not taken up: {why}"
                )

    def _carry_out_detection(self, effect: failure_detector.Effect) -> None:
        match effect:
            case failure_detector.SendPing(peer):
                self._start_task(self._heartbeats.ping, peer)
            case failure_detector.Suspected(peer):
                self._set_suspect(peer, True)
            case failure_detector.Trusted(peer):
                self._set_suspect(peer, False)
                self._on_sign_of_life(f"{self._members.name_of(peer)} answers again")
            case failure_detector.GiveUp(peer, silent_seconds):
                self._network.disconnect(peer, f"no sign of life for {silent_seconds:.1f} s")

    def _set_suspect(self, peer: str, is_suspect: bool) -> None:
        if presence := self._members.get(peer):
            why = f"suspect: {presence.suspect_why}" if is_suspect else "trusted again: it answered a ping"
            self._log.info("%s (%s) is %s", self._members.name_of(peer), peer, why)
            presence.is_suspect = is_suspect
            self._members.notify_changed()

    def _part_with(self, peer: str, why: str) -> None:
        self._peers.handle(peer_events.Banned(peer, why))
        self._on_foreign(peer)

    def _start_task(self, task: Callable[..., object], *args: object) -> None:
        if self._nursery is None:
            return
        with following(""):  # a task here is no part of the call that caused it, so it has no trace
            self._nursery.start_soon(task, *args)  # type: ignore[arg-type]  # every task here is a coroutine function

    # -- tasks ------------------------------------------------------------------------------------------------

    async def _dial(self, dial: peer_events.Dial) -> None:
        dialled = await self._dialler.dial(dial)
        self._peers.handle(dialled)
        self._update_idle(dial.target)
        if not self._picture.is_under_way(dial.target):
            self._dial_waits.ended(dial.target, dialled.why or "another node is at its address")

    async def _greet(self, peer: str) -> None:
        """Say hello to a new connection, ping it, and ask which members it knows."""
        is_member = await self._greetings.greet(peer)
        self._dial_waits.ended(peer, "" if is_member else "it was not greeted")
        if is_member:
            await self._heartbeats.ping(peer)
            await self._exchange.greet(peer)

    async def _follow_own_addresses(self) -> None:
        """Tell the members when this node is to be dialled elsewhere, and ask them whom they know."""
        before = self._this_node.addresses()
        while True:
            if (addresses := self._this_node.addresses()) == before:
                await self._this_node.changed()
                continue
            before = addresses
            log.info("others are told these addresses now: %s", ", ".join(addresses) or "none")
            for presence in self._members.all():
                if presence.is_connected:
                    self._start_task(self._tell_again, presence.member.peer)
            await trio.sleep(TELL_PAUSE_SECONDS)

    async def _follow_network(self) -> None:
        """Dial those that are not connected again when this machine has got or lost an address."""
        while True:
            await self._network.addresses_changed()
            self._network_changed()

    async def _tell_again(self, peer: str) -> None:
        await self._greetings.tell_again(peer)
        await self._exchange.ask(peer)

    def _woken(self, seconds: float) -> None:
        log.info("this machine slept for %.0f s, or its clock was set: all peers are asked for a sign of life", seconds)
        for presence in self._members.all():
            if presence.is_connected:
                self._start_task(self._heartbeats.ping, presence.member.peer)
        self._network_changed()

    def _network_changed(self) -> None:
        self._dialler.abandon()
        self._peers.handle(peer_events.NetworkChanged())
        for presence in self._members.all():
            self._update_idle(presence.member.peer)
        self._on_moved("")
