"""The codec of the wire messages: decoding inverts encoding, and any other input is `Malformed`."""

import math
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocols import message_codec
from protocols.errors import (
    BzzzError,
    ClockAhead,
    Forbidden,
    InvalidAddress,
    Malformed,
    Rejected,
    TooManyRequests,
    Unavailable,
)
from protocols.keys import PrivateKey
from protocols.log_lineage import SENT_MAX, LogPosition
from protocols.message_codec import Frame, decode, encode_reply, encode_request
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
)
from protocols.ucxl import key_of

PEER = PrivateKey.from_seed(b"\1" * 32).peer_id
ADDRESS = "ucxl://a:b@c:d/*^/path"
KEY = key_of(ADDRESS)
DIGEST = bytes(range(32))

# -- strategies -----------------------------------------------------------------------------------------------------

numbers = st.integers(0, 2**64 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=40) | st.just("ä" * TEXT_MAX)
digests = st.binary(min_size=32, max_size=32)
many_digests = st.lists(digests, max_size=4).map(tuple)
encoded = st.lists(st.binary(max_size=400), max_size=4).map(tuple)
canonical = st.sampled_from([ADDRESS, "ucxl://a:b@c:d/*^", f"ucxl://a:b@c:d/*^/{'x' * 128}"])
keys = canonical.map(key_of)
addresses = st.lists(texts, max_size=3).map(tuple)
members = st.lists(st.builds(MemberEntry, texts, addresses, st.booleans()), max_size=3).map(tuple)
finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.none() | st.booleans() | numbers | st.integers(-(2**63), -1) | texts | finite
details = st.dictionaries(texts, plain, max_size=4)
refusals = st.lists(
    st.tuples(st.integers(0, 255), st.builds(Refusal, texts, texts, details, st.booleans())), max_size=3
).map(tuple)  # fmt: skip
node_names = st.from_regex(r"[A-Za-z0-9._-]{0,64}", fullmatch=True)
sequences = st.integers(0, 2**63 - 1)
log_ids = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)
views = st.just(b"") | st.binary(min_size=VIEW_BYTES, max_size=VIEW_BYTES)
logs = st.builds(LogPosition, log_ids, sequences)
twins = st.just(()) | st.tuples(log_ids, texts)
hellos = st.builds(
    Hello, texts, node_names, node_names, numbers, addresses, addresses, texts, texts,
    st.binary(max_size=40), st.lists(logs, max_size=3).map(tuple), st.none() | logs, twins,
)  # fmt: skip

REQUESTS: dict[type[Any], st.SearchStrategy[Any]] = {
    Hello: hellos,
    Ping: st.builds(Ping, sequences, sequences, sequences, sequences, views, sequences, sequences),
    Merge: st.builds(Merge, encoded, st.lists(st.text("abc-", max_size=TRACE_MAX), max_size=4).map(tuple), sequences),
    GetHeads: st.builds(GetHeads, keys, many_digests),
    GetVersions: st.builds(GetVersions, keys, numbers, numbers),
    GetByDigest: st.builds(GetByDigest, many_digests),
    GetMembers: st.builds(GetMembers),
    GetContent: st.builds(GetContent, digests),
    GetMissing: st.builds(GetMissing, many_digests),
}
REPLIES: dict[type[Any], st.SearchStrategy[Any]] = {
    Hello: hellos,
    Pong: st.builds(Pong, numbers, numbers, numbers, sequences, views),
    MergeReply: st.builds(MergeReply, numbers, refusals, sequences),
    HeadsReply: st.builds(HeadsReply, many_digests, encoded),
    VersionsReply: st.builds(VersionsReply, encoded, numbers, numbers),
    EnvelopesReply: st.builds(EnvelopesReply, encoded),
    MembersReply: st.builds(MembersReply, members),
    ContentReply: st.builds(ContentReply, st.binary(max_size=50)),
    MissingReply: st.builds(MissingReply, many_digests, many_digests),
    FailedReply: st.builds(FailedReply, texts, texts, details),
}
requests: st.SearchStrategy[Request] = st.one_of(*REQUESTS.values())
replies: st.SearchStrategy[Reply] = st.one_of(*REPLIES.values())
frames = st.builds(encode_request, numbers, requests, st.text("abc-", max_size=TRACE_MAX)) | st.builds(
    encode_reply, numbers, replies
)

