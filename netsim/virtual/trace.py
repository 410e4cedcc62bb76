"""The trace of a run: what happened, in order. Equal traces mean equal runs.

One line an event: the virtual time in seconds, the node, the event, and its facts, with single spaces between. Lines
are only added. They become text when a caller asks for them: a long run adds many lines, and most runs show none.
"""

from collections.abc import Iterator

import trio


class Trace:
    """Append-only. Byte-identical for one seed, as long as no fact differs from process to process (an `id`)."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, str, str, tuple[object, ...]]] = []
        self.began_at = 0.0
        """The virtual time that the lines count from: what came before it has a time below 0."""

    def __len__(self) -> int:
        return len(self._entries)

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in self.lines())

    def note(self, node: str, event: str, *facts: object) -> None:
        """An event at a node (or in the network, 'net'), now. `facts` must not change any more."""
        self._entries.append((trio.current_time(), node, event, facts))

    def lines(self) -> Iterator[str]:
        """'12.003451 n1 received n2 SMALL 132 1fc3a2b0': seconds, node, event, facts. Bytes are shown in hex."""
        for time, node, event, facts in self._entries:
            yield " ".join((f"{time - self.began_at:.6f}", node, event, *map(_text, facts)))


def _text(fact: object) -> str:
    if isinstance(fact, bytes):
        return fact.hex()
    if isinstance(fact, float):
        return f"{fact:.6f}"
    return str(fact)
