"""The switch interval between threads: how soon the thread that writes to the disk gets the interpreter's lock.

Every call into SQLite releases the interpreter's lock and has to get it back. A thread that holds the lock is asked to
release it only after the switch interval, 5 ms by default: a commit that needs the lock twenty times took up to 100 ms
beside a busy event loop, instead of 1 ms.
"""

import sys

SWITCH_SECONDS = 0.0002


def shorten_switch_interval() -> None:
    """Make a running thread give way to a waiting one after `SWITCH_SECONDS`."""
    sys.setswitchinterval(SWITCH_SECONDS)
