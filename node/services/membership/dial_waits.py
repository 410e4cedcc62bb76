"""Dial waits: those who wait until a peer is connected and greeted, or until that has failed."""

from dataclasses import dataclass, field

import trio

WAIT_SECONDS = 10.0
"""The longest wait: a dial and a greeting have shorter limits of their own."""


@dataclass(slots=True, eq=False)
class _Wait:
    over: trio.Event = field(default_factory=trio.Event)
    why: str = "it was not connected in time"


class DialWaits:
    """By peer."""

    def __init__(self) -> None:
        self._waits: dict[str, _Wait] = {}

    async def wait(self, peer: str) -> str:
        """Wait for the end of what is under way; return '' when the peer is greeted, else why not."""
        wait = self._waits.setdefault(peer, _Wait())
        with trio.move_on_after(WAIT_SECONDS):
            await wait.over.wait()
        if self._waits.get(peer) is wait:
            del self._waits[peer]
        return wait.why

    def ended(self, peer: str, why: str = "") -> None:
        """A peer was greeted, or why not."""
        if wait := self._waits.pop(peer, None):
            wait.why = why
            wait.over.set()
