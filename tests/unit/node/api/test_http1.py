"""HTTP/1.1 from bytes: what is a request, and that what two readers could read in two ways is none."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.http1 import Http1
from node.api.limits import HEADERS_BYTES_MAX
from node.api.request import Request

HEAD = b"PUT /a%20b?c=%20d HTTP/1.1\r\nHost: h\r\n"


async def nothing() -> bool:
    return False


def parsed(*pieces: bytes) -> Http1:
    http = Http1(nothing, "127.0.0.1")
    for piece in pieces:
        http.feed(piece)
    return http


def facts(request: Request) -> tuple[object, ...]:
    return (
        request.method, request.path, request.query, request.headers, request.repeated, request.body, request.is_whole,
        request.is_kept_alive,
    )  # fmt: skip


def test_a_request_is_read_with_its_body() -> None:
    (request,) = parsed(HEAD + b"Content-Length: 3\r\nX-Empty:\r\nX-Spaces: \t a b \t\r\n\r\nabc").requests
    assert (request.method, request.path, request.query, request.body) == ("PUT", "/a b", b"c=%20d", b"abc")
    assert request.headers == {b"host": b"h", b"content-length": b"3", b"x-empty": b"", b"x-spaces": b"a b"}
    assert request.is_whole
    assert request.is_kept_alive
    assert request.client == "127.0.0.1"


def test_the_values_of_a_header_that_is_sent_twice_are_joined() -> None:
    (request,) = parsed(HEAD + b"Accept: a\r\nX: 1\r\nACCEPT: b\r\n\r\n").requests
    assert request.headers[b"accept"] == b"a, b"
    assert request.repeated == {b"accept"}


STREAM = (
    HEAD + b"Content-Length: 3\r\nEmpty:\r\n\r\nabc"
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nLate: 1\r\n\r\n"
    b"PUT / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nhi"
    b"GET /last HTTP/1.1\r\nHost: h\r\nX:\r\n\r\n"
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_it_does_not_matter_in_which_pieces_the_bytes_arrive(cuts: list[int]) -> None:
    whole = parsed(STREAM)
    cut = parsed(*(STREAM[start:end] for start, end in pairwise([0, *sorted(cuts), len(STREAM)])))
    assert [facts(each) for each in cut.requests] == [facts(each) for each in whole.requests]
    assert [each.body for each in whole.requests] == [b"abc", b"", b"abc", b"hi", b""]
    assert b"late" not in whole.requests[2].headers | whole.requests[3].headers
    assert whole.refusal is None


@given(st.binary(max_size=200))
def test_any_bytes_are_requests_or_a_refusal(data: bytes) -> None:
    for start in (b"", b"GET ", HEAD, HEAD + b"Transfer-Encoding: chunked\r\n\r\n"):
        http = parsed(start + data)
        assert len(http.requests) <= 1 + data.count(b"\r\n\r\n")


def test_several_spaces_in_a_request_line_are_one() -> None:
    """RFC 9112 (3) allows it: no two readers see another end of the request."""
    (request,) = parsed(b"GET  /a  HTTP/1.1\r\nHost: h\r\n\r\n").requests
    assert (request.method, request.path) == ("GET", "/a")


UNREADABLE = {
    "no version": b"GET /\r\n\r\n",
    "another version": b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "two lengths that differ": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two equal lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
    "a length with a sign": HEAD + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length in hex": HEAD + b"Content-Length: 0x3\r\n\r\nabc",
    "a length that overflows": HEAD + b"Content-Length: 18446744073709551617\r\n\r\nabc",
    "a length, then a coding": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding, then a length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "another coding": HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "two codings": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, and another": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "a coding after a control character": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "LF after the request line": b"GET / HTTP/1.1\nHost: h\r\n\r\n",
    "LF after a header": b"GET / HTTP/1.1\r\nHost: h\nX: 1\r\n\r\n",
    "LF at the end of the head": b"GET / HTTP/1.1\r\nHost: h\r\n\n",
    "CR in a value": HEAD + b"X: a\rY: b\r\n\r\n",
    "NUL in a value": HEAD + b"X: a\x00b\r\n\r\n",
    "a folded header": HEAD + b"X: a\r\n b\r\n\r\n",
    "a tab in the request line": b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "a space after the version": b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
    "a space in the path": b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
    "a space before the first name": b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
    "no name": HEAD + b": a\r\n\r\n",
    "no colon": HEAD + b"X\r\n\r\n",
    "LF in a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    "a space after a size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
    "a size that is none": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than its size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "a size that overflows": HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
    "bytes that are not ASCII in the path": b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n",
    "a method in small letters": b"get / HTTP/1.1\r\nHost: h\r\n\r\n",
    "CONNECT": b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
}


@pytest.mark.parametrize("sent", UNREADABLE.values(), ids=UNREADABLE)
def test_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(sent: bytes) -> None:
    http = parsed(sent + b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
    assert http.refusal is not None
    assert "the request cannot be read" in http.refusal.message
    assert [request for request in http.requests if request.is_whole] == []
    http.feed(b"GET /later HTTP/1.1\r\nHost: h\r\n\r\n")
    assert len(http.requests) <= 1


def test_requests_before_one_that_cannot_be_read_are_kept() -> None:
    http = parsed(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nnonsense\r\n")
    assert [request.path for request in http.requests] == ["/1"]
    assert http.refusal is not None


def test_nothing_is_read_after_a_request_that_closes_the_connection() -> None:
    http = parsed(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
    (request,) = http.requests
    assert not request.is_kept_alive


@pytest.mark.parametrize("size", [HEADERS_BYTES_MAX - 200, HEADERS_BYTES_MAX])
def test_headers_have_a_limit(size: int) -> None:
    is_allowed = size < HEADERS_BYTES_MAX
    for head in (
        b"GET /" + b"a" * size + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * size + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * (size // 6) + b"\r\n",
    ):
        http = parsed(head)
        assert (http.refusal is None) == is_allowed, http.refusal
        assert len(http.requests) == is_allowed


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET /",
        b"GET / HTTP/1.1\r\nHost: ",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3;",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nLate: ",
    ],
    ids=["line breaks", "path", "header", "chunk extension", "trailer"],
)
def test_a_part_that_never_ends_is_refused(start: bytes) -> None:
    http = parsed(start)
    for _ in range(HEADERS_BYTES_MAX // 1000 + 2):
        http.feed((b"a" if start else b"\r\n") * 1000)
    assert http.refusal is not None


def test_a_long_body_is_no_long_head() -> None:
    http = parsed(HEAD + b"Content-Length: 1000000\r\n\r\n")
    for _ in range(20):
        http.feed(b"x" * 50_000)
    assert http.refusal is None
    assert http.requests[0].is_whole
    assert http.requests[0].size_bytes == 1_000_000
