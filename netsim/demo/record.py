"""The record of one demonstration: which checks held, and the measurements for the summary."""

from collections.abc import Sequence
from typing import Any

from netsim.demo.ledger import WriteLedger
from netsim.durations import DurationSummary
from netsim.processes.client import NodeReply
from netsim.processes.screen import Screen

DEADLINE_MS = 100.0
"""The deadline of the hybrid backend: no call waits longer for other nodes, under any fault."""
DISK_MS_MAX = 1_000.0
"""What a write may wait for this machine's disk besides: a sync takes 200 ms now and then, on ordinary disks."""
SHOWN_MAX = 3


class DemonstrationRecord:
    """`holds` is True while every check has held; `lost` counts the acknowledged writes that a node lacked."""

    def __init__(self, screen: Screen, *, replication: int) -> None:
        self._screen = screen
        self._replication = replication
        self._facts: dict[str, Any] = {}
        self.ledger = WriteLedger()
        self.holds = True
        self.lost = 0

    @property
    def acknowledged(self) -> int:
        return len(self.ledger.writes)

    def facts(self) -> dict[str, Any]:
        """This run in the summary."""
        verdict = {
            "replication": self._replication,
            "ok": self.holds,
            "acknowledged": self.acknowledged,
            "lost": self.lost,
        }
        return verdict | self._facts

    def fail(self, words: str) -> None:
        """The run ends early."""
        self.holds = False
        self._screen.problem(words)

    def check(self, name: str, words: str, holds: bool, **facts: Any) -> None:
        self.holds = self.holds and holds
        self._screen.check(name, words, holds=holds, replication=self._replication, **facts)

    def measured(self, name: str, durations: DurationSummary) -> dict[str, Any]:
        """Keep durations for the summary; returns them as facts for a check."""
        self.keep(name, durations._asdict())
        return durations._asdict()

    def keep(self, name: str, fact: Any) -> None:
        self._facts[name] = fact

    def check_calls(
        self, name: str, what: str, answers: Sequence[tuple[bool, NodeReply]], *, disk_ms_max: float = 0.0
    ) -> None:
        """Check calls at the node that was not frozen: each with whether its reply is right. It must be timely too.

        A call may take `disk_ms_max` more than its deadline, for the disk.
        """
        right = sum(1 for is_right, _ in answers if is_right)
        waited = sum(1 for _, reply in answers if DEADLINE_MS < reply.elapsed_ms <= DEADLINE_MS + disk_ms_max)
        in_time = sum(1 for is_right, reply in answers if is_right and reply.elapsed_ms <= DEADLINE_MS)
        degraded = sum(1 for _, reply in answers if reply.headers.get("UCXL-Degraded") == "true")
        durations = DurationSummary.of([reply.elapsed_ms for _, reply in answers])
        self.check(
            name,
            f"{in_time} of {len(answers)} {what} within {DEADLINE_MS:g} ms"
            f"{f', {waited} waited for the disk too' if waited else ''}: {durations}",
            right == len(answers) == in_time + waited,
            **self.measured(name, durations), right=right, in_time=in_time, degraded=degraded, deadline_ms=DEADLINE_MS,
        )  # fmt: skip
        self.show([reply for is_right, reply in answers if not is_right])

    def show(self, replies: Sequence[NodeReply]) -> None:
        """Print the first few of the replies that were wrong."""
        for reply in replies[:SHOWN_MAX]:
            self._screen.note(str(reply))