ONE_OF_EACH: list[Message] = [
    Hello("bzzz", "n1", "log", 5, ("/ip4/1.2.3.4",)), Ping(), Merge((b"one", b"two")), GetHeads(KEY, (DIGEST,)),
    GetVersions(KEY, 1, 2), GetByDigest((DIGEST,)), GetMembers(), GetContent(DIGEST), Pong(1, 2, 3),
    MergeReply(2, ((1, Refusal("UCXL-422-UNPROCESSABLE", "no", {"a": 1}, False)),)), HeadsReply((DIGEST,), (b"one",)),
    VersionsReply((b"one",), 2, 1), EnvelopesReply((b"one",)),
    MembersReply((MemberEntry(PEER, ("/a",)),)), ContentReply(b"one"),
    GetMissing((DIGEST,)), MissingReply((DIGEST,), (DIGEST,)),
    FailedReply("UCXL-503-UNAVAILABLE", "later", {"a": 1}),
]  # fmt: skip


def fields_of(message: Message, *, number: int = 7) -> list[Any]:
    is_request = type(message) in REQUESTS
    frame = encode_request(number, message, "t") if is_request else encode_reply(number, message)  # type: ignore[arg-type]
    return list(msgpack.unpackb(frame))


def name_of(message: Any) -> str:
    return type(message).__name__


# -- round trips ----------------------------------------------------------------------------------------------------


def test_every_message_is_tested_here() -> None:
    assert set(REQUESTS) == set(get_args(Request))
    assert set(REPLIES) == set(get_args(Reply))
    assert {type(message) for message in ONE_OF_EACH} == set(REQUESTS) | set(REPLIES)


@given(numbers, requests, st.text("abc-", max_size=TRACE_MAX))
def test_every_request_comes_back_as_it_was(number: int, request: Request, trace: str) -> None:
    assert decode(encode_request(number, request, trace)) == Frame(False, number, trace, request)


@given(numbers, replies)
def test_every_reply_comes_back_as_it_was(number: int, reply: Reply) -> None:
    frame = decode(encode_reply(number, reply))
    assert frame == Frame(True, number, "", reply)
    assert type(frame.message) is type(reply)


def test_a_hello_is_a_request_or_an_answer_by_its_kind() -> None:
    hello = Hello("bzzz", "n1", "log", 0, ())
    assert not decode(encode_request(1, hello)).is_reply
    assert decode(encode_reply(1, hello)).is_reply


def test_envelopes_travel_as_the_bytes_that_were_signed() -> None:
    odd = b"\xd9\x01x"  # msgpack, but not in its shortest form
    assert odd in encode_request(1, Merge((odd,)))


def test_a_frame_is_what_other_implementations_read() -> None:
    assert encode_request(5, Merge((b"e",)), "t") == bytes.fromhex("9403 05 a174 91c40165")
    assert encode_reply(5, MergeReply(1, ())) == bytes.fromhex("9543 05 a0 01 90")
    assert encode_request(1, Ping()) == bytes.fromhex("9302 01 a0")


@pytest.mark.parametrize("request_type", list(REQUESTS), ids=lambda kind: kind.__name__)
def test_each_request_has_one_kind_of_answer_and_failed(request_type: type[Any]) -> None:
    answers = [name_of(m) for m in ONE_OF_EACH if type(m) in REPLIES and message_codec.is_reply_to(m, request_type)]  # type: ignore[arg-type]
    expected = {
        "Hello": "Hello", "Ping": "Pong", "Merge": "MergeReply", "GetHeads": "HeadsReply",
        "GetVersions": "VersionsReply",
        "GetByDigest": "EnvelopesReply", "GetMembers": "MembersReply",
        "GetContent": "ContentReply", "GetMissing": "MissingReply",
    }  # fmt: skip
    assert answers == [expected[request_type.__name__], "FailedReply"]


