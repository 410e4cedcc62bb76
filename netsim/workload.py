"""The workload: which calls clients make, and when. Drawn from a seed; the same calls in every world.

Calls come as a Poisson process that is shared out among the clients. A client that still waits for an answer when its
next call is due makes that call late, or not at all (see `runner.py`).
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate
from typing import Annotated, Any

from netsim.value_types import Nodes, Range, Seconds, Share, SizeRange
from protocols.ucxl import Address, parse

OPERATION_META = "op"
"""The entry of an envelope's meta that names the operation that wrote it."""


@lru_cache(maxsize=4096)
def address_of(key: str) -> Address:
    """The UCXL address behind a key's name."""
    return parse(f"ucxl://sim:client@bzzz:world/*^/{key}")


def key_names(count: int) -> list[str]:
    """k1, k2, ...: the keys that clients use."""
    return [f"k{number}" for number in range(1, count + 1)]


class Parents(StrEnum):
    """What a write names as its parents."""

    NODE = "node"
    """Leaves it to the node: its current heads."""
    SEEN = "seen"
    """The heads that this client saw last. They may be stale, which makes a sibling."""
    NONE = "none"
    """Nothing: a blind write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What clients do. Each share is a share of all calls, or of the writes or reads where the text says so; the rest
    has no key of its own."""

    clients: Annotated[int, Range(1, 1000)] = 5
    """Each calls one node, and has at most one call under way. Client 1 calls the first of `nodes`, and so on."""
    nodes: Nodes = ()
    """Which nodes are called; () means all."""
    readers: Annotated[int, Range(0, 1000)] = 0
    """How many of the clients, the last ones, only read."""
    calls_per_second: Annotated[float, Range(0.0, 10_000.0)] = 6.0
    """Of all clients together."""
    writes: Share = 0.5
    deletes: Share = 0.05
    """Of the writes."""
    seen: Share = 0.3
    """Of the writes: those whose parents are what the client saw last."""
    blind: Share = 0.1
    """Of the writes: those that name no parents at all."""
    local: Share = 0.1
    """Of the reads: those with consistency `local`."""
    swarm: Share = 0.2
    """Of the reads: those with consistency `swarm`."""
    histories: Share = 0.0
    """Of the reads: those before which the client lists the history, as the nodes of the swarm know it."""
    keys: Annotated[int, Range(1, 100_000)] = 12
    skew: Annotated[float, Range(0.0, 10.0)] = 1.0
    """Key number i is called with a weight of i to the power of minus `skew`; 0: all keys alike."""
    size_bytes: Annotated[tuple[int, int], SizeRange(1_000_000)] = (10, 300)
    until: Seconds | None = None
    """When the last call begins; None: at the end of the faults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that a client will make. `id` counts from 1 over the whole plan."""

    id: int
    at: float
    client: str
    node: str
    kind: str
    """write, delete or read"""
    key: str
    how: str
    """Of a write: `Parents`; of a read: the consistency."""
    size_bytes: int = 0
    lists: bool = False
    """Of a read: whether the history is listed before it."""

    @property
    def is_write(self) -> bool:
        return self.kind != "read"

    def content(self) -> bytes:
        """What a write stores: the client and the number of the call, then filler."""
        return f"{self.client}/{self.id} ".encode().ljust(self.size_bytes, b".") if self.kind == "write" else b""


def draw_calls(workload: Workload, nodes: Sequence[str], until: float, rng: random.Random) -> Iterator[Call]:
    """All calls before `until`, by time. `nodes` are those that can be called where the workload names none."""
    called = workload.nodes or tuple(nodes)
    weights = list(accumulate((number + 1) ** -workload.skew for number in range(workload.keys)))
    at, number = 0.0, 0
    while workload.calls_per_second:
        at += rng.expovariate(workload.calls_per_second)
        if at >= until:
            return
        number += 1
        client = rng.randrange(workload.clients)
        key = rng.choices(range(workload.keys), cum_weights=weights)[0]
        yield Call(
            id=number,
            at=at,
            client=f"c{client + 1}",
            node=called[client % len(called)],
            key=f"k{key + 1}",
            **_draw_kind(workload, rng, is_reader=client >= workload.clients - workload.readers),
        )


def _draw_kind(workload: Workload, rng: random.Random, *, is_reader: bool) -> dict[str, Any]:
    if rng.random() >= workload.writes or is_reader:
        how = _pick(rng, (("local", workload.local), ("swarm", workload.swarm)), "auto")
        return {"kind": "read", "how": how, "lists": bool(workload.histories) and rng.random() < workload.histories}
    how = _pick(rng, ((Parents.SEEN, workload.seen), (Parents.NONE, workload.blind)), Parents.NODE)
    kind = "delete" if rng.random() < workload.deletes else "write"
    return {"kind": kind, "how": str(how), "size_bytes": rng.randint(*workload.size_bytes)}


def _pick(rng: random.Random, shares: tuple[tuple[str, float], ...], rest: str) -> str:
    drawn = rng.random()
    for choice, share in shares:
        if drawn < share:
            return choice
        drawn -= share
    return rest
