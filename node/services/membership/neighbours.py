"""Neighbours: finds members, dials them, exchanges hellos, pings them, and notices which are gone.

It runs two machines: `protocols/policy/address_book.py` decides which peers to dial,
`protocols/policy/failure_detector.py` which ones are suspect. It is the only writer of the `Members` that the other
parts read.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import trio

from discovery.finder import Finder
from node.config.settings import Settings
from node.driver import Driver
from node.services.membership.dialler import Dialler
from node.services.membership.member_exchange import MemberExchange
from node.services.membership.peer_log import PeerLog
from node.store.base import Store
from node.store.members import Member
from node.swarm.members import Members, Presence
from node.swarm.rpc import Rpc
from node.trace import following
from protocols.errors import BzzzError, Forbidden, TooManyRequests
from protocols.messages import (
    ADDRESSES_MAX,
    MEMBERS_MAX,
    Hello,
    MemberEntry,
    MembersReply,
    Ping,
    Pong,
    Reply,
)
from protocols.names import is_name
from protocols.policy import address_book, failure_detector
from protocols.policy.address_book import AddressBook
from protocols.policy.failure_detector import FailureDetector
from protocols.policy.reputation import Offence

log = logging.getLogger(__name__)

HELLO_SECONDS = 2.0
PING_SECONDS = 0.5
"""How long a peer may take to answer a ping before it is suspect; longer when its round trips are long."""
SUSPECT_PING_SECONDS = 2.0
DISCONNECT_DELAY_SECONDS = 0.1
"""A peer that is refused is disconnected so much later: the reply that says why must reach it first."""
SOUGHT_SECONDS = 300.0
"""How long a remembered member is dialled before it may be forgotten, however long ago it was seen."""
FORMER_ADDRESSES_KEPT_MAX = 256
SEEN_MS = 60_000
"""How often the time at which a connected member was seen last is stored."""


class Neighbours:
    """`on_sign_of_life` is called, with a text, for every connection and every suspect that answers again."""

    def __init__(
        self,
        *,
        rpc: Rpc,
        members: Members,
        store: Store,
        settings: Settings,
        finders: Sequence[Finder],
        now_ms: Callable[[], int],
        chance: Callable[[], float],
        on_sign_of_life: Callable[[str], None],
        may_exchange: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may_exchange` says whether members are asked which members they know."""
        self._network = rpc.network
        self._rpc = rpc
        self._members = members
        self._store = store
        self._network_name = settings.network
        self._name = settings.name
        self._finders = tuple(finders)
        self._now_ms = now_ms
        self._chance = chance
        self._on_sign_of_life = on_sign_of_life
        self._limits = rpc.limits
        self._peer_policy = rpc.peer_policy
        self._peer_policy.on_lists_changed(self._forget_unlisted)
        self._forget_seconds = settings.forget_after_hours * 3600.0
        self._nursery: trio.Nursery | None = None
        self._dialler = Dialler(rpc.network)
        self._foreign: dict[str, int] = {}
        """Peers of another swarm that are about to be disconnected, and how many hellos of theirs were answered."""
        self._former_addresses: dict[str, tuple[str, ...]] = {}
        """The addresses of a member before its last hello that named other ones, the latest change last."""
        self._log = PeerLog()
        self._address_book = Driver[address_book.Event, address_book.Effect](
            AddressBook(members.own, chance=chance, forget_seconds=self._forget_seconds), self._carry_out_dialling
        )
        self._failure_detector = Driver[failure_detector.Event, failure_detector.Effect](
            FailureDetector(), self._carry_out_detection
        )
        self._exchange = MemberExchange(
            rpc=rpc,
            members=members,
            peer_policy=rpc.peer_policy,
            chance=chance,
            is_on=may_exchange,
            on_sighted=self._sighted,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dial, greet, ping and exchange until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(self._address_book.run)
                nursery.start_soon(self._failure_detector.run)
                nursery.start_soon(self._exchange.run)
                task_status.started()
                self._forget_unlisted()
                self._clean_remembered()
                self._sight_known()
                for peer in self._network.connected_peers():  # those that connected before this ran
                    nursery.start_soon(self._greet, peer)
                for finder in self._finders:
                    nursery.start_soon(finder.run, self._sighted)
                await trio.sleep_forever()
            finally:
                self._nursery = None  # before it closes: a late event must not start a task in it

    def _sighted(self, sighted: address_book.Sighted) -> None:
        """A finder, a hello or another member reports addresses; those that can never be dialled are left out."""
        addresses = self._dialable(sighted.addresses, sighted.source)
        if sighted.is_configured:
            self._dialler.report_failures(addresses)
        if addresses or not sighted.addresses:
            self._address_book.handle(replace(sighted, addresses=addresses))

    def _dialable(self, addresses: Sequence[str], source: str) -> tuple[str, ...]:
        """The addresses that this network may dial. The others are counted, and logged for each source."""
        faults = {address: fault for address in addresses if (fault := self._network.address_fault(address))}
        if faults:
            address, fault = next(iter(faults.items()))
            what = f"address that can never be dialled: {address:.200}: {fault:.300}"
            self._peer_policy.limit_counters.hit("addresses_refused", source, what, times=len(faults))
        return tuple(address for address in addresses if address not in faults)

    def _clean_remembered(self) -> None:
        """Drop what an earlier build stored of members and what is not accepted today: addresses and names."""
        for presence in self._members.all():
            member = presence.member
            addresses = self._dialable(member.addresses, "the store")
            name = member.name if is_name(member.name) else ""
            if name != member.name:
                self._log.info(
                    "the stored name of %s cannot be a name, and is dropped: %.80s", member.peer, member.name
                )
            if (name, addresses) != (member.name, member.addresses):
                presence.member = replace(member, name=name, addresses=addresses)
                self._start_task(self._store_member, presence.member)

    def _sight_known(self) -> None:
        """Give the remembered members to the address book."""
        now, now_ms = trio.current_time(), self._now_ms()
        for presence in self._members.all():
            member = presence.member
            # A member is dialled before it is forgotten: this node may have been off for long, or its clock be wrong.
            ago = min(max(0.0, (now_ms - member.last_seen_ms) / 1000.0), self._forget_seconds - SOUGHT_SECONDS)
            self._address_book.handle(
                address_book.Sighted(
                    peer=member.peer, addresses=member.addresses, source="store", seen_at=now - max(0.0, ago)
                )
            )

    # -- called by the network --------------------------------------------------------------------------------

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        self._log.info("connected to %s at %s (%s)", peer, address, "dialled" if dialled else "it dialled us")
        self._address_book.handle(address_book.Connected(peer))
        self._failure_detector.handle(failure_detector.ConnectionOpened(peer))
        self._start_task(self._greet, peer)

    def disconnected(self, peer: str, reason: str) -> None:
        self._log.info("disconnected from %s: %s", peer, reason)
        self._foreign.pop(peer, None)
        self._failure_detector.handle(failure_detector.ConnectionClosed(peer))
        if presence := self._members.get(peer):
            presence.is_connected = False
            presence.is_suspect = False
            self._members.notify_changed()
        self._address_book.handle(address_book.Disconnected(peer))

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
        self._address_book.handle(address_book.Removed(peer))
        if presence is not None and presence.is_connected:
            self._network.disconnect(peer, "it was removed from the members")

    # -- requests of peers ------------------------------------------------------------------------------------

    def has_greeted(self, peer: str) -> bool:
        """Whether this peer is connected and has said hello."""
        presence = self._members.get(peer)
        return presence is not None and presence.is_connected

    def addresses_of(self, peer: str) -> tuple[str, ...]:
        if peer == self._members.own:
            return self._network.addresses[:ADDRESSES_MAX]
        presence = self._members.get(peer)
        return presence.member.addresses[:ADDRESSES_MAX] if presence else ()

    def answer_hello(self, peer: str, hello: Hello) -> Reply:
        if hello.network != self._network_name:
            self._part_with(peer, hello.network)
            if peer in self._foreign:
                self._foreign[peer] += 1
                if self._foreign[peer] > 1:
                    self._peer_policy.blame(peer, Offence.FLOOD, "says hello again and again, and is of another swarm")
            raise Forbidden(
                f"this node is of the swarm {self._network_name!r}, not {hello.network!r}", reason="network"
            )
        if why := self._why_full(peer):
            raise TooManyRequests(why)
        known = (*self.addresses_of(peer), *self._former_addresses.get(peer, ()))
        known_at = tuple(address for address in dict.fromkeys(known) if address not in hello.addresses)[:ADDRESSES_MAX]
        self._welcome(peer, hello, None)
        return self._hello(known_at)

    def _why_full(self, peer: str) -> str:
        """Why there is no room for a peer as a member, in words; '' when there is, or when it is a member."""
        most = self._limits.members_max
        if self._members.get(peer) is not None or len(self._members) < most:
            return ""
        why = f"{most} members are remembered, which is the most: it may join when some were forgotten"
        self._peer_policy.limit_counters.hit("members_refused", "", why)
        return why

    def answer_members(self) -> Reply:
        known = [p.member for p in self._members.all() if p.member.addresses]
        return MembersReply(tuple(MemberEntry(m.peer, m.addresses[:ADDRESSES_MAX]) for m in known[:MEMBERS_MAX]))

    def _hello(self, known_at: tuple[str, ...] = ()) -> Hello:
        """This node's hello; `known_at` are addresses by which it knew the peer, and which that does not name now."""
        addresses = self._network.addresses[:ADDRESSES_MAX]
        return Hello(self._network_name, self._name, self._store.log_id, self._now_ms(), addresses, known_at)

    # -- effects of the machines ------------------------------------------------------------------------------

    def _carry_out_dialling(self, effect: address_book.Effect) -> None:
        match effect:
            case address_book.Dial(target, addresses, is_hearsay):
                self._start_task(self._dial, target, addresses, is_hearsay)
            case address_book.Forget(peer):
                log.info("forgot %s: it was not seen for the whole horizon", peer)
                self._members.forget(peer)
                self._start_task(self._delete_member, peer)

    def _carry_out_detection(self, effect: failure_detector.Effect) -> None:
        match effect:
            case failure_detector.SendPing(peer):
                self._start_task(self._ping, peer)
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

    def _start_task(self, task: Callable[..., object], *args: object) -> None:
        if self._nursery is None:
            return
        with following(""):  # a task here is no part of the call that caused it, so it has no trace
            self._nursery.start_soon(task, *args)  # type: ignore[arg-type]  # every task here is a coroutine function

    async def _dial(self, target: str, addresses: tuple[str, ...], is_hearsay: bool) -> None:
        peer = await self._dialler.dial(target, addresses, is_hearsay)
        self._address_book.handle(address_book.Dialled(target, peer))

    async def _greet(self, peer: str) -> None:
        """Say hello to a new connection, ping it, and ask which members it knows."""
        if why := self._why_full(peer):
            await trio.sleep(DISCONNECT_DELAY_SECONDS)
            self._network.disconnect(peer, why)
            return
        sent_ms = self._now_ms()
        try:
            reply = await self._rpc.call(peer, self._hello(), timeout=HELLO_SECONDS)
        except Forbidden as error:
            self._part_with(peer, error.message)
            return
        except BzzzError as error:
            self._log.info("%s did not answer our hello: %s", peer, error.message)
            self._network.disconnect(peer, "it did not answer our hello")
            return
        if not isinstance(reply, Hello) or reply.network != self._network_name:
            self._part_with(peer, reply.network if isinstance(reply, Hello) else "not known")
            return
        offset_ms = reply.now_ms - (sent_ms + self._now_ms()) / 2
        self._welcome(peer, reply, offset_ms)
        await self._ping(peer)
        await self._exchange.ask(peer)

    def _part_with(self, peer: str, network: str) -> None:
        """A peer is of another swarm: disconnect it, and dial it no more."""
        if self._nursery is None or peer in self._foreign:
            return
        self._foreign[peer] = 0
        what = f"is of another swarm ({network:.80}): parted, and not dialled again"
        self._peer_policy.limit_counters.hit("other_swarms", peer, what, line="offences")
        self._start_task(self._disconnect_foreign, peer)

    async def _disconnect_foreign(self, peer: str) -> None:
        await trio.sleep(DISCONNECT_DELAY_SECONDS)
        self._address_book.handle(address_book.Banned(peer))
        self._network.disconnect(peer, "another swarm")

    def _welcome(self, peer: str, hello: Hello, offset_ms: float | None) -> None:
        """A peer of this swarm said hello: it is a member now."""
        now_ms = self._now_ms()
        known = self._members.get(peer)
        own_addresses = [address for address in hello.addresses if address.endswith(f"/p2p/{peer}")]
        member = Member(
            peer=peer,
            name=hello.name,
            addresses=self._dialable(own_addresses, peer),
            first_seen_ms=known.member.first_seen_ms if known else now_ms,
            last_seen_ms=now_ms,
        )
        if elsewhere := [address for address in hello.known_at if address not in self._network.addresses]:
            self._start_task(self._network.look_for_twin, elsewhere)
        if known is not None and known.member.addresses != member.addresses:
            self._former_addresses.pop(peer, None)
            self._former_addresses[peer] = known.member.addresses
            if len(self._former_addresses) > FORMER_ADDRESSES_KEPT_MAX:
                del self._former_addresses[next(iter(self._former_addresses))]
        is_back = known is None or not known.is_connected
        presence = self._members.put(member)
        presence.is_connected = True
        if offset_ms is not None:
            presence.clock_offset_ms = offset_ms
        self._members.notify_changed()
        if is_back:
            self._start_task(self._store_member, member)
            self._on_sign_of_life(f"{self._members.name_of(peer)} is here")
        self._address_book.handle(address_book.Sighted(peer=peer, addresses=member.addresses, source="hello"))

    async def _ping(self, peer: str) -> None:
        presence = self._members.get(peer)
        least = SUSPECT_PING_SECONDS if presence and presence.is_suspect else PING_SECONDS
        patience = self._rpc.round_trips.timeout(peer, least=least)
        started, sent_ms = trio.current_time(), self._now_ms()
        try:
            reply = await self._rpc.call(peer, Ping(), timeout=patience)
        except BzzzError:
            return  # a silent peer was reported by the call
        if isinstance(reply, Pong) and presence is not None:
            self._ponged(presence, reply, started, sent_ms)
            self._failure_detector.handle(failure_detector.PongReceived(peer))

    def _ponged(self, presence: Presence, pong: Pong, started: float, sent_ms: int) -> None:
        now, now_ms = trio.current_time(), self._now_ms()
        presence.round_trip_seconds = now - started
        presence.clock_offset_ms = pong.now_ms - (sent_ms + now_ms) / 2
        self._members.caught_up(presence, started - (pong.oldest_hint_ms / 1000.0 if pong.hints else 0.0))
        if now_ms - presence.member.last_seen_ms > SEEN_MS:
            presence.member = replace(presence.member, last_seen_ms=now_ms)
            self._start_task(self._store_member, presence.member)

    async def _store_member(self, member: Member) -> None:
        try:
            await self._store.save_member(member)
        except BzzzError as error:
            log.warning("%s could not be stored as a member: %s", member.peer, error.message)

    def _forget_unlisted(self) -> None:
        """The lists changed, or may have since the last run: an excluded peer is no member, and has no hints."""
        for presence in self._members.all():
            peer = presence.member.peer
            if not self._peer_policy.is_listed(peer):
                log.info("forgot %s: it is not allowed here", peer)
                self._members.forget(peer)
                self._start_task(self._delete_member, peer)

    async def _delete_member(self, peer: str) -> None:
        try:
            await self._store.forget_member(peer)
        except BzzzError as error:
            log.warning(
                "%s could not be deleted from the stored members, and is one again at the next start: %s",
                peer,
                error.message,
            )