# -- a later minor version ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=name_of)
def test_trailing_fields_of_a_later_version_are_passed_over(message: Message) -> None:
    fields = fields_of(message)
    fields += list(type(message)._field_defaults.values())
    assert decode(msgpack.packb([*fields, {"new": [1, 2]}, None, b"more"])).message == message


def test_the_traces_of_a_merge_are_a_trailing_field_and_cost_no_byte_when_there_are_none() -> None:
    envelopes = (b"one", b"two")
    plain = encode_request(7, Merge(envelopes), "t")
    assert plain == msgpack.packb([3, 7, "t", envelopes])
    traced = encode_request(7, Merge(envelopes, ("a" * 32, "")), "")
    assert list(msgpack.unpackb(traced))[3:] == [[b"one", b"two"], ["a" * 32, ""]]
    assert decode(traced).message == Merge(envelopes, ("a" * 32, ""))
    assert decode(plain).message == Merge(envelopes)


@pytest.mark.parametrize("traces", [None, "t", {}, [1], [b"t"], ["t" * 65], ["t"] * 257])
def test_traces_that_cannot_be_read_are_as_good_as_none(traces: object) -> None:
    assert decode(msgpack.packb([3, 7, "", [b"one"], traces])).message == Merge((b"one",))


def test_so_are_those_of_what_is_inside_a_message() -> None:
    for message, at in ((ONE_OF_EACH[9], 4), (ONE_OF_EACH[13], 3)):
        fields = fields_of(message)
        fields[at][0] = [*fields[at][0], "new", {"x": [1]}]
        assert decode(msgpack.packb(fields)).message == message


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=name_of)
def test_a_message_that_lacks_a_field_is_malformed(message: Message) -> None:
    fields = fields_of(message)
    for count in range(len(fields)):
        with pytest.raises(Malformed):
            decode(msgpack.packb(fields[:count]))


# -- whatever else a peer sends -------------------------------------------------------------------------------------


def check(frame: bytes) -> None:
    """The result is a message within the bounds of its class, or `Malformed`."""
    try:
        decoded = decode(frame)
    except Malformed:
        return
    assert type(decoded.message) in (REPLIES if decoded.is_reply else REQUESTS)
    again = encode_reply(decoded.id, decoded.message) if decoded.is_reply else (  # type: ignore[arg-type]
        encode_request(decoded.id, decoded.message, decoded.trace)  # type: ignore[arg-type]
    )  # fmt: skip
    assert decode(again).message == decoded.message
    if isinstance(decoded.message, FailedReply | Refusal):
        assert isinstance(decoded.message.error, BzzzError)
    if isinstance(decoded.message, MergeReply):
        assert all(isinstance(refusal.error, BzzzError) for _, refusal in decoded.message.refusals)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xdd\x00\x10\x00\x00" * 400)
@example(b"\x91" * 100_000)
@example(b"\x81\xa0" * 2000)
@example(b"\x93\x02\x01\xa0\x00")
@example(b"\xd6\xff\x00\x00\x00\x00")
@example(b"\x93\x02\x01\xa1\xff")
def test_any_bytes_are_a_message_or_malformed(frame: bytes) -> None:
    check(frame)


@given(frames, st.data())
def test_a_frame_that_was_changed_on_the_way_is_a_message_or_malformed(frame: bytes, data: st.DataObject) -> None:
    changed = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        match data.draw(st.integers(0, 3)):
            case 0:
                changed[at] = data.draw(st.integers(0, 255))
            case 1:
                del changed[at:]
            case 2:
                changed[at:at] = data.draw(st.binary(max_size=9))
            case _:
                del changed[at]
        if not changed:
            break
    check(bytes(changed))


