"""The audit log: what was done to a node, by whom and why, so that nobody can change it later without being seen.

One line of JSON an act, in one canonical form. Each line holds the SHA-256 of the line before it and is signed by the
node; so a line that was changed, taken out, put in or moved is the first broken one, and `check` names it. What this
cannot show is that the last lines were cut off: for that, compare the head with one that was seen before (Crosby and
Wallach, "Efficient Data Structures for Tamper-Evident Logging", 2009, on what a hash chain gives).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from protocols import keys
from protocols.keys import PrivateKey

GENESIS = "0" * 64
"""What stands for the line before the first one."""
LINE_BYTES_MAX = 65_536
_DOMAIN = b"bzzz audit 1\0"
"""Before what is signed, so that no signature of this node over anything else fits here."""
_FIELDS = frozenset({"sequence", "at_ms", "act", "author", "reason", "details", "state", "node", "previous"})


class ChainBroken(Exception):
    """A line is not what a node wrote there; the message says how that shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One act. `details` is what it was, `state` what it left behind that a restart is to find again."""

    sequence: int
    """1 for the first."""
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
class Verdict:
    """What a check found: how many lines are good, the head they end in, and the first broken line (from 1), if any."""

    good: int
    head: str
    node: str
    broken: int | None = None
    why: str = ""


def seal(key: PrivateKey, entry: Entry) -> bytes:
    """The line of an entry, signed, without its line break."""
    told = {name: getattr(entry, name) for name in _FIELDS}
    return _canonical({**told, "signature": key.sign(_DOMAIN + _canonical(told)).hex()})


def hash_of(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def read(line: bytes) -> Entry:
    """The entry of a line, its signature checked; not its place in the chain. Raises `ChainBroken`."""
    try:
        told = json.loads(line)
        signature = bytes.fromhex(told.pop("signature"))
        if told.keys() != _FIELDS:
            raise ChainBroken("it is no entry of an audit log")
        entry = Entry(**told)
        canonical = _canonical({**told, "signature": signature.hex()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ChainBroken("it is no entry of an audit log") from None
    if not keys.verify(str(entry.node), _DOMAIN + _canonical(told), signature):
        raise ChainBroken("its signature does not fit: it was changed")
    if canonical != line:
        raise ChainBroken("it is not written as the node writes it: it was changed")
    return entry


def check(lines: Iterable[bytes], *, node: str | None = None) -> Verdict:
    """Go through the lines of a log from its beginning, up to the first broken one.

    All must be of one node: of `node` if it is given, else of the one that wrote the first.
    """
    good, head = 0, GENESIS
    for number, line in enumerate(lines, start=1):
        try:
            entry = read(line)
            node = node or entry.node
            _check_place(entry, number, head, node)
        except ChainBroken as broken:
            return Verdict(good, head, node or "", number, str(broken))
        good, head = number, hash_of(line)
    return Verdict(good, head, node or "")


def _check_place(entry: Entry, number: int, head: str, node: str) -> None:
    if entry.node != node:
        raise ChainBroken(f"it is of another node ({entry.node})")
    if entry.sequence != number:
        raise ChainBroken(f"it is entry {entry.sequence}: lines are missing, or were moved or put in")
    if entry.previous != head:
        raise ChainBroken("it does not follow the line before it, which was changed")


def _canonical(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")
