"""The story of one swarm: write, read, freeze four of five, kill one, thaw, and look for what was lost.

Each act ends in a check; what was acknowledged on the way is in the ledger, and the last act holds every node to it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from itertools import cycle
from typing import TypeVar

from netsim.demo.ledger import AcknowledgedWrite, Spread
from netsim.demo.record import Record
from netsim.processes.client import NodeReply
from netsim.processes.node import NodeProcess
from netsim.processes.screen import Screen
from netsim.processes.swarm import Swarm

PATIENT_MS = 5_000
"""The deadline that the demonstration asks for where an answer matters more than its time."""
FROZEN_CALLS = 100
SETTLE_SECONDS_MAX = 120.0
CONTENT_BYTES = 256

Job = TypeVar("Job")
Result = TypeVar("Result")


class Story:
    """One run, written down in `record`."""

    def __init__(
        self, swarm: Swarm, screen: Screen, crew: Executor, record: Record, *, replication: int, writes: int
    ) -> None:
        self._swarm = swarm
        self._screen = screen
        self._crew = crew
        self._replication = replication
        self._count = writes
        self._record = record
        self._ledger = record.ledger

    def play(self) -> None:
        """All acts but the end. Raises `NodeFailed` when a node does not start."""
        self._start()
        self._write()
        self._read()
        *others, awake = self._swarm.nodes
        held, unheld = self._known_to(awake)
        for node in others:
            node.freeze()
        self._carry_on(awake, held, unheld)
        self._kill_and_restart(awake)
        for node in others:
            node.thaw()
        self._settle()
        self._compare()

    # -- the acts -------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._screen.act("start", "starting five nodes")
        start = time.monotonic()
        self._swarm.start(self._screen.progress)
        took = time.monotonic() - start
        nodes = [{"name": n.name, "peer_id": n.peer_id, "api": n.api, "pid": n.pid} for n in self._swarm.nodes]
        self._record.check(
            "started", f"five nodes, each connected to the four others, after {took:.1f} s", True, nodes=nodes
        )
        for node in self._swarm.nodes:
            self._screen.note(f"{node.name:<5} {node.peer_id}  {node.api}")

    def _write(self) -> None:
        self._screen.act("write", f"writing {self._count} envelopes, on each node in turn")
        jobs = [(number, node) for number, node in zip(range(self._count), cycle(self._swarm.nodes), strict=False)]

        def put(job: tuple[int, NodeProcess]) -> NodeReply:
            number, node = job
            return node.ask().put(self._address(number), self._content(number, node))

        replies = list(self._each(put, jobs))
        for (number, node), reply in replies:
            self._enter(self._address(number), self._content(number, node), node, reply)
        done = self._record.acknowledged
        replicated = sum(1 for write in self._ledger.writes if write.is_replicated)
        spread = Spread.of([reply.elapsed_ms for _, reply in replies])
        self._record.check(
            "written",
            f"{done} of {self._count} writes acknowledged, {replicated} of them already replicated: {spread}",
            done == self._count,
            **self._record.measured("put", spread), acknowledged=done, replicated=replicated,
        )  # fmt: skip
        self._record.explain([reply for _, reply in replies if reply.status not in (201, 202)])

    def _read(self) -> None:
        """By a node that does not hold it, where the replication leaves one, else by one that did not write it."""
        is_partial = self._replication < len(self._swarm.nodes) - 1
        of_whom = "a node that does not hold it" if is_partial else "a node that did not write it"
        self._screen.act("read", f"reading each of them from the swarm, by {of_whom}")

        def read(write: AcknowledgedWrite) -> tuple[bool, NodeReply]:
            others = [node for node in self._swarm.nodes if node.name != write.author]
            start = _turn(write.address, len(others))
            others = others[start:] + others[:start]
            without = [
                node for node in others if is_partial and _is_absent(node.ask().get(write.address, consistency="local"))
            ]
            reader = (without or others)[0]
            reply = reader.ask().get(write.address, consistency="swarm", timeout_ms=PATIENT_MS)
            return bool(without) or not is_partial, reply

        results = list(self._each(read, self._ledger.writes))
        right = [reply for write, (_, reply) in results if _is(reply, write)]
        as_meant = sum(1 for _, (is_stranger, _) in results if is_stranger)
        spread = Spread.of([reply.elapsed_ms for reply in right])
        self._record.check(
            "read",
            f"{len(right)} of {self._count} read as they were written, {as_meant} of them by {of_whom}: {spread}",
            len(right) == self._count == as_meant,
            **self._record.measured("get", spread), right=len(right), as_meant=as_meant,
        )  # fmt: skip
        self._record.explain([reply for write, (_, reply) in results if not _is(reply, write)])

    def _carry_on(
        self, awake: NodeProcess, held: Sequence[AcknowledgedWrite], unheld: Sequence[AcknowledgedWrite]
    ) -> None:
        """Puts and gets on the one node that is awake, one after the other from the first moment of the frost."""
        self._screen.act("frozen", f"four of five are frozen (SIGSTOP); {awake.name} writes and reads alone")
        own = [write for write in held if write.author == awake.name]
        puts: list[NodeReply] = []
        gets: list[tuple[AcknowledgedWrite, NodeReply]] = []
        absent: list[NodeReply] = []
        for turn in range(FROZEN_CALLS):
            is_update = turn % 2 == 1 and bool(own)
            address = own[turn % len(own)].address if is_update else self._address(self._count + turn)
            content = self._content(self._count + turn, awake)
            puts.append(awake.ask().put(address, content))
            self._enter(address, content, awake, puts[-1])
            known = self._ledger.newest()[held[turn % len(held)].address]
            gets.append((known, awake.ask().get(known.address)))
            if unheld:
                absent.append(awake.ask().get(unheld[turn % len(unheld)].address))
            self._screen.progress(turn + 1, FROZEN_CALLS)
        self._record.judge("frozen-put", "puts acknowledged", [(reply.status in (201, 202), reply) for reply in puts])
        self._record.judge(
            "frozen-get", "gets answered from this machine", [(_is(reply, write), reply) for write, reply in gets]
        )
        if absent:
            what = "gets of what only frozen nodes hold answered 'not now' (503), never 'not there',"
            self._record.judge("frozen-absent", what, [(reply.status == 503, reply) for reply in absent])

    def _kill_and_restart(self, awake: NodeProcess) -> None:
        self._screen.act("kill", f"kill -9 for {awake.name}, and a new start while the others are still frozen")
        owed_before = awake.ask().pending() or 0
        awake.kill()
        start = time.monotonic()
        awake.start(self._swarm.addresses_without(awake))
        awake.wait_ready()
        took = time.monotonic() - start
        own = [write for write in self._ledger.writes if write.author == awake.name]
        kept = sum(1 for w in own if _is(awake.ask().get(w.address, consistency="local", digest=w.digest), w))
        owed = awake.ask().pending() or 0
        self._record.check(
            "restarted",
            f"{awake.name} is back after {took:.1f} s with {kept} of the {len(own)} writes it had acknowledged, "
            f"and still knows what it owes ({owed} copies)",
            kept == len(own) and owed >= min(1, owed_before),
            seconds=round(took, 2), kept=kept, acknowledged=len(own), owed_before=owed_before, owed=owed,
        )  # fmt: skip

    def _settle(self) -> None:
        self._screen.act("settle", "all are thawed; waiting until nobody owes anything")
        start = time.monotonic()
        most = 0
        while (owed := self._owed()) != 0 and time.monotonic() - start < SETTLE_SECONDS_MAX:
            most = max(most, owed or 0)
            self._screen.progress(most - (owed or 0), most)
            time.sleep(0.05)
        took = time.monotonic() - start
        words = f"everything owed was delivered after {took:.1f} s"
        if owed != 0:
            words = (
                f"after {took:.0f} s {'a node does not answer' if owed is None else f'{owed} copies are still owed'}"
            )
        self._record.check("settled", words, owed == 0, seconds=round(took, 2), owed=owed)
        self._record.keep("settle_seconds", round(took, 2))

    def _compare(self) -> None:
        """Ask every node for every acknowledged write: by address, or by digest where a newer one took its place."""
        nodes = self._swarm.nodes
        self._screen.act(
            "compare", f"asking all {len(nodes)} nodes for all {self._record.acknowledged} acknowledged writes"
        )
        newest = self._ledger.newest()
        jobs = [(write, node) for write in self._ledger.writes for node in nodes]

        def ask(job: tuple[AcknowledgedWrite, NodeProcess]) -> NodeReply:
            write, node = job
            is_newest = newest[write.address] is write
            consistency = "swarm" if self._replication < len(nodes) - 1 else "local"
            return _patiently(
                lambda: node.ask().get(
                    write.address,
                    consistency=consistency,
                    digest="" if is_newest else write.digest,
                    timeout_ms=PATIENT_MS,
                )
            )

        wrong = [(write, node, reply) for (write, node), reply in self._each(ask, jobs) if not _is(reply, write)]
        self._record.lost = len({write.digest for write, _, _ in wrong})
        self._record.check(
            "equal",
            f"{self._record.lost} of {self._record.acknowledged} acknowledged writes lost: "
            f"{len(jobs) - len(wrong)} of {len(jobs)} answers are right",
            self._record.lost == 0,
            lost=self._record.lost, acknowledged=self._record.acknowledged, answers=len(jobs), wrong=len(wrong),
        )  # fmt: skip
        for write, node, reply in wrong[:5]:
            self._screen.note(f"{node.name}, asked for {write.address} {write.digest[:12]}: {reply}")

    def end(self) -> None:
        """The last act: every node is asked to end."""
        self._screen.act("end", "ending the nodes (SIGTERM)")
        start = time.monotonic()
        complaints = self._swarm.end()
        took = time.monotonic() - start
        words = "; ".join(complaints) or f"all five ended cleanly after {took:.1f} s, their ports are free"
        self._record.check("ended", words, not complaints, seconds=round(took, 2))

    # -- what the acts share --------------------------------------------------------------------------------------

    def _address(self, number: int) -> str:
        return f"ucxl://demo:writer@bzzz:replication-{self._replication}/*^/notes/{number:04d}.txt"

    def _content(self, number: int, node: NodeProcess) -> bytes:
        return f"Note {number}, written on {node.name}. ".encode().ljust(CONTENT_BYTES, b".")

    def _enter(self, address: str, content: bytes, node: NodeProcess, reply: NodeReply) -> None:
        write = AcknowledgedWrite.of(address, content, node.name, reply)
        if write is not None:
            self._ledger.add(write)

    def _known_to(self, node: NodeProcess) -> tuple[list[AcknowledgedWrite], list[AcknowledgedWrite]]:
        """The writes that this node holds itself, and those that it does not."""
        held: list[AcknowledgedWrite] = []
        unheld: list[AcknowledgedWrite] = []
        for write in self._ledger.writes:
            reply = node.ask().get(write.address, consistency="local")
            (unheld if _is_absent(reply) else held).append(write)
        return held, unheld

    def _owed(self) -> int | None:
        """What all nodes together still owe; None while one of them does not answer."""
        owed = [node.ask().pending() for node in self._swarm.nodes]
        return None if None in owed else sum(count or 0 for count in owed)

    def _each(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[tuple[Job, Result]]:
        """Do the jobs several at a time; answer each with its result, as they come."""
        running = {self._crew.submit(work, job): job for job in jobs}
        for done, future in enumerate(as_completed(running), start=1):
            self._screen.progress(done, len(jobs))
            yield running[future], future.result()


def _turn(address: str, count: int) -> int:
    """Which of `count` to begin with, so that readers take turns: the same for an address in every run."""
    return sum(address.encode()) % count


def _is(reply: NodeReply, write: AcknowledgedWrite) -> bool:
    return reply.status == 200 and reply.body == write.content and reply.digest == write.digest


def _is_absent(reply: NodeReply) -> bool:
    """This node does not hold it: it knows nothing of it (404), or that it is elsewhere (503)."""
    return reply.status in (404, 503)


def _patiently(ask: Callable[[], NodeReply]) -> NodeReply:
    """Ask again, a few times, where the answer was 'try later'."""
    reply = ask()
    for _ in range(5):
        if reply.status not in (0, 429, 503, 504):
            break
        time.sleep(0.3)
        reply = ask()
    return reply
