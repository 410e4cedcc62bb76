"""The wire messages of `/bzzz/store/1.0.0`: requests and replies, as values.

`protocols/message_codec.py` encodes them. A field is encoded in the order of its NamedTuple.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple

from protocols.errors import BzzzError, from_code
from protocols.log_lineage import LogPosition

ENVELOPES_MAX = 256
"""Envelopes, digests or notices in one message."""
MEMBERS_MAX = 1024
ADDRESSES_MAX = 32
TEXT_MAX = 1024
"""Characters of one text; a longer text of an error is cut."""
TRACE_MAX = 64
DETAILS_MAX = 32
VIEW_BYTES = 8


class Hello(NamedTuple):
    """The first message on a connection, in each direction: swarm, name, log and clock of the sender.

    It is sent again when the addresses of the sender have changed. The fields with defaults are trailing ones: a node
    that does not know them ignores them.
    """

    network: str
    name: str
    log_id: str
    now_ms: int
    addresses: tuple[str, ...]
    known_at: tuple[str, ...] = ()
    """Addresses by which the sender knew the receiver, and which the receiver's hello does not name any more: another
    node with its identity may be there."""
    seen_at: str = ""
    """The address at the receiver's end of the connection, as the sender sees it."""
    agent: str = ""
    """The program of the sender and its version, like `bzzz/0.1.0`."""
    announcement: bytes = b""
    """The announcement of the sender, encoded (`protocols/announce.py`)."""
    former_logs: tuple[LogPosition, ...] = ()
    """The sender's logs before this one, oldest first, each with its last sequence."""
    known_log: LogPosition | None = None
    """The last entry of the receiver's log that the sender knows of."""
    twin: tuple[str, ...] = ()
    """The log id and the address of another node that runs with the receiver's identity, as the sender saw it; ()."""


class Ping(NamedTuple):
    """Ask whether the peer is alive, and tell it what a `Pong` would tell it.

    The first fields are those of a `Pong`. `heard_ms` is the `now_ms` of the latest ping or pong that the sender has of
    the receiver, and `heard_ago_us` the microseconds from then to this ping: so the receiver knows by its own clock how
    old this ping can be. All are trailing fields; `heard_ms` 0: nothing was heard, and what is told has no age.
    """

    now_ms: int = 0
    hints: int = 0
    oldest_hint_ms: int = 0
    sequence: int = 0
    view: bytes = b""
    heard_ms: int = 0
    heard_ago_us: int = 0


class Pong(NamedTuple):
    """The peer is alive: its clock, the number of its hints for the asker, and the age of the oldest of them.

    No hints: the asker has every version that the peer wrote and the asker should hold. `sequence` is that of the last
    entry of the peer's log. `view` stands for the set of nodes that the peer is connected with, itself included: where
    two nodes have the same, neither can name a member to the other. Both are trailing fields.
    """

    now_ms: int
    hints: int
    oldest_hint_ms: int
    sequence: int = 0
    view: bytes = b""


class Merge(NamedTuple):
    """Encoded envelopes for the peer to merge; the reply comes after its commit.

    `traces` is for envelopes of several calls: the trace of each, in the order of the envelopes, '' for none. For
    envelopes of one call the frame has the trace. `sequence` is that of the last entry of the sender's log. Both are
    trailing fields: a node that does not know them ignores them.
    """

    envelopes: tuple[bytes, ...]
    traces: tuple[str, ...] = ()
    sequence: int = 0


class Refusal(NamedTuple):
    """The reason why one envelope of a `Merge` was refused."""

    code: str
    message: str
    details: dict[str, Any]
    retryable: bool

    @classmethod
    def of(cls, error: BzzzError) -> "Refusal":
        return cls(error.code, _sendable_text(error.message), _sendable(error.details), error.retryable)

    @property
    def error(self) -> BzzzError:
        return from_code(self.code, self.message, self.details)


class MergeReply(NamedTuple):
    """The reply to a `Merge`: the refusals, by position. All other envelopes are committed.

    `sequence` is that of the last entry of the peer's log after the commit; a trailing field.
    """

    total: int
    refusals: tuple[tuple[int, Refusal], ...]
    sequence: int = 0


