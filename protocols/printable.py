"""Printable text: shows text from peers, files and callers so that it cannot control a terminal or forge a log line.

Unprintable is what `str.isprintable` says: control characters (escape sequences, line breaks), characters that change
the direction of text, lone surrogates, and spaces other than U+0020.
"""


def printable(text: str) -> str:
    r"""The text on one line, each unprintable character as its escape: `\x1b`, `\n`, `\u202e`."""
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_lines(text: str, *, kept: str = "\n\t") -> str:
    """The same for text of several lines: line breaks and tabs stay."""
    return text if text.isprintable() else "".join(c if c in kept else _shown(c) for c in text)


def _shown(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]