names = st.text(max_size=3) | st.binary(max_size=3)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5) | digests
    | st.binary(max_size=5) | st.just(KEY) | st.just(ADDRESS) | st.just(PEER)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4)),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(names, inner, max_size=3),
    max_leaves=20,
)  # fmt: skip


@given(st.sampled_from(ONE_OF_EACH), st.data())
def test_a_field_of_any_other_type_is_taken_as_stated_or_malformed(message: Message, data: st.DataObject) -> None:
    fields = fields_of(message)
    at = data.draw(st.integers(0, len(fields) - 1))
    if isinstance(fields[at], list) and fields[at] and data.draw(st.booleans()):
        inner = fields[at][0]
        if isinstance(inner, list) and data.draw(st.booleans()):
            inner[data.draw(st.integers(0, len(inner) - 1))] = data.draw(values)
        else:
            fields[at][0] = data.draw(values)
    else:
        fields[at] = data.draw(values)
    check(msgpack.packb(fields))


@pytest.mark.parametrize(
    "fields",
    [
        [2], [2, 1], ["2", 1, ""], [2, 1, b""], [2.0, 1, ""], [True, 1, ""], [2, -1, ""], [2, True, ""], [2, None, ""],
        [0, 1, ""], [10, 1, ""], [64, 1, ""], [74, 1, ""], [128, 1, ""], [-1, 1, ""], [2**63, 1, ""],
        [2, 1, "t" * (TRACE_MAX + 1)], {"kind": 2}, "ping", None, 2, [],
    ],
    ids=repr,
)  # fmt: skip
def test_what_does_not_begin_as_a_frame_is_malformed(fields: Any) -> None:
    with pytest.raises(Malformed):
        decode(msgpack.packb(fields))


def test_a_hello_without_trailing_fields_is_encoded_as_it_always_was() -> None:
    hello = Hello("bzzz", "n1", "log", 5, ("/ip4/192.0.2.7/tcp/4001",))
    for encode, kind in ((encode_request, 1), (encode_reply, 65)):
        assert msgpack.unpackb(encode(7, hello)) == [kind, 7, "", "bzzz", "n1", "log", 5, ["/ip4/192.0.2.7/tcp/4001"]]
        longer = [kind, 7, "", "bzzz", "n1", "log", 5, ["/ip4/192.0.2.7/tcp/4001"]]
        for bad in (None, 7, "x", [7], ["x" * (TEXT_MAX + 1)], ["x"] * (ADDRESSES_MAX + 1)):
            assert decode(msgpack.packb([*longer, bad])).message == hello
        assert decode(msgpack.packb([*longer, ["y"]])).message == hello._replace(known_at=("y",))
        for bad in (None, 7, ["x"], "x" * (TEXT_MAX + 1)):
            assert decode(msgpack.packb([*longer, [], bad, "bzzz/1"])).message == hello._replace(agent="bzzz/1")


def test_what_a_hello_says_of_logs_is_read_only_when_it_is_well_formed() -> None:
    start = [1, 7, "", "bzzz", "n1", "log", 5, [], [], "", "", b""]
    plain = Hello("bzzz", "n1", "log", 5, ())
    bad: Any
    for bad in (None, 7, "x", [7], [["a"]], [["a", -1]], [["a", 2**63]], [["a b", 1]], [["a", 1]] * (SENT_MAX + 1)):
        assert decode(msgpack.packb([*start, bad])).message == plain
    for bad in (7, [], ["a"], ["a", "1"], ["a", True], ["\n", 1]):
        assert decode(msgpack.packb([*start, [], bad])).message == plain
    for bad in (None, [], ["a"], ["a", 1], ["\n", "x"], ["a", "x" * (TEXT_MAX + 1)], ["a", "b", "c"]):
        assert decode(msgpack.packb([*start, [], None, bad])).message == plain
    for bad in (None, -1, 2**63, "1", True):
        assert decode(msgpack.packb([66, 7, "", 1, 2, 3, bad])).message == Pong(1, 2, 3)


