"""The neighbourhood: finds members, dials them, shakes hands, keeps in touch, and notices who is gone.

The shell of two machines: `protocols/policy/address_book.py` says whom to dial, `protocols/policy/failure_detector.py`
whom to suspect. It alone writes the `Members` that everybody else reads.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import trio

from discovery.finder import Finder
from node.config.settings import Settings
from node.driver import Driver
from node.store.base import Store
from node.store.members import Member
from node.swarm.base import DialFailed
from node.swarm.members import Members, Presence
from node.swarm.rpc import Rpc
from node.trace import following
from protocols.errors import BzzzError, Forbidden, TooManyRequests
from protocols.messages import (
    ADDRESSES_MAX,
    MEMBERS_MAX,
    GetMembers,
    Hello,
    MemberEntry,
    MembersReply,
    Ping,
    Pong,
    Reply,
)
from protocols.policy import address_book, failure_detector
from protocols.policy.address_book import AddressBook
from protocols.policy.failure_detector import FailureDetector
from protocols.policy.reputation import Offence
from protocols.policy.token_bucket import TokenBucket

log = logging.getLogger(__name__)

HELLO_SECONDS = 2.0
PING_SECONDS = 0.5
"""How long a peer may take to answer a ping before it is suspect; longer when its answers usually take long."""
SUSPECT_PING_SECONDS = 2.0
DIAL_SECONDS = 5.0
HEARSAY_DIALS_MAX = 16
"""Of those of whom we have another's word alone, so many are dialled at once, and"""
HEARSAY_ADDRESSES_MAX = 8
"""at so many addresses each: one member's tale of a thousand others must not cost us all our sockets."""
HEARSAY_PAUSE_SECONDS = 0.25
"""A dial of theirs that failed, however soon, keeps its place for so long."""
EXCHANGE_SECONDS = 5.0
"""How often one of the members is asked whom it knows."""
SOUGHT_SECONDS = 300.0
"""How long a remembered member is dialled before it may be forgotten, whenever it was seen last."""
LINES_AT_ONCE, LINES_PER_SECOND = 1000.0, 1.0
"""Who comes and goes has a line in the log each time: so many at once, and so many in the long run."""
SEEN_MS = 60_000
"""A connected member's last sight is written down this often."""


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
        self._may_exchange = may_exchange
        self._peer_policy = rpc.peer_policy
        self._peer_policy.on_lists_changed(self._recheck)
        self._forget_seconds = settings.forget_after_hours * 3600.0
        self._nursery: trio.Nursery | None = None
        self._hearsay_dials = trio.CapacityLimiter(HEARSAY_DIALS_MAX)
        self._parting: dict[str, int] = {}
        """Peers of another swarm that are still told so, and how often they said hello."""
        self._lines: TokenBucket | None = None
        self._lines_kept_silent = 0
        self._peers = Driver[address_book.Event, address_book.Effect](
            AddressBook(members.own, chance=chance, forget_seconds=self._forget_seconds), self._carry_out_peers
        )
        self._liveness = Driver[failure_detector.Event, failure_detector.Effect](
            FailureDetector(), self._carry_out_liveness
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dial, greet, ping and exchange until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(self._peers.run)
                nursery.start_soon(self._liveness.run)
                nursery.start_soon(self._exchange_for_ever)
                task_status.started()
                self._recheck()
                self._sight_known()
                for peer in self._network.connected_peers():  # who was quicker than we
                    nursery.start_soon(self._greet, peer)
                for finder in self._finders:
                    nursery.start_soon(finder.run, self._peers.handle)
                await trio.sleep_forever()
            finally:
                self._nursery = None  # before it closes: the network may still tell us who is gone

    def _sight_known(self) -> None:
        now, now_ms = trio.current_time(), self._now_ms()
        for presence in self._members.all():
            member = presence.member
            # Nobody is forgotten before he was looked for: this node may have been off for long, or its clock be wrong.
            ago = min(max(0.0, (now_ms - member.last_seen_ms) / 1000.0), self._forget_seconds - SOUGHT_SECONDS)
            self._peers.handle(
                address_book.Sighted(
                    peer=member.peer, addresses=member.addresses, source="store", seen_at=now - max(0.0, ago)
                )
            )

    # -- told by the network ----------------------------------------------------------------------------------

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        self._note("connected to %s at %s (%s)", peer, address, "dialled" if dialled else "it dialled us")
        self._peers.handle(address_book.Connected(peer))
        self._liveness.handle(failure_detector.ConnectionOpened(peer))
        self._start(self._greet, peer)

    def disconnected(self, peer: str, reason: str) -> None:
        self._note("disconnected from %s: %s", peer, reason)
        self._parting.pop(peer, None)
        self._liveness.handle(failure_detector.ConnectionClosed(peer))
        if presence := self._members.get(peer):
            presence.is_connected = False
            presence.is_suspect = False
            self._members.notify_changed()
        self._peers.handle(address_book.Disconnected(peer))

    def heard(self, peer: str) -> None:
        self._liveness.handle(failure_detector.FrameReceived(peer))

    def missed(self, peer: str, evidence: str) -> None:
        if (presence := self._members.get(peer)) and not presence.is_suspect:
            presence.suspect_why = evidence
        self._liveness.handle(failure_detector.DeadlineMissed(peer))

    def _note(self, line: str, *facts: object) -> None:
        """Say in the log who comes, goes or is suspect, unless there are so many of them that it would be flooded."""
        now = trio.current_time()
        lines = self._lines = self._lines or TokenBucket(rate=LINES_PER_SECOND, burst=LINES_AT_ONCE, now=now)
        if lines.take(0.0, now) > 0.0:
            self._lines_kept_silent += 1
            log.debug(line, *facts)
            return
        lines.take(1.0, now)
        if self._lines_kept_silent:
            line, facts = f"{line} (and %d such lines before it)", (*facts, self._lines_kept_silent)
            self._lines_kept_silent = 0
        log.info(line, *facts)

    # -- asked by peers ---------------------------------------------------------------------------------------

    def knows(self, peer: str) -> bool:
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
            self._part(peer, hello.network)
            if peer in self._parting:
                self._parting[peer] += 1
                if self._parting[peer] > 1:
                    self._peer_policy.blame(peer, Offence.FLOOD, "says hello again and again, and is of another swarm")
            raise Forbidden(
                f"this node is of the swarm {self._network_name!r}, not {hello.network!r}", reason="network"
            )
        if why := self._crowded(peer):
            raise TooManyRequests(why)
        self._met(peer, hello, None)
        return self._hello()

    def _crowded(self, peer: str) -> str:
        """Why a peer cannot become a member, in words; '' when it can, or is one."""
        most = self._limits.members_max
        if self._members.get(peer) is not None or len(self._members) < most:
            return ""
        why = f"{most} members are remembered, which is the most: it may join when some were forgotten"
        self._peer_policy.limit_counters.hit("members_refused", "", why)
        return why

    def answer_members(self) -> Reply:
        known = [p.member for p in self._members.all() if p.member.addresses]
        return MembersReply(tuple(MemberEntry(m.peer, m.addresses[:ADDRESSES_MAX]) for m in known[:MEMBERS_MAX]))

    def _hello(self) -> Hello:
        addresses = self._network.addresses[:ADDRESSES_MAX]
        return Hello(self._network_name, self._name, self._store.log_id, self._now_ms(), addresses)

    # -- what the machines want -------------------------------------------------------------------------------

    def _carry_out_peers(self, effect: address_book.Effect) -> None:
        match effect:
            case address_book.Dial(target, addresses, is_hearsay):
                self._start(self._dial, target, addresses, is_hearsay)
            case address_book.Forget(peer):
                log.info("forgot %s: it was not seen for the whole horizon", peer)
                self._members.forget(peer)
                self._start(self._forget, peer)

    def _carry_out_liveness(self, effect: failure_detector.Effect) -> None:
        match effect:
            case failure_detector.SendPing(peer):
                self._start(self._ping, peer)
            case failure_detector.Suspected(peer):
                self._suspect(peer, True)
            case failure_detector.Trusted(peer):
                self._suspect(peer, False)
                self._on_sign_of_life(f"{self._members.name_of(peer)} answers again")
            case failure_detector.GiveUp(peer, silent_seconds):
                self._network.disconnect(peer, f"no sign of life for {silent_seconds:.1f} s")

    def _suspect(self, peer: str, is_suspect: bool) -> None:
        if presence := self._members.get(peer):
            why = f"suspect: {presence.suspect_why}" if is_suspect else "trusted again: it answered a ping"
            self._note("%s (%s) is %s", self._members.name_of(peer), peer, why)
            presence.is_suspect = is_suspect
            self._members.notify_changed()

    def _start(self, task: Callable[..., object], *args: object) -> None:
        if self._nursery is None:
            return
        with following(""):  # a connection outlives the call in which it was noticed that one is needed
            self._nursery.start_soon(task, *args)  # type: ignore[arg-type]  # every task here is a coroutine function

    async def _dial(self, target: str, addresses: tuple[str, ...], is_hearsay: bool) -> None:
        peer = ""
        try:
            if is_hearsay:
                peer = await self._dial_hearsay(addresses)
            else:
                peer = await self._network.dial(addresses, timeout=DIAL_SECONDS)
        except DialFailed as error:
            log.debug("could not dial %s: %s", target, error)
        self._peers.handle(address_book.Dialled(target, peer))

    async def _dial_hearsay(self, addresses: tuple[str, ...]) -> str:
        async with self._hearsay_dials:
            try:
                return await self._network.dial(addresses, timeout=DIAL_SECONDS)
            except DialFailed:
                await trio.sleep(HEARSAY_PAUSE_SECONDS)
                raise

    async def _greet(self, peer: str) -> None:
        """Say hello, and ask whom it knows."""
        if why := self._crowded(peer):
            await trio.sleep(0.1)  # so that the answer to its own hello still reaches it
            self._network.disconnect(peer, why)
            return
        sent_ms = self._now_ms()
        try:
            reply = await self._rpc.call(peer, self._hello(), timeout=HELLO_SECONDS)
        except Forbidden as error:
            self._part(peer, error.message)
            return
        except BzzzError as error:
            self._note("%s did not answer our hello: %s", peer, error.message)
            self._network.disconnect(peer, "it did not answer our hello")
            return
        if not isinstance(reply, Hello) or reply.network != self._network_name:
            self._part(peer, reply.network if isinstance(reply, Hello) else "not known")
            return
        offset_ms = reply.now_ms - (sent_ms + self._now_ms()) / 2
        self._met(peer, reply, offset_ms)
        await self._ping(peer)
        await self._exchange(peer)

    def _part(self, peer: str, network: str) -> None:
        if self._nursery is None or peer in self._parting:
            return
        self._parting[peer] = 0
        what = f"is of another swarm ({network:.80}): parted, and not dialled again"
        self._peer_policy.limit_counters.hit("other_swarms", peer, what, line="offences")
        self._start(self._part_soon, peer)

    async def _part_soon(self, peer: str) -> None:
        await trio.sleep(0.1)  # so that the answer which says why still reaches it
        self._peers.handle(address_book.Banned(peer))
        self._network.disconnect(peer, "another swarm")

    def _met(self, peer: str, hello: Hello, offset_ms: float | None) -> None:
        now_ms = self._now_ms()
        known = self._members.get(peer)
        member = Member(
            peer=peer,
            name=hello.name,
            addresses=tuple(a for a in hello.addresses if a.endswith(f"/p2p/{peer}")),
            first_seen_ms=known.member.first_seen_ms if known else now_ms,
            last_seen_ms=now_ms,
        )
        is_back = known is None or not known.is_connected
        presence = self._members.put(member)
        presence.is_connected = True
        if offset_ms is not None:
            presence.clock_offset_ms = offset_ms
        self._members.notify_changed()
        if is_back:
            self._start(self._save, member)
            self._on_sign_of_life(f"{self._members.name_of(peer)} is here")
        self._peers.handle(address_book.Sighted(peer=peer, addresses=member.addresses, source="hello"))

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
            self._liveness.handle(failure_detector.PongReceived(peer))

    def _ponged(self, presence: Presence, pong: Pong, started: float, sent_ms: int) -> None:
        now, now_ms = trio.current_time(), self._now_ms()
        presence.round_trip_seconds = now - started
        presence.clock_offset_ms = pong.now_ms - (sent_ms + now_ms) / 2
        self._members.caught_up(presence, started - (pong.oldest_hint_ms / 1000.0 if pong.hints else 0.0))
        if now_ms - presence.member.last_seen_ms > SEEN_MS:
            presence.member = replace(presence.member, last_seen_ms=now_ms)
            self._start(self._save, presence.member)

    async def _save(self, member: Member) -> None:
        try:
            await self._store.save_member(member)
        except BzzzError as error:
            log.warning("%s could not be written down as a member: %s", member.peer, error.message)

    def _recheck(self) -> None:
        """The lists changed, or may have since the last run: whom they exclude is no member, and is owed nothing."""
        for presence in self._members.all():
            peer = presence.member.peer
            if not self._peer_policy.is_listed(peer):
                log.info("forgot %s: it is not allowed here", peer)
                self._members.forget(peer)
                self._start(self._forget, peer)

    async def _forget(self, peer: str) -> None:
        try:
            await self._store.forget_member(peer)
        except BzzzError as error:
            log.warning("%s could not be struck off the members, and is one again next time: %s", peer, error.message)

    async def _exchange_for_ever(self) -> None:
        while True:
            await trio.sleep(EXCHANGE_SECONDS * (0.5 + self._chance()))
            reachable = self._members.reachable()
            if reachable:
                await self._exchange(reachable[int(self._chance() * len(reachable))])

    async def _exchange(self, peer: str) -> None:
        if not self._may_exchange():
            return
        try:
            reply = await self._rpc.call(peer, GetMembers(), timeout=HELLO_SECONDS)
        except BzzzError:
            return
        for member in reply.members if isinstance(reply, MembersReply) else ():
            is_new = self._members.get(member.peer) is None and member.peer != self._members.own
            if is_new and self._peer_policy.is_listed(member.peer):
                self._hear_of(member, peer)

    def _hear_of(self, member: MemberEntry, teller: str) -> None:
        addresses = [address for address in member.addresses if address.endswith(f"/p2p/{member.peer}")]
        self._peers.handle(
            address_book.Sighted(
                peer=member.peer,
                addresses=tuple(addresses[:HEARSAY_ADDRESSES_MAX]),
                source=f"told by {teller}",
                is_hearsay=True,
            )
        )
