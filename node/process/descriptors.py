"""File descriptors: how many this process may have, and how they are divided between swarm, API and the node itself.

A process that has none left can open no file, not even its store's, and accept no connection. So the sockets of swarm
and API are limited at the start such that together they never take what the rest of the node needs. The node does not
start with fewer than it needs to be of use.
"""

import os
import resource
from contextlib import suppress
from dataclasses import dataclass

WANTED = 8192
"""The default of many systems, 1,024, is too few for a thousand idle connections."""
OWN = 18
"""The event loop, store, audit log, locks and the listening socket of the API, once the node is ready, with room."""
MDNS = 36
"""Where the node may search the local network: a loop with its pipe, a socket that listens, two for each of 16
interfaces."""
RESERVE = 16
"""Files that are open for a moment: a read of the audit log or the configuration, a look-up of a name."""
SWARM_MIN = 16
API_MIN = 8
API_MAX = 576


class TooFewDescriptors(Exception):
    """This process may open too few files and sockets to be a node; the message says how many it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorBudget:
    """The most sockets that each may have open, apart from those it listens on. `swarm` is 0 without a swarm."""

    swarm: int
    api: int


def divide(total: int, *, is_open: int, listens: int, has_mdns: bool = False) -> DescriptorBudget:
    """Divide `total` descriptors, of which `is_open` are taken; `listens`: swarm sockets (0: no swarm).

    `has_mdns`: the node may search the local network.

    A quarter of the rest is for the API, up to `API_MAX`. Raises `TooFewDescriptors`.
    """
    fixed = is_open + OWN + RESERVE + listens + (MDNS if has_mdns else 0)
    needed = fixed + API_MIN + (SWARM_MIN if listens else 0)
    if total < needed:
        raise TooFewDescriptors(
            f"this process may open {total} files and sockets, and a node needs at least {needed} (better {WANTED:,}): "
            "raise the limit with 'ulimit -n', or LimitNOFILE= of a service"
        )
    rest = total - fixed
    api = min(API_MAX, max(API_MIN, rest // 4)) if listens else min(API_MAX, rest)
    return DescriptorBudget(swarm=rest - api if listens else 0, api=api)


def raised_limit() -> int:
    """How many descriptors this process may have, after raising its limit as far as allowed and wanted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return soft


def open_now() -> int:
    """How many descriptors this process has open; 3, the standard streams, where the system does not say."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(folder)) - 1  # one was for the listing
    return 3
