"""The wire messages, the holders of a key and its heads, byte for byte as in the golden vectors."""

from itertools import permutations
from typing import Any, get_args

import msgpack
import pytest

from node.store.versions import VersionRef
from protocols import messages
from protocols.envelope import order_key
from protocols.errors import BzzzError, Malformed, from_code
from protocols.heads import HeadSet
from protocols.keys import PrivateKey
from protocols.message_codec import Frame, decode, encode_reply, encode_request
from protocols.messages import Message
from protocols.placement import nearest, place_of_key, place_of_peer
from protocols.ucxl import key_of
from tests.unit.vectors import load

MESSAGES: dict[str, Any] = load("messages")
PLACEMENT: dict[str, Any] = load("placement")
HEADS: dict[str, Any] = load("heads")


def named(vectors: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=lambda vector: vector["name"])


def as_json(value: Any) -> Any:
    """What the vectors write for a value of a message: bytes as hex, numbers above 2^53 as texts, fields by name."""
    match value:
        case bytes():
            return value.hex()
        case int() if value > 1 << 53:
            return str(value)
        case tuple() if hasattr(value, "_asdict"):
            return {name: as_json(one) for name, one in value._asdict().items()}
        case tuple():
            return [as_json(one) for one in value]
        case _:
            return value


def encoded(frame: Frame) -> bytes:
    if frame.is_reply:
        return encode_reply(frame.id, frame.message)  # type: ignore[arg-type]  # what is_reply is a Reply
    return encode_request(frame.id, frame.message, frame.trace)  # type: ignore[arg-type]  # else a Request


# -- messages -----------------------------------------------------------------------------------------------------


@named(MESSAGES["messages"])
def test_golden_messages_are_read_and_made(vector: dict[str, Any]) -> None:
    frame = decode(bytes.fromhex(vector["frame"]))
    assert type(frame.message).__name__ == vector["message"]
    assert (frame.is_reply, frame.id, frame.trace) == (vector["kind"] >= 64, vector["id"], vector["trace"])
    assert as_json(frame.message) == vector["fields"]
    assert encoded(frame).hex() == vector["frame"]


@named(MESSAGES["messages"])
def test_golden_messages_begin_with_kind_number_and_trace(vector: dict[str, Any]) -> None:
    kind, number, trace, *_ = msgpack.unpackb(bytes.fromhex(vector["frame"]))
    assert (kind, number, trace) == (vector["kind"], vector["id"], vector["trace"])


def test_there_is_a_golden_message_of_every_kind() -> None:
    for kinds, is_reply in ((get_args(messages.Request), False), (get_args(messages.Reply), True)):
        golden = {vector["message"] for vector in MESSAGES["messages"] if (vector["kind"] >= 64) is is_reply}
        assert golden == {kind.__name__ for kind in kinds}


@named(MESSAGES["tolerated"])
def test_golden_frames_that_are_more_than_is_known_are_read_without_it(vector: dict[str, Any]) -> None:
    frame = decode(bytes.fromhex(vector["frame"]))
    assert (type(frame.message).__name__, as_json(frame.message)) == (vector["message"], vector["fields"])


@named(MESSAGES["refused"])
def test_golden_frames_that_are_no_messages_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        decode(bytes.fromhex(vector["frame"]))


@named([one for one in MESSAGES["messages"] if one["message"] == "FailedReply"])
def test_golden_failures_are_the_errors_that_their_codes_say(vector: dict[str, Any]) -> None:
    message: Message = decode(bytes.fromhex(vector["frame"])).message
    assert isinstance(message, messages.FailedReply)
    error = message.error
    expected = from_code(message.code, message.message, message.details)
    assert isinstance(error, BzzzError)
    assert (type(error), error.message, error.details) == (type(expected), expected.message, expected.details)
    assert error.retryable is vector["retryable"]


# -- placement ----------------------------------------------------------------------------------------------------


def test_golden_places() -> None:
    for peer in PLACEMENT["peers"]:
        assert PrivateKey.from_seed(bytes.fromhex(peer["seed"])).peer_id == peer["peer_id"]
        assert f"{place_of_peer(peer['peer_id']):064x}" == peer["place"]


@pytest.mark.parametrize("vector", PLACEMENT["keys"], ids=lambda vector: vector["address"])
def test_golden_holders(vector: dict[str, Any]) -> None:
    key = key_of(vector["address"])
    assert key.decode() == vector["key"]
    assert f"{place_of_key(key):064x}" == vector["place"]
    peers = [peer["peer_id"] for peer in PLACEMENT["peers"]]
    assert list(nearest(key, peers, len(peers))) == vector["nearest_first"]


# -- heads --------------------------------------------------------------------------------------------------------


@named(HEADS["histories"])
def test_golden_heads_whatever_the_order_of_arrival(vector: dict[str, Any]) -> None:
    for order in permutations(vector["versions"]):
        heads = HeadSet()
        for one in order:
            heads.add(
                bytes.fromhex(one["digest"]),
                int(one["version"]),
                [bytes.fromhex(parent) for parent in one["parents"]],
                author=one["author"],
                reissues=[bytes.fromhex(digest) for digest in one["reissues"]],
            )
        assert {digest.hex() for digest in heads.heads()} == set(vector["heads"])


@named(HEADS["histories"])
def test_golden_heads_are_in_the_total_order_the_latest_first(vector: dict[str, Any]) -> None:
    heads = [one for one in vector["versions"] if one["digest"] in vector["heads"]]
    places = [VersionRef(int(h["version"]), h["author"], bytes.fromhex(h["digest"])) for h in heads]
    assert [one.digest.hex() for one in sorted(places, key=order_key, reverse=True)] == vector["heads"]
