"""The run of one attack on one target: what the attackers hold open meanwhile, and the outcome.

An attack is an async function of an `AttackRun`; its name and the first line of its docstring describe it. It may call
`check` at its height, while all is held open. The target is checked again when all is closed, however the attack ends.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Any

import trio

from attacks import connections, intruders
from attacks.connections import AttackConnection, TargetFailed, scaled_by_load
from attacks.intruders import Intruder
from attacks.members import AttackMember, MakeReply
from attacks.target import AttackTarget
from attacks.witness import Resources, Witness, key_before
from protocols.keys import PrivateKey

ATTACK_SECONDS_MAX = 30.0
"""How long an attack may take, with all checks but the release of resources, on an idle machine."""
PEAK_BYTES_MAX = 400 << 20
"""How much more memory a node may hold while it is attacked."""


class AttackRun:
    """What an attack works with. What `hold` was given is closed when the attack is over."""

    def __init__(
        self, target: AttackTarget, nursery: trio.Nursery, check: Callable[[], Awaitable[None]], *, scale: int
    ) -> None:
        self.target = target
        self.nursery = nursery
        """For tasks that run until the attack is over."""
        self.scale = scale
        """How many times as long the histories are to be."""
        self.check = check
        """Checks that all honest clients are served; raises `TargetFailed` with the one that is not."""
        self._held: list[Callable[[], object]] = []

    def hold(self, close: Callable[[], object]) -> None:
        """Call `close` when the attack is over."""
        self._held.append(close)

    async def connection(self, where: tuple[str, int] | None = None, *, receive_bytes: int = 0) -> AttackConnection:
        """A TCP connection, to the port of the swarm without `where`."""
        connection = await connections.connect(where or self.target.swarm, receive_bytes=receive_bytes)
        self.hold(connection.close)
        return connection

    async def intruder(self, key: PrivateKey | None = None, *, receive_bytes: int = 0) -> Intruder:
        """A secured and muxed connection for raw frames: its muxer does not run."""
        intruder = await intruders.intrude(self.target.swarm, key, receive_bytes=receive_bytes)
        self.hold(intruder.abort)
        return intruder

    async def peer(self, key: PrivateKey | None = None) -> Intruder:
        """A secured and muxed connection for streams: its muxer runs."""
        intruder = await self.intruder(key)
        self.nursery.start_soon(intruder.mux.start)
        return intruder

    async def member(self, *, make_reply: MakeReply | None = None, says_hello: bool = True) -> AttackMember:
        """A new member with both lanes, which has said hello unless `says_hello` is False."""
        key = key_before(self.target.peer)
        member = AttackMember(await self.peer(key), key, self.target, make_reply)
        await member.open_lanes()
        if says_hello:
            await member.say_hello()
        return member

    async def for_each(self, attack: Callable[..., Awaitable[object]], arguments: Iterable[tuple[Any, ...]]) -> None:
        """Call `attack` with each of these arguments, concurrently, until the last call is done."""
        async with trio.open_nursery() as nursery:
            for each in arguments:
                nursery.start_soon(attack, *each)

    async def times(self, count: int, attack: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Call `attack` so often, concurrently."""
        await self.for_each(attack, [arguments] * count)

    def release(self) -> None:
        """Close all that is held."""
        for close in self._held:
            close()
        self._held.clear()


Attack = Callable[[AttackRun], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackOutcome:
    """The outcome of an attack. `fell` is '' when the target survived it, else what the target did wrong.

    Waits are the longest ones, in seconds. Descriptors and memory are 0 when the process is not known.
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


async def run_attack(attack: Attack, target: AttackTarget, *, scale: int = 1) -> AttackOutcome:
    """Attack the target and return the outcome. Raises an exception that is a defect of the attack itself.

    With `scale` long histories are so many times as long, and each attack may take so many times as long.
    """
    start = trio.current_time()
    witness, fell = Witness(target), ""
    before = after = Resources()
    try:
        with trio.fail_after(scaled_by_load(ATTACK_SECONDS_MAX * scale)) as in_time:
            async with witness.connected():
                await witness.check()
                before = after = witness.resources()
                async with witness.watching():
                    await _carry_out(attack, witness, scale)
                    await witness.check()
                in_time.deadline = inf  # the release has its own time, and says what was not released
                after = await witness.until_released(before)
        if (peak := witness.peak_bytes - before.memory_bytes) > PEAK_BYTES_MAX:
            raise TargetFailed(f"it took {peak >> 20} MiB more memory meanwhile")
    except Exception as error:
        fell = _why(error)
    waits = witness.waits
    return AttackOutcome(
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


async def _carry_out(attack: Attack, witness: Witness, scale: int) -> None:
    async with trio.open_nursery() as nursery:
        run = AttackRun(witness.target, nursery, witness.check, scale=scale)
        try:
            await attack(run)
        finally:
            nursery.cancel_scope.cancel()
            run.release()


def _why(error: Exception) -> str:
    """What the target did wrong. Raises the error again when it is a defect of the attack."""
    if isinstance(error, TargetFailed):
        return str(error)
    if isinstance(error, trio.TooSlowError):
        return "it was not over in time"
    if isinstance(error, ExceptionGroup):
        return "; ".join(dict.fromkeys(_why(each) for each in error.exceptions))
    raise error
