"""Takes up what is edited in the configuration while the node runs.

The files are looked at once a second. A change is read once it has stood still between two looks, so that nobody's
half-written file is taken for what he meant; what looks half-written even then is refused, as is whatever a start would
refuse. A refusal changes nothing, and the health report says why until the file is mended.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import trio

from node.config.file import ConfigError, refuse_torn
from node.config.settings import Settings
from node.services.control.audit import Audit
from node.services.control.flag_store import FlagStore
from node.swarm.peer_policy import PeerPolicy
from protocols.errors import BzzzError

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

Stamp = tuple[int, int, int] | None
"""What shows that a file changed: its inode, the time it was written (nanoseconds) and its size. None: not there."""


class ConfigReload:
    """`again` reads the whole configuration anew, and raises `ConfigError`; `settings` are those of the start."""

    def __init__(
        self,
        settings: Settings,
        again: Callable[[], Settings],
        *,
        flags: FlagStore,
        peer_policy: PeerPolicy,
        audit: Audit,
    ) -> None:
        self._last = settings
        self._files = settings.files
        self._again = again
        self._flags = flags
        self._peer_policy = peer_policy
        self._audit = audit
        self._lock = trio.Lock()
        self.looks = 0
        """How often the files were looked at."""

    async def run(self) -> None:
        """Look for changes until cancelled; return at once when there is no file to look at."""
        if not self._files:
            return
        taken: tuple[Stamp, ...] = ()
        """As they were when they were last read: nothing yet, for one may have changed since the start."""
        seen = await self._stamps()
        while True:
            if seen != taken:
                await trio.sleep(LOOK_SECONDS)
                before, seen = seen, await self._stamps()
                if seen != before:
                    continue  # somebody is writing
                taken = seen
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
                self._last = settings
            except ConfigError as error:
                self._flags.refused(str(error))
            except BzzzError as error:
                self._flags.refused(error.message)

    def _read(self) -> Settings:
        settings = self._again()
        if settings != self._last:  # what says the same as before is whole enough
            for path in self._files:
                refuse_torn(path)
        return settings

    async def _set_lists(self, settings: Settings, author: str) -> None:
        """Whom the node deals with, when the configuration says it otherwise than before."""
        if (settings.allow, settings.deny) == (self._last.allow, self._last.deny):
            return
        details = {"allow": list(settings.allow), "deny": list(settings.deny)}
        await self._audit.append("lists.changed", author=author, details=details)
        self._peer_policy.set_lists(allow=settings.allow, deny=settings.deny)

    async def _stamps(self) -> tuple[Stamp, ...]:
        stamps = await trio.to_thread.run_sync(lambda: tuple(_stamp(path) for path in self._files))
        self.looks += 1
        return stamps


def _stamp(path: Path) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