# -- bounds ---------------------------------------------------------------------------------------------------------

BOUNDS: list[tuple[Message, int, Any, Any]] = [
    # message, which field, what may just be, what may not
    (Hello("", "", "", 0, ()), 3, "x" * TEXT_MAX, "x" * (TEXT_MAX + 1)),
    (Hello("", "", "", 0, ()), 4, "n" * 64, "n" * 65),
    *((Hello("", "", "", 0, ()), 4, "N-1._", bad) for bad in ("\x1b[31m", "a\n", "a b", "ä", 7)),
    (Hello("", "", "", 0, ()), 5, "0f" * 8, "0f\r"),
    (Hello("", "", "", 0, ()), 6, 2**64 - 1, -1),
    (Hello("", "", "", 0, ()), 7, ["x"] * ADDRESSES_MAX, ["x"] * (ADDRESSES_MAX + 1)),
    (Merge(()), 3, [b""] * ENVELOPES_MAX, [b""] * (ENVELOPES_MAX + 1)),
    (GetHeads(KEY, ()), 3, KEY, KEY[:-1]),
    (GetHeads(KEY, ()), 3, KEY, b"/ucxl-" + KEY[6:]),
    (GetHeads(KEY, ()), 3, KEY, KEY.decode()),
    (GetHeads(KEY, ()), 4, [DIGEST] * ENVELOPES_MAX, [DIGEST] * (ENVELOPES_MAX + 1)),
    (GetHeads(KEY, ()), 4, [DIGEST], [DIGEST[1:]]),
    (GetHeads(KEY, ()), 4, [], None),
    (GetVersions(KEY, 0, 0), 4, 0, 0.5),
    (VersionsReply((), 0, 0), 3, [b""] * ENVELOPES_MAX, [b""] * (ENVELOPES_MAX + 1)),
    (VersionsReply((), 0, 0), 3, [b"x"], [["x"]]),
    (VersionsReply((), 0, 0), 5, 2**64 - 1, -1),
    (MergeReply(0, ()), 4, [[0, "", "", {}, 1]] * ENVELOPES_MAX, [[0, "", "", {}, 1]] * (ENVELOPES_MAX + 1)),
    (MergeReply(0, ()), 4, [[0, "", "x" * TEXT_MAX, {}, 1]], [[0, "", "x" * (TEXT_MAX + 1), {}, 1]]),
    (MembersReply(()), 3, [["", []]] * MEMBERS_MAX, [["", []]] * (MEMBERS_MAX + 1)),
    (MembersReply(()), 3, [["", ["x"] * ADDRESSES_MAX]], [["", ["x"] * (ADDRESSES_MAX + 1)]]),
    (GetContent(DIGEST), 3, bytes(32), bytes(31)),
    (ContentReply(b""), 3, b"", "text"),
    (FailedReply("", "", {}), 5, {str(n): n for n in range(DETAILS_MAX)}, {str(n): n for n in range(DETAILS_MAX + 1)}),
    (FailedReply("", "", {}), 5, {"a": "x" * TEXT_MAX}, {"a": "x" * (TEXT_MAX + 1)}),
    (FailedReply("", "", {}), 5, {"a": None}, {"a": [None]}),
    (FailedReply("", "", {}), 5, {"a": 1.5}, {"a": math.nan}),
    (FailedReply("", "", {}), 5, {"a": -1}, {"a": -math.inf}),
    (FailedReply("", "", {}), 5, {"a": "b"}, {"a": b"b"}),
    (FailedReply("", "", {}), 5, {"a": True}, {b"a": True}),
    (FailedReply("", "", {}), 5, {}, []),
]  # fmt: skip


