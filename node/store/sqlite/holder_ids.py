"""Numbers for holders: the tables store a number for each peer id."""

import sqlite3


class HolderIds:
    """Used in the writer's thread, within its transactions."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._ids: dict[str, int] = {}
        self.load()

    def load(self) -> None:
        """Read the table; again after a transaction was rolled back."""
        self._ids = dict(self._db.execute("SELECT peer, id FROM holders"))

    def of(self, peer: str) -> int:
        """The number of a holder, which gets one when it is new."""
        number = self._ids.get(peer)
        if number is None:
            self._db.execute("INSERT INTO holders (peer) VALUES (?)", (peer,))
            (number,) = self._db.execute("SELECT last_insert_rowid()").fetchone()
            self._ids[peer] = number
        return number
