"""The versions in a store: read by key or by digest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from protocols.envelope import Envelope, Notice

HEADS_MAX: Final = 1_024
"""How many heads of a key are answered. One that nobody merges has more only where a member makes them on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version as the history lists it: everything except its content."""

    notice: Notice
    is_held: bool
    """False when this store has only the notice."""
    is_head: bool
    reissued_as: bytes | None = None
    """The version that replaces this one, when its author's clock was found to be wrong."""

    @property
    def version(self) -> int:
        return self.notice.version

    @property
    def author(self) -> str:
        return self.notice.author

    @property
    def digest(self) -> bytes:
        return self.notice.digest

    @property
    def parents(self) -> tuple[bytes, ...]:
        return self.notice.parents


class VersionRef(NamedTuple):
    """The place of a version in the total order; it compares as that order does."""

    version: int
    author: str
    digest: bytes


class HeldContent(NamedTuple):
    """A content in a store, without its bytes."""

    sequence: int
    """Of the entry in the log with which it came."""
    digest: bytes
    key: bytes
    """Of the version with which it came."""
    is_local: bool
    """That version was written here."""


class Versions(Protocol):
    """Digests are 32 bytes; keys are the 49 ASCII bytes of `protocols.ucxl.key_of`."""

    async def heads(self, key: bytes) -> tuple[Envelope | Notice, ...]:
        """The heads of a key, the latest in the total order first; () when no version of it is known. Of more than
        `HEADS_MAX` the latest are answered: the others follow as those are merged, and are in the history.

        Heads behind the latest may be notices even when their content is held, where all content would be much.
        Answers without a checkpoint when the heads are in memory.
        """
        ...

    async def by_digest(self, digest: bytes) -> Envelope | Notice | None:
        """One version, or None when this store does not know it."""
        ...

    async def by_content(self, content_digest: bytes) -> Envelope | None:
        """A version whose content has this digest, or None when this store holds none."""
        ...

    async def has_content(self, content_digest: bytes) -> bool:
        """Whether `by_content` would find a version; it reads no content."""
        ...

    async def contents(self, *, before: int, limit: int) -> list[HeldContent]:
        """The contents that came before this entry of the log, the latest first, each once however many versions have
        it."""
        ...

    async def unknown(self, digests: Sequence[bytes]) -> list[bytes]:
        """Those of these digests that name no version in this store; it reads no content."""
        ...

    async def without_content(self, digests: Sequence[bytes]) -> list[bytes]:
        """Those of these digests whose content is not in this store: it does not know them, or their notices alone."""
        ...

    async def versions(self, key: bytes, *, after: int = 0, limit: int = 1000) -> list[Version]:
        """The versions of a key in the total order, the earliest first, from the `after`-th on (counted from 0)."""
        ...

    async def count_versions(self, key: bytes, *, with_reissued: bool = True) -> int: ...

    async def nth(self, key: bytes, number: int, *, is_backwards: bool = False) -> VersionRef | None:
        """The version that so many others are before in the total order, or behind; None when there are not so many.

        Versions that were reissued do not count: their replacements do. No more work for a long history than for a
        short one.
        """
        ...

    async def latest_held(self, key: bytes) -> VersionRef | None:
        """The latest version whose content this store has, and that was not reissued; None when there is none.

        However many later ones there are whose content is not here.
        """
        ...

    async def walk(
        self, key: bytes, *, beyond: VersionRef | None = None, is_backwards: bool = False, limit: int
    ) -> list[VersionRef]:
        """The next versions of a key in the total order, or backwards, beyond a place in it (at first: from the end).

        Versions that were reissued are left out: their replacements are in it.
        """
        ...

    async def missing_parents(self, key: bytes, *, limit: int = 1000) -> list[bytes]:
        """Parents of versions of a key that this store does not know; at most so many, ascending."""
        ...

    async def latest_reissue(self, digest: bytes) -> bytes:
        """The version that finally replaced one whose author's clock was wrong; `digest` itself when there is none."""
        ...

    async def idempotent(self, idempotency_key: str) -> bytes | None:
        """The digest of the version that was merged under this key, if any."""
        ...

    def latest_version(self) -> int:
        """The greatest version ever merged here (0: none): a hybrid logical clock starts from it."""
        ...
