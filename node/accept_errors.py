"""What the system says when it has no room for another connection, in words: for every door of a node."""

import errno
from typing import Final

NO_ROOM: Final = {
    errno.EMFILE: "this process has no file descriptors left; raise its limit (ulimit -n)",
    errno.ENFILE: "this machine has no file descriptors left; raise its limit (sysctl fs.file-max)",
    errno.ENOBUFS: "this machine has no memory left for sockets; end what else runs there",
    errno.ENOMEM: "this machine has no memory left for sockets; end what else runs there",
}
"""By error number of `accept`: what is short, and what to do."""
