"""The wire messages of `/bzzz/store/1.0.0`, and their codec.

A frame is one msgpack array, `[kind, id, trace, *fields]`: `kind` a small number, `id` the asker's number of the
request (an answer carries the same), `trace` a text of at most 64 characters that follows a call through every node
it touches. Fields stand in the order of the NamedTuple. Trailing fields that are not known here are passed over, so
that a later minor version can add some. Encoded envelopes travel as the bytes that were signed, never re-encoded.

Everything that comes from a peer is checked here: whatever `decode` answers has the types and the bounds its class
states. What does not is `Malformed`.
"""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, NamedTuple

import msgpack

from protocols.envelope import Notice
from protocols.errors import BzzzError, Malformed, from_code
from protocols.keys import public_key
from protocols.ucxl import canonical_key

ENVELOPES_MAX = 256
"""Envelopes, digests or notices in one message."""
MEMBERS_MAX = 1024
ADDRESSES_MAX = 32
TEXT_MAX = 1024
"""Characters of one text; those of an error that has more are cut."""
TRACE_MAX = 64
DETAILS_MAX = 32
_LIST_MAX = 1024
"""No list in a frame is longer, and none that says so has room made for it."""
_ITEMS_MAX = 128 * 1024
"""Items of all lists and maps in a frame. The most that a message may hold is 256 notices with 256 parents each."""


class Hello(NamedTuple):
    """The first message on a connection, both ways: who I am, which swarm, what my clock says."""

    network: str
    name: str
    log_id: str
    now_ms: int
    addresses: tuple[str, ...]


class Ping(NamedTuple):
    """Are you there?"""


class Pong(NamedTuple):
    """I am; this is my clock; so many envelopes I owe you, the oldest of them for so long.

    Nothing owed: you have all that I wrote and you should hold.
    """

    now_ms: int
    hints: int
    oldest_hint_ms: int


class Merge(NamedTuple):
    """Take these encoded envelopes in; answered after the commit.

    `traces` is there when they belong to several calls: the trace of each, in the order of the envelopes, '' for none.
    Those of one call have its trace in the frame. A trailing field: who does not know it passes it over.
    """

    envelopes: tuple[bytes, ...]
    traces: tuple[str, ...] = ()


class Refusal(NamedTuple):
    """Why one envelope of a `Merge` was not taken."""

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
    """The answer to a `Merge`: what was refused, by position. All else is committed."""

    total: int
    refusals: tuple[tuple[int, Refusal], ...]


class GetHeads(NamedTuple):
    """What are the heads of this key? Envelopes whose digests are in `have` need not be sent."""

    key: bytes
    have: tuple[bytes, ...]


class HeadsReply(NamedTuple):
    """The digests of all heads, the latest first, and the encoded envelopes that were not in `have`."""

    digests: tuple[bytes, ...]
    envelopes: tuple[bytes, ...]


class GetVersions(NamedTuple):
    """Which versions of this key do you know, from the `after`-th on?"""

    key: bytes
    after: int
    limit: int


class VersionsReply(NamedTuple):
    """Notices in the total order; `total` says how many there are in all."""

    notices: tuple[Notice, ...]
    total: int


class GetByDigest(NamedTuple):
    """Give me these versions."""

    digests: tuple[bytes, ...]


class EnvelopesReply(NamedTuple):
    """Those of them that are held here, encoded; the asker tells them by their digests."""

    envelopes: tuple[bytes, ...]


class GetMembers(NamedTuple):
    """Whom do you know?"""


class MemberEntry(NamedTuple):
    peer: str
    addresses: tuple[str, ...]


class MembersReply(NamedTuple):
    members: tuple[MemberEntry, ...]


class AddProvider(NamedTuple):
    """I provide this key for so long."""

    key: bytes
    ttl_ms: int


class ProviderAdded(NamedTuple):
    """The answer to what needs no other."""


class GetProviders(NamedTuple):
    """Who provides this key?"""

    key: bytes


class ProvidersReply(NamedTuple):
    providers: tuple[MemberEntry, ...]


class FailedReply(NamedTuple):
    """The answer to a request that could not be carried out."""

    code: str
    message: str
    details: dict[str, Any]

    @classmethod
    def of(cls, error: BzzzError) -> "FailedReply":
        return cls(error.code, _sendable_text(error.message), _sendable(error.details))

    @property
    def error(self) -> BzzzError:
        return from_code(self.code, self.message, self.details)


