"""Worker: one node in a process of its own, with callers inside it. Orders come as lines of JSON on standard input.

The callers use the DHT's interface; each order is answered with one line. The receipts decide what counts: a put is
good when it has the copies that were asked for.
"""

import gc
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from benchmarks.envelopes import sealed
from benchmarks.foreground import Foreground
from benchmarks.loads import load
from node import app
from node.api.listen import bind
from node.api.middleware import ApiAccess, Middleware
from node.api.router import router
from node.api.server import serve
from node.config.changes import read_change
from node.config.settings import Settings
from node.dht.base import Consistency
from node.environment import Environment
from node.node import Node
from node.process import gc as memory
from node.process import threads
from node.store.sqlite.store import SqliteStore
from node.swarm.libp2p.host import Host
from node.swarm.rpc import Rpc
from protocols.envelope import Envelope
from protocols.keys import PrivateKey
from protocols.messages import Ping
from protocols.policy.breaker import BreakerState
from protocols.ucxl import Address, parse


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def addresses_of(order: dict[str, Any]) -> list[Address]:
    """The addresses of the envelopes of a run."""
    return [parse(f"ucxl://bench:writer@bzzz:{order['run']}/*^/{number}") for number in range(order["count"])]


def keys_of(order: dict[str, Any]) -> list[bytes]:
    """The keys of the run that an order names."""
    return [address.key for address in addresses_of(order)]


class Worker:
    """The node, and the orders that it carries out."""

    def __init__(self, node: Node, key: PrivateKey) -> None:
        self.node = node
        self.key = key
        self.ready: list[Envelope] = []
        self.orders: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "make": self.make, "put": self.put, "get": self.get, "trip": self.trip, "state": self.state,
            "foreground": self.foreground, "recover": self.recover, "flip": self.flip,
        }  # fmt: skip

    async def make(self, order: dict[str, Any]) -> dict[str, Any]:
        """Sign envelopes beforehand, so that a put costs what the swarm costs."""
        self.ready = sealed(self.key, int(order["count"]), run=str(order["run"]), start_ms=now_ms())
        gc.collect()
        gc.freeze()
        return {}

    async def put(self, order: dict[str, Any]) -> dict[str, Any]:
        pool = iter(self.ready)
        timeout = float(order.get("timeout", 5.0))

        async def one() -> bool:
            receipt = await self.node.dht.put(next(pool), timeout=timeout)
            return receipt.quorum == 0 or receipt.is_replicated

        return await load(one, callers=order["callers"], seconds=order["seconds"], most=len(self.ready))

    async def get(self, order: dict[str, Any]) -> dict[str, Any]:
        addresses = addresses_of(order)
        at, is_resolved = random.Random(1).randrange(len(addresses)), bool(order.get("is_resolved"))
        consistency, timeout = Consistency(order["consistency"]), float(order.get("timeout", 5.0))

        async def one() -> bool:
            nonlocal at
            at = (at + 1) % len(addresses)
            if is_resolved:
                answer = await self.node.resolver.resolve(addresses[at], consistency=consistency)
            else:
                answer = await self.node.dht.get(addresses[at].key, consistency=consistency, timeout=timeout)
            return bool(answer.heads) and not answer.provenance.is_degraded

        return await load(one, callers=order["callers"], seconds=order["seconds"], most=1 << 30)

    async def trip(self, order: dict[str, Any]) -> dict[str, Any]:
        """A ping and its answer on the long-lived stream."""
        rpc: Rpc = self.node.breaker._rpc  # type: ignore[union-attr]  # a bench may look inside
        peer = next(peer.peer for peer in self.node.peers() if peer.is_connected)

        async def one() -> bool:
            await rpc.call(peer, Ping(), timeout=5.0)
            return True

        return await load(one, callers=order["callers"], seconds=order["seconds"], most=1 << 30)

    async def foreground(self, order: dict[str, Any]) -> dict[str, Any]:
        """A fixed rate of calls for some seconds."""
        mix = Foreground(self.node, self.ready, keys_of(order))
        return await mix.run(rate=order["rate"], seconds=order["seconds"])

    async def recover(self, order: dict[str, Any]) -> dict[str, Any]:
        """Wait for the breaker to close; then make calls until the earlier hints are delivered. Times are monotonic.

        The hints of these calls are later and do not count.
        """
        breaker, store, earlier_until_ms = self.node.breaker, self.node.store, now_ms()
        assert breaker is not None
        while breaker.state is not BreakerState.CLOSED:
            await trio.sleep(0.001)
        closed_at = time.monotonic()
        delivered_at = 0.0

        def is_delivered() -> bool:
            nonlocal delivered_at
            oldest_ms = store.pending().oldest_at_ms
            if oldest_ms is None or oldest_ms > earlier_until_ms:
                delivered_at = time.monotonic()
            return bool(delivered_at)

        mix = Foreground(self.node, self.ready, keys_of(order))
        result = await mix.run(rate=order["rate"], seconds=order["seconds"], is_over=is_delivered)
        if not delivered_at:
            raise RuntimeError(f"{store.pending().count} hints are not delivered after {order['seconds']:g} s")
        return {**result, "closed_at": closed_at, "delivered_at": delivered_at}

    async def flip(self, order: dict[str, Any]) -> dict[str, Any]:
        """The foreground load, while the backend changes to mock and back."""
        flips = 0
        mix = Foreground(self.node, self.ready, keys_of(order))

        async def flip_for_ever() -> None:
            nonlocal flips
            while True:
                await trio.sleep(order["every"])
                flips += 1
                asked = {"backend": "mock" if flips % 2 else "hybrid", "reason": "a bench"}
                await self.node.flags.change(read_change(asked, author="bench"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flip_for_ever)
            result = await mix.run(rate=order["rate"], seconds=order["seconds"])
            nursery.cancel_scope.cancel()
        return {**result, "flips": flips}

    async def state(self, order: dict[str, Any]) -> dict[str, Any]:
        connected = sum(peer.is_connected for peer in self.node.peers())
        cpu_ms = time.process_time() * 1000.0
        return {"connected": connected, "pending": self.node.store.pending().count, "cpu_ms": cpu_ms}


async def live(start: dict[str, Any]) -> None:
    folder = Path(start["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    key = PrivateKey.from_seed(os.urandom(32))
    store = SqliteStore.open(folder / "store.db", random_id=os.urandom(8).hex())
    network = None if start["backend"] == "mock" else Host(key, ["/ip4/127.0.0.1/tcp/0"])
    world = Environment(key=key, network=network, store=store, now_ms=now_ms, chance=random.random)
    settings = replace(Settings(), name=start["name"], **start["settings"], bootstrap=tuple(start["bootstrap"]))
    async with trio.open_nursery() as nursery:
        node = await nursery.start(app.run, world, settings)
        guarded = Middleware(router(node), ApiAccess(is_loopback=True, token=None), now_ms=now_ms)
        api = await nursery.start(partial(serve, guarded, bind("127.0.0.1:0"), now_ms=now_ms, stopping=trio.Event()))
        say({"peer_id": node.peer_id, "addresses": node.addresses(), "api": api})
        worker = Worker(node, key)
        memory.freeze()  # as `bzzz up` does
        threads.shorten_switch_interval()
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as lines:
            buffer = b""
            async for chunk in lines:
                buffer += chunk
                *whole, buffer = buffer.split(b"\n")
                for line in whole:
                    order = json.loads(line)
                    say(await worker.orders[order["do"]](order))
        nursery.cancel_scope.cancel()


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    trio.run(live, json.loads(sys.argv[1]))
