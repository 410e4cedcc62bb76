"""Ctrl-C and SIGTERM as an exception, at a moment when nothing half-made can be lost sight of."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody asked for the end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupts:
    """Raises `Interrupted` in the main thread when a signal comes, and waits with that while it is held."""

    def __init__(self) -> None:
        self._held = 0
        self._waiting: int | None = None

    def listen(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._came)

    def ignore(self) -> None:
        """From now on nothing interrupts: the end is being tidied up, and that takes seconds at most."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Between starting a process and writing down that it exists no exception may come."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._waiting is not None and not self._held:
            raise Interrupted(self._waiting)

    def _came(self, number: int, _frame: FrameType | None) -> None:
        self._waiting = number
        if not self._held:
            raise Interrupted(number)
