"""Twin search: looks for another node with this node's identity, says what it finds, and makes this one back off.

What follows from what is found is decided by `protocols/policy/twin.py`.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

import trio

from node.swarm.libp2p.yamux import YamuxConnection
from protocols.policy.twin import CHECK_SECONDS, TwinDetector

PATIENCE_SECONDS = 4.0
ADDRESSES_MAX = 8
"""Addresses of one hello at which a twin is looked for."""


class TwinSearch:
    """`dial` finds out what is at some addresses, and connects nothing. `on_back_off` is called when this node has to
    have no peers from now on."""

    def __init__(
        self,
        session_key: bytes,
        *,
        dial: Callable[[Sequence[str]], Awaitable[None]],
        on_back_off: Callable[[], None],
        log: logging.Logger,
    ) -> None:
        self._twins = TwinDetector(session_key)
        self._dial = dial
        self._on_back_off = on_back_off
        self._log = log
        self._logged = ""
        self._looked_at = float("-inf")

    @property
    def is_backing_off(self) -> bool:
        return self._twins.is_backing_off

    def in_words(self) -> str:
        return self._twins.in_words()

    async def run(self) -> None:
        """Look whether a twin that this node backs off from is still there, until cancelled."""
        while True:
            await trio.sleep(CHECK_SECONDS)
            if addresses := self._twins.addresses():
                await self._dial(addresses)

    async def look(self, addresses: Sequence[str], *, started_at: float) -> None:
        """A peer knows this node by these addresses, which are not its own: look, now and then only, who is there."""
        now = trio.current_time()
        if self._twins.is_known() or now < self._looked_at + CHECK_SECONDS:
            return
        self._looked_at = now
        # The later one of two looks first, and so backs off: this one waits the longer the longer it runs, to be found.
        await trio.sleep(min(PATIENCE_SECONDS, now - started_at))
        if not self._twins.is_known():
            await self._dial(addresses[:ADDRESSES_MAX])

    def met(self, mux: YamuxConnection, address: str, *, dialled: bool) -> bool:
        """A connection to this node's own peer id was made. False: it is this process that is at its other end."""
        is_twin = self._twins.met(mux.session_key, address, trio.current_time(), dialled=dialled)
        self._follow()
        return is_twin

    def reported(self, log_id: str, address: str, *, yields: bool) -> None:
        """A peer saw a twin with this log, at this address or '' (not known)."""
        self._twins.reported(log_id, address, trio.current_time(), yields=yields)
        self._follow()

    def tick(self) -> None:
        """Forget the twins that are gone."""
        self._twins.forget(trio.current_time())
        self._follow()

    def _follow(self) -> None:
        """Log what has changed, and back off when that is this node's part."""
        words = self._twins.in_words()
        if words != self._logged:
            self._log.error("%s", words or "no other node runs with this node's identity any more")
            self._logged = words
            if self._twins.is_backing_off:
                self._on_back_off()
