"""A reply that comes later and that no task waits for: a promise with one callback."""

from collections.abc import Callable

import trio

from protocols.messages import Reply

OnResolved = Callable[[Reply | BaseException], None]


class DeferredReply:
    """Resolved once, by `resolve`, with a reply or an error. `on_resolved` registers the callback that gets it."""

    __slots__ = ("_callback", "_outcome")

    def __init__(self) -> None:
        self._outcome: Reply | BaseException | None = None
        self._callback: OnResolved | None = None

    def resolve(self, outcome: Reply | BaseException) -> None:
        self._outcome = outcome
        if self._callback is not None:
            self._callback(outcome)

    def on_resolved(self, callback: OnResolved) -> None:
        """Call back with the outcome, at once if it is known already."""
        self._callback = callback
        if self._outcome is not None:
            callback(self._outcome)

    async def wait(self) -> Reply:
        """Wait for the reply, for callers that have a task after all. Raises the outcome when it is an error."""
        if self._outcome is None:
            is_resolved = trio.Event()
            self.on_resolved(lambda _: is_resolved.set())
            await is_resolved.wait()
        assert self._outcome is not None
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome
