"""Request and response: the body of the one, and the bytes of the other."""

import pytest

from node.api.request import Request, Response


def test_a_body_of_several_pieces_is_one() -> None:
    request = Request(method="PUT", path="/", pieces=[b"a", b"bc"])
    assert request.body == b"abc"
    request.pieces.append(b"d")
    assert request.body == b"abcd"
    assert Request(method="GET", path="/").body == b""


def test_an_answer_has_its_headers_and_those_of_its_connection() -> None:
    response = Response(b"hi", 201, [("ETag", '"1"'), ("X-Greek", "\u03b1")])
    assert response.encoded(closes=True, date="now") == (
        b'HTTP/1.1 201 \r\netag: "1"\r\nx-greek: \xce\xb1\r\ncontent-length: 2\r\ndate: now\r\n'
        b"connection: close\r\n\r\nhi"
    )


def test_an_answer_to_head_has_the_length_and_not_the_body() -> None:
    assert Response(b"hi").encoded(is_head=True) == b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\n"


def test_an_answer_without_a_body_by_its_status_has_no_length() -> None:
    assert Response(status=304).encoded() == b"HTTP/1.1 304 \r\n\r\n"


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb"])
def test_a_header_cannot_begin_another_one(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        Response(headers=[("X", value)]).encoded()
