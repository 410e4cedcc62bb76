"""Dialler: dials the peers that the address book names, and bounds dials to peers that are known by hearsay only."""

import logging
from collections.abc import Iterable

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
        self._configured: set[str] = set()
        self._logged: dict[str, str] = {}
        """By target, the failure that was logged last as a warning."""
        self._hearsay_dials = trio.CapacityLimiter(HEARSAY_DIALS_MAX)

    def report_failures(self, addresses: Iterable[str]) -> None:
        """From now on a failed dial of these addresses is a warning, once for each reason: an operator named them."""
        self._configured.update(addresses)

    async def dial(self, target: str, addresses: tuple[str, ...], is_hearsay: bool) -> str:
        """Dial a target at these addresses; return the peer id at the other end, or '' when none answered."""
        try:
            if is_hearsay:
                return await self._dial_hearsay(addresses)
            peer = await self._network.dial(addresses, timeout=DIAL_SECONDS)
            self._logged.pop(target, None)
            return peer
        except DialFailed as error:
            self._log_failure(target, addresses, str(error))
            return ""
        except Exception:  # a library that meets an odd address, or a machine without room, must not end the node
            log.exception("the dial of %s failed in a way that was not expected", target)
            return ""

    def _log_failure(self, target: str, addresses: tuple[str, ...], why: str) -> None:
        if self._configured.isdisjoint(addresses) or self._logged.get(target) == why:
            log.debug("could not dial %s: %s", target, why)
        else:
            self._logged[target] = why
            log.warning("the bootstrap node %s cannot be reached: %s; it is dialled again", target, why)

    async def _dial_hearsay(self, addresses: tuple[str, ...]) -> str:
        async with self._hearsay_dials:
            try:
                return await self._network.dial(addresses, timeout=DIAL_SECONDS)
            except DialFailed:
                await trio.sleep(HEARSAY_PAUSE_SECONDS)
                raise
