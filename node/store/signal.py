"""A bell wakes everybody who waits for something to change; each of them looks again by itself.

So a wait is level-triggered: who comes late finds the state as it is and does not wait, and a waiter that is
cancelled takes nothing with it.
"""

import trio


class Signal:
    """Costs nothing to ring while nobody listens."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    @property
    def has_listeners(self) -> bool:
        return self._event is not None

    def ring(self) -> None:
        """Wake everybody who listens now."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def listen(self) -> None:
        """Wait until it rings next."""
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()
