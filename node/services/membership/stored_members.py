"""Stored members: what the store remembers of the members, kept in step with `Members` in memory."""

import logging
from collections.abc import Callable
from dataclasses import replace

from node.services.membership.peer_log import PeerLog
from node.store.base import Store
from node.store.members import Member
from node.swarm.members import Members, Presence
from node.swarm.peer_policy import PeerPolicy
from protocols.errors import BzzzError
from protocols.names import is_name

log = logging.getLogger(__name__)


class StoredMembers:
    """`start_task` starts a coroutine function in the background, while the node runs."""

    def __init__(
        self,
        store: Store,
        members: Members,
        peer_policy: PeerPolicy,
        peer_log: PeerLog,
        start_task: Callable[..., None],
    ) -> None:
        self._store = store
        self._members = members
        self._peer_policy = peer_policy
        self._log = peer_log
        self._start_task = start_task

    def save(self, member: Member) -> None:
        self._start_task(self._save, member)

    def forget(self, peer: str) -> None:
        """Forget a member, here and in the store."""
        self._members.forget(peer)
        self._start_task(self._delete, peer)

    def forget_unlisted(self) -> None:
        """The lists changed, or may have since the last run: an excluded peer is no member, and has no hints."""
        for presence in self._members.all():
            peer = presence.member.peer
            if not self._peer_policy.is_listed(peer):
                log.info("forgot %s: it is not allowed here", peer)
                self.forget(peer)

    def clean(self, presence: Presence, addresses: tuple[str, ...]) -> None:
        """Drop what an earlier build stored of a member and is not accepted today; `addresses` are those that are."""
        member = presence.member
        name = member.name if is_name(member.name) else ""
        if name != member.name:
            self._log.info("the stored name of %s cannot be a name, and is dropped: %.80s", member.peer, member.name)
        if (name, addresses) != (member.name, member.addresses):
            presence.member = replace(member, name=name, addresses=addresses)
            self.save(presence.member)

    async def _save(self, member: Member) -> None:
        try:
            await self._store.save_member(member)
        except BzzzError as error:
            log.warning("%s could not be stored as a member: %s", member.peer, error.message)

    async def _delete(self, peer: str) -> None:
        try:
            await self._store.forget_member(peer)
        except BzzzError as error:
            log.warning(
                "%s could not be deleted from the stored members, and is one again at the next start: %s",
                peer,
                error.message,
            )
