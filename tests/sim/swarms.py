"""Helpers for simulations over whole nodes: addresses, calls, conditions to wait for, failing disks, a step counter.

A simulation is an async function of a seed. `over_seeds` runs it for a few seeds, and a failure names its seed. More
seeds: `BZZZ_SIM_SEEDS=100 pytest tests/sim/test_hybrid.py`.
"""

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from errno import ENOSPC

import trio

from netsim.virtual.nodes import VirtualSwarm
from netsim.virtual.scheduler import START_MS, run_virtual
from node.config.settings import Settings
from node.dht.base import Answer, Consistency, Receipt
from node.node import Node
from node.services.writes.write_request import WriteRequest
from node.store.memory.store import MemoryStore
from protocols.clock import version
from protocols.envelope import Envelope, seal
from protocols.keys import PrivateKey
from protocols.policy.breaker import BreakerState
from protocols.ucxl import Address, parse
from tests.until import until

SEEDS = range(3)
SLACK_SECONDS = 0.005
"""How far a call may exceed its deadline on the virtual clock. Only waits take time there: this covers rounding."""
CLIENT = PrivateKey.from_seed(b"\x07" * 32)
"""The key of a client, which is no node."""


def over_seeds(
    program: Callable[[int], Awaitable[None]], seeds: Iterable[int] = SEEDS, *, limit_seconds: float = 1200.0
) -> None:
    """Run a simulation once for each seed; an error gets a note with its seed."""
    for seed in range(int(os.environ["BZZZ_SIM_SEEDS"])) if "BZZZ_SIM_SEEDS" in os.environ else seeds:
        try:
            run_virtual(seed, program, seed, limit_seconds=limit_seconds)
        except BaseException as error:
            error.add_note(f"{program.__name__} failed with seed {seed}")
            raise


def names(count: int) -> tuple[str, ...]:
    return tuple(f"n{number}" for number in range(1, count + 1))


@asynccontextmanager
async def swarm_of(seed: int, count: int, **settings: object) -> AsyncIterator[VirtualSwarm]:
    """So many nodes with these settings, all connected."""
    async with VirtualSwarm.open(seed, names(count), settings=Settings(**settings)) as swarm:  # type: ignore[arg-type]
        if settings.get("backend") != "mock":  # mock nodes have no network
            await met(swarm)
        yield swarm


# -- addresses and calls --------------------------------------------------------------------------------------------


def thing(number: object = 0) -> Address:
    return parse(f"ucxl://sim:tester@bzzz:nodes/*^/{number}")


def key(number: object = 0) -> bytes:
    return thing(number).key


async def put(node: Node, number: object = 0, content: bytes = b"content", **write: object) -> Receipt:
    return await node.author.write(WriteRequest(address=thing(number), content=content, **write))  # type: ignore[arg-type]


async def get(node: Node, number: object = 0, consistency: Consistency = Consistency.AUTO) -> Answer:
    return await node.dht.get(key(number), consistency=consistency)


async def heads_at(node: Node, number: object = 0) -> list[bytes]:
    """The contents of the heads in a node's own store, sorted."""
    return sorted(head.content for head in await node.store.heads(key(number)) if isinstance(head, Envelope))


async def content(node: Node, number: object = 0, consistency: Consistency = Consistency.AUTO) -> bytes:
    answer = await node.resolver.resolve(thing(number), consistency=consistency)
    head = answer.heads[0]
    assert isinstance(head, Envelope)
    return head.content


def envelope(
    number: object = 0,
    content: bytes = b"content",
    *,
    parents: Sequence[bytes] = (),
    at_ms: float = 0,
    author: PrivateKey = CLIENT,
    counter: int = 0,
) -> Envelope:
    """A version signed by a client, so many milliseconds after now."""
    now_ms = START_MS + int(trio.current_time() * 1000 + at_ms)
    return seal(
        author,
        address=thing(number).canonical,
        content=content,
        content_type="text/plain",
        version=version(now_ms, counter),
        parents=parents,
    )


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """The block must not take longer, whether it succeeds or fails."""
    started = trio.current_time()
    try:
        yield
    finally:
        spent = trio.current_time() - started
        assert spent <= seconds + SLACK_SECONDS, f"it took {spent * 1000:.1f} ms, and may take {seconds * 1000:.0f}"


