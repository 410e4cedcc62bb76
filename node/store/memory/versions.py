"""The versions of a memory store and the heads of each key, in plain dicts.

Most keys have one version, or a straight line of them: for these the heads follow without a `HeadSet`.
"""

from heapq import nlargest, nsmallest

from node.store.versions import Version, VersionRef
from protocols.envelope import Envelope, Notice, order_key
from protocols.heads import HeadSet


class VersionTable:
    """`held` has all versions by digest, `heads` the heads by key, the latest first. Neither dict is ever replaced."""

    def __init__(self) -> None:
        self.held: dict[bytes, Envelope | Notice] = {}
        self.heads: dict[bytes, tuple[Envelope | Notice, ...]] = {}
        self.reissued: dict[bytes, bytes] = {}
        """Local versions that this store reissued, and their replacements."""
        self._histories: dict[bytes, list[bytes]] = {}
        """Digests in order of arrival; only of keys that have had more than one version."""
        self._head_sets: dict[bytes, HeadSet] = {}
        """Only of keys whose versions are not one straight line."""
        self._contents: dict[bytes, bytes] = {}
        """By content digest: the first version whose content has it."""
        self._reissues: dict[bytes, list[Envelope | Notice]] = {}
        """By digest: the versions that claim to replace it. The claim counts when the author is the same."""
        self._latest: int | None = 0
        """The greatest version; None: it has to be computed again."""

    # -- adding -----------------------------------------------------------------------------------------------

    def add(self, item: Envelope | Notice) -> None:
        """Add a new version."""
        key = item.key
        digest = item.digest
        version = item.version
        self.held[digest] = item
        if isinstance(item, Envelope):
            self._contents.setdefault(item.content_digest, digest)
        if self._latest is not None and version > self._latest:
            self._latest = version
        heads = self.heads.get(key)
        is_reissue = self._note_reissue(item)
        if heads is None and not item.parents and not is_reissue:
            self.heads[key] = (item,)
            return
        self._history(key).append(digest)
        head_set = self._head_sets.get(key)
        if head_set is not None:
            head_set.add(digest, version, item.parents, author=item.author, reissues=item.reissues)
            self.heads[key] = self._ordered(head_set)
        elif heads and not is_reissue and item.parents == (heads[0].digest,) and version > heads[0].version:
            self.heads[key] = (item,)
        else:
            self.rebuild(key)

    def completed(self, notice: Notice) -> Envelope | Notice:
        """The envelope of a notice, where another version has its content."""
        other = self.by_content(notice.content_digest)
        if other is None or other.content_size != notice.content_size:  # its author may have signed another size
            return notice
        return notice.with_content(other.content)

    def complete(self, envelope: Envelope) -> None:
        """The content of a known version came. Nothing but the content is new: the same digest is the same header."""
        digest = envelope.digest
        self.held[digest] = envelope
        self._contents.setdefault(envelope.content_digest, digest)
        heads = self.heads[envelope.key]
        self.heads[envelope.key] = tuple(envelope if head.digest == digest else head for head in heads)

    def reissue(self, item: Envelope | Notice, replacement: bytes) -> None:
        """`replacement` replaces a version of this node; `rebuild` the key once it has been added."""
        self.reissued[item.digest] = replacement
        if item.version == self._latest:
            self._latest = None

    def _note_reissue(self, item: Envelope | Notice) -> bool:
        """Whether a new version claims to replace another, or is replaced by a version that came before it."""
        reissues = item.reissues
        for old in reissues:
            self._reissues.setdefault(old, []).append(item)
        return bool(reissues) or item.digest in self._reissues

    def _history(self, key: bytes) -> list[bytes]:
        """The digests of a key's versions in order of arrival, in a list to append to."""
        history = self._histories.get(key)
        if history is None:
            history = self._histories[key] = self._digests(key)
        return history

    def _digests(self, key: bytes) -> list[bytes]:
        history = self._histories.get(key)
        return history if history is not None else [head.digest for head in self.heads.get(key, ())]

    def rebuild(self, key: bytes) -> None:
        """Compute the heads of a key again from its versions."""
        history = self._history(key)
        if not history:
            for table in (self._histories, self._head_sets, self.heads):
                table.pop(key, None)
            return
        head_set = self._head_sets[key] = HeadSet()
        for digest in history:
            item = self.held[digest]
            head_set.add(digest, item.version, item.parents, author=item.author, reissues=item.reissues)
            if digest in self.reissued:
                head_set.add_reissues((digest,), item.author)
        self.heads[key] = self._ordered(head_set)

    def _ordered(self, head_set: HeadSet) -> tuple[Envelope | Notice, ...]:
        heads = [self.held[digest] for digest in head_set.heads()]
        if len(heads) > 1:
            heads.sort(key=order_key, reverse=True)
        return tuple(heads)

    # -- reading ----------------------------------------------------------------------------------------------

    def versions(self, key: bytes, after: int, limit: int) -> list[Version]:
        heads = {head.digest for head in self.heads.get(key, ())}
        items = sorted((self.held[digest] for digest in self._digests(key)), key=order_key)
        return [
            Version(
                notice=item.notice if isinstance(item, Envelope) else item, is_held=isinstance(item, Envelope),
                is_head=item.digest in heads, reissued_as=self._reissued_as(item),
            )
            for item in items[after : after + limit]
        ]  # fmt: skip

    def by_content(self, content_digest: bytes) -> Envelope | None:
        digest = self._contents.get(content_digest)
        item = self.held[digest] if digest is not None else None
        assert not isinstance(item, Notice), "its content is held"
        return item

    def count(self, key: bytes) -> int:
        return len(self._digests(key))

    def walk(self, key: bytes, beyond: VersionRef | None, is_backwards: bool, limit: int) -> list[VersionRef]:
        items = [self.held[digest] for digest in self._digests(key)]
        refs = [VersionRef(*order_key(item)) for item in items if self._reissued_as(item) is None]
        if beyond is not None:
            refs = [ref for ref in refs if (ref < beyond if is_backwards else ref > beyond)]
        return (nlargest if is_backwards else nsmallest)(limit, refs)

    def missing_parents(self, key: bytes, limit: int) -> list[bytes]:
        parents = {parent for digest in self._digests(key) for parent in self.held[digest].parents}
        return nsmallest(limit, (parent for parent in parents if parent not in self.held))

    def latest_version(self) -> int:
        if self._latest is None:
            current = (item.version for digest, item in self.held.items() if digest not in self.reissued)
            self._latest = max(current, default=0)
        return self._latest

    def latest_reissue(self, digest: bytes) -> bytes:
        """See `Versions.latest_reissue`."""
        item = self.held.get(digest)
        while item is not None and (reissue := self._reissued_as(item)) is not None:
            digest = reissue
            item = self.held.get(digest)
        return digest

    def own_reissue(self, digest: bytes) -> bytes:
        """Like `latest_reissue`, over the reissues of this store alone."""
        while digest in self.reissued:
            digest = self.reissued[digest]
        return digest

    def _reissued_as(self, item: Envelope | Notice) -> bytes | None:
        """The replacement of a version: the one that this store made, else the one that its author made."""
        by_author = [
            each.digest
            for each in self._reissues.get(item.digest, ())
            if (each.key, each.author) == (item.key, item.author)
        ]
        return self.reissued.get(item.digest) or min(by_author, default=None)
