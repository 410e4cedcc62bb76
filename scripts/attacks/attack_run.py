"""A siege: one attack on one target, what the attackers hold open meanwhile, and what came of it.

An attack is an async function of a `Siege`, and its name and the first line of its docstring say what it is. It may
call `look` at its height, while everything is held open; it is looked again when all of it is closed, which happens
whatever becomes of the attack.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import trio

from attacks import connections as lines
from attacks import intruders
from attacks.connections import Fell, Line, patient
from attacks.intruders import Intruder
from attacks.members import Answering, Member
from attacks.target import Target
from attacks.witness import Level, Witness, key_before
from protocols.keys import PrivateKey

SIEGE_SECONDS = 30.0
"""No attack takes longer, with all that is looked at during and after it."""
PEAK_BYTES_MAX = 400 << 20
"""How much more memory a node may take while it is attacked."""


class Siege:
    """What an attack works with."""

    def __init__(self, target: Target, nursery: trio.Nursery, look: Callable[[], Awaitable[None]]) -> None:
        self.target = target
        self.nursery = nursery
        """For what goes on until the attack is over."""
        self.look = look
        """Everybody is served; raises `Fell` with who is not."""
        self._held: list[Callable[[], object]] = []

    def hold(self, close: Callable[[], object]) -> None:
        """Something that is to be closed when the attack is over, and what closes it."""
        self._held.append(close)

    async def line(self, where: tuple[str, int] | None = None, *, receive_bytes: int = 0) -> Line:
        """A bare connection, to the swarm's port unless told otherwise."""
        line = await lines.connect(where or self.target.swarm, receive_bytes=receive_bytes)
        self.hold(line.close)
        return line

    async def intruder(self, key: PrivateKey | None = None, *, receive_bytes: int = 0) -> Intruder:
        """Secured and muxed, for raw frames."""
        intruder = await intruders.intrude(self.target.swarm, key, receive_bytes=receive_bytes)
        self.hold(intruder.abort)
        return intruder

    async def peer(self, key: PrivateKey | None = None) -> Intruder:
        """Secured and muxed, for streams: its muxer runs."""
        intruder = await self.intruder(key)
        self.nursery.start_soon(intruder.mux.start)
        return intruder

    async def member(self, *, answering: Answering | None = None, says_hello: bool = True) -> Member:
        """A new member with both lanes, which has said hello."""
        key = key_before(self.target.peer)
        member = Member(await self.peer(key), key, self.target, answering)
        await member.open_lanes()
        if says_hello:
            await member.say_hello()
        return member

    async def for_each(self, attack: Callable[..., Awaitable[object]], arguments: Iterable[tuple[Any, ...]]) -> None:
        """Once with each of these arguments, side by side, until the last one is done."""
        async with trio.open_nursery() as nursery:
            for each in arguments:
                nursery.start_soon(attack, *each)

    async def times(self, count: int, attack: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """So often, side by side."""
        await self.for_each(attack, [arguments] * count)

    def let_go(self) -> None:
        """Close what is still held."""
        for close in self._held:
            close()
        self._held.clear()


Attack = Callable[[Siege], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an attack. `fell` is '' when the target survived it, else what it did wrong.

    Waits are the longest, in seconds; descriptors and memory are 0 when the process is not known.
    """

    name: str
    fell: str
    seconds: float
    visit_seconds: float
    ping_seconds: float
    health_seconds: float
    descriptors_more: int
    memory_bytes: int
    memory_more_bytes: int
    memory_peak_bytes: int


def name_of(attack: Attack) -> str:
    return getattr(attack, "__name__", "attack").replace("_", "-")


async def lay(attack: Attack, target: Target) -> Outcome:
    """Attack, and see what comes of it. Raises what is a defect of the attack itself."""
    start = trio.current_time()
    witness, fell = Witness(target), ""
    before = after = Level()
    try:
        with trio.fail_after(patient(SIEGE_SECONDS)):
            async with witness.present():
                await witness.look()
                before = after = witness.level()
                async with witness.on_watch():
                    await _carry_out(attack, witness)
                    await witness.look()
                after = await witness.until_given_back(before)
        if (peak := witness.peak_bytes - before.memory_bytes) > PEAK_BYTES_MAX:
            raise Fell(f"it took {peak >> 20} MiB more memory meanwhile")
    except Exception as error:
        fell = _why(error)
    waits = witness.waits
    return Outcome(
        name=name_of(attack),
        fell=fell,
        seconds=trio.current_time() - start,
        visit_seconds=waits.visit,
        ping_seconds=waits.ping,
        health_seconds=waits.health,
        descriptors_more=after.descriptors - before.descriptors,
        memory_bytes=after.memory_bytes,
        memory_more_bytes=after.memory_bytes - before.memory_bytes,
        memory_peak_bytes=max(0, witness.peak_bytes - before.memory_bytes),
    )


async def _carry_out(attack: Attack, witness: Witness) -> None:
    async with trio.open_nursery() as nursery:
        siege = Siege(witness.target, nursery, witness.look)
        try:
            await attack(siege)
        finally:
            nursery.cancel_scope.cancel()
            siege.let_go()


def _why(error: Exception) -> str:
    """What the target did wrong. Raises the error again when it was not the target: that is a defect of the attack."""
    if isinstance(error, Fell):
        return str(error)
    if isinstance(error, trio.TooSlowError):
        return f"it was not over after {SIEGE_SECONDS:g} s"
    if isinstance(error, ExceptionGroup):
        return "; ".join(dict.fromkeys(_why(one) for one in error.exceptions))
    raise error
