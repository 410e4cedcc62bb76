"""The flags in force, and the one way to change them.

A change is checked whole, written to the audit log, and then put in force in one step, with no await in between: every
call sees either the old flags or the new ones. Whatever goes wrong before that step leaves the old ones, and says why.
What was set at run time is found again after a restart, for the last entry of the audit log holds it; an edit of the
configuration changes the ground beneath it.
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

LOOK_SECONDS = 1.0
"""How often the wall clock is looked at while an override waits for its end: somebody may set that clock."""

Told = Callable[[Flags, Flags], None]
"""Told the flags before and after a change, in the moment of it: quick, does not wait, does not raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetHere:
    """One flag that was set at run time."""

    value: Any
    author: str
    at_ms: int


class FlagStore:
    """`refuse` raises an `InvalidPayload` for flags that this node cannot have; `replication` bounds the quorums."""

    def __init__(
        self, settings: Settings, audit: Audit, *, now_ms: Callable[[], int], refuse: Callable[[Flags], None]
    ) -> None:
        self._settings = settings
        self._loaded = settings
        self._audit = audit
        self._now_ms = now_ms
        self._refuse = refuse
        self._ground = Flags.of(settings)
        self._set_here: dict[str, SetHere] = {}
        self._told: list[Told] = []
        self._lock = trio.Lock()
        self._changed = trio.Event()
        self._fault = ""
        self._lost = ""
        self.current = self._ground
        self.revision = 0
        """How often the flags have changed since the start."""
        self._check(self._ground, self._ground)
        self._restore()

    def subscribe(self, told: Told) -> None:
        self._told.append(told)

    async def changed(self) -> None:
        """Wait until the flags change."""
        await self._changed.wait()

    # -- what holds -------------------------------------------------------------------------------------------

    @property
    def faults(self) -> tuple[str, ...]:
        """What was refused last and not mended since, and what is wrong with the audit log; for the health report."""
        return (*(fault for fault in (self._fault, self._lost) if fault), *self._audit.faults)

    def notes(self) -> list[str]:
        """What a person should know of the flags in force, and of settings that wait for a start."""
        told = notes(self.current)
        for name, here in self._set_here.items():
            configured = getattr(self._ground, name)
            if configured != here.value and self._loaded.origins.get(name, "default") != "default":
                origin = self._loaded.origins[name]
                told.append(f"{name}: {here.author} set it at run time; what is configured ({origin}) waits beneath")
        if waiting := self._waiting():
            told.append(f"{', '.join(waiting)}: changed in the configuration, and taken up at the next start")
        return told

    def origins(self) -> dict[str, str]:
        """For each flag, who set it."""
        return {
            name: f"run time, by {self._set_here[name].author}"
            if name in self._set_here
            else self._loaded.origins.get(name, "default")
            for name in NAMES
        }

    def _waiting(self) -> list[str]:
        apart = (*NAMES, "allow", "deny", "origins", "notes", "files")
        own = (one.name for one in fields(Settings) if one.name not in apart)
        return [name for name in own if getattr(self._loaded, name) != getattr(self._settings, name)]

    # -- changes ----------------------------------------------------------------------------------------------

    async def change(self, change: FlagChange) -> Flags:
        """Put a change in force, whole. Raises `InvalidPayload`, `StorageFull` or `Unavailable`: nothing changed."""
        async with self._lock:
            set_here = dict(self._set_here)
            for name, value in change.values.items():
                set_here.pop(name, None)
                if value is not None:
                    set_here[name] = SetHere(value=value, author=change.author, at_ms=self._now_ms())
            override = None if change.ends_override else self.current.override
            if change.force is not None:
                override = self._override(change)
            await self._commit("flags.changed", change.author, change.reason, self._ground, set_here, override)
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
        """Take what the configuration says now as the ground. Raises like `change`; then the old ground stays."""
        async with self._lock:
            ground = Flags.of(settings)
            before = self._waiting()
            await self._commit("configuration.read", author, "", ground, self._set_here, self.current.override)
            self._loaded = settings
            self._fault = ""
        if (waiting := self._waiting()) != before and waiting:
            log.warning("%s: changed in the configuration, and taken up at the next start", ", ".join(waiting))

    def refused(self, why: str) -> None:
        """The configuration could not be taken up: the old one goes on, and this says why until that is mended."""
        if why != self._fault:
            log.error("the configuration is refused, and the old one goes on: %s", why)
        self._fault = why

    async def _commit(
        self,
        act: str,
        author: str,
        reason: str,
        ground: Flags,
        set_here: Mapping[str, SetHere],
        override: Override | None,
    ) -> None:
        after = over(ground, {name: here.value for name, here in set_here.items()}, override)
        self._check(after, ground)
        differences, configured = _differences(self.current, after), _differences(self._ground, ground)
        if differences or configured or set_here.keys() != self._set_here.keys():
            details = {"changes": differences, "configured": configured, "in_force": after.in_force}
            await self._audit.append(
                act, author=author, reason=reason, details=details, state=_state(set_here, override)
            )
            log.info("%s by %s: %s%s", act, author, _in_words(differences), f" ({reason})" if reason else "")
        self._put_in_force(ground, dict(set_here), after)

    def _check(self, flags: Flags, ground: Flags) -> None:
        check(flags, ground, replication=self._settings.replication)
        self._refuse(flags)

    def _put_in_force(self, ground: Flags, set_here: dict[str, SetHere], after: Flags) -> None:
        before, self.current = self.current, after
        self._ground, self._set_here = ground, set_here
        if before == after:
            return
        self.revision += 1
        for told in self._told:
            told(before, after)
        self._changed.set()
        self._changed = trio.Event()

    # -- a node's life ----------------------------------------------------------------------------------------

    def _restore(self) -> None:
        """Find again what was set at run time before this start."""
        try:
            set_here, override = _from_state(self._audit.state)
            flags = over(self._ground, {name: here.value for name, here in set_here.items()}, override)
            self._check(flags, self._ground)
        except (BzzzError, KeyError, TypeError, ValueError, AttributeError) as error:
            why = error.message if isinstance(error, BzzzError) else "it cannot be read"
            self._lost = f"what was set at run time before this start is not in force: {why}"
            return
        self._set_here, self.current = set_here, flags

    async def begin(self) -> None:
        """Write down the start, and with what flags. That the log cannot be written keeps no node from starting."""
        details = {"flags": _told(self.current), "in_force": self.current.in_force}
        state = _state(self._set_here, self.current.override)
        try:
            await self._audit.append("node.started", author=self._settings.name, details=details, state=state)
        except BzzzError as error:
            log.error("the start could not be written down: %s", error.message)
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
            with trio.move_on_after(min(LOOK_SECONDS, max(seconds, 0.001))):
                await changed.wait()
            await self._end_expired()

    async def _end_expired(self) -> None:
        async with self._lock:
            override = self.current.override
            if override is None or self._now_ms() < override.expires_ms:
                return
            after = replace(self.current, override=None)
            details = {"changes": _differences(self.current, after), "in_force": after.in_force}
            state = _state(self._set_here, None)
            try:
                await self._audit.append("override.expired", author=override.author, details=details, state=state)
            except BzzzError as error:  # it was to end now, and an operator counts on that; a restart ends it again
                log.error("the end of an override could not be written down: %s", error.message)
            log.info("the override %s of %s is over", override.force, override.author)
            self._put_in_force(self._ground, self._set_here, after)


