"""libp2p, the one release of it that we know, and what must be said to it before anything else is.

Every file here that relies on names inside libp2p imports them after this one. The pin is exact: a later release may
mend, rename or break any of what `adapters.py`, `upgrade.py` and `noise.py` build upon, and their tests say which.
"""

import logging

import libp2p

VERSION = "0.8.1"

if libp2p.__version__ != VERSION:
    raise ImportError(
        f"libp2p {libp2p.__version__} is installed, and this program was written against {VERSION} and relies on names"
        f" inside it; install libp2p=={VERSION}"
    )


def configure_logging(level: int = logging.CRITICAL) -> None:
    """Let libp2p say only what is at least as grave as `level`, and let it say that through the root logger.

    It logs what is normal in a swarm, such as a peer that hangs up, as errors: hence the default. Its import sets its
    logger up so that nothing reaches the root's handlers, and a few of its modules call `logging.debug()`, which
    installs a handler that writes to stderr on a root logger that has none: it gets one that writes nothing.
    """
    library = logging.getLogger("libp2p")
    library.setLevel(level)
    library.propagate = True
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())
