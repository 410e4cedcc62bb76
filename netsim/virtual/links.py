"""The links between the nodes of a virtual world: they carry messages, and have every fault of a network.

A `Pipe` leads one way, in order, as half a TCP connection does. A message that meets a cut or a frozen node waits, and
arrives some time after the way is open again, as TCP sends again what was not acknowledged: neither node learns of it.
Latency, loss, duplication and reordering are those of a `Link`, one direction between two nodes. Real TCP hides the
last three; here they happen to whole frames, so they are harder than what a network can do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import trio

from netsim.virtual.event_queue import EventQueue
from netsim.virtual.scheduler import chance
from netsim.virtual.trace import Trace

QUEUE_FRAMES_MAX = 1024
"""Frames under way in one pipe. A full pipe takes no more."""
QUEUE_BYTES_MAX = 16 * 1024 * 1024
"""Bytes under way in one pipe: twice the largest frame."""
LATENCY_SECONDS_MIN = 1e-6
"""No message arrives at the moment when it was sent: else two nodes could talk for ever without time passing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One direction between two nodes. The defaults are a good LAN; chances are for each frame, 0 to 1."""

    latency_seconds: float = 0.0005
    jitter_seconds: float = 0.0005
    """A random part of it is added to each latency."""
    bytes_per_second: float = 100e6
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """The chance that a frame is late by up to `reorder_seconds`, and does not delay the frames behind it."""
    reorder_seconds: float = 0.05
    resume_seconds: float = 0.2
    """What waited for a cut or a frozen node arrives up to this much after the way is open."""


@dataclass(slots=True, eq=False)
class Pipe:
    """One way, in order. `frames` and `bytes` are under way, or wait. Times are seconds on trio's clock."""

    source: str
    target: str
    frames: int = 0
    bytes: int = 0
    free_at: float = 0.0
    """When the last byte of what was sent will have left."""
    last_at: float = 0.0
    """When the last message arrives that keeps its place in the order."""
    resumes_at: float = 0.0
    """When what waits arrives, if the way is open then."""
    waiting: list[tuple[Callable[..., None], tuple[object, ...]]] = field(default_factory=list)

    def takes(self, size: int) -> bool:
        """Whether there is room for a frame of so many bytes."""
        return self.frames < QUEUE_FRAMES_MAX and self.bytes + size <= QUEUE_BYTES_MAX

    def parallel(self) -> "Pipe":
        """Another pipe, the same way."""
        return Pipe(self.source, self.target)


