"""The record of one run: which checks held, what was measured, and what the summary will say of it."""

from collections.abc import Sequence
from typing import Any

from netsim.demo.ledger import Spread, WriteLedger
from netsim.processes.client import NodeReply
from netsim.processes.screen import Screen

DEADLINE_MS = 100.0
"""The deadline of hybrid mode, which no call may exceed, whatever the swarm does."""
EXPLAINED_MAX = 3


class Record:
    """`holds` is True while every check has held; `lost` counts acknowledged writes that some node lacked."""

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

    def told(self) -> dict[str, Any]:
        """This run, as the summary tells it."""
        verdict = {
            "replication": self._replication,
            "ok": self.holds,
            "acknowledged": self.acknowledged,
            "lost": self.lost,
        }
        return verdict | self._facts

    def fail(self, words: str) -> None:
        """The run ends before its time."""
        self.holds = False
        self._screen.problem(words)

    def check(self, name: str, words: str, holds: bool, **facts: Any) -> None:
        self.holds = self.holds and holds
        self._screen.check(name, words, holds=holds, replication=self._replication, **facts)

    def measured(self, name: str, spread: Spread) -> dict[str, Any]:
        """Keep durations for the summary; answers them as facts for a check."""
        self.keep(name, spread._asdict())
        return spread._asdict()

    def keep(self, name: str, fact: Any) -> None:
        self._facts[name] = fact

    def judge(self, name: str, what: str, answers: Sequence[tuple[bool, NodeReply]]) -> None:
        """Calls made in the frost, each with whether its answer was right: it must have come in time, too."""
        right = sum(1 for is_right, _ in answers if is_right)
        in_time = sum(1 for is_right, reply in answers if is_right and reply.elapsed_ms <= DEADLINE_MS)
        degraded = sum(1 for _, reply in answers if reply.headers.get("UCXL-Degraded") == "true")
        spread = Spread.of([reply.elapsed_ms for _, reply in answers])
        self.check(
            name,
            f"{in_time} of {len(answers)} {what} within {DEADLINE_MS:g} ms: {spread}",
            in_time == len(answers),
            **self.measured(name, spread), right=right, in_time=in_time, degraded=degraded, deadline_ms=DEADLINE_MS,
        )  # fmt: skip
        self.explain([reply for is_right, reply in answers if not is_right])

    def explain(self, replies: Sequence[NodeReply]) -> None:
        """The first few answers that were not what they should be."""
        for reply in replies[:EXPLAINED_MAX]:
            self._screen.note(str(reply))
