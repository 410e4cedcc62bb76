"""Standard streams of a process that lose nothing without an error.

Python writes to an unbuffered standard output (`PYTHONUNBUFFERED=1`, usual in containers) once, and ignores how much
the system took: a full disk, a file size limit or a non-blocking pipe cut the output short, and nothing noticed. The
streams here write everything, or raise `OutputFailed`.

A standard stream may also be closed at the start (`>&-`). Python then has `None` in its place, and the next file or
socket that is opened takes its number, so that output meant for a terminal would be written into a database.
"""

import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STDERR_WAIT_SECONDS = 1.0
"""How long a message waits for a non-blocking standard error that takes nothing: a node must not stand still for it."""


class OutputFailed(OSError):
    """Standard output did not take all of the output; the message says why.

    It has no `errno`: click ends the process silently when an error has `EPIPE`.
    """

    def __init__(self, why: str, *, is_reader_gone: bool = False) -> None:
        super().__init__(why)
        self.is_reader_gone = is_reader_gone


def repair() -> None:
    """Make `sys.stdin`, `sys.stdout` and `sys.stderr` streams that exist and lose nothing. Once, before other files."""
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        _reserve(number, flags)
    if sys.stdin is None:  # reading fails, as from the closed stream
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "rb", closefd=False)), encoding="utf-8")
    sys.stdout = _text(_StandardOutput(1), sys.stdout)
    sys.stderr = _text(_StandardError(2), sys.stderr)


def output_failure() -> OutputFailed | None:
    """Why standard output does not take output any more; None while it does."""
    raw = getattr(sys.stdout.buffer, "raw", None)
    return raw.failure if isinstance(raw, _StandardOutput) else None


def _reserve(number: int, flags: int) -> None:
    """Open /dev/null at a closed number. Output is opened for reading, and input for writing, so that its use fails;
    what is written to a closed standard error is dropped."""
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, flags)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        os.set_inheritable(number, True)


def _text(raw: "_Stream", before: TextIO | None) -> TextIO:
    encoding = (before.encoding if before is not None else None) or "utf-8"
    stream = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=raw.isatty() or raw.number == 2,
    )
    return cast(TextIO, stream)


class _Stream(io.RawIOBase):
    """A standard stream: `write` takes everything, also where the system takes a part at a time."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = ("<stdin>", "<stdout>", "<stderr>")[number]

    def fileno(self) -> int:
        return self.number

    def isatty(self) -> bool:
        return os.isatty(self.number)

    def writable(self) -> bool:
        return True

    def _write_all(self, data: "ReadableBuffer", wait_seconds: float | None) -> None:
        """Raises `OSError`; `TimeoutError` if a non-blocking stream takes nothing for so long."""
        rest = memoryview(data).cast("B")
        while rest:
            try:
                rest = rest[os.write(self.number, rest) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self.number, select.POLLOUT)
                if not poll.poll(None if wait_seconds is None else wait_seconds * 1000):
                    raise TimeoutError from None


class _StandardOutput(_Stream):
    """Raises `OutputFailed` once, and drops what comes later: the buffers above would offer the same output again."""

    failure: OutputFailed | None = None

    def write(self, data: "ReadableBuffer", /) -> int:
        if self.failure is None:
            try:
                self._write_all(data, None)
            except OSError as error:
                why = error.strerror or str(error)
                self.failure = OutputFailed(why, is_reader_gone=isinstance(error, BrokenPipeError))
                raise self.failure from None
        return memoryview(data).nbytes


class _StandardError(_Stream):
    """Drops what the system does not take: a message without a reader must not end what it is about."""

    _is_stuck = False

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            self._write_all(data, 0.0 if self._is_stuck else _STDERR_WAIT_SECONDS)
            self._is_stuck = False
        except TimeoutError:
            self._is_stuck = True
        except OSError:
            pass
        return memoryview(data).nbytes