@pytest.mark.parametrize(("message", "at", "good", "bad"), BOUNDS, ids=lambda value: None)
def test_a_field_beyond_its_bounds_is_malformed(message: Message, at: int, good: Any, bad: Any) -> None:
    fields = fields_of(message)
    assert type(decode(msgpack.packb([*fields[:at], good, *fields[at + 1 :]])).message) is type(message)
    with pytest.raises(Malformed):
        decode(msgpack.packb([*fields[:at], bad, *fields[at + 1 :]]))


# -- errors across the wire -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ClockAhead("ahead", reason="clock_ahead", ahead_ms=61_000.5), Rejected("no"), Unavailable("later", asked=3),
        TooManyRequests("slow down"), Forbidden("no", reason="network"),
        InvalidAddress("x" * 5000, provided="y" * 5000),
    ],
    ids=name_of,
)  # fmt: skip
def test_an_error_crosses_the_wire_as_what_it_is(error: BzzzError) -> None:
    failed = decode(encode_reply(1, FailedReply.of(error))).message
    merged = decode(encode_reply(1, MergeReply(1, ((0, Refusal.of(error)),)))).message
    assert isinstance(failed, FailedReply)
    assert isinstance(merged, MergeReply)
    for back in (failed.error, merged.refusals[0][1].error):
        assert type(back) is type(error)
        assert back.message == error.message[:TEXT_MAX]
        assert dict(back.details) == {n: v[:TEXT_MAX] if isinstance(v, str) else v for n, v in error.details.items()}
    assert merged.refusals[0][1].retryable == error.retryable


def test_an_error_says_what_can_be_said_whatever_it_carries() -> None:
    """A reply that cannot be encoded would end the task that replies; one that cannot be decoded, the connection."""
    many: dict[str, Any] = {f"n{number}": number for number in range(DETAILS_MAX + 5)}
    for details in (
        {"object": object(), "list": [1], "bytes": b"x", "big": 2**70, "nan": math.nan, "kept": 1},
        {"kept": 1, **many},
        {"kept": 1, "surrogate": "\ud800"},
    ):
        error = Unavailable("what happened \udcff", **details)
        for reply in (FailedReply.of(error), MergeReply(1, ((0, Refusal.of(error)),))):
            message = decode(encode_reply(1, reply)).message
            found = message if isinstance(message, FailedReply) else message.refusals[0][1]  # type: ignore[union-attr]
            assert found.details["kept"] == 1
            assert found.message == "what happened ?"


@pytest.mark.parametrize("name", ["self", "message", "code", "details"])
def test_a_peer_cannot_make_an_error_that_cannot_be_made(name: str) -> None:
    message = decode(msgpack.packb([127, 1, "", "UCXL-503-UNAVAILABLE", "later", {name: 1}])).message
    assert isinstance(message, FailedReply)
    assert isinstance(message.error, Unavailable)


def test_a_trace_that_is_too_long_is_cut_before_it_costs_the_connection() -> None:
    assert decode(encode_request(1, Ping(), "t" * 1000)).trace == "t" * TRACE_MAX


@pytest.mark.parametrize("empty", [b"\x90", b"\x80"])
def test_a_frame_cannot_swell_to_more_than_it_could_ever_say(empty: bytes) -> None:
    """An empty list is one byte on the wire and seventy in memory: 8 MiB of them took 1.3 s and half a gigabyte."""
    few = b"\xdc\x04\x00" + empty * 1024
    with pytest.raises(Malformed, match="items"):
        decode(b"\x94\x02\x01\xa0" + b"\xdc\x03\xe8" + few * 1000)


def test_the_largest_messages_there_can_be_are_read() -> None:
    for reply in (
        VersionsReply((bytes(16_384),) * ENVELOPES_MAX, 1, 1),
        MembersReply((MemberEntry("p", ("/ip4/192.0.2.1/tcp/4001",) * ADDRESSES_MAX),) * MEMBERS_MAX),
    ):
        assert decode(encode_reply(1, reply)).message == reply
