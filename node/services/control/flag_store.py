"""Flag store: the flags in force, and the only way to change them.

A change is checked as a whole, written to the audit log, and then put in force in one step without an await in between:
every call sees either the old flags or the new ones. When anything fails before that step, the old flags stay, and the
error says why. Flags that were set at run time are restored after a restart, because the last entry of the audit log
holds them; a new configuration changes the values beneath them.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import trio

from node.config.changes import FlagChange, read_change
from node.config.flags import NAMES, Flags, Override, check, notes, over
from node.config.settings import Settings
from node.services.control.audit import Audit
from protocols.errors import BzzzError

log = logging.getLogger(__name__)

CLOCK_CHECK_SECONDS = 1.0
"""How often the wall clock is read until an override ends: the clock may be set meanwhile."""

OnChange = Callable[[Flags, Flags], None]
"""Called at each change with the flags before and after it. It must be quick, must not wait and must not raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFlag:
    """One flag that was set at run time."""

    value: Any
    author: str
    at_ms: int


class FlagStore:
    """`refuse` raises `InvalidPayload` for flags that this node cannot have."""

    def __init__(
        self, settings: Settings, audit: Audit, *, now_ms: Callable[[], int], refuse: Callable[[Flags], None]
    ) -> None:
        self._settings = settings
        self._loaded = settings
        self._audit = audit
        self._now_ms = now_ms
        self._refuse = refuse
        self._configured = Flags.of(settings)
        self._runtime: dict[str, RuntimeFlag] = {}
        self._listeners: list[OnChange] = []
        self._lock = trio.Lock()
        self._changed = trio.Event()
        self._fault = ""
        self._lost = ""
        self.current = self._configured
        self.revision = 0
        """How often the flags have changed since the start."""
        self._check(self._configured, self._configured)
        self._restore()

    def subscribe(self, on_change: OnChange) -> None:
        self._listeners.append(on_change)

    async def changed(self) -> None:
        """Wait until the flags change."""
        await self._changed.wait()

    # -- reading ----------------------------------------------------------------------------------------------

    @property
    def faults(self) -> tuple[str, ...]:
        """The last configuration that was refused, if it was not corrected since, and faults of the audit log; for the
        health report."""
        return (*(fault for fault in (self._fault, self._lost) if fault), *self._audit.faults)

    @property
    def can_change(self) -> bool:
        """False while the audit log is lost: every change is written there first."""
        return not self._audit.is_lost

    def notes(self) -> list[str]:
        """Notes for a person on the flags in force, and on settings that wait for the next start."""
        found = notes(self.current)
        for name, flag in self._runtime.items():
            if getattr(self._configured, name) != flag.value and self._loaded.origins.get(name, "default") != "default":
                origin = self._loaded.origins[name]
                found.append(f"{name}: {flag.author} set it at run time; what is configured ({origin}) waits beneath")
        if waiting := self._waiting():
            found.append(f"{', '.join(waiting)}: changed in the configuration, and taken up at the next start")
        return found

    def origins(self) -> dict[str, str]:
        """For each flag, who set it."""
        return {
            name: f"run time, by {self._runtime[name].author}"
            if name in self._runtime
            else self._loaded.origins.get(name, "default")
            for name in NAMES
        }

    def _waiting(self) -> list[str]:
        """Settings of the last configuration that take effect only at a start."""
        apart = (*NAMES, "allow", "deny", "capabilities", "origins", "notes", "files")
        names = (field.name for field in fields(Settings) if field.name not in apart)
        return [name for name in names if getattr(self._loaded, name) != getattr(self._settings, name)]

    # -- changes ----------------------------------------------------------------------------------------------

    async def change(self, change: FlagChange) -> Flags:
        """Put a change in force, whole. Raises `InvalidPayload`, `StorageFull` or `Unavailable`: nothing changed."""
        async with self._lock:
            runtime = dict(self._runtime)
            for name, value in change.values.items():
                runtime.pop(name, None)
                if value is not None:
                    runtime[name] = RuntimeFlag(value=value, author=change.author, at_ms=self._now_ms())
            override = None if change.ends_override else self.current.override
            if change.force is not None:
                override = self._override(change)
            await self._commit("flags.changed", change.author, change.reason, self._configured, runtime, override)
            self._lost = ""
            return self.current

    def _override(self, change: FlagChange) -> Override:
        assert change.force is not None
        now_ms = self._now_ms()
        return Override(
            force=change.force,
            reason=change.reason,
            author=change.author,
            since_ms=now_ms,
            expires_ms=now_ms + change.expires_in_ms,
        )

    async def reload(self, settings: Settings, *, author: str) -> None:
        """Put a new configuration in force. Raises like `change`; then the old configuration stays."""
        async with self._lock:
            configured = Flags.of(settings)
            before = self._waiting()
            await self._commit("configuration.read", author, "", configured, self._runtime, self.current.override)
            self._loaded = settings
            self._fault = ""
        if (waiting := self._waiting()) != before and waiting:
            log.warning("%s: changed in the configuration, and taken up at the next start", ", ".join(waiting))

    def refused(self, why: str) -> None:
        """Record why a configuration is refused: the old one stays, and `faults` says why until a good one comes."""
        if why != self._fault:
            log.error("the configuration is refused, and the old one goes on: %s", why)
        self._fault = why

    async def _commit(
        self,
        act: str,
        author: str,
        reason: str,
        configured: Flags,
        runtime: Mapping[str, RuntimeFlag],
        override: Override | None,
    ) -> None:
        after = over(configured, {name: flag.value for name, flag in runtime.items()}, override)
        self._check(after, configured)
        differences = _differences(self.current, after)
        configured_differences = _differences(self._configured, configured)
        if differences or configured_differences or runtime.keys() != self._runtime.keys():
            details = {"changes": differences, "configured": configured_differences, "in_force": after.in_force}
            await self._audit.append(
                act, author=author, reason=reason, details=details, state=_state(runtime, override)
            )
            log.info("%s by %s: %s%s", act, author, _in_words(differences), f" ({reason})" if reason else "")
        self._put_in_force(configured, dict(runtime), after)

    def _check(self, flags: Flags, configured: Flags) -> None:
        check(flags, configured, replication=self._settings.replication)
        self._refuse(flags)

    def _put_in_force(self, configured: Flags, runtime: dict[str, RuntimeFlag], after: Flags) -> None:
        before, self.current = self.current, after
        self._configured, self._runtime = configured, runtime
        if before == after:
            return
        self.revision += 1
        for on_change in self._listeners:
            on_change(before, after)
        self._changed.set()
        self._changed = trio.Event()

    # -- a node's life ----------------------------------------------------------------------------------------

    def _restore(self) -> None:
        """Restore the flags that were set at run time before this start."""
        try:
            runtime, override = _from_state(self._audit.state)
            flags = over(self._configured, {name: flag.value for name, flag in runtime.items()}, override)
            self._check(flags, self._configured)
        except (BzzzError, KeyError, TypeError, ValueError, AttributeError) as error:
            why = error.message if isinstance(error, BzzzError) else "it cannot be read"
            self._lost = f"what was set at run time before this start is not in force: {why}"
            return
        self._runtime, self.current = runtime, flags

    async def begin(self) -> None:
        """Write the start and its flags to the audit log. A node starts also when that cannot be written."""
        details = {"flags": _as_dict(self.current), "in_force": self.current.in_force}
        state = _state(self._runtime, self.current.override)
        try:
            await self._audit.append("node.started", author=self._settings.name, details=details, state=state)
        except BzzzError as error:
            log.error("the start could not be written to the audit log: %s", error.message)
        await self._end_expired()

    async def run(self) -> None:
        """End overrides when their time is over, until cancelled."""
        while True:
            override = self.current.override
            changed = self._changed
            if override is None:
                await changed.wait()
                continue
            seconds = (override.expires_ms - self._now_ms()) / 1000.0
            with trio.move_on_after(min(CLOCK_CHECK_SECONDS, max(seconds, 0.001))):
                await changed.wait()
            await self._end_expired()

    async def _end_expired(self) -> None:
        async with self._lock:
            override = self.current.override
            if override is None or self._now_ms() < override.expires_ms:
                return
            after = replace(self.current, override=None)
            details = {"changes": _differences(self.current, after), "in_force": after.in_force}
            state = _state(self._runtime, None)
            try:
                await self._audit.append("override.expired", author=override.author, details=details, state=state)
            except BzzzError as error:  # an operator relies on the end of an override; a restart ends it again
                log.error("the end of an override could not be written to the audit log: %s", error.message)
            log.info("the override %s of %s is over", override.force, override.author)
            self._put_in_force(self._configured, self._runtime, after)


