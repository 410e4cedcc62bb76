"""The versions of a memory store and the heads of each key, in plain dicts.

Most keys have one version, or a straight line of them: for these the heads follow without a `HeadSet`.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from itertools import islice

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
        self._histories: dict[bytes, list[VersionRef]] = {}
        """By key: its versions in the total order; only of keys that have had more than one."""
        self._outdated: dict[bytes, list[VersionRef]] = {}
        """By key: those of its versions that were reissued, in the total order."""
        self._missing: dict[bytes, list[bytes]] = {}
        """By key: parents of its versions that are not known, ascending."""
        self._missed_by: dict[bytes, set[bytes]] = {}
        """By parent that is not known: keys of versions that name it."""
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
        self._note_missing(item)
        if isinstance(item, Envelope):
            self._contents.setdefault(item.content_digest, digest)
        if self._latest is not None and version > self._latest:
            self._latest = version
        heads = self.heads.get(key)
        is_reissue = self._note_reissue(item)
        if heads is None and not item.parents and not is_reissue:
            self.heads[key] = (item,)
            return
        insort(self._history(key), VersionRef(*order_key(item)))
        self._note_outdated(key, (digest, *item.reissues))
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
        self._note_outdated(item.key, (item.digest,))
        if item.version == self._latest:
            self._latest = None

    def _note_reissue(self, item: Envelope | Notice) -> bool:
        """Whether a new version claims to replace another, or is replaced by a version that came before it."""
        reissues = item.reissues
        for old in reissues:
            self._reissues.setdefault(old, []).append(item)
        return bool(reissues) or item.digest in self._reissues

    def _note_missing(self, item: Envelope | Notice) -> None:
        """A version is known now: it may be missed as a parent, and its own parents may be missing."""
        for key in self._missed_by.pop(item.digest, ()):
            missing = self._missing[key]
            del missing[bisect_left(missing, item.digest)]
        for parent in item.parents:
            if parent not in self.held:
                keys = self._missed_by.setdefault(parent, set())
                if item.key not in keys:
                    keys.add(item.key)
                    insort(self._missing.setdefault(item.key, []), parent)

    def _note_outdated(self, key: bytes, digests: Iterable[bytes]) -> None:
        """Some of these versions may have been reissued."""
        for digest in digests:
            item = self.held.get(digest)
            if item is not None and item.key == key and self._reissued_as(item) is not None:
                outdated, ref = self._outdated.setdefault(key, []), VersionRef(*order_key(item))
                if not _is_in(outdated, ref):
                    insort(outdated, ref)

    def _history(self, key: bytes) -> list[VersionRef]:
        """The versions of a key in the total order, in a list to add to."""
        history = self._histories.get(key)
        if history is None:
            history = self._histories[key] = self._refs(key)
        return history

    def _refs(self, key: bytes) -> list[VersionRef]:
        history = self._histories.get(key)
        return history if history is not None else [VersionRef(*order_key(head)) for head in self.heads.get(key, ())]

    def rebuild(self, key: bytes) -> None:
        """Compute the heads of a key again from its versions."""
        history = self._history(key)
        if not history:
            for table in (self._histories, self._head_sets, self.heads, self._outdated):
                table.pop(key, None)
            return
        head_set = self._head_sets[key] = HeadSet()
        for *_, digest in history:
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
        items = [self.held[ref.digest] for ref in self._refs(key)[after : after + limit]]
        return [
            Version(
                notice=item.notice if isinstance(item, Envelope) else item, is_held=isinstance(item, Envelope),
                is_head=item.digest in heads, reissued_as=self._reissued_as(item),
            )
            for item in items
        ]  # fmt: skip

    def by_content(self, content_digest: bytes) -> Envelope | None:
        digest = self._contents.get(content_digest)
        item = self.held[digest] if digest is not None else None
        assert not isinstance(item, Notice), "its content is held"
        return item

    def is_first_with_content(self, item: Envelope | Notice) -> bool:
        """Whether a version is the one by which its content is found."""
        return self._contents.get(item.content_digest) == item.digest

    def count(self, key: bytes, with_reissued: bool) -> int:
        return len(self._refs(key)) - (0 if with_reissued else len(self._outdated.get(key, ())))

    def nth(self, key: bytes, number: int, is_backwards: bool) -> VersionRef | None:
        refs, outdated = self._refs(key), self._outdated.get(key, ())
        count = len(refs) - len(outdated)
        if number >= count:
            return None
        number = count - 1 - number if is_backwards else number
        at = bisect_left(range(len(refs)), number + 1, key=lambda at: at + 1 - bisect_right(outdated, refs[at]))
        return refs[at]

    def latest_held(self, key: bytes) -> VersionRef | None:
        refs, outdated = self._refs(key), self._outdated.get(key, ())
        held = (ref for ref in reversed(refs) if isinstance(self.held[ref.digest], Envelope))
        return next((ref for ref in held if not _is_in(outdated, ref)), None)

    def walk(self, key: bytes, beyond: VersionRef | None, is_backwards: bool, limit: int) -> list[VersionRef]:
        refs, outdated = self._refs(key), self._outdated.get(key, ())
        if is_backwards:
            at = bisect_left(refs, beyond) if beyond is not None else len(refs)
            places = range(at - 1, -1, -1)
        else:
            at = bisect_right(refs, beyond) if beyond is not None else 0
            places = range(at, len(refs))
        current = (refs[place] for place in places if not _is_in(outdated, refs[place]))
        return list(islice(current, limit))

    def missing_parents(self, key: bytes, limit: int) -> list[bytes]:
        return self._missing.get(key, [])[:limit]

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


def _is_in(refs: Sequence[VersionRef], ref: VersionRef) -> bool:
    """Whether a version is among others that are in order."""
    at = bisect_left(refs, ref)
    return at < len(refs) and refs[at] == ref
