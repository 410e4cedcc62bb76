"""Audit log: a tamper-evident record of the acts on a node, with their authors and reasons.

Each act is one line of JSON in one canonical form. Each line has the SHA-256 of the line before it, and is signed by
the node. So a line that was changed, removed, inserted or moved makes the chain break there, and `check` names the
first broken line. A log may be rotated: the chain goes on in another file, whose first entry says so (`ROTATED`).

The chain cannot show that its last lines were cut off, nor that whole files before a rotation were removed: for that,
compare its head with one from before (Crosby and Wallach, "Efficient Data Structures for Tamper-Evident Logging",
2009, on what a hash chain proves).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from protocols import keys
from protocols.keys import PrivateKey

GENESIS = "0" * 64
"""The hash in the place of the line before the first one."""
LINE_BYTES_MAX = 65_536
ROTATED = "log.rotated"
"""The act of the first entry of a further file."""
_DOMAIN = b"bzzz audit 1\0"
"""The prefix of what is signed, so that a signature of this node over anything else is not valid here."""
_FIELDS = frozenset({"sequence", "at_ms", "act", "author", "reason", "details", "state", "node", "previous"})


class ChainBroken(Exception):
    """A line is not the one that the node wrote there; the message says how that shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One act. `details` describes it; `state` is what a restart restores."""

    sequence: int
    """1 for the first entry."""
    at_ms: int
    act: str
    author: str
    reason: str
    details: Mapping[str, Any]
    state: Mapping[str, Any]
    node: str
    previous: str
    """The SHA-256 of the line before, in hex; `GENESIS` for the first."""


@dataclass(frozen=True, slots=True)
class ChainVerdict:
    """The result of a check: the number of good lines, the head of these, and the first broken line (from 1), if
    any. `first` and `last` are the sequences of the first and of the last good entry."""

    good: int
    head: str
    node: str
    broken: int | None = None
    why: str = ""
    first: int = 1
    last: int = 0


def seal(key: PrivateKey, entry: AuditEntry) -> bytes:
    """The signed line of an entry, without a line break."""
    fields = {name: getattr(entry, name) for name in _FIELDS}
    return _canonical({**fields, "signature": key.sign(_DOMAIN + _canonical(fields)).hex()})


def hash_of(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def read(line: bytes) -> AuditEntry:
    """The entry of a line. Its signature is checked, its position in the chain is not. Raises `ChainBroken`."""
    try:
        fields = json.loads(line)
        signature = bytes.fromhex(fields.pop("signature"))
        if fields.keys() != _FIELDS:
            raise ChainBroken("it is not an entry of an audit log")
        entry = AuditEntry(**fields)
        canonical = _canonical({**fields, "signature": signature.hex()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ChainBroken("it is not an entry of an audit log") from None
    if not keys.verify(str(entry.node), _DOMAIN + _canonical(fields), signature):
        raise ChainBroken("its signature does not fit: it was changed")
    if canonical != line:
        raise ChainBroken("it is not written as the node writes it: it was changed")
    return entry


def check(lines: Iterable[bytes], *, node: str | None = None) -> ChainVerdict:
    """Check the lines of a log from its beginning, up to the first broken one.

    All lines must be of one node: of `node` if given, else of the node that wrote the first line. They begin with the
    first entry, or with the first one after a rotation.
    """
    good, head, first, last = 0, GENESIS, 1, 0
    for number, line in enumerate(lines, start=1):
        try:
            entry = read(line)
            node = node or entry.node
            if number == 1 and entry.act == ROTATED:
                first, last, head = entry.sequence, entry.sequence - 1, entry.previous
            _check_position(entry, last + 1, head, node)
        except ChainBroken as broken:
            return ChainVerdict(good, head, node or "", number, str(broken), first, last)
        good, head, last = number, hash_of(line), entry.sequence
    return ChainVerdict(good, head, node or "", first=first, last=last)


def _check_position(entry: AuditEntry, number: int, head: str, node: str) -> None:
    if entry.node != node:
        raise ChainBroken(f"it is of another node ({entry.node})")
    if entry.sequence != number:
        raise ChainBroken(f"it is entry {entry.sequence}: lines are missing, moved or inserted")
    if entry.previous != head:
        raise ChainBroken("it does not follow the line before it, which was changed")


def _canonical(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")
