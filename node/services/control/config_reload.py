"""Configuration reload: puts edits of the configuration files in force while the node runs.

The files are looked at once a second. A change is read once it was the same in two looks, so that a file that is still
being written is not read. A file that looks incomplete even then is refused, as is whatever a start would refuse. A
refusal changes nothing, and the health report says why until the file is corrected.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import trio

from node.config.file import ConfigError, refuse_torn
from node.config.settings import Settings
from node.services.control.audit import Audit
from node.services.control.capability_store import CapabilityStore
from node.services.control.flag_store import FlagStore
from node.swarm.peer_policy import PeerPolicy
from protocols.errors import BzzzError

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

Stamp = tuple[int, int, int] | None
"""Identifies the state of a file: its inode, when it was written (nanoseconds) and its size. None: not there."""


class ConfigReload:
    """`load` reads the whole configuration again, and raises `ConfigError`; `settings` are those of the start."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        *,
        flags: FlagStore,
        peer_policy: PeerPolicy,
        audit: Audit,
        capabilities: CapabilityStore,
    ) -> None:
        self._last = settings
        self._files = settings.files
        self._load = load
        self._flags = flags
        self._peer_policy = peer_policy
        self._audit = audit
        self._capabilities = capabilities
        self._lock = trio.Lock()

    async def run(self) -> None:
        """Look for changes until cancelled; return at once when there is no file to look at."""
        if not self._files:
            return
        read: tuple[Stamp, ...] = ()
        """The state of the files when they were last read: none yet, because they may have changed since the start."""
        seen = await self._stamps()
        while True:
            if seen != read:
                await trio.sleep(LOOK_SECONDS)
                before, seen = seen, await self._stamps()
                if seen != before:
                    continue  # it is being written
                read = seen
                await self.reload(" and ".join(f"file {path}" for path in self._files))
            else:
                await trio.sleep(LOOK_SECONDS)
                seen = await self._stamps()

    async def reload(self, author: str) -> None:
        """Read the configuration now, and put it in force or say why not."""
        async with self._lock:
            try:
                settings = await trio.to_thread.run_sync(self._read)
                await self._flags.reload(settings, author=author)
                await self._set_lists(settings, author)
                await self._capabilities.reload(settings.capabilities, author=author)
                self._last = settings
            except ConfigError as error:
                self._flags.refused(str(error))
            except BzzzError as error:
                self._flags.refused(error.message)

    def _read(self) -> Settings:
        settings = self._load()
        if settings != self._last:  # unchanged settings need no such check
            for path in self._files:
                refuse_torn(path)
        return settings

    async def _set_lists(self, settings: Settings, author: str) -> None:
        """Put the allow list and the deny list in force, if they changed."""
        if (settings.allow, settings.deny) == (self._last.allow, self._last.deny):
            return
        details = {"allow": list(settings.allow), "deny": list(settings.deny)}
        await self._audit.append("lists.changed", author=author, details=details)
        self._peer_policy.set_lists(allow=settings.allow, deny=settings.deny)

    async def _stamps(self) -> tuple[Stamp, ...]:
        return await trio.to_thread.run_sync(lambda: tuple(_stamp(path) for path in self._files))


def _stamp(path: Path) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
