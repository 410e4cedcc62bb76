"""The one supported release of libp2p: the check of its version, and its logging.

The pin is exact. The adapters, `upgrade.py`, `noise.py` and `gossipsub.py` rely on names inside libp2p, and a later
release may fix, rename or break any of them; the tests of these files show which.
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
    """Send libp2p's log lines from `level` on to the root logger, and drop the others.

    libp2p logs normal events of a swarm, such as a peer that hangs up, as errors: therefore the default. Its import
    configures its logger so that nothing reaches the handlers of the root logger. A few of its modules call
    `logging.debug()`, which installs a handler for stderr on a root logger without handlers: so the root logger gets
    one that writes nothing.
    """
    library = logging.getLogger("libp2p")
    library.setLevel(level)
    library.propagate = True
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())
