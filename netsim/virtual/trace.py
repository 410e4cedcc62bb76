"""What happened in a run, in order: the proof that two runs were the same, and the raw material of a story.

One line an event: the virtual time in seconds, who it happened to, what, and the facts, with single spaces between.
Lines are only ever added. They are put into words when somebody reads them, as a long run adds many and reads none.
"""

import hashlib
from collections.abc import Iterator

import trio


class Trace:
    """Append-only. Byte-identical for one seed, as long as nobody notes what differs from run to run (an `id`)."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, str, str, tuple[object, ...]]] = []
        self.began_at = 0.0
        """Where the times of lines are counted from, on the virtual clock: what comes before it is below 0."""

    def __len__(self) -> int:
        return len(self._entries)

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in self.lines())

    def note(self, node: str, event: str, *facts: object) -> None:
        """Something happened to a node (or to the 'net'), now. `facts` must not change any more."""
        self._entries.append((trio.current_time(), node, event, facts))

    def lines(self) -> Iterator[str]:
        """'12.003451 n1 received n2 SMALL 132 1fc3a2b0': seconds, node, event, facts. Bytes are shown in hex."""
        for time, node, event, facts in self._entries:
            yield " ".join((f"{time - self.began_at:.6f}", node, event, *map(_in_words, facts)))

    @property
    def digest(self) -> str:
        """SHA-256 over the lines, in hex: short enough to compare by eye."""
        running = hashlib.sha256()
        for line in self.lines():
            running.update(line.encode() + b"\n")
        return running.hexdigest()


def _in_words(fact: object) -> str:
    if isinstance(fact, bytes):
        return fact.hex()
    if isinstance(fact, float):
        return f"{fact:.6f}"
    return str(fact)