class GetHeads(NamedTuple):
    """Ask for the heads of a key. Envelopes with a digest in `have` need not be sent."""

    key: bytes
    have: tuple[bytes, ...]


class HeadsReply(NamedTuple):
    """The digests of the versions that a reader is given, then those of the other heads, whose content the peer lacks;
    and the encoded envelopes that were not in `have`."""

    digests: tuple[bytes, ...]
    envelopes: tuple[bytes, ...]


class GetVersions(NamedTuple):
    """Ask for the known versions of a key, from number `after` on."""

    key: bytes
    after: int
    limit: int


class VersionsReply(NamedTuple):
    """Encoded notices in the total order; `total` is the number of all known versions.

    The page covers the versions from `after` up to the one in front of `until`: fewer than were asked for, where more
    would be too many bytes. Reissued versions are counted, and have no notice in it.
    """

    notices: tuple[bytes, ...]
    total: int
    until: int


class GetByDigest(NamedTuple):
    """Ask for versions by digest."""

    digests: tuple[bytes, ...]


class EnvelopesReply(NamedTuple):
    """The requested versions that the peer holds, encoded; the asker identifies each by its digest."""

    envelopes: tuple[bytes, ...]


class GetMembers(NamedTuple):
    """Ask for the members that the peer knows. The field is a trailing one: a node that does not know it ignores it."""

    with_announcements: bool = False
    """Ask for what other nodes announce as well."""


class MemberEntry(NamedTuple):
    peer: str
    addresses: tuple[str, ...]
    is_connected: bool = False
    """The sender is connected with it. A trailing field, which only a `MembersReply` has."""


class MembersReply(NamedTuple):
    members: tuple[MemberEntry, ...]
    announcements: tuple[bytes, ...] = ()
    """Encoded announcements of other nodes, when they were asked for. It is a trailing field."""


class GetContent(NamedTuple):
    """Ask for the content with this digest, whatever version has it."""

    content_digest: bytes


class ContentReply(NamedTuple):
    """A version with the content, encoded: so that it can be checked; b'' when the peer does not hold it."""

    envelope: bytes


class GetMissing(NamedTuple):
    """Ask which of these versions the peer lacks the content of, to send it those."""

    digests: tuple[bytes, ...]


class MissingReply(NamedTuple):
    """The versions that the peer lacks: those that the asker is to send, and those that another node said it would send
    (`protocols/replication/claims.py`). The peer has all others."""

    missing: tuple[bytes, ...]
    claimed: tuple[bytes, ...]


class FailedReply(NamedTuple):
    """The reply to a request that failed."""

    code: str
    message: str
    details: dict[str, Any]

    @classmethod
    def of(cls, error: BzzzError) -> "FailedReply":
        return cls(error.code, _sendable_text(error.message), _sendable(error.details))

    @property
    def error(self) -> BzzzError:
        return from_code(self.code, self.message, self.details)


Request = Hello | Ping | Merge | GetHeads | GetVersions | GetByDigest | GetMembers | GetContent | GetMissing
Reply = (
    Hello
    | Pong
    | MergeReply
    | HeadsReply
    | VersionsReply
    | EnvelopesReply
    | MembersReply
    | ContentReply
    | MissingReply
    | FailedReply
)
Message = Request | Reply


# -- errors on the wire ------------------------------------------------------------------------------------------


def is_plain(value: Any) -> bool:
    """Whether a value can be a detail of an error: a short text, a number that JSON can write, a boolean, or None."""
    match value:
        case str():
            return len(value) <= TEXT_MAX
        case int():
            return -(1 << 63) <= value < 1 << 64
        case float():
            return isfinite(value)
        case _:
            return value is None


def _sendable(details: Mapping[str, Any]) -> dict[str, Any]:
    """The details of an error that can cross the wire; the others stay on this machine."""
    plain = {name: _sendable_text(value) if isinstance(value, str) else value for name, value in details.items()}
    return {name: value for name, value in list(plain.items())[:DETAILS_MAX] if is_plain(name) and is_plain(value)}


def _sendable_text(text: str) -> str:
    return text[:TEXT_MAX].encode(errors="replace").decode()
