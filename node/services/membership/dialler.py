"""Dialler: dials the peers that the address book names, and bounds dials to peers that are known by hearsay only."""

import logging

import trio

from node.swarm.base import DialFailed, Network

log = logging.getLogger(__name__)

DIAL_SECONDS = 5.0
HEARSAY_DIALS_MAX = 16
"""Dials under way to peers that are known from another peer only, which may have lied."""
HEARSAY_PAUSE_SECONDS = 0.25
"""A failed dial of such a peer counts as under way for so long, even if it failed at once."""


class Dialler:
    """Dials over one network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._hearsay_dials = trio.CapacityLimiter(HEARSAY_DIALS_MAX)

    async def dial(self, target: str, addresses: tuple[str, ...], is_hearsay: bool) -> str:
        """Dial a target at these addresses; return the peer id at the other end, or '' when none answered."""
        try:
            if is_hearsay:
                return await self._dial_hearsay(addresses)
            return await self._network.dial(addresses, timeout=DIAL_SECONDS)
        except DialFailed as error:
            log.debug("could not dial %s: %s", target, error)
            return ""
        except Exception:  # a library that meets an odd address, or a machine without room, must not end the node
            log.exception("the dial of %s failed in a way that was not expected", target)
            return ""

    async def _dial_hearsay(self, addresses: tuple[str, ...]) -> str:
        async with self._hearsay_dials:
            try:
                return await self._network.dial(addresses, timeout=DIAL_SECONDS)
            except DialFailed:
                await trio.sleep(HEARSAY_PAUSE_SECONDS)
                raise
