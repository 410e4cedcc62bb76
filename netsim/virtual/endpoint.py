"""A node's endpoint in the virtual network: its `Network` (node/swarm/base.py), with connections that behave as TCP's.

A connection is made by three messages (SYN, SYN-ACK, ACK), ends by one (FIN), and has two ends, each with its own
state: an end that closes is closed at once, and the other one stays open until the FIN arrives, however long the
network is cut. A dial across a cut hangs until its timeout. When two nodes dial each other at the same time, the
connection whose dialler had its answer first is kept, and both dials end with it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from zlib import crc32

import trio

from netsim.virtual.kad import KadMessage, VirtualKad
from netsim.virtual.links import Links, Pipe
from netsim.virtual.pubsub import TopicMessage, VirtualPubSub
from node.swarm.base import FRAME_BYTES_MAX, DialFailed, Lane, Network, Receiver

_ADDRESS = re.compile(r"/memory/([0-9]{1,9})(?:/p2p/([A-Za-z0-9]+))?", re.ASCII)


class _State(Enum):
    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(slots=True, eq=False)
class _End:
    """One side of a connection, and the pipes that lead away from it."""

    owner: "VirtualEndpoint"
    peer: str
    address: str
    dialled: bool
    state: _State
    control: Pipe
    lanes: tuple[Pipe, Pipe]
    topics: Pipe
    kad: Pipe
    arrivals: tuple[Callable[[bytes], None], Callable[[bytes], None]] = field(init=False)
    """The callback for a frame that arrived, by lane."""
    other: "_End" = field(init=False)

    def __post_init__(self) -> None:
        self.arrivals = (
            lambda frame: self.owner.frame_arrived(self, Lane.SMALL, frame),
            lambda frame: self.owner.frame_arrived(self, Lane.BULK, frame),
        )


@dataclass(slots=True, eq=False)
class _Dial:
    """One call of `dial`: the addresses that have not answered yet, and why the others failed."""

    open: dict[str, str | None]
    """Each address, and the peer it names."""
    failed: dict[str, str]
    others: dict[str, str] = field(default_factory=dict)
    """Who else answered at an address."""
    peer: str | None = None
    over: trio.Event = field(default_factory=trio.Event)

    def succeed(self, peer: str) -> None:
        self.peer = peer
        self.over.set()

    def fail(self, address: str, reason: str) -> None:
        if address in self.open:
            del self.open[address]
            self.failed[address] = reason
        if not self.open:
            self.over.set()

    def answered_by(self, address: str, other: str) -> None:
        self.others[address] = other
        self.fail(address, f"another peer has this address: {other}")


class VirtualEndpoint:
    """The `Network` of one process of a node; `VirtualNetwork.attach` makes a new one for each process.

    `endpoints` are those of all nodes, by the number in their addresses: the latest one of each node, and None for an
    address that its node has left. `number` is 0 while the node's interface has no address.
    """

    def __init__(self, links: Links, peer_id: str, number: int, endpoints: "dict[int, VirtualEndpoint | None]") -> None:
        self._links = links
        self._peer_id = peer_id
        self._name = links.name_of(peer_id)
        self._number = number
        self._endpoints = endpoints
        self._receiver: Receiver | None = None
        self._has_run = False
        self._ends: dict[str, _End] = {}
        self._dials: dict[_Dial, None] = {}
        self._inbound = 0
        self.pubsub = VirtualPubSub(peer_id, links.topic_chance(peer_id), self._subscribed, self._send_on_topic)
        self.kad = VirtualKad(
            self._send_in_dht, lambda addresses, timeout: self.dial(addresses, timeout=timeout), self._ends.__contains__
        )
        self._moved = trio.Event()

    @property
    def peer_id(self) -> str:
        return self._peer_id

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address,) if self._receiver is not None and self._number else ()

    async def addresses_changed(self) -> None:
        await self._moved.wait()

    @property
    def address(self) -> str:
        """The same in every process of this node until it moves, and known before it runs."""
        return f"/memory/{self._number}/p2p/{self._peer_id}"

    @property
    def is_running(self) -> bool:
        return self._receiver is not None

    async def run(self, receiver: Receiver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        assert not self._has_run, "a node that starts again attaches again"
        self._has_run = True
        self._receiver = receiver
        self._links.trace.note(self._name, "listens", self.address)
        try:
            async with trio.open_nursery() as nursery:
                self.kad.run_in(nursery)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self.stop("stopped")

    def stop(self, reason: str) -> None:
        """Gone at once: the receiver gets no more calls, and peers learn it as soon as a message can reach them."""
        if self._receiver is None:
            return
        self._receiver = None
        self._links.trace.note(self._name, reason)
        for end in self._ends.values():
            self._close(end, f"{self._name} {reason}")
        self._ends.clear()
        for dial in list(self._dials):
            for address in list(dial.open):
                dial.fail(address, f"this node {reason}")

    def move(self, number: int, *, keeps_connections: bool) -> None:
        """The interface has another address, or none (0). The connections over the former one are dead: this end knows
        it at once, the others learn nothing."""
        self._number = number
        for peer, end in [] if keeps_connections else list(self._ends.items()):
            end.state = _State.CLOSED
            del self._ends[peer]
            self._links.events.at(trio.current_time(), self._report_disconnected, peer, "its own address is gone")
        self._moved.set()
        self._moved = trio.Event()

    twin = ""
    """There is no other node with the same identity."""

    async def look_for_twin(self, addresses: Sequence[str]) -> None:
        pass

    def twin_reported(self, log_id: str, address: str, *, yields: bool) -> None:
        pass

    def address_fault(self, address: str) -> str:
        return "" if _ADDRESS.fullmatch(address) else "not an address of this network: /memory/<number>/p2p/<peer id>"

    def connected_peers(self) -> tuple[str, ...]:
        return tuple(self._ends)

    def send(self, peer: str, lane: Lane, frame: bytes) -> bool:
        assert len(frame) <= FRAME_BYTES_MAX, f"a frame of {len(frame)} bytes would cost the connection"
        end = self._ends.get(peer)
        if end is None:
            return False
        pipe = end.lanes[lane]
        if not pipe.takes(len(frame)):
            self._links.trace.note(self._name, "queue-full", self._links.name_of(peer), lane.name, len(frame))
            return False
        self._links.carry_frame(pipe, frame, end.other.arrivals[lane])
        return True

    def _subscribed(self, topic: str) -> list[str]:
        return [peer for peer, end in self._ends.items() if end.other.owner.pubsub.is_subscribed(topic)]

    def _send_on_topic(self, peer: str, message: TopicMessage) -> None:
        end = self._ends[peer]
        if end.topics.takes(len(message.data)):
            self._links.carry_frame(end.topics, message.data, lambda _: end.other.owner.heard(end.other, message))

    def heard(self, end: _End, message: TopicMessage) -> None:
        """A message on a topic has arrived; one for a connection that is closed here is dropped."""
        if end.state is _State.OPENING:
            self.ack_arrived(end)
        if end.state is _State.OPEN and self._receiver is not None:
            self._links.trace.note(self._name, "heard", self._links.name_of(end.peer), crc32(message.data))
            self.pubsub.arrived(end.peer, message)

    def _send_in_dht(self, peer: str, message: KadMessage) -> bool:
        end = self._ends.get(peer)
        if end is None or not end.kad.takes(len(message.data)):
            return False
        self._links.carry_frame(end.kad, message.data, lambda _: end.other.owner.kad_arrived(end.other, message))
        return True

    def kad_arrived(self, end: _End, message: KadMessage) -> None:
        """A message of the DHT has arrived; one for a connection that is closed here is dropped."""
        if end.state is _State.OPENING:
            self.ack_arrived(end)
        if end.state is _State.OPEN and self._receiver is not None:
            self._links.trace.note(self._name, "kad", self._links.name_of(end.peer), crc32(message.data))
            self.kad.arrived(end.peer, end.address, message)

    def identified(self, end: _End, addresses: tuple[str, ...]) -> None:
        """The identity of a peer that speaks the DHT's protocol has arrived."""
        if end.state is _State.OPENING:
            self.ack_arrived(end)
        if end.state is _State.OPEN and self._receiver is not None:
            self.kad.found(end.peer, addresses)

    def disconnect(self, peer: str, reason: str) -> None:
        end = self._ends.pop(peer, None)
        if end is not None:
            self._close(end, f"{self._name} disconnected: {reason}")
            self._links.events.at(trio.current_time(), self._report_disconnected, peer, reason)

    # -- dialling ---------------------------------------------------------------------------------------------

    async def dial(self, addresses: Sequence[str], *, timeout: float) -> str:
        await trio.lowlevel.checkpoint()
        dial = self._sort(addresses)
        for peer in dial.open.values():
            if peer in self._ends:
                assert peer is not None
                return peer
        self._dials[dial] = None
        try:
            for address, peer in dial.open.items():
                self._send_syn(dial, address, peer)
            if dial.open:
                with trio.move_on_after(timeout):
                    await dial.over.wait()
        finally:
            del self._dials[dial]
            dial.over.set()
        if dial.peer is not None:
            return dial.peer
        unanswered = dict.fromkeys(dial.open, f"no answer within {timeout:g} s")
        reasons = "; ".join(f"{address}: {reason}" for address, reason in {**dial.failed, **unanswered}.items())
        raise DialFailed(reasons or "there is no address to dial", dial.others)

    def _sort(self, addresses: Sequence[str]) -> _Dial:
        """The addresses that can be tried, and why the others cannot."""
        dial = _Dial({}, {})
        for address in addresses:
            match = _ADDRESS.fullmatch(address)
            if self._receiver is None:
                dial.failed[address] = "this node's network does not run"
            elif match is None:
                dial.failed[address] = self.address_fault(address)
            elif int(match[1]) == self._number:
                dial.failed[address] = "that is this node itself"
                dial.others[address] = self._peer_id
            elif not self._number:
                dial.failed[address] = "this machine has no address"
            else:
                dial.open[address] = match[2]
        return dial

    def _send_syn(self, dial: _Dial, address: str, peer: str | None) -> None:
        match = _ADDRESS.fullmatch(address)
        assert match is not None, f"{address} is not for this network"
        self._links.trace.note(self._name, "dials", address)
        number = int(match[1])
        found = self._endpoints.get(number)
        target = address if found is None else found.peer_id
        there, back = Pipe(self._peer_id, target), Pipe(target, self._peer_id)
        self._links.carry(there, self._syn_arrived, dial, address, number, peer, there, back)

    def _syn_arrived(self, dial: _Dial, address: str, number: int, peer: str | None, there: Pipe, back: Pipe) -> None:
        """At the address: the endpoint that has it now answers. Where no machine is, nothing does."""
        target = self._endpoints.get(number)
        if target is None and number in self._endpoints:
            return
        if target is None or not target.is_running:
            self._links.carry(back, dial.fail, address, "connection refused: no node listens there")
        elif peer not in (None, target.peer_id):
            self._links.carry(back, dial.answered_by, address, target.peer_id)
        else:
            self._links.carry(back, self._syn_ack_arrived, dial, address, target, there, back)

    def _syn_ack_arrived(self, dial: _Dial, address: str, target: "VirtualEndpoint", there: Pipe, back: Pipe) -> None:
        if dial.over.is_set() or self._receiver is None:
            return
        theirs = target._ends.get(self._peer_id)
        if theirs is not None and theirs.other.owner is self and theirs.other.state is _State.OPENING:
            return  # the peer dialled this node, and its ACK is under way: it ends this dial as well
        peer = target.peer_id
        if peer in self._ends:
            dial.succeed(peer)
            return
        target._inbound += 1
        remote = f"/memory/{(self._number + 1) * 100_000 + target._inbound}/p2p/{self._peer_id}"
        near = _End(self, peer, address, True, _State.OPENING, there, _parallel(there), *_parallel(there))
        far = _End(target, self._peer_id, remote, False, _State.OPENING, back, _parallel(back), *_parallel(back))
        near.other, far.other = far, near
        self._open(near)
        self._links.carry(there, target.ack_arrived, far)

    def ack_arrived(self, end: _End) -> None:
        """The last message of the handshake has arrived, or the first frame in its place."""
        if end.state is not _State.OPENING:
            return
        if self._receiver is None:
            self._close(end, f"{self._name} is gone")
            return
        former = self._ends.pop(end.peer, None)
        if former is not None:  # its FIN is still under way
            self._close(former, "replaced by a newer connection")
            self._report_disconnected(end.peer, "replaced by a newer connection")
        self._open(end)

    def _open(self, end: _End) -> None:
        assert self._receiver is not None
        end.state = _State.OPEN
        self._ends[end.peer] = end
        how = "dialled" if end.dialled else "was-dialled"
        self._links.trace.note(self._name, "connected", self._links.name_of(end.peer), how)
        self._receiver.connected(end.peer, end.address, end.dialled)
        if self.kad.is_spoken:
            self._links.carry(end.control, end.other.owner.identified, end.other, self.addresses)
        for dial in list(self._dials):
            if end.peer in dial.open.values() or end.address in dial.open:
                dial.succeed(end.peer)

    # -- connections ------------------------------------------------------------------------------------------

    def frame_arrived(self, end: _End, lane: Lane, frame: bytes) -> None:
        """A whole frame has arrived; one for a connection that is closed here is dropped."""
        if end.state is _State.OPENING:
            self.ack_arrived(end)
        if end.state is _State.OPEN and self._receiver is not None:
            self._links.trace.note(
                self._name, "received", self._links.name_of(end.peer), lane.name, len(frame), crc32(frame)
            )
            self._receiver.received(end.peer, lane, frame)

    def fin_arrived(self, end: _End, reason: str) -> None:
        """The other end was closed some time ago."""
        was_open = end.state is _State.OPEN
        end.state = _State.CLOSED
        if was_open and self._ends.get(end.peer) is end:
            del self._ends[end.peer]
            self._report_disconnected(end.peer, reason)

    def _close(self, end: _End, reason: str) -> None:
        end.state = _State.CLOSED
        self._links.carry(end.control, end.other.owner.fin_arrived, end.other, reason)

    def _report_disconnected(self, peer: str, reason: str) -> None:
        if self._receiver is not None:
            self._links.trace.note(self._name, "disconnected", self._links.name_of(peer), reason)
            self.kad.disconnected(peer)
            self._receiver.disconnected(peer, reason)


def _parallel(pipe: Pipe) -> tuple[Pipe, Pipe]:
    return pipe.parallel(), pipe.parallel()


def _satisfies_network(endpoint: VirtualEndpoint) -> Network:
    """Checked by mypy alone."""
    return endpoint
