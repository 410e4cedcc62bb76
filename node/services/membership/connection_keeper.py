"""Connection keeper: in a large swarm, decides which connections are kept, and lets go of others that are not used.

The decision is `protocols/policy/connection_plan.py`. A swarm is large when there are more members than
`Members.connections_kept`; in a smaller one this does nothing, and every node is connected with every other one.
"""

from collections.abc import Callable
from typing import Protocol

import trio

from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.policy.connection_plan import PlanCandidate, idle_too_long, kept

LOOK_SECONDS = 5.0
"""How often it is looked for connections that are not used."""
PAUSE_SECONDS = 0.5
"""The least time between two plans: members may come by the hundred."""


class Picture(Protocol):
    """What is asked of `protocols/policy/peers.py`."""

    def is_away(self, peer: str) -> bool: ...


class ConnectionKeeper:
    """`on_plan` is called with the members whose `is_kept` changes, and with all that no connection is kept with."""

    def __init__(
        self,
        rpc: Rpc,
        members: Members,
        picture: Picture,
        *,
        on_plan: Callable[[tuple[str, ...], frozenset[str]], None],
    ) -> None:
        self._rpc = rpc
        self._members = members
        self._picture = picture
        self._on_plan = on_plan
        self._unkept: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Plan again whenever members come or go, until cancelled."""
        while True:
            self.plan()
            self._let_go()
            for presence in self._members.all():
                if presence.is_idle:
                    self._members.note_alive(presence.member.peer)
            with trio.move_on_after(LOOK_SECONDS if self._unkept else float("inf")):
                await self._members.changed()
            await trio.sleep(PAUSE_SECONDS)

    def plan(self) -> None:
        """Decide with whom connections are kept from now on."""
        everybody = self._members.all()
        unkept: frozenset[str] = frozenset()
        if self._members.is_large:
            candidates = (
                PlanCandidate(p.member.peer, p.is_connected, self._picture.is_away(p.member.peer)) for p in everybody
            )
            chosen = kept(self._members.own, candidates, self._members.connections_kept)
            unkept = frozenset(p.member.peer for p in everybody if p.member.peer not in chosen)
        changed = tuple(p.member.peer for p in everybody if p.is_kept is (p.member.peer in unkept))
        if changed or unkept != self._unkept:
            self._unkept = unkept
            self._on_plan(changed, unkept)

    def _let_go(self) -> None:
        """End the connections that are not kept, and that neither end has used for a while; the oldest use first."""
        connections = sum(p.is_connected for p in self._members.all())
        idle = [(self._rpc.idle_seconds(peer), peer) for peer in sorted(self._unkept) if self._is_connected(peer)]
        for seconds, peer in sorted(idle, reverse=True):
            if idle_too_long(seconds, connections=connections, most=self._members.connections_kept):
                connections -= 1
                self._rpc.network.disconnect(peer, f"it was not used for {seconds:.0f} s, and need not be kept")

    def _is_connected(self, peer: str) -> bool:
        presence = self._members.get(peer)
        return presence is not None and presence.is_connected
