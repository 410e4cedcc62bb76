"""Directory: which node offers what, as far as this node knows: its own capabilities, and what others announce."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from node.swarm.members import Members
from protocols.announce import Announcement
from protocols.capabilities import Capability, matches


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One capability of one node."""

    peer: str
    name: str
    """What a person calls the node; may be ''."""
    capability: Capability
    addresses: tuple[str, ...]
    is_own: bool
    """This node itself offers it."""
    is_connected: bool
    is_idle: bool
    """It need not be connected, and is dialled when it is wanted."""


class Directory:
    """`own` makes the announcement-like facts of this node; `announced` are the announcements that hold now."""

    def __init__(
        self,
        members: Members,
        *,
        name: str,
        addresses: Callable[[], tuple[str, ...]],
        capabilities: Callable[[], Sequence[Capability]],
        announced: Callable[[], Sequence[Announcement]],
        is_listed: Callable[[str], bool],
    ) -> None:
        self._members = members
        self._name = name
        self._addresses = addresses
        self._capabilities = capabilities
        self._announced = announced
        self._is_listed = is_listed

    def offers(self, wanted: str = "", *, peer: str = "") -> list[Offer]:
        """What is offered, by this node first; only what `wanted` names (`capabilities.matches`), and only by `peer`.

        A node is named by its peer id, or by its name.
        """
        return [
            offer
            for offer in (*self._own(), *self._others())
            if (not peer or peer in (offer.peer, offer.name)) and (not wanted or matches(offer.capability, wanted))
        ]

    def _own(self) -> Iterator[Offer]:
        addresses = self._addresses()
        for capability in self._capabilities():
            yield Offer(
                peer=self._members.own,
                name=self._name,
                capability=capability,
                addresses=addresses,
                is_own=True,
                is_connected=True,
                is_idle=False,
            )

    def _others(self) -> Iterator[Offer]:
        for announcement in sorted(self._announced(), key=lambda each: (each.name, each.peer)):
            if not self._is_listed(announcement.peer):
                continue
            presence = self._members.get(announcement.peer)
            for capability in announcement.capabilities:
                yield Offer(
                    peer=announcement.peer,
                    name=announcement.name,
                    capability=capability,
                    addresses=announcement.addresses,
                    is_own=False,
                    is_connected=presence is not None and presence.is_connected,
                    is_idle=presence is not None and presence.is_idle,
                )
