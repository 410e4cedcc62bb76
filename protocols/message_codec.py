"""The codec of the wire messages: one msgpack array a frame.

A frame is `[kind, id, trace, *fields]`: `kind` is a small number, `id` the asker's number of the request (the reply has
the same), `trace` a text of at most 64 characters that follows a call through every node it touches. The fields are in
the order of the NamedTuple. Unknown trailing fields are ignored, so that a later minor version can add some. Encoded
envelopes and notices travel as the bytes that were signed, and are never re-encoded; they are checked when they are
taken in (`node/dht/ingest.py`).

Everything that comes from a peer is checked here: a message from `decode` has the types and the bounds that its class
states. Any other input is `Malformed`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgpack

from protocols.errors import Malformed
from protocols.log_lineage import SENT_MAX, LogPosition
from protocols.messages import (
    ADDRESSES_MAX,
    DETAILS_MAX,
    ENVELOPES_MAX,
    MEMBERS_MAX,
    TEXT_MAX,
    TRACE_MAX,
    VIEW_BYTES,
    ContentReply,
    EnvelopesReply,
    FailedReply,
    GetByDigest,
    GetContent,
    GetHeads,
    GetMembers,
    GetMissing,
    GetVersions,
    HeadsReply,
    Hello,
    MemberEntry,
    MembersReply,
    Merge,
    MergeReply,
    Message,
    MissingReply,
    Ping,
    Pong,
    Refusal,
    Reply,
    Request,
    VersionsReply,
    is_plain,
)
from protocols.names import is_name

_LIST_MAX = 1024
"""No list in a frame is longer, and no memory is reserved for a longer one."""
_ITEMS_MAX = 64 * 1024
"""Items of all lists and maps in a frame. The largest legal message has 1,024 members with 32 addresses each."""


class Frame(NamedTuple):
    """A decoded frame. `is_reply` distinguishes a reply from a request of the same class (Hello answers Hello)."""

    is_reply: bool
    id: int
    trace: str
    message: Message


# -- checks: each returns the value in the type that the message states, or raises ------------------------------------


def _int(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise Malformed(f"a whole number from 0 to 2^64 was expected, not {type(value).__name__}")
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > TEXT_MAX:
        raise Malformed(f"a text of at most {TEXT_MAX} characters was expected")
    return value


def _name(value: Any) -> str:
    """A name as a configuration may give it, or none. It is shown in logs and on terminals."""
    if type(value) is not str or not (value == "" or is_name(value)):
        raise Malformed("a name of at most 64 letters, digits, '-', '_' and '.' was expected")
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
    if not all(type(name) is str and is_plain(name) and is_plain(item) for name, item in value.items()):
        raise Malformed("details with a plain value under each name were expected")
    return value


def _list_of(check: Callable[[Any], Any], most: int) -> Callable[[Any], tuple[Any, ...]]:
    def checked(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > most:
            raise Malformed(f"a list of at most {most} was expected")
        return tuple([check(item) for item in value])

    return checked


def _fields(value: Any, count: int) -> list[Any]:
    if type(value) is not list or len(value) < count:
        raise Malformed(f"a list of {count} fields was expected")
    return value


def _refusal(value: Any) -> tuple[int, Refusal]:
    at, code, message, details, retryable = _fields(value, 5)[:5]
    return _int(at), Refusal(_text(code), _text(message), _details(details), bool(retryable))


def _member(value: Any) -> MemberEntry:
    peer, addresses, *trailing = _fields(value, 2)
    return MemberEntry(_text(peer), _addresses(addresses), bool(trailing and trailing[0] is True))


def _traces(value: Any) -> tuple[str, ...]:
    """The traces in a trailing field; () when it is anything else, because no outcome depends on them."""
    if type(value) is not list or len(value) > ENVELOPES_MAX:
        return ()
    return tuple(value) if all(type(trace) is str and len(trace) <= TRACE_MAX for trace in value) else ()


def _texts_or_none(value: Any) -> tuple[str, ...]:
    """The texts in a trailing field; () when it is anything else."""
    if type(value) is not list or len(value) > ADDRESSES_MAX:
        return ()
    return tuple(value) if all(type(text) is str and len(text) <= TEXT_MAX for text in value) else ()


def _text_or_none(value: Any) -> str:
    """The text in a trailing field; '' when it is anything else."""
    return value if type(value) is str and len(value) <= TEXT_MAX else ""


def _bytes_or_none(value: Any) -> bytes:
    """The bytes in a trailing field; b'' when it is anything else."""
    return value if type(value) is bytes else b""


def _is_true(value: Any) -> bool:
    """Whether a trailing field is true; False when it is anything else."""
    return value is True


def _many_bytes_or_none(value: Any) -> tuple[bytes, ...]:
    """The byte strings in a trailing field; () when it is anything else."""
    return tuple(value) if type(value) is list and all(type(item) is bytes for item in value) else ()


def _logs(value: Any) -> tuple[LogPosition, ...]:
    """The logs in a trailing field; () when it is anything else: then the peer is taken for one with a new log."""
    if type(value) is not list or len(value) > SENT_MAX:
        return ()
    logs = tuple(_log(each) for each in value)
    return logs if None not in logs else ()  # type: ignore[return-value]  # no None is in it


def _log(value: Any) -> LogPosition | None:
    """The entry of a log in a trailing field; None when it is anything else."""
    if type(value) is not list or len(value) < 2 or type(value[0]) is not str or not is_name(value[0]):
        return None
    return LogPosition(value[0], value[1]) if type(value[1]) is int and 0 <= value[1] < 1 << 63 else None


def _int_or_none(value: Any) -> int:
    """The whole number in a trailing field; 0 when it is anything else."""
    return value if type(value) is int and 0 <= value < 1 << 63 else 0


def _view(value: Any) -> bytes:
    """The view in a trailing field; b'' when it is anything else."""
    return value if type(value) is bytes and len(value) == VIEW_BYTES else b""


def _twin(value: Any) -> tuple[str, ...]:
    """A log id and an address in a trailing field; () when it is anything else."""
    if type(value) is not list or len(value) != 2 or not all(type(text) is str for text in value):
        return ()
    return tuple(value) if is_name(value[0]) and len(value[1]) <= TEXT_MAX else ()


_digests = _list_of(_digest, ENVELOPES_MAX)
_encoded = _list_of(_bytes, ENVELOPES_MAX)
_addresses = _list_of(_text, ADDRESSES_MAX)
_members = _list_of(_member, MEMBERS_MAX)

_REPLY_OFFSET = 64
"""The kind of a reply is the kind of its request plus this, or that of a `FailedReply`."""
_FAILED = 127

_REQUESTS: dict[int, tuple[type[Any], tuple[Callable[[Any], Any], ...]]] = {
    1: (Hello, (_text, _name, _name, _int, _addresses)),
    2: (Ping, ()),
    3: (Merge, (_encoded,)),
    4: (GetHeads, (_key, _digests)),
    5: (GetVersions, (_key, _int, _int)),
    6: (GetByDigest, (_digests,)),
    7: (GetMembers, ()),
    10: (GetContent, (_digest,)),
    11: (GetMissing, (_digests,)),
}
_HELLO_TRAILING = (_texts_or_none, _text_or_none, _text_or_none, _bytes_or_none, _logs, _log, _twin)
_TRAILING: dict[int, tuple[Callable[[Any], Any], ...]] = {
    1: _HELLO_TRAILING,
    2: (_int_or_none, _int_or_none, _int_or_none, _int_or_none, _view, _int_or_none, _int_or_none),
    3: (_traces, _int_or_none),
    7: (_is_true,),
    65: _HELLO_TRAILING,
    66: (_int_or_none, _view),
    67: (_int_or_none,),
    71: (_many_bytes_or_none,),
}
"""Fields of a later minor version, which may be missing. Reading one never fails."""
_REPLIES: dict[int, tuple[type[Any], tuple[Callable[[Any], Any], ...]]] = {
    65: (Hello, (_text, _name, _name, _int, _addresses)),
    66: (Pong, (_int, _int, _int)),
    67: (MergeReply, (_int, _list_of(_refusal, ENVELOPES_MAX))),
    68: (HeadsReply, (_digests, _encoded)),
    69: (VersionsReply, (_encoded, _int, _int)),
    70: (EnvelopesReply, (_encoded,)),
    71: (MembersReply, (_members,)),
    74: (ContentReply, (_bytes,)),
    75: (MissingReply, (_digests, _digests)),
    _FAILED: (FailedReply, (_text, _text, _details)),
}
_REQUEST_KINDS: Mapping[type[Any], int] = {kind: number for number, (kind, _) in _REQUESTS.items()}
_REPLY_KINDS: Mapping[type[Any], int] = {kind: number for number, (kind, _) in _REPLIES.items()}


def is_reply_to(reply: Reply, request: type[Any]) -> bool:
    """Whether a reply fits a request of that class: it is the reply of its kind, or a `FailedReply`."""
    kind = _REPLY_KINDS[type(reply)]
    return kind == _FAILED or kind == _REQUEST_KINDS[request] + _REPLY_OFFSET


def encode_request(number: int, request: Request, trace: str = "") -> bytes:
    """The frame of a request; `number` must not be in use on this connection. A longer trace is cut."""
    return bytes(msgpack.packb([_REQUEST_KINDS[type(request)], number, trace[:TRACE_MAX], *_without_defaults(request)]))


def encode_reply(number: int, reply: Reply) -> bytes:
    """The frame of a reply to the request of that number."""
    fields: tuple[Any, ...] = tuple(reply)
    match reply:
        case MergeReply():
            refusals = [[at, *refusal] for at, refusal in reply.refusals]
            fields = (reply.total, refusals, *_without_defaults(reply)[2:])
        case Hello() | Pong() | MembersReply():
            fields = _without_defaults(reply)
        case _:
            pass
    return bytes(msgpack.packb([_REPLY_KINDS[type(reply)], number, "", *fields]))


def _without_defaults(message: Message) -> tuple[Any, ...]:
    """The fields but for the last ones that say nothing."""
    fields: tuple[Any, ...] = message
    defaults = message._field_defaults
    for name in reversed(message._fields):
        if name not in defaults or fields[-1] != defaults[name]:
            break
        fields = fields[:-1]
    return fields


def _unpacked(frame: bytes) -> Any:
    """The decoded msgpack. One byte can become an object of seventy, so the objects of one frame are bounded."""
    bounds = {"use_list": True, "max_ext_len": 0, "max_map_len": 64, "max_array_len": _LIST_MAX}
    if len(frame) <= _ITEMS_MAX:  # so few bytes cannot hold more items
        return msgpack.unpackb(frame, **bounds)
    items = 0

    def count(container: Any) -> Any:
        nonlocal items
        items += len(container)
        if items > _ITEMS_MAX:
            raise ValueError(f"it holds more than {_ITEMS_MAX:,} items")
        return container

    return msgpack.unpackb(frame, list_hook=count, object_hook=count, **bounds)


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
        raise Malformed(f"message kind {kind} is unknown")
    message_type, checks = known
    if len(rest) < len(checks):
        raise Malformed(f"a {message_type.__name__} has {len(checks)} fields, not {len(rest)}")
    values = [check(item) for check, item in zip(checks, rest, strict=False)]
    values += [check(item) for check, item in zip(_TRAILING.get(kind, ()), rest[len(checks) :], strict=False)]
    return Frame(is_reply, _int(number), trace, message_type(*values))