def breaker_state(node: Node) -> BreakerState:
    assert node.breaker is not None
    return node.breaker.state


# -- conditions to wait for -----------------------------------------------------------------------------------------


def running(swarm: VirtualSwarm) -> list[Node]:
    return [machine.node for machine in swarm.nodes.values() if machine.node is not None]


async def met(swarm: VirtualSwarm) -> None:
    """Wait until every running node is connected to every other one, and none is suspect."""
    nodes = running(swarm)

    def all_met() -> bool:
        return all(sum(p.is_connected and not p.is_suspect for p in node.peers()) == len(nodes) - 1 for node in nodes)

    await until(all_met, what="all nodes are connected to each other")


async def hints_delivered(swarm: VirtualSwarm, *, seconds: float = 120.0) -> float:
    """Wait until no running node has hints any more; return the seconds."""
    return await until(
        lambda: not any(node.store.pending().count for node in running(swarm)),
        seconds=seconds,
        what="all hints are delivered",
    )


# -- faults ---------------------------------------------------------------------------------------------------------


@dataclass
class Disk:
    """A disk that can be full, slow or stalled: `Disk.under(store)` puts it there."""

    is_full: bool = False
    seconds: float = 0.0
    _resumed: trio.Event | None = None
    commits: int = 0

    @classmethod
    def under(cls, store: MemoryStore) -> "Disk":
        disk = cls()
        store.before_commit = disk.before_commit
        return disk

    def stall(self) -> None:
        self._resumed = trio.Event()

    def resume(self) -> None:
        """The disk is stalled no longer."""
        assert self._resumed is not None
        self._resumed.set()
        self._resumed = None

    async def before_commit(self) -> None:
        if self._resumed is not None:
            await self._resumed.wait()
        if self.seconds:
            await trio.sleep(self.seconds)
        if self.is_full:
            raise OSError(ENOSPC, "No space left on device")
        self.commits += 1


READING = (
    "heads by_digest versions count_versions idempotent local_writes due_hints hints standing staged_under "
    "latest_reissue walk nth latest_held missing_parents unknown by_content has_content contents"
)
WRITING = "merge reissue set_cursor quarantine_hint add_hints drop_holder stage unstage save_member forget_member"
Call = Callable[[], Awaitable[object]]


def wrap_calls(store: MemoryStore, names: str, around: Callable[[Call], Awaitable[object]]) -> None:
    """Wrap these methods of a store in `around`, which makes the call or raises."""

    def wrapped(method: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        return lambda *args, **kwargs: around(lambda: method(*args, **kwargs))

    for name in names.split():
        setattr(store, name, wrapped(getattr(store, name)))


def delay_reads(store: MemoryStore, chance: random.Random, *, seconds: float = 0.002) -> None:
    """Delay reads of a store before and after by random times, as a disk does: so that they overtake each other."""

    async def late(call: Call) -> object:
        await trio.sleep(chance.choice((0.0, chance.random())) * seconds)
        answer = await call()
        await trio.sleep(chance.choice((0.0, chance.random())) * seconds)
        return answer

    wrap_calls(store, READING, late)


@dataclass(eq=False)
class Steps(trio.abc.Instrument):
    """Counts the steps of tasks: it shows a task that spins, also when no time passes."""

    count: int = 0
    by_task: dict[str, int] = field(default_factory=dict)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1
        self.by_task[task.name] = self.by_task.get(task.name, 0) + 1

    def busiest(self) -> str:
        most = sorted(self.by_task.items(), key=lambda item: -item[1])[:4]
        return ", ".join(f"{name} {count}" for name, count in most)


@contextmanager
def counted(at_most: int) -> Iterator[Steps]:
    """The block may take so many steps of tasks."""
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    try:
        yield steps
    finally:
        trio.lowlevel.remove_instrument(steps)
    assert steps.count <= at_most, f"{steps.count} steps, and at most {at_most} are allowed; {steps.busiest()}"
