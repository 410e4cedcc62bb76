"""Absences: judges which members are gone, so that others hold in their place, and says so in the log."""

import logging

import trio

from node.swarm.members import Members
from protocols.replication.absence import HERE, Absence

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""The longest time between two judgements; a shorter grace is looked at more often."""


class Absences:
    """Of one node. It alone calls `Members.replace`."""

    def __init__(self, members: Members, *, grace_seconds: float) -> None:
        self._members = members
        self._absence = Absence(grace_seconds=grace_seconds, started_at=trio.current_time())
        self._look_seconds = min(LOOK_SECONDS, grace_seconds / 4)
        self.held = ""
        """Why no member is replaced though some are gone, in words, or ''."""

    async def run(self) -> None:
        """Judge after every change of the members, and from time to time, until cancelled."""
        while True:
            self.judge()
            with trio.move_on_after(self._look_seconds):
                await self._members.changed()

    def judge(self) -> None:
        alive_at = {p.member.peer: HERE if p.is_connected or p.is_idle else p.alive_at for p in self._members.all()}
        gone, held = self._absence.judge(alive_at, trio.current_time())
        if len(self._members) <= self._members.replication:  # every node holds everything: there is no other one
            held = ""
        before = self._members.replaced
        for peer in gone:
            if peer not in before:
                log.warning("%s (%s) is gone: other nodes hold in its place", self._members.name_of(peer), peer)
        for peer in sorted(before.difference(gone)):
            log.info("%s (%s) is not gone any more: it holds again", self._members.name_of(peer), peer)
        if bool(held) != bool(self.held):
            log.warning("%s", held or "most of the other members are here again: those that are gone are replaced")
        self.held = held
        self._members.replace(gone)
