"""Errors of `accept` that mean a lack of resources, in words: for every listening socket of a node."""

import errno
from typing import Final

NO_ROOM: Final = {
    errno.EMFILE: "this process has no file descriptors left; raise its limit (ulimit -n)",
    errno.ENFILE: "this machine has no file descriptors left; raise its limit (sysctl fs.file-max)",
    errno.ENOBUFS: "this machine has no memory left for sockets; stop other programs there",
    errno.ENOMEM: "this machine has no memory left for sockets; stop other programs there",
}
"""By error number: the resource that is exhausted, and what to do."""
