"""What the tables know of the versions in a run of merges: read with a few statements, before anything is decided."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from node.store.sqlite.prefix_index import PrefixIndexes, digest_prefix, key_prefix
from node.store.sqlite.rows import placeholders
from protocols.envelope import Envelope, Notice


@dataclass(slots=True)
class KnownVersion:
    """A version in the tables, or one of this run that will be."""

    sequence: int
    key_id: int
    version: int
    author: str
    content_id: int | None
    """None: its content never came."""
    is_local: bool
    is_reissued: bool
    is_lost: bool
    """Its header was found damaged."""


class KnownContent(NamedTuple):
    """A content in the tables, or one of this run that will be."""

    id: int
    size_bytes: int | None
    """None: it was found damaged."""

    @property
    def is_whole(self) -> bool:
        return self.size_bytes is not None


class MergeLookup:
    """Used in the writer's thread, within its transactions. The merges of a run keep it up to date."""

    def __init__(self, db: sqlite3.Connection, prefixes: PrefixIndexes) -> None:
        self._db = db
        self._prefixes = prefixes
        self.versions: dict[bytes, KnownVersion] = {}
        """By digest: the versions of the run, their parents, and those that they reissue."""
        self.key_ids: dict[bytes, int] = {}
        self.contents: dict[bytes, KnownContent] = {}
        """By content digest."""
        self.orphans: dict[bytes, list[tuple[int, int]]] = {}
        """By parent that is not held: (key id, version) of its children."""
        self.reissues: dict[bytes, list[tuple[int, str]]] = {}
        """By digest: (key id, author) of the versions that claim to replace it."""
        self.has_orphans = False
        self.has_reissues = False
        self.is_named_again = False
        """Whether a digest is named twice in the run: then a version of the run may be known, or a parent, later on."""
        self.load()

    def load(self) -> None:
        """Read what is kept between runs; again after a transaction was rolled back."""
        self.clear()
        self.has_orphans = bool(self._db.execute("SELECT EXISTS (SELECT 1 FROM orphans)").fetchone()[0])
        self.has_reissues = bool(self._db.execute("SELECT EXISTS (SELECT 1 FROM reissues)").fetchone()[0])

    def clear(self) -> None:
        """Forget the versions of the last run."""
        self.versions = {}
        self.key_ids = {}
        self.contents = {}
        self.orphans = {}
        self.reissues = {}

    def read(self, items: Sequence[Envelope | Notice]) -> None:
        db, prefixes = self._db, self._prefixes
        named = [item.digest for item in items]
        for item in items:
            if item.parents:
                named += item.parents
            if item.meta:
                named += item.reissues
        digests = list(dict.fromkeys(named))
        self.is_named_again = len(digests) < len(named)
        for places, values in placeholders(prefixes.digests.find(db, [digest_prefix(digest) for digest in digests])):
            for digest, *row in db.execute(
                "SELECT digest, sequence, key_id, version, author, content_id, is_local, reissued_as IS NOT NULL, "
                f"header IS NULL FROM versions WHERE sequence IN {places}",
                values,
            ):
                self.versions[digest] = KnownVersion(*row)
        keys = dict.fromkeys([item.key for item in items])
        for places, values in placeholders(prefixes.keys.find(db, [key_prefix(key) for key in keys])):
            self.key_ids.update(db.execute(f"SELECT key, id FROM keys WHERE id IN {places}", values))
        contents = list(dict.fromkeys([item.content_digest for item in items]))
        for places, values in placeholders(
            prefixes.contents.find(db, [digest_prefix(digest) for digest in contents])
        ):  # fmt: skip
            for digest, content_id, size_bytes in db.execute(
                f"SELECT digest, id, length(content) FROM contents WHERE id IN {places}", values
            ):
                self.contents[digest] = KnownContent(content_id, size_bytes)
        if self.has_orphans:
            self._read_orphans(list(dict.fromkeys([item.digest for item in items])))
        if self.has_reissues:
            named = [digest for item in items for digest in (item.digest, *item.reissues)]
            self._read_reissues(list(dict.fromkeys(named)))

    def _read_orphans(self, digests: Sequence[bytes]) -> None:
        for places, values in placeholders(digests):
            for parent, key_id, version in self._db.execute(
                f"SELECT parent, key_id, version FROM orphans WHERE parent IN {places}", values
            ):
                self.orphans.setdefault(parent, []).append((key_id, version))

    def _read_reissues(self, digests: Sequence[bytes]) -> None:
        for places, values in placeholders(digests):
            for old, key_id, author in self._db.execute(
                "SELECT s.reissued, v.key_id, v.author FROM reissues s JOIN versions v ON v.sequence = s.sequence "
                f"WHERE s.reissued IN {places}",
                values,
            ):
                self.reissues.setdefault(old, []).append((key_id, author))