def _as_dict(flags: Flags) -> dict[str, Any]:
    return {**flags.values(), "override": flags.override.as_dict() if flags.override else None}


def _differences(before: Flags, after: Flags) -> dict[str, Any]:
    """For each flag that differs: what it was, and what it is."""
    old, new = _as_dict(before), _as_dict(after)
    return {name: {"before": old[name], "after": new[name]} for name in new if old[name] != new[name]}


def _in_words(differences: Mapping[str, Any]) -> str:
    """The differences for the log; of an override only the state that it forces."""

    def shown(value: Any) -> Any:
        return value["force"] if isinstance(value, dict) else value

    changes = (f"{name}: {shown(values['before'])} -> {shown(values['after'])}" for name, values in differences.items())
    return ", ".join(changes) or "nothing that is in force"


def _state(runtime: Mapping[str, RuntimeFlag], override: Override | None) -> dict[str, Any]:
    return {
        "flags": {
            name: {"value": flag.value, "author": flag.author, "at_ms": flag.at_ms} for name, flag in runtime.items()
        },
        "override": override.as_dict() if override else None,
    }


def _from_state(state: Mapping[str, Any]) -> tuple[dict[str, RuntimeFlag], Override | None]:
    """Read what `_state` wrote; each value is checked as if it were set now."""
    runtime = {}
    for name, entry in (state.get("flags") or {}).items():
        value = read_change({name: entry["value"]}, author="").values[name]
        runtime[name] = RuntimeFlag(value=value, author=str(entry["author"]), at_ms=int(entry["at_ms"]))
    override = state.get("override")
    return runtime, Override.from_dict(override) if override else None
