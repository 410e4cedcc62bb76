"""A foreground: so many calls a second on one node, whatever else it does; puts and gets in turn.

Each call has its moment, and its time counts from there. So a node that was held up has kept everybody waiting who
came meanwhile, and not one caller alone.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import trio

from benchmarks.figures import percentile
from node.node import Node
from protocols.envelope import Envelope


class Foreground:
    """Calls on a node: puts of ready envelopes, while there are any, and gets of these keys."""

    def __init__(self, node: Node, envelopes: Sequence[Envelope], keys: Sequence[bytes]) -> None:
        self._node = node
        self._envelopes: Iterator[Envelope] = iter(envelopes)
        self._keys = keys
        self._seconds: dict[str, list[float]] = {"put": [], "get": []}
        self._failed = self._pending = 0

    async def run(self, *, rate: float, seconds: float, is_over: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """For so long, or until `is_over`; answers when all calls have ended."""
        began = trio.current_time()
        number = 0
        async with trio.open_nursery() as nursery:
            while (due := began + number / rate) < began + seconds and not is_over():
                await trio.sleep_until(due)
                nursery.start_soon(self._call, number, due)
                number += 1
        told: dict[str, Any] = {"failed": self._failed, "pending": self._pending}
        for kind, taken in self._seconds.items():
            told[f"{kind}_p99_ms"] = percentile(taken, 0.99) * 1000.0 if taken else None
            told[f"{kind}_p50_ms"] = percentile(taken, 0.5) * 1000.0 if taken else None
            told[f"{kind}s"] = len(taken)
        return told

    async def _call(self, number: int, due: float) -> None:
        kind = "get" if number % 2 else "put"
        try:
            if kind == "put":
                receipt = await self._node.dht.put(next(self._envelopes))
                self._pending += receipt.quorum > 0 and not receipt.is_replicated
            elif not (await self._node.dht.get(self._keys[number % len(self._keys)])).heads:
                self._failed += 1
        except Exception:
            self._failed += 1
        self._seconds[kind].append(trio.current_time() - due)
