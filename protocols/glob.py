"""Path patterns: `*` within a segment, `**` for any number of segments (`docs/ucxl.md`, 'Patterns').

Patterns are untrusted, and every change is matched against them. So they are not compiled to regular expressions, and
no match takes longer than the product of the two lengths.
"""

from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import unquote_to_bytes


def path_matches(pattern: str, path: str) -> bool:
    """Whether a normalised pattern matches a normalised path. '' is no path, which '' and `**` match.

    `*` matches any characters of a segment, `**` any segments, none included.
    """
    return _segments_match(_pattern_segments(pattern), _segments(path))


@lru_cache(maxsize=1024)
def _pattern_segments(path: str) -> tuple[tuple[str, ...] | None, ...]:
    """For each segment the texts around its stars (a single text: no star), or None for `**`."""
    segments = path.split("/") if path else []
    return tuple(None if segment == "**" else tuple(map(_decoded, segment.split("*"))) for segment in segments)


@lru_cache(maxsize=1024)
def _segments(path: str) -> tuple[str, ...]:
    return tuple(map(_decoded, path.split("/"))) if path else ()


def _decoded(encoded: str) -> str:
    """The text with one character for each byte, so that a star never matches half of an encoded byte."""
    return unquote_to_bytes(encoded).decode("latin-1")


def _segments_match(pattern: Sequence[tuple[str, ...] | None], segments: Sequence[str]) -> bool:
    """Greedy, with backtracking to the last `**` only, so that the time is bounded by the product of the lengths."""
    at = here = 0
    star, taken = -1, 0
    while here < len(segments):
        want = pattern[at] if at < len(pattern) else ()
        if want is None:
            star, taken = at, here
            at += 1
        elif want and _segment_matches(want, segments[here]):
            at, here = at + 1, here + 1
        elif star >= 0:
            taken += 1
            at, here = star + 1, taken
        else:
            return False
    return all(want is None for want in pattern[at:])


def _segment_matches(pieces: tuple[str, ...], segment: str) -> bool:
    """Whether the pieces of text are found in turn, each at the first possible place, the last one at the end."""
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return segment == first
    if not segment.startswith(first):
        return False
    at = len(first)
    for piece in pieces[1:-1]:
        found = segment.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(segment) - len(last) >= at and segment.endswith(last)
