"""What a memory store remembers beside versions and hints: members, positions of readers, and marks."""

from collections.abc import Awaitable, Callable

from node.store.members import Member
from node.store.memory.commits import CommitQueue
from protocols.log_lineage import LogPosition


class MemoryRecords(CommitQueue):
    """See `members.MemberRecords`, `marks.Marks` and the cursors of `log.Log`."""

    def __init__(self, before_commit: Callable[[], Awaitable[None]] | None) -> None:
        super().__init__(before_commit)
        self._marks: dict[str, str] = {}
        self._cursors: dict[str, int] = {}
        self._members: dict[str, Member] = {}
        self._member_logs: dict[str, LogPosition] = {}

    def mark(self, name: str) -> str | None:
        return self._marks.get(name)

    def set_mark(self, name: str, text: str) -> None:
        self._marks[name] = text

    async def cursor(self, name: str) -> int:
        return self._cursors.get(name, 0)

    async def set_cursor(self, name: str, sequence: int) -> None:
        self._cursors[name] = sequence

    def cursor_names(self, prefix: str) -> list[str]:
        return [name for name in self._cursors if name.startswith(prefix)]

    async def drop_cursor(self, name: str) -> None:
        self._cursors.pop(name, None)

    def members(self) -> tuple[Member, ...]:
        return tuple(self._members[peer] for peer in sorted(self._members))

    async def save_member(self, member: Member) -> None:
        await self._submit(lambda: self._members.update({member.peer: member}))

    async def forget_member(self, peer: str) -> None:
        await self._submit(lambda: (self._members.pop(peer, None), self._member_logs.pop(peer, None)))

    def member_log(self, peer: str) -> LogPosition | None:
        return self._member_logs.get(peer)

    def set_member_log(self, peer: str, position: LogPosition) -> None:
        self._member_logs[peer] = position