class Links:
    """All links of one world: they carry messages, and know the cuts and the frozen nodes. Nodes go by their peer ids.

    A trace has the names of the nodes, and 'net' for the network itself.
    """

    def __init__(self, seed: int, trace: Trace, *, link: Link | None = None) -> None:
        self.trace = trace
        self.events = EventQueue()
        self._seed = seed
        self._rng = chance(seed, "net")
        self._link = link or Link()
        self._links: dict[tuple[str, str], Link] = {}
        self._groups: dict[str, int] | None = None
        self._cuts: dict[tuple[str, str], None] = {}
        self._frozen: dict[str, None] = {}
        self._holding: dict[Pipe, None] = {}
        self._names: dict[str, str] = {}
        self._most_frames = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry messages until cancelled. Start it before any node, in a nursery outside of theirs."""
        await self.events.run(task_status=task_status)

    def topic_chance(self, peer: str) -> Random:
        """The random source by which a node chooses the peers that it passes a message on to."""
        return chance(self._seed, f"topics of {peer}")

    def name_of(self, peer: str) -> str:
        """The name of a node in the trace."""
        return self._names.get(peer, peer)

    def most_frames(self) -> int:
        """The most frames that any one pipe held since the last call."""
        most, self._most_frames = self._most_frames, 0
        return most

    # -- faults -----------------------------------------------------------------------------------------------

    def set_link(self, link: Link, *, source: str | None = None, target: str | None = None) -> None:
        """From now on, from `source` to `target`; without both, between all nodes, in place of every former link."""
        assert (source is None) == (target is None), "name both nodes of a link, or none"
        if source is None or target is None:
            self._links.clear()
            self._link = link
        else:
            self._links[source, target] = link
        self._note(
            "link", source or "*", target or "*", *(f"{name}={getattr(link, name):g}" for name in link.__slots__)
        )

    def partition(self, *groups: Sequence[str]) -> None:
        """Cut the nodes of different groups from each other, in place of any former partition.

        Nodes that no group names, also those that are attached later, are one more group. Cuts made by `cut` stay.
        """
        self._groups = {peer: number for number, group in enumerate(groups) for peer in group}
        assert len(self._groups) == sum(len(group) for group in groups), "a node can be in one group only"
        self._note("partition", *("+".join(self.name_of(peer) for peer in group) for group in groups))
        self._release()

    def cut(self, source: str, target: str) -> None:
        """Nothing from `source` reaches `target` any more; the other direction stays as it is."""
        self._cuts[source, target] = None
        self._note("cut", source, target)

    def repair(self, source: str, target: str) -> None:
        """End the `cut` from `source` to `target`."""
        self._cuts.pop((source, target), None)
        self._note("mend", source, target)
        self._release()

    def heal(self) -> None:
        """No partition and no cut is left. Frozen nodes stay frozen, links stay as they are."""
        self._groups = None
        self._cuts.clear()
        self._note("heal")
        self._release()

    def freeze(self, peer: str) -> None:
        """Nothing reaches a node and nothing leaves it, and its connections stay: a stopped process, a power cut.

        The node's own tasks go on, as a network cannot stop them; what they send waits too.
        """
        self._frozen[peer] = None
        self._note("freeze", peer)

    def thaw(self, peer: str) -> None:
        """End a `freeze`; what waited for the node arrives."""
        self._frozen.pop(peer, None)
        self._note("thaw", peer)
        self._release()

    def is_open(self, source: str, target: str) -> bool:
        """Whether what `source` sends reaches `target` now."""
        if source in self._frozen or target in self._frozen or (source, target) in self._cuts:
            return False
        return self._groups is None or self._groups.get(source, -1) == self._groups.get(target, -1)

    # -- carrying ---------------------------------------------------------------------------------------------

    def carry(self, pipe: Pipe, arrive: Callable[..., None], *args: object) -> None:
        """Call `arrive(*args)` at the other end of a pipe, in order; it is never lost."""
        link = self._links.get((pipe.source, pipe.target), self._link)
        self._put(pipe, max(trio.current_time() + self._latency(link), pipe.last_at), arrive, args)

    def carry_frame(self, pipe: Pipe, frame: bytes, arrive: Callable[[bytes], None]) -> None:
        """The same for a frame, which counts for the pipe's room, and which its link may lose, duplicate or delay."""
        link = self._links.get((pipe.source, pipe.target), self._link)
        rng = self._rng
        size = len(frame)
        pipe.free_at = max(pipe.free_at, trio.current_time()) + size / link.bytes_per_second
        if link.loss and rng.random() < link.loss:
            self._note("lost", pipe.source, pipe.target, size)
            return
        copies = 1
        if link.duplication and rng.random() < link.duplication:
            self._note("doubled", pipe.source, pipe.target, size)
            copies = 2
        for _ in range(copies):
            pipe.frames += 1
            pipe.bytes += size
            self._most_frames = max(self._most_frames, pipe.frames)
            at = max(pipe.free_at + self._latency(link), pipe.last_at)
            if link.reordering and rng.random() < link.reordering:
                self._note("late", pipe.source, pipe.target, size)
                late_at = at + rng.random() * link.reorder_seconds
                self.events.at(late_at, self._arrive, pipe, self._arrive_frame, (pipe, frame, arrive))
            else:
                self._put(pipe, at, self._arrive_frame, (pipe, frame, arrive))

    def _latency(self, link: Link) -> float:
        return max(link.latency_seconds + self._rng.random() * link.jitter_seconds, LATENCY_SECONDS_MIN)

    def _put(self, pipe: Pipe, at: float, arrive: Callable[..., None], args: tuple[object, ...]) -> None:
        pipe.last_at = at
        self.events.at(at, self._arrive, pipe, arrive, args)

    def _arrive(self, pipe: Pipe, arrive: Callable[..., None], args: tuple[object, ...]) -> None:
        if pipe.waiting or not self.is_open(pipe.source, pipe.target):
            pipe.waiting.append((arrive, args))
            self._holding[pipe] = None
        else:
            arrive(*args)

    def _arrive_frame(self, pipe: Pipe, frame: bytes, arrive: Callable[[bytes], None]) -> None:
        pipe.frames -= 1
        pipe.bytes -= len(frame)
        arrive(frame)

    def _release(self) -> None:
        """The way may be open again: what waited arrives soon, in order, and before what is sent from now on."""
        now = trio.current_time()
        for pipe in self._holding:
            if pipe.resumes_at <= now and self.is_open(pipe.source, pipe.target):
                link = self._links.get((pipe.source, pipe.target), self._link)
                pipe.resumes_at = now + self._latency(link) + self._rng.random() * link.resume_seconds
                pipe.last_at = max(pipe.last_at, pipe.resumes_at)
                self.events.at(pipe.resumes_at, self._resume, pipe)

    def _resume(self, pipe: Pipe) -> None:
        if self.is_open(pipe.source, pipe.target):
            self._holding.pop(pipe, None)
            waiting, pipe.waiting = pipe.waiting, []
            for arrive, args in waiting:
                arrive(*args)

    def _note(self, event: str, *facts: object) -> None:
        self.trace.note(
            "net", event, *(self._names.get(fact, fact) if isinstance(fact, str) else fact for fact in facts)
        )
