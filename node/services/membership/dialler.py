"""Dialler: dials the peers that the picture of the peers names, and bounds dials to peers that are known by hearsay."""

import logging
from collections.abc import Iterable

import trio

from node.services.membership.this_node import ThisNode
from node.swarm.base import DialFailed, Network
from protocols.policy.peer_events import ITSELF, Dial, Dialled

log = logging.getLogger(__name__)

DIAL_SECONDS = 5.0
HEARSAY_DIALS_MAX = 16
"""Dials under way to peers that are known from another peer only, which may have lied."""
HEARSAY_PAUSE_SECONDS = 0.25
"""A failed dial of such a peer counts as under way for so long, even if it failed at once."""
NETWORK_CHANGED = "the network of this machine changed meanwhile"


class Dialler:
    """Dials over one network."""

    def __init__(self, network: Network, this_node: ThisNode) -> None:
        self._network = network
        self._this_node = this_node
        self._configured: set[str] = set()
        self._logged: dict[str, str] = {}
        """By target, the failure that was logged last as a warning."""
        self._hearsay_dials = trio.CapacityLimiter(HEARSAY_DIALS_MAX)
        self._under_way: dict[trio.CancelScope, None] = {}

    def report_failures(self, addresses: Iterable[str]) -> None:
        """From now on a failed dial of these addresses is a warning, once for each reason: an operator named them."""
        self._configured.update(addresses)

    def abandon(self) -> None:
        """The network of this machine changed: the dials under way may wait for what cannot come any more. They end."""
        for scope in self._under_way:
            scope.cancel()

    async def dial(self, dial: Dial) -> Dialled:
        """Carry out a dial, but for addresses that lead to this node itself; return how it ended."""
        addresses = tuple(address for address in dial.addresses if not self._this_node.is_own(address))
        if not addresses:
            others = tuple((address, self._this_node.peer_id) for address in dial.addresses)
            return self._failed(dial, ITSELF, others)
        scope = trio.CancelScope()
        self._under_way[scope] = None
        try:
            with scope:
                peer = await self._dial(addresses, dial.is_hearsay)
                self._logged.pop(dial.target, None)
                return Dialled(dial.target, peer)
            return Dialled(dial.target, "", NETWORK_CHANGED)
        except DialFailed as error:
            return self._failed(dial, str(error), tuple(error.others.items()))
        except Exception as error:  # a library that meets an odd address, or a machine without room, ends no node
            log.exception("the dial of %s failed in a way that was not expected", dial.target)
            return Dialled(dial.target, "", str(error))
        finally:
            del self._under_way[scope]

    def _failed(self, dial: Dial, why: str, others: tuple[tuple[str, str], ...]) -> Dialled:
        if self._configured.isdisjoint(dial.addresses) or self._logged.get(dial.target) == why:
            log.debug("could not dial %s: %s", dial.target, why)
        else:
            self._logged[dial.target] = why
            log.warning("the bootstrap node %s cannot be reached: %s; it is dialled again", dial.target, why)
        return Dialled(dial.target, "", why, others)

    async def _dial(self, addresses: tuple[str, ...], is_hearsay: bool) -> str:
        if not is_hearsay:
            return await self._network.dial(addresses, timeout=DIAL_SECONDS)
        async with self._hearsay_dials:
            try:
                return await self._network.dial(addresses, timeout=DIAL_SECONDS)
            except DialFailed:
                await trio.sleep(HEARSAY_PAUSE_SECONDS)
                raise
