"""The members of the SQLite store."""

import json
import sqlite3

from node.store.members import Member
from node.store.sqlite import queries
from node.store.sqlite.transaction import Transaction
from node.store.sqlite.writer import Writer
from protocols.log_lineage import LogPosition


class SqliteMembers:
    """See `members.MemberRecords`. They and what is known of their logs are in memory too."""

    def __init__(self, db: sqlite3.Connection, writer: Writer) -> None:
        self._writer = writer
        self._members = queries.members(db)
        self._logs = queries.member_logs(db)

    def members(self) -> tuple[Member, ...]:
        return tuple(self._members[peer] for peer in sorted(self._members))

    async def save_member(self, member: Member) -> None:
        row = (
            member.peer, member.name, json.dumps(member.addresses), member.first_seen_ms, member.last_seen_ms,
            json.dumps(member.labels),
        )  # fmt: skip
        await self._writer.submit(
            lambda transaction: transaction.db.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?, ?)", row),
            lambda _: self._members.update({member.peer: member}),
        )

    async def forget_member(self, peer: str) -> None:
        def forget(transaction: Transaction) -> None:
            for table in ("members", "member_logs"):
                transaction.db.execute(f"DELETE FROM {table} WHERE peer = ?", (peer,))

        def publish(_: object) -> None:
            self._members.pop(peer, None)
            self._logs.pop(peer, None)

        self._writer.deferred.member_logs.pop(peer, None)
        await self._writer.submit(forget, publish)

    def member_log(self, peer: str) -> LogPosition | None:
        return self._logs.get(peer)

    def set_member_log(self, peer: str, position: LogPosition) -> None:
        self._logs[peer] = self._writer.deferred.member_logs[peer] = position
        self._writer.flush_soon()
