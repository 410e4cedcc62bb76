"""The holders of a key, asked: those that can be reached, nearest first, until enough have answered."""

from collections.abc import Callable

from node.dht.hedged_query import Asked, Unanswered, ask
from node.swarm.members import Members
from node.swarm.rpc import Calls
from protocols.errors import Unavailable
from protocols.messages import ByDigest, Heads, Provide, Providers, Versions

Question = Heads | Versions | ByDigest | Provide | Providers


class Holders:
    """`at_first` is how many are asked at once; the others follow when those do not answer soon."""

    def __init__(self, calls: Calls, members: Members, *, at_first: int) -> None:
        self._calls = calls
        self._members = members
        self._at_first = at_first

    async def ask(
        self,
        wanted: tuple[str, ...],
        request: Callable[[str], Question],
        is_enough: Callable[[Asked], bool],
        deadline: float,
        at_first: int | None = None,
    ) -> Asked:
        """Ask the reachable ones. Raises `Unavailable` when nobody can be asked or nobody answers."""
        peers = [peer for peer in wanted if self._members.is_reachable(peer)]
        if not peers:
            raise Unavailable(
                f"none of the {len(wanted)} members that should hold this can be reached", asked=0, wanted=len(wanted)
            )
        first = self._at_first if at_first is None else at_first
        asked = await ask(self._calls, peers, request, at_first=first, is_enough=is_enough, deadline=deadline)
        if not asked.answers:
            raise self.unanswered(asked, wanted)
        return asked

    async def ask_all(self, peers: tuple[str, ...], request: Versions | Provide, deadline: float) -> Asked:
        """Ask all of them at once, and wait for all."""
        return await self.ask(peers, lambda _: request, lambda a: len(a.answers) >= len(peers), deadline, len(peers))

    def unanswered(self, asked: Asked, wanted: tuple[str, ...]) -> Unanswered:
        """The error that says so."""
        return Unanswered(
            f"too few of the {len(wanted)} members that should hold this answered "
            f"({asked.evidence(self._members.name_of)}); whether it exists cannot be told now",
            peers=asked.silent,
            asked=len(asked.asked),
            answered=len(asked.answers),
            wanted=len(wanted),
        )


def is_majority(asked: Asked, wanted: tuple[str, ...]) -> bool:
    """Whether most of the holders answered: then what none of them has is absent."""
    return 2 * len(asked.answers) > len(wanted)
