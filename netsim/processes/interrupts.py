"""Interrupts: Ctrl-C and SIGTERM as an exception, raised only where no started process can be left behind."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked for the end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupts:
    """Raises `Interrupted` in the main thread when a signal comes, or as soon as `held` ends."""

    def __init__(self) -> None:
        self._held = 0
        self._waiting: int | None = None

    def listen(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    def ignore(self) -> None:
        """From now on signals do nothing: the processes are being ended, which takes seconds at most."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No exception in this block, such as between the start of a process and the note that it exists."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._waiting is not None and not self._held:
            raise Interrupted(self._waiting)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._waiting = number
        if not self._held:
            raise Interrupted(number)
