"""Turns between a process's threads: how soon the one that writes to the disk gets the interpreter from a busy loop.

Every call into SQLite gives the interpreter's lock up and has to win it back. Whoever holds it is asked for it only
after a while, five milliseconds if nothing else is said: a commit that needs it twenty times took up to a hundred
milliseconds beside a loop that had work to do, instead of one.
"""

import sys

SWITCH_SECONDS = 0.0002


def take_short_turns() -> None:
    """Have a thread that runs give way to one that waits after this long."""
    sys.setswitchinterval(SWITCH_SECONDS)
