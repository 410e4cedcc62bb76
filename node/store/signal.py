"""A signal wakes every task that waits for something to change; each task then looks at the state itself.

So a wait is level-triggered: a task that comes late sees the new state and does not wait, and a cancelled waiter takes
nothing away from the others.
"""

import trio


class Signal:
    """Notifying costs nothing while no task waits."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    @property
    def has_waiters(self) -> bool:
        return self._event is not None

    def notify(self) -> None:
        """Wake every task that waits now."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait for the next `notify`."""
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()
