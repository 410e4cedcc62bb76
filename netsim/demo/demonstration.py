"""The demonstration of one swarm: write, read, freeze four of five nodes, kill one, thaw, and look for lost writes.

Each step ends in a check. Every acknowledged write is in the ledger, and the last step asks every node for all of them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from itertools import cycle
from typing import TypeVar

from netsim.demo.ledger import AcknowledgedWrite
from netsim.demo.record import DISK_MS_MAX, DemonstrationRecord
from netsim.durations import DurationSummary
from netsim.processes.client import NodeReply
from netsim.processes.node import NodeProcess
from netsim.processes.screen import Screen
from netsim.processes.swarm import Swarm

PATIENT_MS = 5_000
"""The deadline of calls whose answer matters more than their time."""
FROZEN_CALLS = 100
SETTLE_SECONDS_MAX = 120.0
CONTENT_BYTES = 256

Job = TypeVar("Job")
Result = TypeVar("Result")


class Demonstration:
    """One run. Its checks and measurements go into `record`."""

    def __init__(
        self,
        swarm: Swarm,
        screen: Screen,
        executor: Executor,
        record: DemonstrationRecord,
        *,
        replication: int,
        writes: int,
    ) -> None:
        self._swarm = swarm
        self._screen = screen
        self._executor = executor
        self._replication = replication
        self._count = writes
        self._record = record
        self._ledger = record.ledger

    def play(self) -> None:
        """All steps but the end. Raises `NodeProcessFailed` when a node does not start."""
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

    # -- the steps ------------------------------------------------------------------------------------------------

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
            return node.client.put(self._address(number), self._content(number, node))

        replies = list(self._each(put, jobs))
        for (number, node), reply in replies:
            self._enter(self._address(number), self._content(number, node), node, reply)
        done = self._record.acknowledged
        replicated = sum(1 for write in self._ledger.writes if write.is_replicated)
        durations = DurationSummary.of([reply.elapsed_ms for _, reply in replies])
        self._record.check(
            "written",
            f"{done} of {self._count} writes acknowledged, {replicated} of them already replicated: {durations}",
            done == self._count,
            **self._record.measured("put", durations), acknowledged=done, replicated=replicated,
        )  # fmt: skip
        self._record.show([reply for _, reply in replies if reply.status not in (201, 202)])

    def _read(self) -> None:
        """Each write is read by a node that does not hold it, or, if all nodes do, by one that did not write it."""
        is_partial = self._replication < len(self._swarm.nodes) - 1
        reader = "a node that does not hold it" if is_partial else "a node that did not write it"
        self._screen.act("read", f"reading each of them from the swarm, by {reader}")

        def read(write: AcknowledgedWrite) -> tuple[bool, NodeReply]:
            others = [node for node in self._swarm.nodes if node.name != write.author]
            start = _start_index(write.address, len(others))
            others = others[start:] + others[:start]
            without = [
                node
                for node in others
                if is_partial and _is_absent(node.client.get(write.address, consistency="local"))
            ]
            reply = (without or others)[0].client.get(write.address, consistency="swarm", timeout_ms=PATIENT_MS)
            return bool(without) or not is_partial, reply

        results = list(self._each(read, self._ledger.writes))
        matching = [reply for write, (_, reply) in results if _matches(reply, write)]
        as_meant = sum(1 for _, (is_stranger, _) in results if is_stranger)
        durations = DurationSummary.of([reply.elapsed_ms for reply in matching])
        self._record.check(
            "read",
            f"{len(matching)} of {self._count} read as they were written, {as_meant} of them by {reader}: {durations}",
            len(matching) == self._count == as_meant,
            **self._record.measured("get", durations), right=len(matching), as_meant=as_meant,
        )  # fmt: skip
        self._record.show([reply for write, (_, reply) in results if not _matches(reply, write)])

    def _carry_on(
        self, awake: NodeProcess, held: Sequence[AcknowledgedWrite], unheld: Sequence[AcknowledgedWrite]
    ) -> None:
        """Puts and gets at the one node that still runs, one after the other from the moment of the freeze."""
        self._screen.act("frozen", f"four of five are frozen (SIGSTOP); {awake.name} writes and reads alone")
        own = [write for write in held if write.author == awake.name]
        puts: list[NodeReply] = []
        gets: list[tuple[AcknowledgedWrite, NodeReply]] = []
        absent: list[NodeReply] = []
        for turn in range(FROZEN_CALLS):
            is_update = turn % 2 == 1 and bool(own)
            address = own[turn % len(own)].address if is_update else self._address(self._count + turn)
            content = self._content(self._count + turn, awake)
            puts.append(awake.client.put(address, content))
            self._enter(address, content, awake, puts[-1])
            known = self._ledger.newest()[held[turn % len(held)].address]
            gets.append((known, awake.client.get(known.address)))
            if unheld:
                absent.append(awake.client.get(unheld[turn % len(unheld)].address))
            self._screen.progress(turn + 1, FROZEN_CALLS)
        self._record.check_calls(
            "frozen-put",
            "puts acknowledged",
            [(reply.status in (201, 202), reply) for reply in puts],
            disk_ms_max=DISK_MS_MAX,
        )
        self._record.check_calls(
            "frozen-get", "gets answered from this machine", [(_matches(reply, write), reply) for write, reply in gets]
        )
        if absent:
            what = "gets of what only frozen nodes hold answered 'unavailable' (503), never 'absent',"
            self._record.check_calls("frozen-absent", what, [(reply.status == 503, reply) for reply in absent])

    def _kill_and_restart(self, awake: NodeProcess) -> None:
        self._screen.act("kill", f"kill -9 for {awake.name}, and a restart while the others are still frozen")
        hints_before = awake.client.pending() or 0
        awake.kill()
        start = time.monotonic()
        awake.start(self._swarm.addresses_without(awake))
        awake.wait_ready()
        took = time.monotonic() - start
        own = [write for write in self._ledger.writes if write.author == awake.name]
        kept = sum(1 for w in own if _matches(awake.client.get(w.address, consistency="local", digest=w.digest), w))
        hints = awake.client.pending() or 0
        self._record.check(
            "restarted",
            f"{awake.name} is back after {took:.1f} s with {kept} of the {len(own)} writes it had acknowledged, "
            f"and still has its hints ({hints} of {hints_before})",
            kept == len(own) and hints >= min(1, hints_before),
            seconds=round(took, 2), kept=kept, acknowledged=len(own), owed_before=hints_before, owed=hints,
        )  # fmt: skip

    def _settle(self) -> None:
        self._screen.act("settle", "all are thawed; waiting until no node has hints left")
        start = time.monotonic()
        most = 0
        while (hints := self._hints()) != 0 and time.monotonic() - start < SETTLE_SECONDS_MAX:
            most = max(most, hints or 0)
            self._screen.progress(most - (hints or 0), most)
            time.sleep(0.05)
        took = time.monotonic() - start
        words = f"all hints were delivered after {took:.1f} s"
        if hints != 0:
            words = f"after {took:.0f} s {'a node does not answer' if hints is None else f'{hints} hints are left'}"
        self._record.check("settled", words, hints == 0, seconds=round(took, 2), owed=hints)
        self._record.keep("settle_seconds", round(took, 2))

    def _compare(self) -> None:
        """Ask every node for every acknowledged write: by address, or by digest if a newer one supersedes it."""
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
                lambda: node.client.get(
                    write.address,
                    consistency=consistency,
                    digest="" if is_newest else write.digest,
                    timeout_ms=PATIENT_MS,
                )
            )

        wrong = [(write, node, reply) for (write, node), reply in self._each(ask, jobs) if not _matches(reply, write)]
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
        """The last step: every node is asked to end."""
        self._screen.act("end", "ending the nodes (SIGTERM)")
        start = time.monotonic()
        complaints = self._swarm.end()
        took = time.monotonic() - start
        words = "; ".join(complaints) or f"all five ended cleanly after {took:.1f} s, their ports are free"
        self._record.check("ended", words, not complaints, seconds=round(took, 2))

    # -- what the steps share -------------------------------------------------------------------------------------

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
            reply = node.client.get(write.address, consistency="local")
            (unheld if _is_absent(reply) else held).append(write)
        return held, unheld

    def _hints(self) -> int | None:
        """The hints of all nodes together; None while a node does not answer."""
        counts = [node.client.pending() for node in self._swarm.nodes]
        return None if None in counts else sum(count or 0 for count in counts)

    def _each(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[tuple[Job, Result]]:
        """Do the jobs several at a time; yields each with its result, as they finish."""
        running = {self._executor.submit(work, job): job for job in jobs}
        for done, future in enumerate(as_completed(running), start=1):
            self._screen.progress(done, len(jobs))
            yield running[future], future.result()


def _start_index(address: str, count: int) -> int:
    """Which of `count` nodes to begin with, so that all nodes read: the same for an address in every run."""
    return sum(address.encode()) % count


def _matches(reply: NodeReply, write: AcknowledgedWrite) -> bool:
    return reply.status == 200 and reply.body == write.content and reply.digest == write.digest


def _is_absent(reply: NodeReply) -> bool:
    """The node does not hold it: it knows nothing of it (404), or that other nodes hold it (503)."""
    return reply.status in (404, 503)


def _patiently(ask: Callable[[], NodeReply]) -> NodeReply:
    """Ask again, a few times, while the answer is 'try later'."""
    reply = ask()
    for _ in range(5):
        if reply.status not in (0, 429, 503, 504):
            break
        time.sleep(0.3)
        reply = ask()
    return reply
