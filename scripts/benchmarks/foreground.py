"""Foreground load: a fixed rate of calls on one node, puts and gets in turn, whatever else the node does.

Each call has a planned moment, and its latency counts from there: a node that stops for a while delays every call that
was due meanwhile, not one caller alone (an open load, without coordinated omission).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import trio

from netsim.durations import percentile
from node.node import Node
from protocols.envelope import Envelope


class Foreground:
    """Calls on a node: puts of signed envelopes while there are any, and gets of these keys."""

    def __init__(self, node: Node, envelopes: Sequence[Envelope], keys: Sequence[bytes]) -> None:
        self._node = node
        self._envelopes: Iterator[Envelope] = iter(envelopes)
        self._keys = keys
        self._seconds: dict[str, list[float]] = {"put": [], "get": []}
        self._failed = self._pending = 0

    async def run(self, *, rate: float, seconds: float, is_over: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """For `seconds`, or until `is_over`; returns when all calls have ended."""
        started_at = trio.current_time()
        number = 0
        async with trio.open_nursery() as nursery:
            while (due := started_at + number / rate) < started_at + seconds and not is_over():
                await trio.sleep_until(due)
                nursery.start_soon(self._call, number, due)
                number += 1
        result: dict[str, Any] = {"failed": self._failed, "pending": self._pending}
        for kind, taken in self._seconds.items():
            result[f"{kind}_p99_ms"] = percentile(taken, 0.99) * 1000.0 if taken else None
            result[f"{kind}_p50_ms"] = percentile(taken, 0.5) * 1000.0 if taken else None
            result[f"{kind}s"] = len(taken)
        return result

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
