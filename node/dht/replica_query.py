"""Replica query: asks the reachable holders of a key, nearest first, until enough of them have answered."""

from collections.abc import Callable

from node.dht.hedged_query import QueryResult, Unanswered, ask
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.errors import Unavailable
from protocols.messages import GetByDigest, GetHeads, GetVersions

Question = GetHeads | GetVersions | GetByDigest


class ReplicaQuery:
    """`at_first` holders are asked at once; the others follow when the first ones do not answer soon."""

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
        """Ask the reachable holders, the connected ones first. Raises `Unavailable` when none is reachable or none
        answers."""
        peers = self._members.reachable_of(wanted)
        if not peers:
            raise Unavailable(
                f"none of the {len(wanted)} members that should hold this can be reached", asked=0, wanted=len(wanted)
            )
        first = self._at_first if at_first is None else at_first
        result = await ask(self._rpc, peers, request, at_first=first, is_enough=is_enough, deadline=deadline)
        if not result.answers:
            raise self.unanswered(result, wanted)
        return result

    async def ask_all(self, peers: tuple[str, ...], request: GetVersions, deadline: float) -> QueryResult:
        """Ask all of them at once, and wait for all."""
        return await self.ask(peers, lambda _: request, lambda r: len(r.answers) >= len(peers), deadline, len(peers))

    def unanswered(self, result: QueryResult, wanted: tuple[str, ...]) -> Unanswered:
        """The error for a query that too few holders answered."""
        return Unanswered(
            f"too few of the {len(wanted)} members that should hold this answered "
            f"({result.evidence(self._members.name_of)}); whether it exists is not known now",
            peers=[peer for peer in result.silent if peer not in result.unsent],
            asked=len(result.asked) - len(result.unsent),
            answered=len(result.answers),
            wanted=len(wanted),
        )


def is_majority(result: QueryResult, wanted: tuple[str, ...], deciding: tuple[str, ...]) -> bool:
    """Whether most of the wanted holders answered, and most of those that decide (`Members.deciding`): then what none
    of them has is absent."""
    decided = sum(peer in result.answers for peer in deciding)
    return 2 * len(result.answers) > len(wanted) and 2 * decided > len(deciding)