Request = Hello | Ping | Merge | GetHeads | GetVersions | GetByDigest | GetMembers | AddProvider | GetProviders
Reply = (
    Hello
    | Pong
    | MergeReply
    | HeadsReply
    | VersionsReply
    | EnvelopesReply
    | MembersReply
    | ProviderAdded
    | ProvidersReply
    | FailedReply
)
Message = Request | Reply


class Frame(NamedTuple):
    """A decoded frame. `is_reply` tells an answer from a request of the same kind (Hello answers Hello)."""

    is_reply: bool
    id: int
    trace: str
    message: Message


# -- checks: each answers the value in the type the message states, or raises --------------------------------


def _int(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise Malformed(f"a whole number from 0 to 2^64 was expected, not {type(value).__name__}")
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > TEXT_MAX:
        raise Malformed(f"a text of at most {TEXT_MAX} characters was expected")
    return value


def _key(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != 49 or not value.startswith(b"/ucxl/"):
        raise Malformed("a key of 49 bytes that begins with /ucxl/ was expected")
    return value


def _digest(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != 32:
        raise Malformed("a digest of 32 bytes was expected")
    return value


def _bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise Malformed("bytes were expected")
    return value


def _details(value: Any) -> dict[str, Any]:
    if type(value) is not dict or len(value) > DETAILS_MAX:
        raise Malformed(f"details with at most {DETAILS_MAX} names were expected")
    if not all(type(name) is str and _is_plain(name) and _is_plain(one) for name, one in value.items()):
        raise Malformed("details with a plain value under each name were expected")
    return value


def _is_plain(value: Any) -> bool:
    """What a detail may be: a short text, a number that JSON can say, a truth value, or nothing."""
    match value:
        case str():
            return len(value) <= TEXT_MAX
        case int():
            return -(1 << 63) <= value < 1 << 64
        case float():
            return isfinite(value)
        case _:
            return value is None


def _many(check: Callable[[Any], Any], most: int) -> Callable[[Any], tuple[Any, ...]]:
    def checked(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > most:
            raise Malformed(f"a list of at most {most} was expected")
        return tuple([check(one) for one in value])

    return checked


def _fields(value: Any, count: int) -> list[Any]:
    if type(value) is not list or len(value) < count:
        raise Malformed(f"a list of {count} fields was expected")
    return value


def _refusal(value: Any) -> tuple[int, Refusal]:
    at, code, message, details, retryable = _fields(value, 5)[:5]
    return _int(at), Refusal(_text(code), _text(message), _details(details), bool(retryable))


def _member(value: Any) -> MemberEntry:
    peer, addresses = _fields(value, 2)[:2]
    return MemberEntry(_text(peer), _addresses(addresses))


def _notice(value: Any) -> Notice:
    address, key, digest, version, author, deleted, parents = _fields(value, 7)[:7]
    if canonical_key(address) != key:
        raise Malformed("a notice whose key is that of its address was expected")
    public_key(author)
    return Notice(
        address=address,
        key=key,
        digest=_digest(digest),
        version=_int(version),
        author=author,
        deleted=bool(deleted),
        parents=_digests(parents),
    )


def _sendable(details: Mapping[str, Any]) -> dict[str, Any]:
    """The details of an error that can cross the wire; what else it carries stays on this machine."""
    plain = {name: _sendable_text(value) if isinstance(value, str) else value for name, value in details.items()}
    return {name: value for name, value in list(plain.items())[:DETAILS_MAX] if _is_plain(name) and _is_plain(value)}


def _sendable_text(text: str) -> str:
    return text[:TEXT_MAX].encode(errors="replace").decode()


def _notice_fields(notice: Notice) -> list[Any]:
    return [
        notice.address, notice.key, notice.digest, notice.version, notice.author, notice.deleted, notice.parents,
    ]  # fmt: skip


def _traces(value: Any) -> tuple[str, ...]:
    """The traces in a trailing field; () when it is something else, for nothing depends on them."""
    if type(value) is not list or len(value) > ENVELOPES_MAX:
        return ()
    return tuple(value) if all(type(one) is str and len(one) <= TRACE_MAX for one in value) else ()


_digests = _many(_digest, ENVELOPES_MAX)
_encoded = _many(_bytes, ENVELOPES_MAX)
_addresses = _many(_text, ADDRESSES_MAX)
_members = _many(_member, MEMBERS_MAX)

_REPLY_OFFSET = 64
"""A reply's kind is its request's and this much, or that of a `FailedReply`."""
_FAILED = 127

_REQUESTS: dict[int, tuple[type[Any], tuple[Callable[[Any], Any], ...]]] = {
    1: (Hello, (_text, _text, _text, _int, _addresses)),
    2: (Ping, ()),
    3: (Merge, (_encoded,)),
    4: (GetHeads, (_key, _digests)),
    5: (GetVersions, (_key, _int, _int)),
    6: (GetByDigest, (_digests,)),
    7: (GetMembers, ()),
    8: (AddProvider, (_key, _int)),
    9: (GetProviders, (_key,)),
}
_TRAILING: dict[int, Callable[[Any], Any]] = {3: _traces}
"""The field that came with a later minor version, and may be missing; how it is read never fails."""
_REPLIES: dict[int, tuple[type[Any], tuple[Callable[[Any], Any], ...]]] = {
    65: (Hello, (_text, _text, _text, _int, _addresses)),
    66: (Pong, (_int, _int, _int)),
    67: (MergeReply, (_int, _many(_refusal, ENVELOPES_MAX))),
    68: (HeadsReply, (_digests, _encoded)),
    69: (VersionsReply, (_many(_notice, ENVELOPES_MAX), _int)),
    70: (EnvelopesReply, (_encoded,)),
    71: (MembersReply, (_members,)),
    72: (ProviderAdded, ()),
    73: (ProvidersReply, (_members,)),
    _FAILED: (FailedReply, (_text, _text, _details)),
}
_REQUEST_KINDS: Mapping[type[Any], int] = {kind: number for number, (kind, _) in _REQUESTS.items()}
_REPLY_KINDS: Mapping[type[Any], int] = {kind: number for number, (kind, _) in _REPLIES.items()}


def is_answer(reply: Reply, request: type[Any]) -> bool:
    """Whether this is how a request of that class is answered: by the reply of its own kind, or by a `FailedReply`."""
    kind = _REPLY_KINDS[type(reply)]
    return kind == _FAILED or kind == _REQUEST_KINDS[request] + _REPLY_OFFSET


def encode_request(number: int, request: Request, trace: str = "") -> bytes:
    """The frame of a request; `number` must not be in use on this connection. A longer trace is cut."""
    fields: tuple[Any, ...] = request
    if type(request) is Merge and not request.traces:
        fields = request[:1]
    return bytes(msgpack.packb([_REQUEST_KINDS[type(request)], number, trace[:TRACE_MAX], *fields]))


def encode_reply(number: int, reply: Reply) -> bytes:
    """The frame of an answer to the request of that number."""
    fields: tuple[Any, ...] = tuple(reply)
    match reply:
        case VersionsReply():
            fields = ([_notice_fields(notice) for notice in reply.notices], reply.total)
        case MergeReply():
            fields = (reply.total, [[at, *refusal] for at, refusal in reply.refusals])
        case _:
            pass
    return bytes(msgpack.packb([_REPLY_KINDS[type(reply)], number, "", *fields]))


def _unpacked(frame: bytes) -> Any:
    """What the msgpack says. A byte of it can become an object of seventy: only so many are made of one frame."""
    bounds = {"use_list": True, "max_ext_len": 0, "max_map_len": 64, "max_array_len": _LIST_MAX}
    if len(frame) <= _ITEMS_MAX:  # Then it cannot hold more than that.
        return msgpack.unpackb(frame, **bounds)
    items = 0

    def counted(made: Any) -> Any:
        nonlocal items
        items += len(made)
        if items > _ITEMS_MAX:
            raise ValueError(f"it holds more than {_ITEMS_MAX:,} items")
        return made

    return msgpack.unpackb(frame, list_hook=counted, object_hook=counted, **bounds)


def decode(frame: bytes) -> Frame:
    """The message in a frame. Raises `Malformed`."""
    try:
        fields = _unpacked(frame)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise Malformed(f"a frame is not msgpack: {error}") from error
    kind, number, trace, *rest = _fields(fields, 3)
    if type(kind) is not int or type(trace) is not str or len(trace) > TRACE_MAX:
        raise Malformed("a frame does not begin with a kind, a number and a trace")
    is_reply = kind not in _REQUESTS
    known = _REPLIES.get(kind) if is_reply else _REQUESTS[kind]
    if known is None:
        raise Malformed(f"message kind {kind} is not known here")
    message_type, checks = known
    if len(rest) < len(checks):
        raise Malformed(f"a {message_type.__name__} has {len(checks)} fields, not {len(rest)}")
    values = [check(one) for check, one in zip(checks, rest, strict=False)]
    if len(rest) > len(checks) and kind in _TRAILING:
        values.append(_TRAILING[kind](rest[len(checks)]))
    return Frame(is_reply, _int(number), trace, message_type(*values))
