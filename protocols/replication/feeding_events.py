"""The events and effects of `feeding.py`. Sequences are those of this node's log, digests name versions.

`page` is the number of a page of the log: an answer about an earlier page comes too late.
"""

from typing import NamedTuple


class LiveMember(NamedTuple):
    """A live member. `epoch` changes when it must be asked for everything again: it lost entries, or it is back after
    it was forgotten."""

    peer: str
    epoch: int


class Entry(NamedTuple):
    """One entry of the log: a version that another node wrote."""

    sequence: int
    digest: bytes
    key: bytes


# -- events ----------------------------------------------------------------------------------------------------------


class LiveChanged(NamedTuple):
    """Other members are live than before. `positions` are saved positions under the same members, by peer."""

    live: tuple[LiveMember, ...]
    last_sequence: int
    positions: dict[str, int]


class Reached(NamedTuple):
    """The members that can be asked now."""

    peers: frozenset[str]


class Grown(NamedTuple):
    """The log has entries up to this one."""

    last_sequence: int


class PageRead(NamedTuple):
    """The answer to a `ReadPage`: the versions of others among its entries, which end at `until`."""

    page: int
    entries: tuple[Entry, ...]
    until: int


class PageFailed(NamedTuple):
    """The log cannot be read now."""

    page: int


class MissingAnswered(NamedTuple):
    """The answer to an `AskMissing`: the versions that the member lacks, and those of them that another node sends."""

    page: int
    peer: str
    missing: tuple[bytes, ...]
    claimed: tuple[bytes, ...]


class Sent(NamedTuple):
    """What a `Send` led to. `unsent` are the versions that the member may still lack."""

    page: int
    peer: str
    unsent: tuple[bytes, ...]


class MissingUnanswered(NamedTuple):
    """A member did not answer an `AskMissing`."""

    page: int
    peer: str


Event = LiveChanged | Reached | Grown | PageRead | PageFailed | MissingAnswered | Sent | MissingUnanswered


# -- effects ---------------------------------------------------------------------------------------------------------


class ReadPage(NamedTuple):
    """Read at most `limit` entries of the log after that one, up to `until`."""

    page: int
    after: int
    until: int
    limit: int


class AskMissing(NamedTuple):
    """Ask a member which of these versions it lacks."""

    page: int
    peer: str
    digests: tuple[bytes, ...]


class Send(NamedTuple):
    """Send a member these versions, in this order."""

    page: int
    peer: str
    digests: tuple[bytes, ...]


class Advanced(NamedTuple):
    """The positions may be saved now: much was done since, or all."""

    positions: dict[str, int]


Effect = ReadPage | AskMissing | Send | Advanced
