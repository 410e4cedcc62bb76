"""The screen of a run: text for a person, or one JSON object a line for a program."""

import json
import sys
import time
from typing import Any, Protocol, TextIO

from node.terminal import has_colors, has_control


class Screen(Protocol):
    """Both kinds. `facts` are for the program, `words` for the person."""

    def chapter(self, words: str, **facts: Any) -> None: ...

    def act(self, name: str, words: str) -> None:
        """A step begins that takes a while."""
        ...

    def progress(self, done: int, total: int) -> None: ...

    def note(self, words: str, **facts: Any) -> None: ...

    def check(self, name: str, words: str, *, holds: bool, **facts: Any) -> None: ...

    def problem(self, words: str) -> None: ...

    def summary(self, words: str, **facts: Any) -> None: ...


class JsonScreen:
    """JSON lines on standard output; the last one is the summary."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._act = ""

    def chapter(self, words: str, **facts: Any) -> None:
        self._line("chapter", text=words, **facts)

    def act(self, name: str, words: str) -> None:
        self._act = name
        self._line("act", name=name, text=words)

    def progress(self, done: int, total: int) -> None:
        pass

    def note(self, words: str, **facts: Any) -> None:
        self._line("note", act=self._act, text=words, **facts)

    def check(self, name: str, words: str, *, holds: bool, **facts: Any) -> None:
        self._line("check", name=name, ok=holds, text=words, **facts)

    def problem(self, words: str) -> None:
        self._line("problem", text=words)

    def summary(self, words: str, **facts: Any) -> None:
        self._line("summary", text=words, **facts)

    def _line(self, event: str, **facts: Any) -> None:
        print(json.dumps({"event": event, **facts}), file=self._out, flush=True)


class TextScreen:
    """Plain text; on a terminal also a counter that moves, and two colours."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._is_terminal = has_control(out)
        self._has_colour = has_colors(out)
        self._good, self._bad = ("✓", "✗") if _can_print("✓✗", out) else ("ok", "FAILED")
        self._words = ""
        self._drawn_at = 0.0

    def chapter(self, words: str, **facts: Any) -> None:
        self._print("")
        self._print(self._painted(words, "1"))

    def act(self, name: str, words: str) -> None:
        self._words = words
        self._drawn_at = 0.0
        if self._is_terminal:
            self._draw(f"  {words} ...")
        else:
            self._print(f"  {words} ...")

    def progress(self, done: int, total: int) -> None:
        """At most twenty times a second: the nodes need the processor more."""
        if self._is_terminal and time.monotonic() - self._drawn_at > 0.05:
            self._drawn_at = time.monotonic()
            self._draw(f"  {self._words} ... {done} of {total}")

    def note(self, words: str, **facts: Any) -> None:
        for line in words.splitlines():
            self._print(f"    {line}")

    def check(self, name: str, words: str, *, holds: bool, **facts: Any) -> None:
        mark = self._painted(self._good, "32") if holds else self._painted(self._bad, "31;1")
        self._print(f"  {mark} {words}")

    def problem(self, words: str) -> None:
        self._print(f"  {self._painted(self._bad, '31;1')} {words}")

    def summary(self, words: str, **facts: Any) -> None:
        self._print("")
        for line in words.splitlines():
            self._print(line)

    def _draw(self, line: str) -> None:
        self._out.write(f"\r\x1b[K{line}")
        self._out.flush()

    def _print(self, line: str) -> None:
        """A line that stays, in place of the counter."""
        self._out.write(("\r\x1b[K" if self._is_terminal else "") + line + "\n")
        self._out.flush()

    def _painted(self, words: str, colour: str) -> str:
        return f"\x1b[{colour}m{words}\x1b[0m" if self._has_colour else words


def _can_print(characters: str, out: TextIO) -> bool:
    try:
        characters.encode(out.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