def _told(flags: Flags) -> dict[str, Any]:
    return {**flags.values(), "override": flags.override.as_dict() if flags.override else None}


def _differences(before: Flags, after: Flags) -> dict[str, Any]:
    """For each flag that differs: what it was, and what it is."""
    old, new = _told(before), _told(after)
    return {name: {"before": old[name], "after": new[name]} for name in new if old[name] != new[name]}


def _in_words(differences: Mapping[str, Any]) -> str:
    """The differences for a log; of an override, what it forces."""

    def shown(value: Any) -> Any:
        return value["force"] if isinstance(value, dict) else value

    changes = (f"{name}: {shown(one['before'])} -> {shown(one['after'])}" for name, one in differences.items())
    return ", ".join(changes) or "nothing that is in force"


def _state(set_here: Mapping[str, SetHere], override: Override | None) -> dict[str, Any]:
    return {
        "flags": {
            name: {"value": here.value, "author": here.author, "at_ms": here.at_ms} for name, here in set_here.items()
        },
        "override": override.as_dict() if override else None,
    }


def _from_state(state: Mapping[str, Any]) -> tuple[dict[str, SetHere], Override | None]:
    """What `_state` wrote, each value checked as if it were set now."""
    set_here = {}
    for name, told in (state.get("flags") or {}).items():
        value = read_change({name: told["value"]}, author="").values[name]
        set_here[name] = SetHere(value=value, author=str(told["author"]), at_ms=int(told["at_ms"]))
    override = state.get("override")
    return set_here, Override.from_dict(override) if override else None
