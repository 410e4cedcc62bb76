"""Mutants: bugs that are put into nodes on purpose, to prove that the simulator finds them.

A mutant replaces one function of a node by one that has the bug, in this process, while `applied` lasts. Its scenario
must find it within `seeds` seeds, from 0 on, by one of `checks`. Mutants use private members: a bug is inside a class.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from netsim.scenario.toml import load
from netsim.virtual.play import RunResult, play
from node.services.replication.replicator import Replicator
from protocols.replication.feeding import Feeding

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    name: str
    about: str
    target: str
    """module:Class.function"""
    mutate: Callable[[Function], Function]
    """Makes the function with the bug of the right one."""
    scenario: str
    seeds: int
    checks: tuple[str, ...]
    is_fed: bool = True
    """False: in this run no node feeds the others with what others wrote, which would heal the bug."""


@contextmanager
def _unfed() -> Iterator[None]:
    """In this block no node feeds the others, nor is it waited for that."""
    instead: tuple[tuple[type[Any], str, Function], ...] = (
        (Replicator, "_carry_out", lambda replicator, effect: None),
        (Replicator, "unfed", lambda replicator, last_sequence: {}),
        (Feeding, "is_behind", lambda feeding, peer: False),
    )
    right = [getattr(owner, name) for owner, name, _ in instead]
    for owner, name, function in instead:
        setattr(owner, name, function)
    try:
        yield
    finally:
        for (owner, name, _), function in zip(instead, right, strict=True):
            setattr(owner, name, function)


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """In this block every node of this process has the bug."""
    module, _, path = mutant.target.partition(":")
    owner_name, _, name = path.partition(".")
    owner = getattr(importlib.import_module(module), owner_name)
    right = getattr(owner, name)
    setattr(owner, name, mutant.mutate(right))
    try:
        with nullcontext() if mutant.is_fed else _unfed():
            yield
    finally:
        setattr(owner, name, right)


def find(mutant: Mutant) -> RunResult | None:
    """The first run that finds a mutant; None when `mutant.seeds` seeds do not."""
    scenario = load(mutant.scenario)
    with applied(mutant):
        for seed in range(mutant.seeds):
            result = play(scenario, seed)
            if result.unexpected:
                return result
    return None


# -- the mutants ---------------------------------------------------------------------------------------------------


def _drop_a_hint(right: Function) -> Function:
    def add_write(hints: Any, sequence: int, holders: Any, acknowledged: Any) -> None:
        right(hints, sequence, tuple(holders)[sequence % 7 == 0 :], acknowledged)

    return add_write


def _answer_before_commit(right: Function) -> Function:
    """The receiving side: envelopes are acknowledged at once, and committed later."""

    def check_and_merge(server: Any, peer: str, encoded: Any, start: int, progress: Any) -> None:
        unreported = type(progress)(len(encoded), progress._last_sequence)
        right(server, peer, encoded, start, unreported)

    return check_and_merge


def _let_a_notice_hide(right: Function) -> Function:
    """Readers are given the heads, whether their content is here or not."""

    async def view(readable: Any, key: bytes, heads: Any) -> Any:
        return (await right(readable, key, heads))._replace(heads=heads)

    return view


def _stay_half_open(right: Function) -> Function:
    from protocols.policy.breaker import BreakerState

    def handle(breaker: Any, event: Any, now: float) -> Any:
        if breaker.state is BreakerState.HALF_OPEN:
            breaker._deadline = None
            return ()
        return right(breaker, event, now)

    return handle


def _keep_one_head(right: Function) -> Function:
    return lambda head_set: right(head_set)[-1:]


def _answer_from_before(right: Function) -> Function:
    async def get(dht: Any, key: bytes, **options: Any) -> Any:
        answer = await right(dht, key, **options)
        before = vars(dht).setdefault("_before", {})
        count, earlier = before.get(key, (0, answer))
        before[key] = (count + 1, answer)
        return earlier if count % 5 == 4 else answer

    return get


def _confirm_before_commit(right: Function) -> Function:
    """The writing side: a write is in the store and confirmed at once; a failed commit takes it back."""

    async def commit(store: Any, batch: list[tuple[Any, Any]]) -> None:
        before = store.last_sequence
        wait, store.before_commit = store.before_commit, None
        await right(store, batch)
        store.before_commit = wait
        is_committed = False
        try:
            if wait is not None:
                await wait()
            is_committed = True
        except OSError:
            pass
        finally:
            if not is_committed:
                _forget_after(store, before)

    return commit


def _forget_after(store: Any, sequence: int) -> None:
    incoming_of = importlib.import_module("node.store.log").Incoming
    again = type(store)(log_id=store.log_id)
    for at in range(min(sequence, store.last_sequence)):
        incoming = incoming_of(store._held[store._digests[at]], store._origins[at])
        again._merge([incoming], store._times[at])
    kept = (
        "before_commit", "_queue", "_submitted", "_grown", "_is_running", "_members", "_staged", "_cursors",
        "former_logs", "_member_logs", "_marks",
    )  # fmt: skip
    vars(store).update({name: value for name, value in vars(again).items() if name not in kept})


def _show_staged(right: Function) -> Function:
    async def heads(store: Any, key: bytes) -> Any:
        return (*(one.envelope for one in store._staged.values() if one.envelope.key == key), *await right(store, key))

    return heads


def _expire_a_second_late(right: Function) -> Function:
    def fresh(dht: Any, since: float, now: float) -> Any:
        dht._age_max_seconds += 1.0
        try:
            return right(dht, since, now)
        finally:
            dht._age_max_seconds -= 1.0

    return fresh


def _send_nothing(right: Function) -> Function:
    """Each version counts as sent."""

    async def deliver(replicator: Any, peer: str, envelopes: Any) -> list[bytes]:
        return []

    return deliver


def _trust_every_log(right: Function) -> Function:
    def heard(positions: Any, peer: str, sequence: int, at: float) -> None:
        positions._lost.pop(peer, None)
        right(positions, peer, sequence, at)

    return heard


MUTANTS = (
    Mutant(
        name="hint-dropped",
        about="the hint of one holder is not written, for each seventh write",
        target="node.store.memory.hints:HintTable.add_write",
        mutate=_drop_a_hint,
        scenario="partition",
        seeds=3,
        checks=("replicas", "equal", "settles", "nothing-lost", "up-to-date"),
        is_fed=False,
    ),
    Mutant(
        name="hint-acknowledged-before-the-commit",
        about="a holder acknowledges what its disk has not confirmed",
        target="node.services.writes.peer_server:PeerServer._check_and_merge",
        mutate=_answer_before_commit,
        scenario="disk-full",
        seeds=3,
        checks=("honest", "replicas", "equal", "settles", "nothing-lost", "up-to-date"),
    ),
    Mutant(
        name="notice-hides-what-it-names",
        about="a version whose content nobody has is answered in the place of the one before it",
        target="node.dht.readable_heads:ReadableHeads.view",
        mutate=_let_a_notice_hide,
        scenario="lying-answers",
        seeds=3,
        checks=("honest",),
    ),
    Mutant(
        name="others-are-not-fed",
        about="what others wrote is sent to no holder that lacks it",
        target="node.services.replication.replicator:Replicator._deliver",
        mutate=_send_nothing,
        scenario="holder-lost",
        seeds=2,
        checks=("replicas", "equal", "settles"),
    ),
    Mutant(
        name="acknowledgement-outlives-its-log",
        about="what a clone acknowledged counts for the node whose copy it is",
        target="node.services.membership.log_positions:LogPositions.heard",
        mutate=_trust_every_log,
        scenario="clone",
        seeds=6,
        checks=("up-to-date", "nothing-lost", "equal", "settles"),
    ),
    Mutant(
        name="breaker-stuck-half-open",
        about="the outcome of a probe changes nothing",
        target="protocols.policy.breaker:Breaker.handle",
        mutate=_stay_half_open,
        scenario="fallback",
        seeds=3,
        checks=("settles",),
    ),
    Mutant(
        name="sibling-lost-in-merge",
        about="of several heads the latest alone is kept",
        target="protocols.heads:HeadSet.heads",
        mutate=_keep_one_head,
        scenario="partition",
        seeds=3,
        checks=("siblings-kept",),
    ),
    Mutant(
        name="stale-head-after-a-newer-one",
        about="every fifth read of a key has the answer of the read before it",
        target="node.dht.hybrid:HybridDHT.get",
        mutate=_answer_from_before,
        scenario="standard",
        seeds=3,
        checks=("never-back", "siblings-kept", "up-to-date", "honest", "nothing-lost", "equal"),
        is_fed=False,
    ),
    Mutant(
        name="acknowledged-before-the-commit",
        about="a write is confirmed before the disk has it",
        target="node.store.memory.commits:CommitQueue._commit",
        mutate=_confirm_before_commit,
        scenario="standard",
        seeds=10,
        checks=("survives-a-crash", "nothing-lost", "never-back", "honest", "siblings-kept"),
    ),
    Mutant(
        name="staged-envelope-shown",
        about="a staged envelope, of a write that is not decided, is shown as a head",
        target="node.store.memory.store:MemoryStore.heads",
        mutate=_show_staged,
        scenario="pure-real",
        seeds=5,
        checks=("nothing-made-up", "never-back", "siblings-kept", "survives-a-crash"),
        is_fed=False,
    ),
    Mutant(
        name="expiry-off-by-one",
        about="a local answer counts as fresh for one second too long",
        target="node.dht.hybrid:HybridDHT._fresh",
        mutate=_expire_a_second_late,
        scenario="partition",
        seeds=5,
        checks=("honest",),
    ),
)
