"""What a terminal takes: control sequences, and colors."""

import os
from typing import TextIO


def has_control(stream: TextIO) -> bool:
    """Whether the stream is a terminal that moves its cursor: not `TERM=dumb` (an editor's shell, a CI job)."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb")


def has_colors(stream: TextIO) -> bool:
    """Whether colors are wanted: `NO_COLOR` with any value means that they are not (no-color.org)."""
    return has_control(stream) and not os.environ.get("NO_COLOR")
