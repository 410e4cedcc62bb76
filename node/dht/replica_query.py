"""The holders of a key, asked: those that can be reached, nearest first, until enough have answered."""

from collections.abc import Callable

from node.dht.hedged_query import QueryResult, Unanswered, ask
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.errors import Unavailable
from protocols.messages import AddProvider, GetByDigest, GetHeads, GetProviders, GetVersions

Question = GetHeads | GetVersions | GetByDigest | AddProvider | GetProviders


class ReplicaQuery:
    """`at_first` is how many are asked at once; the others follow when those do not answer soon."""

    def __init__(self, rpc: Rpc, members: Members, *, at_first: int) -> None:
        self._rpc = rpc
        self._members = members
        self._at_first = at_first

    async def ask(
        self,
        wanted: tuple[str, ...],
        request: Callable[[str], Question],
        is_enough: Callable[[QueryResult], bool],
        deadline: float,
        at_first: int | None = None,
    ) -> QueryResult:
        """Ask the reachable ones. Raises `Unavailable` when nobody can be asked or nobody answers."""
        peers = [peer for peer in wanted if self._members.is_reachable(peer)]
        if not peers:
            raise Unavailable(
                f"none of the {len(wanted)} members that should hold this can be reached", asked=0, wanted=len(wanted)
            )
        first = self._at_first if at_first is None else at_first
        asked = await ask(self._rpc, peers, request, at_first=first, is_enough=is_enough, deadline=deadline)
        if not asked.answers:
            raise self.unanswered(asked, wanted)
        return asked

    async def ask_all(self, peers: tuple[str, ...], request: GetVersions | AddProvider, deadline: float) -> QueryResult:
        """Ask all of them at once, and wait for all."""
        return await self.ask(peers, lambda _: request, lambda a: len(a.answers) >= len(peers), deadline, len(peers))

    def unanswered(self, asked: QueryResult, wanted: tuple[str, ...]) -> Unanswered:
        """The error that says so."""
        return Unanswered(
            f"too few of the {len(wanted)} members that should hold this answered "
            f"({asked.evidence(self._members.name_of)}); whether it exists cannot be told now",
            peers=asked.silent,
            asked=len(asked.asked),
            answered=len(asked.answers),
            wanted=len(wanted),
        )


def is_majority(asked: QueryResult, wanted: tuple[str, ...]) -> bool:
    """Whether most of the holders answered: then what none of them has is absent."""
    return 2 * len(asked.answers) > len(wanted)
