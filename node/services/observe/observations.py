"""Observations: outcomes of calls and probes, and which members are suspect, each with hysteresis."""

from collections.abc import Callable

import trio

from node.dht.call_health import CallHealth
from node.services.observe.probes import ProbeResult
from node.store.disk_latency import DiskLatency
from node.swarm.members import Members, Presence
from protocols.policy.hysteresis import Hysteresis

APART_SECONDS = 0.3
"""Observations closer together are one: when a network switch fails, all peers are lost at once, and that is one
event."""


def _hysteresis() -> Hysteresis:
    return Hysteresis(worse_after=2, better_after=2, within_seconds=10.0, apart_seconds=APART_SECONDS)


class ProbeHistory:
    """The results of the probes of one component."""

    def __init__(self) -> None:
        self.hysteresis = _hysteresis()
        self.errors = 0
        self.last_at: float | None = None
        self.latency_seconds = 0.0

    def add(self, result: ProbeResult) -> None:
        now = self.last_at = trio.current_time()
        if result.failing:
            self.errors += 1
            self.hysteresis.observe_bad(result.failing, now)
        else:
            self.latency_seconds = result.seconds
            self.hysteresis.observe_good(now)

    def failing(self) -> str:
        """Why the probes fail again and again, in words; '' when they do not."""
        return self.hysteresis.why if self.hysteresis.is_bad(trio.current_time()) else ""


class SuspectHistory:
    """Whether members are suspect for more than a moment, and which."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self.hysteresis = _hysteresis()
        self._last: tuple[Presence, ...] = ()
        """The suspects of the last observation that found any."""

    def observe(self) -> None:
        now = trio.current_time()
        if suspects := tuple(p for p in self._members.all() if p.is_connected and p.is_suspect):
            self._last = suspects
            self.hysteresis.observe_bad(", ".join(p.member.name or p.member.peer[-8:] for p in suspects), now)
        else:
            self.hysteresis.observe_good(now)

    def suspects(self) -> tuple[Presence, ...]:
        return self._last if self.hysteresis.is_bad(trio.current_time()) else ()

    def reachable(self) -> int:
        """How many members can be asked; a member that missed one deadline counts until it is suspect for longer."""
        if self.hysteresis.is_bad(trio.current_time()):
            return len(self._members.answering())
        return sum(presence.is_connected for presence in self._members.all())


class DiskHistory:
    """Whether commits are slow again and again. One slow commit is ordinary: a disk has other work now and then."""

    def __init__(self, disk: DiskLatency, slow_ms: Callable[[], int]) -> None:
        """`slow_ms` gives the milliseconds from which a commit is slow."""
        self._slow_ms = slow_ms
        self._hysteresis = Hysteresis(worse_after=3, better_after=5, within_seconds=10.0, forget_seconds=10.0)
        disk.subscribe(self._observe)

    def _observe(self, seconds: float, is_of_disk: bool) -> None:
        if seconds * 1000.0 >= self._slow_ms():
            took = f"{seconds * 1000.0:.0f} ms"
            why = f"the disk takes {took}" if is_of_disk else f"a commit takes {took}, and the disk least of it"
            self._hysteresis.observe_bad(why, trio.current_time())
        elif not self._hysteresis.is_clear():
            self._hysteresis.observe_good(trio.current_time())

    def slow(self) -> str:
        """How long the last slow commit took, in words; '' when the disk is quick enough."""
        return self._hysteresis.why if self._hysteresis.is_bad(trio.current_time()) else ""


class Observations:
    """All that is observed of one node. `dht_calls` are the calls that asked the swarm."""

    def __init__(
        self, members: Members, dht_calls: CallHealth, *, disk: DiskLatency, slow_ms: Callable[[], int]
    ) -> None:
        self.disk = DiskHistory(disk, slow_ms)
        self.dht_calls = dht_calls
        self.api_calls = CallHealth()
        """The API reports each request here."""
        self.probes = {name: ProbeHistory() for name in ("dht", "store", "resolver")}
        self.suspects = SuspectHistory(members)

    def needs_recheck(self) -> bool:
        """Whether something is wrong, or may be soon: then the next probe should not wait for its interval."""
        now = trio.current_time()
        each = (self.suspects.hysteresis, *(history.hysteresis for history in self.probes.values()))
        return any(hysteresis.needs_recheck(now) or hysteresis.is_bad(now) for hysteresis in each)
